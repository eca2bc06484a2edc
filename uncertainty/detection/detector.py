"""The detector: several scores' ranks in one composite, held against one conformal level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.ecdf import Ranks, RankTable, composite
from dubio.uncertainty.detection.knn import Bank
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.detection.rounding import Rounding, distinct, spread_out
from dubio.uncertainty.detection.scores import Score, move
from dubio.uncertainty.errors import NotFitted, UncertaintyError

DEFAULT_SCORES = ("mutual_information", "neighbours", "relative_mahalanobis", "input_mahalanobis")


@dataclass(frozen=True)
class Verdict:
    """What a calibrated detector says about B inputs.

    Attributes:
        score_B: Composite scores, float64.
        p_value_B: Conformal p-values, float64.
        flagged_B: Whether the p-value is at or below the level.
        level: The largest p-value that is flagged.
        reasons: For each input the reason of the score with the largest rank, flagged or not.
        ranks: Of the detector's scores, ``[S, B]``; of several detectors those of each.
        loudest_B: Whose reason it is, where there are several detectors; 0 where there is one.
    """

    score_B: Tensor
    p_value_B: Tensor
    flagged_B: Tensor
    level: float
    reasons: list[str]
    ranks: tuple[Tensor, ...]
    loudest_B: Tensor


@dataclass(frozen=True)
class Detector:
    """Composite score and conformal level. Immutable.

    The composite score of an input is the sum of its ranks, each -log of a share. The scores are not independent, so
    the sum follows no known law: the conformal step comes after it and keeps the promise exact for the composite,
    whatever the scores are, with no price for testing several.

    Source: Fisher 1932 (the sum); Magesh 2022 (tests combined for out-of-distribution inputs).

    Example:
        >>> import torch
        >>> from dubio.uncertainty import Detector, DeterministicPass, Outputs
        >>> def outputs(rows, seed, shift=0.0):
        ...     x = shift + torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
        ...     return Outputs(DeterministicPass(inputs_BF=x, logits_BC=x, features_BF=x), x.softmax(-1)[None])
        >>> train, select, calibration = outputs(300, 0), outputs(300, 1), outputs(300, 2)
        >>> labels = train.deterministic.logits_BC.argmax(-1)
        >>> detector = Detector.fit(train.deterministic, labels, select, names=["input_mahalanobis"])
        >>> detector = detector.calibrate(calibration, alpha=0.05, delta=0.05)
        >>> detector.judge(outputs(2, 3, shift=100.0)).flagged_B
        tensor([True, True])
        >>> bool(detector.judge(outputs(1000, 4)).flagged_B.float().mean() <= 0.05)
        True

    Attributes:
        scores: At least one, of different names.
        ranks: Of each score by its name, fitted on the select split.
        calibration: None until `calibrate`.
    """

    scores: tuple[Score, ...]
    ranks: Mapping[str, Ranks]
    calibration: Calibration | None = None

    @classmethod
    def fit(
        cls,
        train: DeterministicPass,
        train_labels_N: Tensor,
        select: Outputs,
        names: Sequence[str] = DEFAULT_SCORES,
        k: int = 50,
        bank_size: int = 5000,
    ) -> Detector:
        """Fit every score on the training split and its ranks on the select split.

        Args:
            train: The deterministic pass over training rows, without augmentation.
            train_labels_N: Their classes.
            select: Held-out rows that are used neither for training nor for calibration.
            names: Which scores take part.
            k: Of the scores of nearest neighbours.
            bank_size: Of the same: at most so many training rows are kept.

        Raises:
            UncertaintyError: If a score name is unknown, repeated or missing, or inputs are too wide for their
                covariance.
            NoFeatures: If a feature distance was asked for, and the network offers no features.
            CalibrationSetTooSmall: If there are too few rows for a score.
        """
        if not names or len(set(names)) != len(names) or not set(names) <= set(SCORES):
            raise UncertaintyError(
                f"Expected `scores` to be different names out of {list(SCORES)}, but got {list(names)}."
            )
        given = {"logits": train.logits_BC, "features": train.features_BF}
        for what, tensor in (
            given | {f"outputs of the block {each.name}": x for each, x in train.blocks.items()}
        ).items():
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise UncertaintyError(
                    f"Expected finite {what} of the training rows to fit scores to, but got NaN or infinity; check the "
                    "data and the weights."
                )

        def fit(kind: type[Score]) -> Score:
            if issubclass(kind, Bank):
                return kind.fit(train, train_labels_N, k, bank_size)
            return kind.fit(train, train_labels_N, k)

        own = {name: fit(SCORES[name]) for name in names if SCORES[name].lender not in names}
        return cls.ranked(with_borrowed(names, own), select)

    @classmethod
    def ranked(cls, scores: Sequence[Score], select: Outputs) -> Detector:
        """Fit the ranks of fitted scores on the select split, where equal rows count once.

        Raises:
            CalibrationSetTooSmall: If all rows are equal.
        """
        rows_N = distinct(select.deterministic.inputs_BF)
        return cls(tuple(scores), {score.name: Ranks.fit(spread_out(score.score(select)[rows_N])) for score in scores})

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the network that its scores look at."""
        return tuple(dict.fromkeys(block for score in self.scores for block in score.blocks))

    @property
    def least_rounding(self) -> Rounding:
        """What calibration allows for where nothing was measured."""
        return Rounding.least(self.ranks)

    def calibrate(
        self, outputs: Outputs, alpha: float = 0.05, delta: float = 0.05, rounding: Rounding | None = None
    ) -> Detector:
        """The same detector with a level that keeps the promise; see `Calibration.fit`.

        Args:
            outputs: The calibration split, used for nothing else.
            alpha: Promised upper bound on the false-alarm rate.
            delta: One minus the confidence of the promise.
            rounding: As measured; by default the least.

        Raises:
            CalibrationSetTooSmall: If there are too few rows for alpha and delta.
        """
        _, highest_N = (rounding or self.least_rounding).bounds(self.scores, self.ranks, outputs)
        return replace(self, calibration=Calibration.fit(highest_N, alpha, delta))

    def score(self, outputs: Outputs) -> Tensor:
        """The composite score, ``[B]`` in float64 and nats; higher = more out-of-distribution."""
        return composite(self.rank(outputs))

    def rank(self, outputs: Outputs) -> Tensor:
        """The ranks of S scores, ``[S, B]`` in float64 and nats."""
        return self._ranks(self.scores, self._table, outputs)

    def rank_without_members(self, deterministic: DeterministicPass) -> dict[str, Tensor]:
        """The ranks of the scores that do not ask members, by name, ``[B]`` in float64 each."""
        nobody_KBC = deterministic.logits_BC.new_empty((0, *deterministic.logits_BC.shape))
        if not self._fixed:
            return {}
        ranks_SB = self._ranks(self._fixed, self._fixed_table, Outputs(deterministic, nobody_KBC))
        return {score.name: rank_B for score, rank_B in zip(self._fixed, ranks_SB, strict=True)}

    def judge(self, outputs: Outputs) -> Verdict:
        """P-values, flags and reasons.

        Raises:
            NotFitted: If the detector is not calibrated.
        """
        if self.calibration is None:
            raise NotFitted("Expected a calibrated detector; call calibrate() with the calibration split first.")
        return self.verdict(self.rank(outputs), self.calibration)

    def verdict(self, ranks_SB: Tensor, calibration: Calibration) -> Verdict:
        """P-values, flags and reasons of inputs whose scores have these ranks."""
        score_B = composite(ranks_SB)
        p_value_B = calibration.p_value(score_B)
        return Verdict(
            score_B=score_B,
            p_value_B=p_value_B,
            flagged_B=p_value_B <= calibration.level,
            level=calibration.level,
            reasons=[self.scores[index].reason for index in ranks_SB.argmax(0).tolist()],
            ranks=(ranks_SB,),
            loudest_B=torch.zeros(len(score_B), dtype=torch.int64),
        )

    def to(self, device: torch.device) -> Detector:
        """The same detector with its tensors on a device."""
        known = {score.name: score for score in self.scores}
        own = {
            name: move(score, device)
            for name, score in known.items()
            if not score.borrows(known.get(score.lender or ""))
        }
        return Detector(
            tuple(with_borrowed(list(known), own)),
            {name: move(ranks, device) for name, ranks in self.ranks.items()},
            self.calibration and move(self.calibration, device),
        )

    @cached_property
    def _table(self) -> RankTable:
        return RankTable.of([self.ranks[score.name] for score in self.scores])

    @cached_property
    def _fixed(self) -> tuple[Score, ...]:
        return tuple(score for score in self.scores if not score.asks_members)

    @cached_property
    def _fixed_table(self) -> RankTable:
        return RankTable.of([self.ranks[score.name] for score in self._fixed])

    @staticmethod
    def _ranks(scores: Sequence[Score], table: RankTable, outputs: Outputs) -> Tensor:
        return table(torch.stack([score.score(outputs).double() for score in scores]))


def with_borrowed(names: Sequence[str], own: Mapping[str, Score]) -> list[Score]:
    """Scores of these names: those that have learned for themselves, and those that borrow from them."""
    return [own[name] if name in own else SCORES[name].borrow(own[SCORES[name].lender or ""]) for name in names]

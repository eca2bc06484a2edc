"""The ensemble: several predictors of the same task that answer as one, a deep ensemble of committees."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubio.models.decision import Decision, LabelSetRows, cover, describe_label_sets, uncovered, unite
from dubio.models.errors import MismatchedCheckpoints
from dubio.models.explanation import Explanation
from dubio.models.inputs.spec import InputSpec
from dubio.models.prediction import NOT_CALIBRATED, Model, Sampled
from dubio.models.predictor import Predictor, describe_promise
from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection.answers import Answers
from dubio.uncertainty.detection.conformal import JointCalibration
from dubio.uncertainty.detection.detector import Verdict
from dubio.uncertainty.detection.measures import pool, summarise, total
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.errors import CalibrationSetTooSmall, NotFitted

CALIBRATION_TOO_SMALL = "calibration_too_small"  # for this checkpoint's share of the promise
NOT_FOR_ENSEMBLES = "not_calibrated_for_ensembles"


@dataclass(frozen=True)
class JointCommittee:
    """The members of all committees as one committee.

    Attributes:
        num_samples: Of all committees together.
        fingerprint: SHA-256 over the committees' fingerprints, in their order.
    """

    num_samples: int
    fingerprint: str


@dataclass(frozen=True)
class Ensemble(Model[list[DeterministicPass]]):
    """Answers like a `Predictor`, with the members of several. Thread-safe.

    The deterministic prediction is the mean of the predictors' deterministic probabilities. Mean, standard deviation
    and entropies are over all members of all committees, each with the same weight. An input is flagged if any
    predictor's p-value is at or below the level of its share of the promise, see `JointCalibration`. With ``"auto"``
    each predictor asks as many members as it takes it; what they say is weighted by the size of their committees.
    A label set is the union of the predictors' sets, which contains the true class at least as often as each of them
    does. No answer is accepted or refused: the checkpoints' promises imply none for what they say together.

    Attributes:
        predictors: Two or more, of the same input and classes.
        input: What one input is.
        classes: Names, in the order of the probabilities.
        committee: All their members.
        joint: The common promise; None where there is none.
        hint: Why there is none, for a reader; None where there is one.
        most_rows: See `Model`; the least of the predictors'.
    """

    predictors: tuple[Predictor, ...]
    input: InputSpec
    classes: tuple[str, ...]
    committee: JointCommittee
    joint: JointCalibration | None
    hint: str | None
    most_rows: int | None = None

    @classmethod
    def build(cls, predictors: Sequence[Predictor]) -> Ensemble:
        """One model out of several.

        Raises:
            MismatchedCheckpoints: If they are fewer than two, one is there twice, or input or classes differ.
        """
        _check(predictors)
        fingerprints = "".join(predictor.committee.fingerprint for predictor in predictors)
        committee = JointCommittee(
            num_samples=sum(predictor.committee.num_samples for predictor in predictors),
            fingerprint=hashlib.sha256(fingerprints.encode()).hexdigest(),
        )
        known = [promise for predictor in predictors if (promise := predictor.flag_promise) is not None]
        joint = hint = None
        if len(known) < len(predictors):
            hint = "a checkpoint is not calibrated"
        else:
            try:
                joint = JointCalibration.fit(known)
            except CalibrationSetTooSmall as error:
                hint = f"shared by {len(known)} checkpoints: {error}"
        first = predictors[0]
        most_rows = min((each.most_rows for each in predictors if each.most_rows is not None), default=None)
        return cls(tuple(predictors), first.input, first.classes, committee, joint, hint, most_rows)

    @property
    def flag_promise(self) -> JointCalibration | None:
        """What bounds the share of familiar inputs that are flagged; None where nothing is promised."""
        return self.joint

    @property
    def no_promise(self) -> str | None:
        if self.joint is not None:
            return None
        uncalibrated = any(predictor.no_promise for predictor in self.predictors)
        return NOT_CALIBRATED if uncalibrated else CALIBRATION_TOO_SMALL

    @property
    def asks_adaptively(self) -> bool:
        return all(predictor.asks_adaptively for predictor in self.predictors)

    @property
    def row_bytes(self) -> int:
        """Bytes that the results of a network for one input take at a time: they run one after the other."""
        return max(predictor.row_bytes for predictor in self.predictors)

    def undecided(self, reason: str) -> tuple[Decision, ...]:
        return (Decision(None, None, None, reason),)

    def uncovered(self, reason: str) -> LabelSetRows:
        return LabelSetRows(None, None, reason)

    def encode(self, raw: Tensor) -> Tensor:
        return self.predictors[0].encode(raw)

    def forward(self, x: Tensor) -> list[DeterministicPass]:
        return [predictor.forward(x) for predictor in self.predictors]

    def classify(self, forwarded: list[DeterministicPass]) -> tuple[Tensor, Tensor]:
        pairs = zip(self.predictors, forwarded, strict=True)
        probs_BC = total(torch.stack([predictor.classify(each)[1] for predictor, each in pairs])) / len(forwarded)
        return probs_BC.argmax(-1), probs_BC

    def sample(self, x: Tensor, forwarded: list[DeterministicPass], count: int) -> Sampled:
        counts = shares([predictor.committee.num_samples for predictor in self.predictors], count)
        probs_MKBC = [
            predictor.member_probs(x, share) for predictor, share in zip(self.predictors, counts, strict=True) if share
        ]

        def judge() -> Verdict:
            parts = zip(self.predictors, forwarded, probs_MKBC, strict=True)
            return self._joint_verdict([predictor.judge(Outputs(seen, probs)) for predictor, seen, probs in parts])

        def cover_all(_: Answers) -> LabelSetRows:
            means = [probs_KBC.mean(0) for probs_KBC in probs_MKBC]
            return self._union([each.promises for each in self.predictors], forwarded, means)

        return Sampled(count, summarise(torch.cat(probs_MKBC)), judge, self._decide, cover_all)

    def sample_adaptively(self, x: Tensor, forwarded: list[DeterministicPass]) -> Sampled:
        pairs = zip(self.predictors, forwarded, strict=True)
        sampled = [predictor.sample_adaptively(x, seen) for predictor, seen in pairs]
        sizes = [predictor.committee.num_samples for predictor in self.predictors]
        return Sampled(
            samples=torch.stack([torch.as_tensor(each.samples) for each in sampled]).sum(0),
            summary=pool([each.summary for each in sampled], sizes),
            # The rule's calibration makes the detector's promise, so the shares of the joint one are the same.
            judge=lambda: self._joint_verdict([each.judge() for each in sampled]),
            decide=self._decide,
            cover=lambda _: self._union(
                [each.auto_promises for each in self.predictors], forwarded, [each.summary.mean_BC for each in sampled]
            ),
        )

    def explain_rows(
        self, raw: Tensor, ranks: tuple[NDArray[np.float64], ...], loudest: NDArray[np.int64]
    ) -> list[Explanation]:
        explained: dict[int, Explanation] = {}
        for which in sorted(set(loudest.tolist())):
            rows, predictor = np.flatnonzero(loudest == which), self.predictors[which]
            own = predictor.explain_rows(raw[torch.from_numpy(rows)], (ranks[which][rows],), np.zeros_like(rows))
            explained |= {
                row: replace(each, checkpoint=which + 1) for row, each in zip(rows.tolist(), own, strict=True)
            }
        return [explained[row] for row in range(len(raw))]

    @property
    def example(self) -> tuple[Any, str]:
        """As of a predictor: that of the first checkpoint."""
        return self.predictors[0].example

    def describe(self) -> dict[str, Any]:
        """Everything a user may want to know about this model, as plain data; each checkpoint under its own key."""
        parts = [predictor.describe() for predictor in self.predictors]
        committees = [part["committee"] for part in parts]
        seeds = {committee["seed"] for committee in committees}
        data = {predictor.provenance.data for predictor in self.predictors if predictor.provenance}
        return {
            "network": {"class_path": "dubio.models.Ensemble", "init_args": {}},
            "input": self.input.describe(),
            "classes": list(self.classes),
            "committee": {
                "num_samples": self.committee.num_samples,
                "seed": seeds.pop() if len(seeds) == 1 else None,
                "fingerprint": self.committee.fingerprint,
                "strategy": ", ".join(sorted({committee["strategy"] for committee in committees})),
                "sites": [site for committee in committees for site in committee["sites"]],
            },
            "temperature": None,
            "calibration": self._describe_calibration(),
            "decisions": [],
            "label_set": describe_label_sets(*(predictor.promises for predictor in self.predictors)),
            "training_rows_kept": sum(part["training_rows_kept"] for part in parts),
            "training_examples_kept": next((kept for part in parts if (kept := part["training_examples_kept"])), None),
            "auto": self._describe_auto(),
            "not_calibrated": self.hint,
            "provenance": {"data": ", ".join(sorted(data))} if data else None,
            "checkpoints": parts,
        }

    def _describe_auto(self) -> dict[str, Any] | None:
        """None unless every checkpoint has a stopping rule."""
        rules = [predictor.stopping.describe() for predictor in self.predictors if predictor.stopping]
        return {"stages": [rule["stages"] for rule in rules]} if len(rules) == len(self.predictors) else None

    def _describe_calibration(self) -> dict[str, Any] | None:
        if self.joint is None:
            return None
        parts = [part for predictor in self.predictors if (part := predictor.describe()["calibration"])]
        scores = sorted({name for part in parts for name in part["scores"]})
        rows = min(part["n"] for part in parts)
        return describe_promise(self.joint, scores, rows, by=f" by any of {len(parts)} checkpoints")

    def _decide(self, answers: Answers, verdict: Verdict) -> tuple[Decision, ...]:
        # That each checkpoint's accepted answers are seldom wrong says nothing about those that all of them accept.
        return self.undecided(NOT_FOR_ENSEMBLES)

    def _union(
        self, promises: Sequence[AnswerPromises | None], forwarded: Sequence[DeterministicPass], means: Sequence[Tensor]
    ) -> LabelSetRows:
        parts = zip(self.predictors, promises, forwarded, means, strict=True)
        return unite(
            [
                uncovered(None, NOT_CALIBRATED)
                if promised is None
                else cover(promised, Answers(*predictor.classify(seen), mean_BC))
                for predictor, promised, seen, mean_BC in parts
            ]
        )

    def _joint_verdict(self, verdicts: Sequence[Verdict]) -> Verdict:
        if self.joint is None:
            raise NotFitted(f"Expected an ensemble with a common promise, but {self.hint}.")
        p_values_MB = torch.stack([verdict.p_value_B for verdict in verdicts])
        p_value_B = self.joint.p_value(p_values_MB)
        loudest_B = self.joint.loudest(p_values_MB).cpu()
        return Verdict(
            score_B=1 - p_value_B,
            p_value_B=p_value_B,
            flagged_B=p_value_B <= self.joint.level,
            level=self.joint.level,
            reasons=[verdicts[which].reasons[row] for row, which in enumerate(loudest_B.tolist())],
            ranks=tuple(ranks_SB for verdict in verdicts for ranks_SB in verdict.ranks),
            loudest_B=loudest_B,
        )


def shares(sizes: Sequence[int], asked: int) -> list[int]:
    """How many members of each committee answer when one after the other gives its next member, ``asked`` in all.

    Args:
        sizes: Of the committees.
        asked: At most their sum.
    """
    turns = (index for turn in range(max(sizes)) for index, size in enumerate(sizes) if turn < size)
    given = Counter(islice(turns, asked))
    return [given[index] for index in range(len(sizes))]


def _check(predictors: Sequence[Predictor]) -> None:
    if len(predictors) < 2:
        raise MismatchedCheckpoints(f"Expected at least two checkpoints for an ensemble, but got {len(predictors)}.")
    first = predictors[0]
    seen: list[tuple[str, str]] = []
    for number, predictor in enumerate(predictors, start=1):
        if predictor.classes != first.classes:
            raise MismatchedCheckpoints(
                f"Expected all checkpoints of an ensemble to have the same classes in the same order, but checkpoint 1 "
                f"has {list(first.classes[:20])} and checkpoint {number} has {list(predictor.classes[:20])}."
            )
        for name in type(first.input).model_fields:
            expected, other = getattr(first.input, name), getattr(predictor.input, name)
            if other != expected:
                raise MismatchedCheckpoints(
                    f"Expected all checkpoints of an ensemble to take the same input, but `input.{name}` is "
                    f"{expected!r:.200} in checkpoint 1 and {other!r:.200} in checkpoint {number}; train them on the "
                    "same split."
                )
        if predictor.provenance is not None:
            identity = (predictor.provenance.weights_sha256, predictor.committee.fingerprint)
            if identity in seen:
                raise MismatchedCheckpoints(
                    f"Expected different checkpoints in an ensemble, but checkpoint {number} is the same as checkpoint "
                    f"{seen.index(identity) + 1}: it would add nothing and halve the level; leave it out."
                )
            seen.append(identity)

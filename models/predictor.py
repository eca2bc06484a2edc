"""The predictor: network, committee, temperatures and detector as one immutable thing that answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubio.models import decision, explanation
from dubio.models.batch_invariance import TRIED_ROWS, BatchSizes, largest_batch
from dubio.models.budget import MAX_LIVE, Budget
from dubio.models.checkpoint.explanation_record import ExplanationRecord
from dubio.models.decision import Decision, LabelSetRows
from dubio.models.errors import BatchDependent, InvalidInput
from dubio.models.explanation import Explanation
from dubio.models.inputs import encoding
from dubio.models.inputs.spec import InputSpec
from dubio.models.prediction import NOT_CALIBRATED, Model, Sampled
from dubio.models.spec import NetworkSpec, Provenance, Temperature
from dubio.uncertainty import AdaptiveSampling, Calibration, Committee, Detector, DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.answers import Answers
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.conformal import JointCalibration
from dubio.uncertainty.detection.detector import Verdict
from dubio.uncertainty.detection.knn import Bank
from dubio.uncertainty.detection.measures import Summary, single, softmax
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.errors import NotFitted, UncertaintyError

# Ways to run members that are tried after those that were the fastest; the loop is the last resort.
INVARIANT_STRATEGIES = ("chain", "thinned", "fold", "loop")


@dataclass(frozen=True)
class Predictor(Model[DeterministicPass]):
    """Answers inputs twice, deterministically and by MC dropout, and flags strangers. Thread-safe.

    Attributes:
        network: In eval mode for ever; takes normalised inputs.
        network_spec: How to build it again.
        input: What one input is.
        classes: Names, in the order of the logits.
        committee: The frozen members.
        tap: Runs the deterministic pass and reads the penultimate features, and what blocks give.
        temperature: Divides the logits before softmax.
        detector: None until calibrated.
        provenance: None until calibrated.
        stopping: When fewer members than all are enough; None until calibrated.
        promises: About answers of all members; None until calibrated.
        auto_promises: About answers of as many members as it takes; None until calibrated.
        explaining: What explains a flag; None where the checkpoint keeps nothing for it.
        sizes: Of the batches in which the deterministic pass runs; None for batches as they come.
        most_rows: See `Model`.
    """

    network: nn.Module
    network_spec: NetworkSpec
    input: InputSpec
    classes: tuple[str, ...]
    committee: Committee
    tap: FeatureTap
    temperature: Temperature = field(default_factory=Temperature)
    detector: Detector | None = None
    provenance: Provenance | None = None
    stopping: AdaptiveSampling | None = None
    promises: AnswerPromises | None = None
    auto_promises: AnswerPromises | None = None
    explaining: ExplanationRecord | None = None
    sizes: BatchSizes | None = None
    most_rows: int | None = None

    @classmethod
    def build(
        cls,
        network: nn.Module,
        network_spec: NetworkSpec,
        input_spec: InputSpec,
        classes: tuple[str, ...],
        num_samples: int = 64,
        seed: int = 0,
        sites: Sequence[str] | None = None,
        rates: Mapping[str, float] | None = None,
        strategy: str | None = None,
        measure_seconds: float = 2.0,
    ) -> Predictor:
        """A predictor that is not calibrated yet; draws the committee.

        Args:
            network: In eval mode, on the device that serves.
            network_spec: How to build it again.
            input_spec: What one input is.
            classes: Names, in the order of the logits.
            num_samples: K.
            seed: Of the masks.
            sites: Names, patterns or kinds of the dropout sites to sample; all by default.
            rates: Rates by name, pattern or kind that override those of the training.
            strategy: How members are run, see `Committee`; by default found by measuring.
            measure_seconds: What finding it may take, see `Committee`.

        Raises:
            UncertaintyError: If the network has no dropout, or cannot be sampled faithfully.
            InvalidInput: If the network gives another number of logits than there are classes.
        """
        example = encoding.blank(input_spec, **encoding.place(network))
        committee = Committee(
            network,
            example,
            num_samples,
            seed,
            sites=sites,
            rates=rates,
            strategy=strategy,
            measure_seconds=measure_seconds,
        )
        if committee.num_classes != len(classes):
            raise InvalidInput(
                f"Expected one class name a logit, but {network_spec.class_path} gives {committee.num_classes} logits "
                f"and there are {len(classes)} classes."
            )
        return cls(network, network_spec, input_spec, classes, committee, FeatureTap(network, example))

    def calibrated(
        self,
        temperature: Temperature,
        detector: Detector | None,
        provenance: Provenance | None,
        stopping: AdaptiveSampling | None = None,
        promises: AnswerPromises | None = None,
        auto_promises: AnswerPromises | None = None,
        explaining: ExplanationRecord | None = None,
    ) -> Predictor:
        """The same predictor with what calibration learned."""
        known = replace(
            self,
            temperature=temperature,
            detector=detector,
            provenance=provenance,
            stopping=stopping,
            promises=promises,
            auto_promises=auto_promises,
            explaining=explaining,
        )
        return known if detector is None else known.listening(detector.blocks)

    def listening(self, blocks: Sequence[Block]) -> Predictor:
        """The same predictor, whose deterministic pass also tells what these blocks of the network give."""
        return replace(self, tap=self.tap.with_blocks(blocks))

    def batch_invariant(
        self, members: bool = False, most_rows: int = max(TRIED_ROWS), seconds: float = 1.0
    ) -> Predictor:
        """The same predictor, whose answer to an input does not depend on what shares its batch, to the last bit.

        Its deterministic answers are those of the network in batches of sizes that agree, filled up. The members are
        run in one way for batches of every size that gives a row the same in any of them, which may be slower.

        Args:
            members: Whether the members' answers, and with them the flags, are the same, too.
            most_rows: That may be tried at a time.
            seconds: What trying may take, roughly, for the deterministic pass; four times as long for each way to run
                members.

        Raises:
            BatchDependent: No way to run the members gives a row the same in any batch.
        """
        noise = encoding.noise(self.input, most_rows)
        with torch.inference_mode():
            steady = replace(self, sizes=BatchSizes.find(self.tap.read, self.encode(noise), seconds))
        if not members:
            return steady
        for strategy in dict.fromkeys([*reversed(self.committee.strategies), *INVARIANT_STRATEGIES]):
            try:
                candidate = replace(steady, committee=self.committee.pinned(strategy))
            except UncertaintyError:  # it cannot run this network
                continue
            largest = largest_batch(candidate, noise, 4 * seconds)
            if largest is not None:
                return replace(candidate, most_rows=largest)
        raise BatchDependent(
            f"Expected a way to run the members of {self.network_spec.class_path} that gives an input the same in any "
            "batch, but found none; only its deterministic answers can be so."
        )

    def outputs(self, x: encoding.Inputs) -> Outputs:
        """What the detector sees of raw inputs ``[B, *input.shape]``, from the whole committee.

        Raises:
            InvalidInput: As `predict`.
        """
        with torch.inference_mode():
            encoded = self.encode(encoding.check(self.input, x))
            return Outputs(self.forward(encoded), self.member_probs(encoded, self.committee.num_samples))

    def deterministic(self, x: encoding.Inputs) -> DeterministicPass:
        """The eval-mode pass over raw inputs ``[B, *input.shape]``, without the committee.

        Raises:
            InvalidInput: As `predict`.
        """
        with torch.inference_mode():
            return self.forward(self.encode(encoding.check(self.input, x)))

    def member_logits(self, x: encoding.Inputs) -> Tensor:
        """The members' logits ``[K, B, C]`` of raw inputs, in single precision at least, before any temperature.

        Raises:
            InvalidInput: As `predict`.
        """
        return single(self.committee(self.encode(encoding.check(self.input, x))))

    @property
    def flag_promise(self) -> Calibration | None:
        """What bounds the share of familiar inputs that are flagged; None where nothing is promised."""
        return None if self.detector is None else self.detector.calibration

    @property
    def no_promise(self) -> str | None:
        return NOT_CALIBRATED if self.flag_promise is None else None

    def undecided(self, reason: str) -> tuple[Decision, ...]:
        return decision.undecided(self.promises, reason)

    def uncovered(self, reason: str) -> LabelSetRows:
        return decision.uncovered(self.promises, reason)

    @property
    def asks_adaptively(self) -> bool:
        return self.stopping is not None and self.detector is not None

    def encode(self, raw: Tensor) -> Tensor:
        return self._encoder(raw)

    def forward(self, x: Tensor) -> DeterministicPass:
        if self.sizes is not None:
            return self.sizes.run(self.tap.read, x)
        # All rows at once, as the plain network would, unless that takes too much memory.
        rows = len(x) if len(x) < 2 else max(1, MAX_LIVE // self.row_bytes)
        if len(x) > rows:
            return DeterministicPass.cat([self.forward(part) for part in torch.split(x, rows)])
        return self.tap.read(x)

    @cached_property
    def row_bytes(self) -> int:
        """Bytes that the results of the network for one input take at a time."""
        budget = Budget("one input", sys.maxsize, sys.maxsize)
        with torch.inference_mode(), budget:
            self.tap(self.encode(encoding.noise(self.input, 1)))
        return max(1, budget.peak)

    def classify(self, forwarded: DeterministicPass) -> tuple[Tensor, Tensor]:
        logits_BC = forwarded.logits_BC
        return logits_BC.argmax(-1), (logits_BC / self.temperature.deterministic).softmax(-1)

    def member_probs(self, x: Tensor, count: int, first: int = 0) -> Tensor:
        """The probabilities ``[K, B, C]`` that so many members from a first one on give encoded inputs."""
        return softmax(single(self.committee(x, count, first)) / self.temperature.mc)

    def judge(self, outputs: Outputs) -> Verdict:
        """The detector's verdict on the outputs of the whole committee.

        Raises:
            NotFitted: If the predictor is not calibrated.
        """
        if self.detector is None:
            raise NotFitted("Expected a calibrated predictor; run the calibration first.")
        return self.detector.judge(outputs)

    def sample(self, x: Tensor, forwarded: DeterministicPass, count: int) -> Sampled:
        outputs = Outputs(forwarded, self.member_probs(x, count))
        return self._sampled(count, outputs.summary, lambda: self.judge(outputs), self.promises)

    def sample_adaptively(self, x: Tensor, forwarded: DeterministicPass) -> Sampled:
        if self.stopping is None or self.detector is None:
            raise InvalidInput(
                'Expected a model that was calibrated for `samples` = "auto", but this one was not; calibrate it with '
                "`dubio-train calibrate`, or leave `samples` out to ask all members."
            )
        stopping, detector = self.stopping, self.detector

        def ask(rows: Tensor, first: int, count: int) -> Tensor:
            return self.member_probs(x if len(rows) == len(x) else x[rows], count, first)

        stopped = stopping.run(detector, forwarded, ask)
        return self._sampled(
            stopped.samples_B, stopped.summary, lambda: stopping.judge(detector, stopped), self.auto_promises
        )

    def _sampled(
        self,
        samples: int | Tensor,
        summary: Summary,
        judge: Callable[[], Verdict],
        promises: AnswerPromises | None,
    ) -> Sampled:
        def decide(answers: Answers, verdict: Verdict) -> tuple[Decision, ...]:
            if promises is None:
                return self.undecided(NOT_CALIBRATED)
            return decision.decide(promises, answers, verdict.score_B)

        def cover(answers: Answers) -> LabelSetRows:
            return self.uncovered(NOT_CALIBRATED) if promises is None else decision.cover(promises, answers)

        return Sampled(samples, summary, judge, decide, cover)

    def explain_rows(
        self, raw: Tensor, ranks: tuple[NDArray[np.float64], ...], loudest: NDArray[np.int64]
    ) -> list[Explanation]:
        if self.detector is None:
            raise NotFitted("Expected a calibrated predictor; run the calibration first.")
        seen = self.forward(self.encode(raw))
        return explanation.explain(self.detector, self.explaining, self.input, seen, ranks[0])

    @property
    def example(self) -> tuple[Any, str]:
        """An input to try the model with, and where it comes from, see `dubio.models.explanation.example`."""
        return explanation.example(self.explaining, self.input)

    def describe(self) -> dict[str, Any]:
        """Everything a user may want to know about this model, as plain data."""
        return {
            "network": self.network_spec.model_dump(mode="json"),
            "input": self.input.describe(),
            "classes": list(self.classes),
            "committee": {
                "num_samples": self.committee.num_samples,
                "seed": self.committee.seed,
                "fingerprint": self.committee.fingerprint,
                "strategy": self.committee.strategy,
                "sites": [
                    {"name": site.name, "kind": site.kind, "p": site.p, "shape": list(site.shape)}
                    for site in self.committee.sites
                ],
                "mc_sites": None if self.committee.selection.sites is None else list(self.committee.selection.sites),
                "mc_rates": dict(self.committee.selection.rates) or None,
            },
            "temperature": self.temperature.model_dump(mode="json"),
            "calibration": self._describe_calibration(),
            "decisions": decision.describe_decisions(self.promises),
            "label_set": decision.describe_label_sets(self.promises),
            "training_rows_kept": self._training_rows_kept,
            "training_examples_kept": explanation.describe_examples(self.explaining, self.input),
            "auto": self.stopping.describe() if self.stopping else None,
            "provenance": self.provenance.model_dump(mode="json") if self.provenance else None,
        }

    @property
    def _training_rows_kept(self) -> int:
        """How many training rows the checkpoint holds the features of; who has it can tell who was among them."""
        scores = self.detector.scores if self.detector else ()
        return sum(len(score.bank_NF) for score in scores if isinstance(score, Bank))

    def _describe_calibration(self) -> dict[str, Any] | None:
        calibration = self.flag_promise
        if self.detector is None or calibration is None:
            return None
        return describe_promise(calibration, [score.name for score in self.detector.scores], len(calibration.scores_N))

    @cached_property
    def _encoder(self) -> Callable[[Tensor], Tensor]:
        return encoding.encoder(self.input, **encoding.place(self.network))


def describe_promise(
    calibration: Calibration | JointCalibration, scores: list[str], rows: int, by: str = ""
) -> dict[str, Any]:
    """A calibration of so many rows as plain data; ``by`` says who flags an input, where that is not the predictor."""
    return {
        "scores": scores,
        "alpha": calibration.alpha,
        "delta": calibration.delta,
        "n": rows,
        "level": calibration.level,
        "promise": (
            f"at most {calibration.alpha:.1%} of in-distribution inputs are flagged{by}, with confidence "
            f"{1 - calibration.delta:.0%}; how many strangers are caught is not promised"
        ),
    }

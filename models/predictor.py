"""The predictor: network, committee, temperatures and detector as one immutable thing that answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from models import inputs
from models.errors import InvalidInput
from models.prediction import (
    NOT_CALIBRATED,
    NOT_CALIBRATED_FOR_SAMPLES,
    OUT_OF_RANGE,
    Flags,
    MonteCarlo,
    Prediction,
    Work,
)
from models.spec import InputSpec, NetworkSpec, Provenance, Temperature
from uncertainty import Committee, Detector, DeterministicPass, Evidence, FeatureTap
from uncertainty.measures import Summary, summarise


@dataclass(frozen=True)
class Predictor:
    """Answers inputs twice, deterministically and by MC dropout, and flags strangers. Thread-safe.

    Attributes:
        network: in eval mode for ever; takes normalised inputs.
        network_spec: how to build it again.
        input: what one input is.
        classes: names, in the order of the logits.
        committee: the frozen members.
        tap: runs the deterministic pass and reads the penultimate features.
        temperature: divides the logits before softmax.
        detector: None until calibrated.
        provenance: None until calibrated.
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

    @classmethod
    def build(
        cls,
        network: nn.Module,
        network_spec: NetworkSpec,
        input_spec: InputSpec,
        classes: tuple[str, ...],
        num_samples: int = 64,
        seed: int = 0,
    ) -> Predictor:
        """A predictor that is not calibrated yet; draws the committee.

        Args:
            network: in eval mode, on the device that serves.
            network_spec: how to build it again.
            input_spec: what one input is.
            classes: names, in the order of the logits.
            num_samples: K.
            seed: of the masks.

        Raises:
            UncertaintyError: the network has no dropout, or cannot be sampled faithfully.
            InvalidInput: the network gives another number of logits than there are classes.
        """
        device = _device(network)
        example = torch.zeros((1, *input_spec.shape), device=device)
        committee = Committee(network, example, num_samples=num_samples, seed=seed)
        if committee.num_classes != len(classes):
            raise InvalidInput(
                f"Expected one class name a logit, but {network_spec.class_path} gives {committee.num_classes} logits "
                f"and there are {len(classes)} classes."
            )
        return cls(network, network_spec, input_spec, classes, committee, FeatureTap(network, example))

    def calibrated(self, temperature: Temperature, detector: Detector, provenance: Provenance) -> Predictor:
        """The same predictor with what calibration learned."""
        return replace(self, temperature=temperature, detector=detector, provenance=provenance)

    def predict(self, x: ArrayLike | Tensor, *, samples: int | None = None, work: Work = Work.FLAG) -> Prediction:
        """Both answers and the flag.

        Args:
            x: raw inputs ``[B, *input.shape]``.
            samples: ask only the first so many members, in [2, K]; all by default. The flag was calibrated for all
                members, so with fewer there is none.
            work: how much to compute: all by default.

        Raises:
            InvalidInput: wrong shape, values that are not finite or that overflow the network, or ``samples`` out of
                range.
        """
        asked = self.committee.num_samples if samples is None else samples
        if type(asked) is not int or not 2 <= asked <= self.committee.num_samples:
            raise InvalidInput(
                f"Expected `samples` to be an integer in [2, {self.committee.num_samples}], the committee's size, "
                f"but got {asked!r:.80}."
            )
        raw = inputs.check(self.input, x)
        with torch.inference_mode():
            encoded = self.encode(raw)
            deterministic = self._deterministic(encoded)
            probs_BC = (deterministic.logits_BC / self.temperature.deterministic).softmax(-1)
            inputs.refuse_overflow(self.input, raw, probs_BC)
            prediction = Prediction(
                samples=0 if work == Work.DETERMINISTIC else asked,
                label=deterministic.logits_BC.argmax(-1).cpu().numpy(),
                probabilities=probs_BC.cpu().numpy(),
                monte_carlo=None,
                flags=None,
            )
            if work == Work.DETERMINISTIC:
                return prediction
            evidence = Evidence(deterministic, self._member_probs(encoded, asked))
            summary = summarise(evidence.probs_KBC)
            inputs.refuse_overflow(self.input, raw, summary.mean_BC)
            flags = self._flags(raw, evidence) if work == Work.FLAG else None
            return replace(prediction, monte_carlo=summed_up(summary), flags=flags)

    def evidence(self, x: ArrayLike | Tensor) -> Evidence:
        """What the detector sees of raw inputs ``[B, *input.shape]``, from the whole committee.

        Raises:
            InvalidInput: as :meth:`predict`.
        """
        with torch.inference_mode():
            return self._evidence(inputs.check(self.input, x), self.committee.num_samples)

    def deterministic(self, x: ArrayLike | Tensor) -> DeterministicPass:
        """The eval-mode pass over raw inputs ``[B, *input.shape]``, without the committee.

        Raises:
            InvalidInput: as :meth:`predict`.
        """
        with torch.inference_mode():
            return self._deterministic(self.encode(inputs.check(self.input, x)))

    def member_logits(self, x: ArrayLike | Tensor) -> Tensor:
        """The members' logits ``[K, B, C]`` of raw inputs, before any temperature.

        Raises:
            InvalidInput: as :meth:`predict`.
        """
        return self.committee(self.encode(inputs.check(self.input, x)))

    def encode(self, raw: Tensor) -> Tensor:
        """What the network eats of checked raw inputs ``[B, *input.shape]``, on its device."""
        return inputs.normalise(self.input, raw.to(_device(self.network)))

    def describe(self) -> dict[str, Any]:
        """Everything a user may want to know about this model, as plain data."""
        return {
            "network": self.network_spec.model_dump(mode="json"),
            "input": self.input.model_dump(mode="json"),
            "classes": list(self.classes),
            "committee": {
                "num_samples": self.committee.num_samples,
                "seed": self.committee.seed,
                "fingerprint": self.committee.fingerprint,
                "strategy": self.committee.strategy,
                "sites": [{"kind": site.kind, "p": site.p, "shape": list(site.shape)} for site in self.committee.sites],
            },
            "temperature": self.temperature.model_dump(mode="json"),
            "calibration": self._describe_calibration(),
            "provenance": self.provenance.model_dump(mode="json") if self.provenance else None,
        }

    def _describe_calibration(self) -> dict[str, Any] | None:
        if self.detector is None or self.detector.calibration is None:
            return None
        calibration = self.detector.calibration
        return {
            "scores": [part.name for part in self.detector.parts],
            "alpha": calibration.alpha,
            "delta": calibration.delta,
            "n": len(calibration.scores_N),
            "level": calibration.level,
            "promise": (
                f"at most {calibration.alpha:.1%} of in-distribution inputs are flagged, with confidence "
                f"{1 - calibration.delta:.0%}; how many strangers are caught is not promised"
            ),
        }

    def _deterministic(self, x: Tensor) -> DeterministicPass:
        logits_BC, features_BF = self.tap(x)
        return DeterministicPass(x.flatten(1), logits_BC, features_BF)

    def _evidence(self, raw: Tensor, samples: int) -> Evidence:
        x = self.encode(raw)
        return Evidence(self._deterministic(x), self._member_probs(x, samples))

    def _member_probs(self, x: Tensor, samples: int) -> Tensor:
        return (self.committee(x, samples) / self.temperature.mc).softmax(-1)

    def _flags(self, raw: Tensor, evidence: Evidence) -> Flags:
        if self.detector is None or self.detector.calibration is None:
            return Flags(None, None, None, [NOT_CALIBRATED] * len(raw))
        if len(evidence.probs_KBC) != self.committee.num_samples:
            return Flags(None, None, None, [NOT_CALIBRATED_FOR_SAMPLES] * len(raw))
        verdict = self.detector.judge(evidence)
        outside = inputs.outside(self.input, raw).tolist()
        flagged = verdict.flagged_B.tolist()
        return Flags(
            p_value=verdict.p_value_B.cpu().numpy(),
            flagged=verdict.flagged_B.cpu().numpy(),
            level=self.detector.calibration.level,
            reasons=[
                (OUT_OF_RANGE if beyond else reason) if flag else None
                for flag, beyond, reason in zip(flagged, outside, verdict.reasons, strict=True)
            ],
        )


def summed_up(summary: Summary) -> MonteCarlo:
    """The members' part of a prediction, on the CPU."""
    return MonteCarlo(
        label=summary.mean_BC.argmax(-1).cpu().numpy(),
        mean=summary.mean_BC.cpu().numpy(),
        std=summary.std_BC.cpu().numpy(),
        predictive_entropy=summary.predictive_entropy_B.cpu().numpy(),
        expected_entropy=summary.expected_entropy_B.cpu().numpy(),
        mutual_information=summary.mutual_information_B.cpu().numpy(),
    )


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device

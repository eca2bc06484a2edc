"""The predictor: network, committee, temperatures and detector as one immutable thing that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.models.inputs.spec import InputSpec
from dubio.models.prediction import (
    AUTO,
    NOT_CALIBRATED,
    NOT_CALIBRATED_FOR_SAMPLES,
    OUT_OF_RANGE,
    Flags,
    MonteCarlo,
    Prediction,
    Samples,
    Work,
)
from dubio.models.spec import NetworkSpec, Provenance, Temperature
from dubio.uncertainty import AdaptiveSampling, Committee, Detector, DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.adaptive import Stopped
from dubio.uncertainty.detection.detector import Verdict
from dubio.uncertainty.detection.measures import Summary, softmax


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
        stopping: when fewer members than all are enough; None until calibrated, and for old checkpoints.
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
    ) -> Predictor:
        """A predictor that is not calibrated yet; draws the committee.

        Args:
            network: in eval mode, on the device that serves.
            network_spec: how to build it again.
            input_spec: what one input is.
            classes: names, in the order of the logits.
            num_samples: K.
            seed: of the masks.
            sites: names, patterns or kinds of the dropout sites to sample; all by default.
            rates: rates by name, pattern or kind that override those of the training.
            strategy: how members are run, see :class:`Committee`; by default found by measuring.

        Raises:
            UncertaintyError: the network has no dropout, or cannot be sampled faithfully.
            InvalidInput: the network gives another number of logits than there are classes.
        """
        example = encoding.blank(input_spec, device=_device(network))
        committee = Committee(network, example, num_samples, seed, sites=sites, rates=rates, strategy=strategy)
        if committee.num_classes != len(classes):
            raise InvalidInput(
                f"Expected one class name a logit, but {network_spec.class_path} gives {committee.num_classes} logits "
                f"and there are {len(classes)} classes."
            )
        return cls(network, network_spec, input_spec, classes, committee, FeatureTap(network, example))

    def calibrated(
        self,
        temperature: Temperature,
        detector: Detector,
        provenance: Provenance,
        stopping: AdaptiveSampling | None = None,
    ) -> Predictor:
        """The same predictor with what calibration learned."""
        return replace(self, temperature=temperature, detector=detector, provenance=provenance, stopping=stopping)

    def predict(self, x: ArrayLike | Tensor, *, samples: Samples = None, work: Work = Work.FLAG) -> Prediction:
        """Both answers and the flag.

        Args:
            x: raw inputs ``[B, *input.shape]``.
            samples: ask only the first so many members, in [2, K]; all by default. The flag was calibrated for all
                members, so with fewer there is none. ``"auto"`` asks about each input as many as it takes, and keeps
                the promise; see :mod:`dubio.uncertainty.detection.adaptive`.
            work: how much to compute: all by default.

        Raises:
            InvalidInput: wrong shape, values that are not finite or that overflow the network, or ``samples`` out of
                range or ``"auto"`` although nothing was learned about it.
        """
        auto = isinstance(samples, str) and samples == AUTO
        asked = self.committee.num_samples if samples is None or auto else samples
        if type(asked) is not int or not 2 <= asked <= self.committee.num_samples:
            raise InvalidInput(
                f"Expected `samples` to be an integer in [2, {self.committee.num_samples}], the committee's size, "
                f"but got {asked!r:.80}."
            )
        raw = encoding.check(self.input, x)
        with torch.inference_mode():
            encoded = self.encode(raw)
            deterministic = self._deterministic(encoded)
            probs_BC = (deterministic.logits_BC / self.temperature.deterministic).softmax(-1)
            encoding.refuse_overflow(self.input, raw, probs_BC)
            prediction = Prediction(
                samples=0 if work == Work.DETERMINISTIC else asked,
                label=deterministic.logits_BC.argmax(-1).cpu().numpy(),
                probabilities=probs_BC.cpu().numpy(),
                monte_carlo=None,
                flags=None,
            )
            if work == Work.DETERMINISTIC:
                return prediction
            if auto:
                stopped, verdict = self.stop(encoded, deterministic)
                encoding.refuse_overflow(self.input, raw, stopped.summary.mean_BC)
                return replace(
                    prediction,
                    samples=stopped.samples_B.cpu().numpy(),
                    monte_carlo=summed_up(stopped.summary),
                    flags=judged(verdict, encoding.outside(self.input, raw)) if work == Work.FLAG else None,
                )
            outputs = Outputs(deterministic, self._member_probs(encoded, asked))
            encoding.refuse_overflow(self.input, raw, outputs.summary.mean_BC)
            flags = self._flags(raw, outputs) if work == Work.FLAG else None
            return replace(prediction, monte_carlo=summed_up(outputs.summary), flags=flags)

    def outputs(self, x: ArrayLike | Tensor) -> Outputs:
        """What the detector sees of raw inputs ``[B, *input.shape]``, from the whole committee.

        Raises:
            InvalidInput: as :meth:`predict`.
        """
        with torch.inference_mode():
            return self._outputs(encoding.check(self.input, x), self.committee.num_samples)

    def deterministic(self, x: ArrayLike | Tensor) -> DeterministicPass:
        """The eval-mode pass over raw inputs ``[B, *input.shape]``, without the committee.

        Raises:
            InvalidInput: as :meth:`predict`.
        """
        with torch.inference_mode():
            return self._deterministic(self.encode(encoding.check(self.input, x)))

    def member_logits(self, x: ArrayLike | Tensor) -> Tensor:
        """The members' logits ``[K, B, C]`` of raw inputs, before any temperature.

        Raises:
            InvalidInput: as :meth:`predict`.
        """
        return self.committee(self.encode(encoding.check(self.input, x)))

    def stop(self, x: Tensor, deterministic: DeterministicPass) -> tuple[Stopped, Verdict]:
        """Ask about each input as many members as it takes.

        Args:
            x: encoded inputs ``[B, *input.shape]``.
            deterministic: the eval-mode pass over them.

        Raises:
            InvalidInput: the checkpoint was calibrated before there were stopping rules, or never.
        """
        if self.stopping is None or self.detector is None:
            raise InvalidInput(
                'Expected a model that was calibrated for `samples` = "auto", but this one was not; calibrate it with '
                "`dubio-train calibrate`, or leave `samples` out to ask all members."
            )

        def ask(rows: Tensor, first: int, count: int) -> Tensor:
            some = x if len(rows) == len(x) else x[rows]
            return softmax(self.committee(some, count, first) / self.temperature.mc)

        stopped = self.stopping.run(self.detector, deterministic, ask)
        return stopped, self.stopping.judge(self.detector, stopped)

    def encode(self, raw: Tensor) -> Tensor:
        """What the network eats of checked raw inputs ``[B, *input.shape]``, on its device."""
        return self._encoder(raw)

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
            "auto": self.stopping.describe() if self.stopping else None,
            "provenance": self.provenance.model_dump(mode="json") if self.provenance else None,
        }

    def _describe_calibration(self) -> dict[str, Any] | None:
        if self.detector is None or self.detector.calibration is None:
            return None
        calibration = self.detector.calibration
        return {
            "scores": [score.name for score in self.detector.scores],
            "alpha": calibration.alpha,
            "delta": calibration.delta,
            "n": len(calibration.scores_N),
            "level": calibration.level,
            "promise": (
                f"at most {calibration.alpha:.1%} of in-distribution inputs are flagged, with confidence "
                f"{1 - calibration.delta:.0%}; how many strangers are caught is not promised"
            ),
        }

    @cached_property
    def _encoder(self) -> Callable[[Tensor], Tensor]:
        return encoding.encoder(self.input, _device(self.network))

    def _deterministic(self, x: Tensor) -> DeterministicPass:
        logits_BC, features_BF = self.tap(x)
        return DeterministicPass(x.flatten(1).float(), logits_BC, features_BF)

    def _outputs(self, raw: Tensor, samples: int) -> Outputs:
        x = self.encode(raw)
        return Outputs(self._deterministic(x), self._member_probs(x, samples))

    def _member_probs(self, x: Tensor, samples: int) -> Tensor:
        return softmax(self.committee(x, samples) / self.temperature.mc)

    def _flags(self, raw: Tensor, outputs: Outputs) -> Flags:
        if self.detector is None or self.detector.calibration is None:
            return Flags(None, None, None, [NOT_CALIBRATED] * len(raw))
        if len(outputs.probs_KBC) != self.committee.num_samples:
            return Flags(None, None, None, [NOT_CALIBRATED_FOR_SAMPLES] * len(raw))
        return judged(self.detector.judge(outputs), encoding.outside(self.input, raw))


def judged(verdict: Verdict, outside_B: Tensor) -> Flags:
    """The detector's part of a prediction, on the CPU.

    Args:
        verdict: on the inputs.
        outside_B: whether an input has a value outside what the training split contained.
    """
    rows = zip(verdict.flagged_B.tolist(), outside_B.tolist(), verdict.reasons, strict=True)
    return Flags(
        p_value=verdict.p_value_B.cpu().numpy(),
        flagged=verdict.flagged_B.cpu().numpy(),
        level=verdict.level,
        reasons=[(OUT_OF_RANGE if beyond else reason) if flag else None for flag, beyond, reason in rows],
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

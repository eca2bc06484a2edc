"""The output tensors of the Open Inference Protocol: what each is, and how much must be computed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from dubio.models import Prediction, Work
from dubio.serving.wire.explanation import to_plain

Values = NDArray[Any] | list[str]


@dataclass(frozen=True)
class Output:
    """One output tensor of every model.

    Attributes:
        name: On the wire.
        datatype: The protocol's name for it.
        per_class: Whether its shape is [-1, C]; else it is [-1].
        work: What must be computed for it.
        read: Takes it from a prediction and the class names; None without a calibration that applies.
        why_not: Says of a prediction why none does.
        given: Whether a model that describes itself so can give it.
    """

    name: str
    datatype: str
    per_class: bool
    work: Work
    read: Callable[[Prediction, Sequence[str]], Values | None]
    why_not: Callable[[Prediction], str | None] = lambda _: None
    given: Callable[[Mapping[str, Any]], bool] = lambda _: True

    @property
    def numbers(self) -> bool:
        """Whether it holds a number for each class, of which some are the largest."""
        return self.per_class and self.datatype != "BOOL"

    def shape(self, rows: int, classes: int) -> list[int]:
        """Its shape for so many rows; -1 stands for any number."""
        return [rows, classes] if self.per_class else [rows]


def _labels(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    return [classes[index] for index in prediction.label.tolist()]


def _no_flag(prediction: Prediction) -> str | None:
    return prediction.reasons[0]


def no_decision(prediction: Prediction) -> str | None:
    """Why no answer is accepted or not; None where they are."""
    return prediction.decisions[0].reason if prediction.decisions else None


def no_set(prediction: Prediction) -> str | None:
    """Why there are no label sets; None where there are."""
    return prediction.label_sets.reason if prediction.label_sets else None


def _explanations(prediction: Prediction, _: Sequence[str]) -> Values | None:
    if prediction.explanations is None or prediction.p_value is None:
        return None
    return [orjson.dumps(to_plain(explanation)).decode() for explanation in prediction.explanations]


def _flags(model: Mapping[str, Any]) -> bool:
    return model["calibration"] is not None


def _decides(model: Mapping[str, Any]) -> bool:
    return _flags(model) and bool(model["decisions"]) and model["decisions"][0]["reason"] is None


def _covers(model: Mapping[str, Any]) -> bool:
    return model["label_set"] is not None


OUTPUTS: dict[str, Output] = {
    output.name: output
    for output in (
        Output("label", "BYTES", False, Work.DETERMINISTIC, _labels),
        Output("probabilities", "FP32", True, Work.DETERMINISTIC, lambda prediction, _: prediction.probabilities),
        Output("mc_mean", "FP32", True, Work.MC, lambda prediction, _: prediction.mc_mean),
        Output("mc_std", "FP32", True, Work.MC, lambda prediction, _: prediction.mc_std),
        Output("mc_samples", "INT32", False, Work.MC, lambda prediction, _: prediction.mc_samples),
        Output("predictive_entropy", "FP32", False, Work.MC, lambda prediction, _: prediction.predictive_entropy),
        Output("expected_entropy", "FP32", False, Work.MC, lambda prediction, _: prediction.expected_entropy),
        Output("mutual_information", "FP32", False, Work.MC, lambda prediction, _: prediction.mutual_information),
        Output("ood_p_value", "FP64", False, Work.FLAG, lambda prediction, _: prediction.p_value, _no_flag, _flags),
        Output("ood_flag", "BOOL", False, Work.FLAG, lambda prediction, _: prediction.flagged, _no_flag, _flags),
        Output("accepted", "BOOL", False, Work.FLAG, lambda prediction, _: prediction.accepted, no_decision, _decides),
        Output("label_set", "BOOL", True, Work.LABEL_SET, lambda prediction, _: prediction.label_set, no_set, _covers),
    )
}

# Not among the outputs of a model: those who name none are sent all of these, and few want to wait for this one.
EXPLANATION = Output("ood_explanation", "BYTES", False, Work.FLAG, _explanations, _no_flag, _flags)


def classify(values_BC: NDArray[np.float32], classes: Sequence[str], *, count: int) -> list[list[str]]:
    """The classification extension: for each row its `count` largest values as `value:index:label`, largest first."""
    best_BK = np.argsort(-values_BC, axis=1, kind="stable")[:, :count]
    return [
        [f"{row[index]:f}:{index}:{classes[index]}" for index in best]
        for row, best in zip(values_BC.tolist(), best_BK.tolist(), strict=True)
    ]

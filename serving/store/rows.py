"""What is kept of a request: the rows that were flagged, sampled or asked for, until they are rows of the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Table

from dubio.models import InputSpec, Prediction
from dubio.models.decision import members
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store.inputs import StoredInput, encode
from dubio.serving.store.tables import Kept, State, answers, identifier, new_token, signatures

# Of a row, beside its input and its probabilities.
_ROW_BYTES = 1024


@dataclass(frozen=True)
class Signature:
    """What a model takes, and its classes.

    Attributes:
        name: Of the model.
        version: Of the model.
        spec: Of its input.
        classes: In the order of the probabilities.
    """

    name: str
    version: str
    spec: InputSpec
    classes: tuple[str, ...]

    @classmethod
    def of(cls, model: ServedModel) -> Signature:
        """That of a loaded model, which it does not keep alive."""
        return cls(model.name, model.version, model.facts.input, model.facts.classes)

    @cached_property
    def content(self) -> str:
        """As it is stored."""
        spec = self.spec
        columns = None if spec.columns is None else [column.name for column in spec.columns]
        document = {
            "classes": self.classes,
            "kind": spec.kind,
            "shape": spec.shape,
            "low": spec.low,
            "high": spec.high,
            "columns": columns,
        }
        return orjson.dumps(document).decode()

    @cached_property
    def digest(self) -> str:
        """By which rows name it."""
        return sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True)
class KeptRows:
    """Some of the rows of one request, apart from the others.

    Attributes:
        signature: Of the model that answered.
        request_id: Of the request.
        numbers: Of the rows in the request, ``[R]``.
        kept: Why each is kept.
        share: Of the rows that are not flagged are sampled.
        inputs: Raw, ``[R, ...]``.
        instances: JSON of what the caller sent, if that is no numbers.
        prediction: What was said about these rows, by name.
        reasons: Of the flags, if there are any.
        level: Of the flags.
        created_ms: When that was.
        token: Tells these rows from those of another request in the same millisecond.
    """

    table: ClassVar[Table] = answers
    parents: ClassVar[Table] = signatures

    signature: Signature
    request_id: str
    numbers: NDArray[np.int64]
    kept: list[Kept]
    share: float
    inputs: NDArray[np.float32]
    instances: list[bytes] | None
    prediction: Mapping[str, NDArray[Any]]
    reasons: list[str | None] | None
    level: float | None
    created_ms: int
    token: str

    @classmethod
    def of(
        cls,
        signature: Signature,
        request_id: str,
        numbers: NDArray[np.int64],
        kept: list[Kept],
        share: float,
        inputs: NDArray[np.float32],
        instance: Callable[[int], Any] | None,
        prediction: Prediction,
    ) -> KeptRows:
        """Take rows from a request and its answer; what is not taken is not kept in memory.

        Args:
            signature: Of the model that answered.
            request_id: Of the request.
            numbers: The rows to take.
            kept: Why each.
            share: Of the rows that are not flagged are sampled.
            inputs: Of all rows.
            instance: What the caller sent for a row, by its number, if that is no numbers.
            prediction: Of all rows.
        """
        every = len(numbers) == len(inputs)
        flags = prediction.flags
        return cls(
            signature,
            request_id,
            numbers,
            kept,
            share,
            inputs if every else inputs[numbers],
            None if instance is None else [orjson.dumps(instance(number)) for number in numbers.tolist()],
            {name: array[numbers] for name, array in _arrays(prediction).items()},
            None if flags is None else [flags.reasons[number] for number in numbers.tolist()],
            None if flags is None else flags.level,
            time.time_ns() // 1_000_000,
            new_token(),
        )

    def __len__(self) -> int:
        """How many rows."""
        return len(self.numbers)

    @property
    def nbytes(self) -> int:
        """Memory that they take, about."""
        texts = sum(map(len, self.instances or ()))
        return self.inputs.nbytes + sum(each.nbytes for each in self.prediction.values()) + texts + size(len(self), 0)

    @property
    def parent(self) -> Signature:
        """What all of them are about."""
        return self.signature

    def to_database(self, stored: StoredInput) -> Iterator[dict[str, Any]]:
        """The rows as the table `answers` has them, one after the other, since each takes a moment.

        Args:
            stored: How much of the inputs.
        """
        for row in range(len(self)):
            yield self._row(row, stored)

    def _row(self, row: int, stored: StoredInput) -> dict[str, Any]:
        said = {name: array[row] for name, array in self.prediction.items()}
        classes = self.signature.classes
        label, mc_label = int(said["label"]), said.get("mc_label")
        probabilities, mean = said["probabilities"], said.get("mean")
        held = said.get("label_set")
        arrays = {
            "probabilities": probabilities,
            "mean": mean,
            "std": said.get("std"),
            "label_set": None if held is None or mean is None else [classes[index] for index in members(held, mean)],
        }
        instance = None if self.instances is None else self.instances[row]
        given = encode(self.inputs[row], instance, self.signature.spec, stored)
        written = orjson.dumps(arrays, option=orjson.OPT_SERIALIZE_NUMPY)
        return {
            "id": identifier(self.created_ms, self.token, int(self.numbers[row])),
            "created_ms": self.created_ms,
            "request_id": self.request_id,
            "row_number": int(self.numbers[row]),
            "model": self.signature.name,
            "version": self.signature.version,
            "signature": self.signature.digest,
            "kept": self.kept[row].value,
            "share": self.share if self.kept[row] is Kept.SAMPLED else 1.0,
            "bytes": size(1, len(written) + len(given.content or b"")),
            "input_form": given.form.value,
            "input_sha256": given.digest,
            "input": given.content,
            "label": classes[label],
            "probability": float(probabilities[label]),
            "samples": int(said["samples"]),
            "mc_label": None if mc_label is None else classes[int(mc_label)],
            "mc_probability": None if mc_label is None or mean is None else float(mean[int(mc_label)]),
            **{name: None if name not in said else float(said[name]) for name in _MEASURES},
            "flagged": None if "flagged" not in said else bool(said["flagged"]),
            "p_value": None if "p_value" not in said else float(said["p_value"]),
            "level": self.level,
            "reason": None if self.reasons is None else self.reasons[row],
            "accepted": None if "accepted" not in said else bool(said["accepted"]),
            "arrays": written,
            "state": State.OPEN.value,
            "review_label": None,
            "reviewed_ms": None,
            "true_label": None,
            "feedback_ms": None,
        }


def size(rows: int, content: int) -> int:
    """Bytes that rows with so much content take, about."""
    return rows * _ROW_BYTES + content


_MEASURES = ("predictive_entropy", "expected_entropy", "mutual_information")


def _arrays(prediction: Prediction) -> dict[str, NDArray[Any]]:
    """What a prediction has by row, as far as it was computed."""
    arrays: dict[str, NDArray[Any] | None] = {
        "label": prediction.label,
        "probabilities": prediction.probabilities,
        "samples": np.full(len(prediction.label), prediction.samples),
    }
    if (monte_carlo := prediction.monte_carlo) is not None:
        arrays |= {"mc_label": monte_carlo.label, "mean": monte_carlo.mean, "std": monte_carlo.std}
        arrays |= {name: getattr(monte_carlo, name) for name in _MEASURES}
    if (flags := prediction.flags) is not None:
        arrays |= {"flagged": flags.flagged, "p_value": flags.p_value}
    if prediction.decisions:
        arrays["accepted"] = prediction.decisions[0].accepted
    if prediction.label_sets is not None:
        arrays["label_set"] = prediction.label_sets.contains
    return {name: array for name, array in arrays.items() if array is not None}

"""The example: an input that a model finds familiar, kept in its checkpoint to try the model with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dubio.models import InputSpec, Predictor
from dubio.models.checkpoint.explanation_record import Example
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.training.data.module import TensorDataModule

MOST_ROWS = 256  # that are looked at
LEAST_ROWS = 20  # of a class, so that its middle is nobody's row


def keep(predictor: Predictor, data: TensorDataModule, show: bool) -> Predictor:
    """The predictor with an example, if there is one.

    Args:
        predictor: Calibrated.
        data: Gives the rows.
        show: Whether one of them may be shown; if not, the example is the middle of a class.
    """
    record = predictor.explaining
    if record is None:
        return predictor
    rows, labels = data.raw("select") if show else _middles(*data.raw("train"), data.input)
    raw = choose(predictor, rows[:MOST_ROWS], labels[:MOST_ROWS])
    kept = None if raw is None else Example(raw=raw, source="held_out" if show else "typical")
    return replace(predictor, explaining=record.model_copy(update={"example": kept}))


def choose(predictor: Predictor, rows: Tensor, labels: Tensor) -> Tensor | None:
    """The row that is as familiar as half of all are, among those that both answers are right about and surest of.

    Args:
        predictor: Calibrated.
        rows: Raw ``[N, *shape]``.
        labels: ``[N]``.

    Returns:
        ``[*shape]``; None where no row is fit to be shown: all are flagged or wrong, or cannot be written down.
    """
    if not len(rows):
        return None
    prediction = predictor.predict(rows)
    if prediction.flagged is None or prediction.p_value is None:
        return None
    truth = labels.numpy()
    right = (prediction.label == truth) & (prediction.mc_label == truth) & ~prediction.flagged
    if prediction.accepted is not None and (right & prediction.accepted).any():
        right &= prediction.accepted
    places = np.flatnonzero(right)
    sure = prediction.mc_mean.max(-1)[places]
    places = places[sure >= np.median(sure)] if len(places) else places
    for place in places[np.argsort(np.abs(prediction.p_value[places] - 0.5), kind="stable")]:
        if _is_read_back(predictor.input, rows[place]):
            return rows[place].clone()
    return None


def _is_read_back(spec: InputSpec, raw: Tensor) -> bool:
    """Whether what is shown of an input is read as the same input."""
    shown = encoding.decode(spec, raw)
    try:
        read = encoding.check(spec, [shown] if spec.reader is not None else torch.tensor([shown]).view(1, *spec.shape))
    except InvalidInput:  # a text without a known word
        return False
    return torch.equal(read[0], raw)


def _middles(rows: Tensor, labels: Tensor, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """The middle of each class that has enough rows, ``[M, *shape]``, and its label; none of texts."""
    found = [
        (_middle(rows[labels == label], spec), label)
        for label in labels.unique().tolist()
        if spec.kind != "text" and int((labels == label).sum()) >= LEAST_ROWS
    ]
    middles = torch.stack([middle for middle, _ in found]) if found else rows[:0]
    return middles, torch.tensor([label for _, label in found], dtype=torch.int64)


def _middle(rows: Tensor, spec: InputSpec) -> Tensor:
    """The median of each number; of a table's columns that of the values there are, or the most frequent name."""
    if spec.columns is None:
        return rows.median(0).values
    parts = []
    for column, part in zip(spec.columns, rows.split([len(each.features) for each in spec.columns], 1), strict=True):
        middle = torch.zeros(part.shape[1])
        if column.kind == "numeric":
            there = part[part[:, 1] == 0] if column.missing else part
            middle[0] = (there if len(there) else part)[:, 0].median()
        else:
            middle[int(part.sum(0).argmax())] = 1
        parts.append(middle)
    return torch.cat(parts)

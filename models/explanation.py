"""The explanation: why an input was flagged, or was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubio.models.checkpoint.explanation_record import ExplanationRecord, bank_of
from dubio.models.inputs import encoding
from dubio.models.inputs.spec import InputSpec
from dubio.models.inputs.text import Tokens
from dubio.uncertainty import Detector, DeterministicPass
from dubio.uncertainty.detection.mahalanobis import InputMahalanobis
from dubio.uncertainty.detection.single_scores import SingleScores

MOST_COLUMNS = 10
MOST_NEIGHBOURS = 5
MOST_NUMBERS = 3 * 64 * 64  # of an example
MADE_UP = "made_up"


@dataclass(frozen=True)
class ColumnContribution:
    """What one column adds to an input's squared distance from the training rows.

    With z the normalised input less the mean of the training rows, and S their covariance, the squared distance is
    z^T S^-1 z, and the column's part of it the sum of z_i (S^-1 z)_i over its numbers i.

    Attributes:
        name: Of the column; of inputs that are plain numbers the place, counted from 0.
        contribution: In the units of the squared distance; below 0 where the column makes others look likelier.
    """

    name: str
    contribution: float


@dataclass(frozen=True)
class Neighbour:
    """A training row that looks to the network most like the input.

    Attributes:
        row: Its number in the source of the fit, counted from 0.
        distance: Between the features of both, each of length 1, so in [0, 2].
        text: As the model reads it, if the checkpoint keeps it.
        thumbnail_CHW: If the checkpoint keeps it; from 0 (smallest value of the training rows) to 255 (largest).
    """

    row: int
    distance: float
    text: str | None
    thumbnail_CHW: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Explanation:
    """Why one input was flagged, or was not. What the model or the checkpoint does not offer is None.

    Attributes:
        checkpoint: Whose answer is explained, of an ensemble: the one that found the input strangest, counted from 1.
        scores: The p-value that each score alone would have; not part of the promise, see `SingleScores`.
        squared_distance: Of a table's row from the training rows; see `ColumnContribution`.
        columns: Those that add most to it, the largest first.
        neighbours: Of an image or a text the nearest training rows of those that are kept, the nearest first.
    """

    checkpoint: int | None = None
    scores: dict[str, float] | None = None
    squared_distance: float | None = None
    columns: tuple[ColumnContribution, ...] | None = None
    neighbours: tuple[Neighbour, ...] | None = None


def explain(
    detector: Detector,
    record: ExplanationRecord | None,
    spec: InputSpec,
    seen: DeterministicPass,
    ranks_BS: NDArray[np.float64],
) -> list[Explanation]:
    """Explain what a detector said about B inputs.

    Args:
        detector: Whose verdict it was.
        record: What the checkpoint keeps for it.
        spec: What one input is.
        seen: The deterministic pass over the inputs.
        ranks_BS: Of the inputs by each score, as the verdict had them.
    """
    explanations = [Explanation() for _ in ranks_BS]
    names = _columns(spec)
    gaussian = next((score for score in detector.scores if isinstance(score, InputMahalanobis)), None)
    if names is not None and gaussian is not None:
        parts_BF = gaussian.contributions(seen.inputs_BF).cpu()
        widths = [width for _, width in names]
        parts_BN = torch.stack([part.sum(1) for part in parts_BF.split(widths, dim=1)], dim=1)
        distances = parts_BF.sum(1).tolist()
        for row, (parts_N, distance) in enumerate(zip(parts_BN, distances, strict=True)):
            columns = _largest(parts_N, [name for name, _ in names])
            explanations[row] = replace(explanations[row], squared_distance=distance, columns=columns)
    if record is None:
        return explanations
    p_values_SB = SingleScores(record.ranks).p_values(torch.from_numpy(ranks_BS).T)
    for row, p_values in enumerate(p_values_SB.T.tolist()):
        alone = {score.name: p_value for score, p_value in zip(detector.scores, p_values, strict=True)}
        explanations[row] = replace(explanations[row], scores=alone)
    bank = bank_of(detector)
    if bank is not None and record.rows is not None and spec.kind in ("image", "text"):
        places_BK, distances_BK = (each.cpu() for each in bank.nearest(seen.features(), MOST_NEIGHBOURS))
        for row, (places_K, distances_K) in enumerate(zip(places_BK, distances_BK, strict=True)):
            near = zip(places_K.tolist(), distances_K.tolist(), strict=True)
            neighbours = tuple(_neighbour(record, spec, place, distance) for place, distance in near)
            explanations[row] = replace(explanations[row], neighbours=neighbours)
    return explanations


def _columns(spec: InputSpec) -> list[tuple[str, int]] | None:
    """Names of columns, and how many numbers each is encoded as; None for inputs that have none."""
    if spec.columns is not None:
        return [(column.name, len(column.features)) for column in spec.columns]
    return [(str(place), 1) for place in range(spec.shape[0])] if spec.kind == "numbers" else None


def _largest(parts_N: Tensor, names: Sequence[str]) -> tuple[ColumnContribution, ...]:
    order = parts_N.argsort(descending=True, stable=True)[:MOST_COLUMNS].tolist()
    return tuple(ColumnContribution(names[place], float(parts_N[place])) for place in order)


def _neighbour(record: ExplanationRecord, spec: InputSpec, place: int, distance: float) -> Neighbour:
    text = thumbnail_CHW = None
    if record.examples is not None and place < len(record.examples):
        if isinstance(spec.reader, Tokens):
            text = spec.reader.join(record.examples[place].tolist())
        else:
            thumbnail_CHW = record.examples[place].numpy()
    return Neighbour(int(record.rows[place]), distance, text, thumbnail_CHW)


def example(record: ExplanationRecord | None, spec: InputSpec) -> tuple[Any, str]:
    """An input to try the model with, as a user would send it, and where it comes from: ``held_out`` or ``typical``,
    see `Example`, or else ``made_up``, which may well be strange. None where it is too large to be read."""
    kept = None if record is None else record.example
    if kept is None or (spec.reader is None and kept.raw.numel() > MOST_NUMBERS):
        return encoding.example(spec), MADE_UP
    return encoding.decode(spec, kept.raw), kept.source


def describe_examples(record: ExplanationRecord | None, spec: InputSpec) -> dict[str, str | int] | None:
    """What of the training rows the checkpoint shows to who asks for explanations; None if nothing."""
    if record is None or record.examples is None:
        return None
    examples = record.examples
    what = "texts" if spec.kind == "text" else "thumbnails"
    return {"what": what, "rows": len(examples), "bytes": examples.numel() * examples.element_size()}

"""Batches: one class that loads a model once and maps columns to columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dubio.models import Ensemble, Prediction, Predictor, Samples, answer_table, load, warmup
from dubio.models.answer_table import FIELDS, Columns
from dubio.models.batch_invariance import TRIED_ROWS
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.models.memory import exhausted
from dubio.scale.encode import Encoder, alone
from dubio.uncertainty.precision import refuse_tf32

ERROR = "error"
MOST_ROWS = 256
# Of raw inputs that are encoded at a time.
MOST_BYTES = 2**26


@dataclass(frozen=True)
class Scored:
    """What a model says about the rows of a batch.

    Attributes:
        answers: Of the rows that it takes.
        good: Which these are.
        errors: Of each row why it does not take it; None where it does.
    """

    answers: Columns
    good: NDArray[np.intp]
    errors: list[str | None]


class ScoreBatch:
    """Answers batches of rows as the service does: both answers, measures, flag, label set and decision.

    A batch is a dict of arrays of equal length, and so is what comes back: the columns of the batch that the model does
    not take, unchanged, and those of the answer, called like the fields of the service's answer
    (`deterministic.label`, `mc.mean.<class>`, `ood.flagged`, ...). `ray.data.Dataset.map_batches` takes the class as it
    is.

    A model of a table takes a column for each of its own; a model of texts `text`; others `x`, an array or lists of the
    model's shape, or, for images, `bytes`, those of an image file.

    Args:
        checkpoint: Path of a calibrated checkpoint; several are one ensemble.
        field: Column with the inputs, where it is called otherwise.
        samples: How many members answer; by default all.
        bad_rows: What to do about a row that the model does not take: `stop`, or `mark` it in a column `error`, which
            is None for the others, and leave its answer empty.
        device: Where the model runs: `cpu`, `cuda` or `cuda:N`.
        trusted: Module prefixes of networks of your own that the checkpoint may name.
        strategy: How members are run; by default the fastest way, found by measuring.
        batch_invariant: Whether the members' answers are the same to the last bit whatever rows share a batch;
            deterministic ones are so anyway.

    Raises:
        ModelError: If the checkpoint cannot be loaded, or its model not ask so many members.
    """

    def __init__(
        self,
        checkpoint: str | Path | Sequence[str | Path],
        *,
        field: str | None = None,
        samples: Samples = None,
        bad_rows: Literal["stop", "mark"] = "stop",
        device: str = "cpu",
        trusted: Sequence[str] = (),
        strategy: str | None = None,
        batch_invariant: bool = False,
    ) -> None:
        refuse_tf32()
        paths = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
        predictors = [
            _steady(load(path, device=device, trusted=trusted, strategy=strategy), batch_invariant) for path in paths
        ]
        self.predictor: Predictor | Ensemble = predictors[0] if len(predictors) == 1 else Ensemble.build(predictors)
        self.encoder = Encoder(self.predictor.input, field)
        self.samples, self._stops = samples, bad_rows == "stop"
        # Which refuses a number of members that the model cannot ask.
        blank = self.predictor.predict(encoding.noise(self.predictor.input, 1), samples=samples)
        self._nothing = answer_table.columns(blank.rows(0, 0), self.predictor.classes)

    @property
    def most_rows(self) -> int:
        """So many rows are best asked about at a time."""
        return max(1, min(MOST_ROWS, MOST_BYTES // (4 * int(np.prod(self.predictor.input.shape)))))

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Columns:
        """Answer a batch.

        Args:
            batch: One value a row in each column.

        Raises:
            InvalidInput: A column is absent or called like one of the answer's; or, unless bad rows are marked, the
                model does not take a row.
        """
        inputs = self.encoder.names(batch)
        carried = {name: values for name, values in batch.items() if name not in inputs}
        for name in carried:
            refuse_name(name)
        rows = len(batch[inputs[0]])
        scored = self.score({name: batch[name] for name in inputs}, [None] * rows)
        bad = [row for row, error in enumerate(scored.errors) if error is not None]
        if bad and self._stops:
            raise InvalidInput(f"Row {bad[0]} of the batch: {scored.errors[bad[0]]}")
        answers = scored.answers if not bad else {n: _spread(v, scored.good, rows) for n, v in scored.answers.items()}
        marks = {} if self._stops else {ERROR: np.array(scored.errors, dtype=object)}
        return {**carried, **answers, **marks}

    def score(self, inputs: Mapping[str, NDArray[Any]], errors: Sequence[str | None]) -> Scored:
        """Answer the rows that the model takes.

        Args:
            inputs: The columns that the model takes.
            errors: Of each row why it is not even to be read; None where it is.

        Raises:
            InvalidInput: A column is absent.
        """
        found = list(errors)
        raw = self.encoder.read(inputs, found)
        rows = np.flatnonzero([error is None for error in found])
        answered: list[Prediction] = []
        good: list[NDArray[np.intp]] = []
        for start in range(0, len(raw), self.most_rows):
            part = slice(start, start + self.most_rows)
            for kept, prediction in self._predict(raw[part], rows[part], found):
                good.append(kept)
                answered.append(prediction)
        if not answered:
            return Scored(self._nothing, np.zeros(0, dtype=np.intp), found)
        answers = answer_table.columns(Prediction.join(answered), self.predictor.classes)
        return Scored(answers, np.concatenate(good), found)

    def _predict(
        self, raw: NDArray[np.float32], rows: NDArray[np.intp], errors: list[str | None]
    ) -> list[tuple[NDArray[np.intp], Prediction]]:
        """Answer raw inputs; in halves where one of them overflows the network, or all take too much memory."""
        try:
            return [(rows, self.predictor.predict(raw, samples=self.samples))]
        except Exception as error:
            if isinstance(error, InvalidInput) and len(raw) == 1:
                errors[rows[0]] = alone(error)
                return []
            if len(raw) == 1 or not (isinstance(error, InvalidInput) or exhausted(error)):
                raise
        middle = len(raw) // 2
        halves = (slice(middle), slice(middle, None))
        return [each for half in halves for each in self._predict(raw[half], rows[half], errors)]


def refuse_name(name: str) -> None:
    """Refuse to carry over a column that is called like one of the answer's.

    Raises:
        InvalidInput: If it is.
    """
    if name.split(".", maxsplit=1)[0] in FIELDS or name == ERROR:
        raise InvalidInput(
            f"Expected columns that no answer has to be carried over, but got {name!r}: answers have `row`, `{ERROR}` "
            f"and what begins with {', '.join(FIELDS[1:])}; rename it."
        )


def _steady(predictor: Predictor, members: bool) -> Predictor:
    """As the service answers, whatever rows share a batch."""
    return predictor.batch_invariant(members, min(max(TRIED_ROWS), warmup.most_rows(predictor)))


def _spread(values: NDArray[Any], good: NDArray[np.intp], rows: int) -> NDArray[Any]:
    """The values at the places of their rows, with nothing at those of the others."""
    kind = values.dtype.kind
    spread = np.full(rows, np.nan if kind == "f" else None, dtype=values.dtype if kind == "f" else object)
    spread[good] = values
    return spread

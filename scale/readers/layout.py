"""Which columns of a file are a model's inputs, and which are carried over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput, did_you_mean
from dubio.models.inputs.tabular import Table
from dubio.scale.batch import refuse_name
from dubio.scale.encode import ARRAY, Encoder
from dubio.scale.readers.rows import Reading


@dataclass(frozen=True)
class Layout:
    """The columns of a file.

    Attributes:
        inputs: That are read.
        spread: Whether each holds one number of the input, row-major, and all together are the model's `x`.
    """

    inputs: tuple[str, ...]
    spread: bool = False

    @classmethod
    def of(
        cls,
        held: Sequence[str],
        spec: InputSpec,
        reading: Reading,
        spreads: bool = False,
        always: Sequence[str] | None = None,
    ) -> Self:
        """The columns that a model takes.

        Args:
            held: Names of all columns, tidied.
            spec: What the model takes.
            reading: How the file is read.
            spreads: Whether the numbers of an input may be in columns of their own.
            always: Those that all rows have; by default all.

        Raises:
            InvalidInput: If a column is absent, or one is there that the model does not know.
        """
        for name in reading.ids:
            refuse_name(name)
            if name not in held:
                cure = did_you_mean(name, held, f"there are {', '.join(map(repr, held[:20]))}.")
                raise InvalidInput(f"Expected a column {name!r} to carry over, but there is none; {cure}")
        free = [
            name
            for name in (held if always is None else always)
            if name not in reading.ids and name not in reading.ignore
        ]
        if spreads and reading.field is None and spec.kind in ("image", "numbers") and ARRAY not in held:
            numbers = math.prod(spec.shape)
            if len(free) != numbers:
                raise InvalidInput(
                    f"Expected {numbers} columns of numbers, of shape {list(spec.shape)} in row-major order, but got "
                    f"{len(free)}: {', '.join(map(repr, free[:5]))}{', ...' if len(free) > 5 else ''}; carry the "
                    "others over with --ids, or leave them aside with --ignore."
                )
            return cls(tuple(free), spread=True)
        inputs = Encoder(spec, reading.field).names(held)
        layout = cls(inputs)
        problem = layout.unknown(free) if isinstance(spec.reader, Table) else None
        if problem is not None:
            raise InvalidInput(problem)
        return layout

    def unknown(self, names: Sequence[str]) -> str | None:
        """What is wrong with columns beside those that are carried over or left aside; None if nothing is."""
        others = [name for name in names if name not in self.inputs]
        if not others:
            return None
        cure = did_you_mean(others[0], self.inputs, f"it has {', '.join(map(repr, self.inputs[:20]))}.")
        return (
            f"Expected no column that the checkpoint does not have, but got {', '.join(map(repr, others[:20]))}; carry "
            f"it over with --ids {others[0]!r}, or leave it aside with --ignore {others[0]!r}; {cure}"
        )

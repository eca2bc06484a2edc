"""The input spec: what one input is, as the user has it, and how it becomes what the network eats."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dubio.models.inputs.reader import Reader
from dubio.models.inputs.tabular import MAX_COLUMNS, Column, Table, width
from dubio.models.inputs.text import TokenizerSpec, Tokens
from dubio.models.spec import MAX_LIST, MAX_STRING, DataValue, Finite, StrictModel

MAX_INPUT = 2**24  # numbers in one input

# A model whose training values went no further than this was not trained on the bytes of image files.
_LEAST_HIGH = 128
_FILE_CHANNELS = (1, 3)  # of grey and of coloured files

# Axes of one input, without the batch.
_AXES = {"image": 3, "numbers": 1, "table": 1, "text": 1}


class ImageFiles(StrictModel):
    """How the image files of a training set became pixels, see `dubio.models.inputs.image`.

    Attributes:
        resize: ``bilinear`` (with antialiasing, each side by itself) if they were brought to one size; None if all had
            it, and no other is taken.
    """

    resize: Literal["bilinear"] | None


class InputSpec(StrictModel):
    """What one input is.

    A *raw* input is always an array of numbers: pixels, a row, the encoded columns of a table's row, or the tokens of a
    text. What a user has instead of numbers is read by `reader`.

    Attributes:
        kind: ``image`` (channels first), ``numbers`` (one row), ``table`` (named columns) or ``text``.
        shape: Of one raw input, without the batch axis.
        mean: Subtracted, one a channel (image), one a number or encoded column, and 0 for text; fitted on the training
            split.
        std: Divided by, as ``mean``; positive, and 1 for text.
        low: Smallest raw value in the training split; for text the first token.
        high: Largest raw value in the training split; for text the last token.
        columns: Of a table; None for everything else.
        missing: Texts that stand for a missing value in a table's rows.
        tokenizer: Of a text; None for everything else.
        files: Of images that were read from image files; None for everything else.
    """

    kind: Literal["image", "numbers", "table", "text"]
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=8)]
    mean: tuple[Finite, ...]
    std: tuple[Annotated[Finite, Field(gt=0)], ...]
    low: DataValue
    high: DataValue
    columns: Annotated[list[Column], Field(min_length=1, max_length=MAX_COLUMNS)] | None = None
    missing: Annotated[tuple[Annotated[str, Field(max_length=MAX_STRING)], ...], Field(max_length=MAX_LIST)] = ()
    tokenizer: TokenizerSpec | None = None
    files: ImageFiles | None = None

    @cached_property
    def reader(self) -> Reader | None:
        """What reads instances as a user has them; None for numbers and images, which are numbers already."""
        if self.columns is not None:
            return Table(self.columns, self.missing)
        return None if self.tokenizer is None else Tokens(self.tokenizer)

    @property
    def no_files(self) -> str | None:
        """Why image files are not taken; None if they are."""
        if self.kind != "image":
            return "this model takes rows of numbers"
        if self.shape[0] not in _FILE_CHANNELS:
            return f"this model takes images of {self.shape[0]} channels"
        if self.files is None and not (self.low >= 0 and _LEAST_HIGH <= self.high <= 255):
            return (
                f"values in a file go from 0 to 255, and this model was trained on values from {self.low:g} to "
                f"{self.high:g}, so send such numbers"
            )
        return None

    @property
    def resizes(self) -> bool:
        """Whether image files of another size are brought to the model's, as those of the training were."""
        return self.files is not None and self.files.resize is not None

    def describe(self) -> dict[str, Any]:
        """Everything a user may want to know, as plain data; of a tokenizer's words, how many there are."""
        described = self.model_dump(mode="json", exclude={"tokenizer"})
        spec = self.tokenizer
        described["tokenizer"] = spec and {
            "kind": spec.kind,
            "vocabulary": len(spec.vocabulary),
            "lowercase": spec.lowercase,
            "length": spec.length,
        }
        return described

    @field_validator("shape", "mean", "std", "missing", mode="before")
    @classmethod
    def _list_as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if len(self.shape) != _AXES[self.kind] or math.prod(self.shape) > MAX_INPUT:
            raise ValueError(
                f"Expected the shape of {self.kind} input to have {_AXES[self.kind]} axes and at most {MAX_INPUT} "
                f"numbers, but got {list(self.shape)}."
            )
        scales = 1 if self.kind == "text" else self.shape[0]
        if not len(self.mean) == len(self.std) == scales:
            raise ValueError(
                f"Expected one mean and one std for each of {scales} along the first axis, but got "
                f"{len(self.mean)} and {len(self.std)}."
            )
        if self.low > self.high:
            raise ValueError(f"Expected low <= high, but got {self.low} and {self.high}.")
        for kind, part, size in (
            ("table", "columns", None if self.columns is None else width(self.columns)),
            ("text", "tokenizer", None if self.tokenizer is None else self.tokenizer.length),
        ):
            if (size is not None) != (self.kind == kind):
                raise ValueError(f"Expected `{part}` for {kind} input and for no other, but the input is {self.kind}.")
            if size is not None and self.shape != (size,):
                raise ValueError(
                    f"Expected the shape to be the width of `{part}`, [{size}], but got {list(self.shape)}."
                )
        if self.files is not None and (self.kind != "image" or self.shape[0] not in _FILE_CHANNELS):
            raise ValueError(f"Expected `files` for grey and RGB images alone, but got {self.kind} {list(self.shape)}.")
        if self.columns is not None and len({column.name for column in self.columns}) < len(self.columns):
            raise ValueError("Expected every column once.")
        if self.tokenizer is not None and (self.low, self.high) != (0, len(self.tokenizer.vocabulary) - 1):
            raise ValueError(
                f"Expected low and high to be the first and the last token, but got {self.low} and {self.high}."
            )
        return self

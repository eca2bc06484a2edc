"""The data record: what a checkpoint says about its data, so that no command measures a trained row or encodes anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from dubio.models.inputs.spec import InputSpec
from dubio.models.spec import MAX_LIST, Name, StrictModel

KEY = "dubio_data"  # in a checkpoint of a fit; a servable one has the same under its own key

Classes = Annotated[list[Name], Field(min_length=2, max_length=100_000)]


class Division(StrictModel):
    """Which row of a source went where.

    It takes 16 bytes a row: less than an input of five numbers, and far less than the features that the detector keeps
    of each training row.

    Attributes:
        data: Name of the source.
        settings: That divided and encoded the rows, such as seed and fractions, as plain data.
        rows: Row numbers in the source by split, int64 ``[N]``, in the order in which they were used.
        digests: Of the same rows' inputs, without their labels, int64 ``[N]``: equal inputs have equal digests.
    """

    data: Name
    settings: Annotated[dict[Name, Any], Field(max_length=MAX_LIST)]
    rows: Annotated[dict[Name, Any], Field(min_length=1, max_length=MAX_LIST)]
    digests: Annotated[dict[Name, Any], Field(min_length=1, max_length=MAX_LIST)]

    @field_validator("rows", "digests")
    @classmethod
    def _integers(cls, parts: dict[str, Any]) -> dict[str, Any]:
        for name, part in parts.items():
            if not isinstance(part, Tensor) or part.dtype != torch.int64 or part.ndim != 1:
                raise ValueError(f"Expected {name!r} to be an int64 tensor with one axis.")
        return parts

    @model_validator(mode="after")
    def _consistent(self) -> Division:
        lengths = {name: len(part) for name, part in self.rows.items()}
        if lengths != {name: len(part) for name, part in self.digests.items()}:
            raise ValueError("Expected a digest for each row.")
        rows = torch.cat(list(self.rows.values()))
        if (rows < 0).any() or len(rows.unique()) < len(rows):
            raise ValueError("Expected every row number once, counted from 0.")
        return self


Divisions = Annotated[list[Division], Field(max_length=2)]


class DataRecord(StrictModel):
    """What a checkpoint says about its data.

    Attributes:
        input: What one input is, and how it is encoded.
        classes: Names, in the order of the logits.
        divisions: Of the rows of the fit, and then of those of a calibration on another source, if there was one.
    """

    input: InputSpec
    classes: Classes
    divisions: Divisions

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> DataRecord:
        """From a dict that also holds other things.

        Raises:
            ValidationError: If it is not what it should be.
        """
        return cls.model_validate({name: held.get(name) for name in cls.model_fields})

"""Fields: the bounds and types that every part of a spec is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_LIST = 256
MAX_DEPTH = 4
MAX_STRING = 256
MAX_INPUT = 2**24  # numbers in one input

Name = Annotated[str, Field(min_length=1, max_length=MAX_STRING)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Plain(BaseModel):
    """Base of every part of a spec: immutable, no unknown key, no coercion of one type into another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

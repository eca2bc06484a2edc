"""The spec: what a checkpoint says about its network, in plain data that is validated before anything is built."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, field_validator

MAX_LIST = 256
MAX_DEPTH = 4
MAX_STRING = 256
MAX_SITES = 2**12

Name = Annotated[str, Field(min_length=1, max_length=MAX_STRING)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1)]


_WRITTEN = 12  # so many characters have the numbers that people write, and none that float32 made of them


def shortest(value: float) -> float:
    """The shortest decimal that float32 reads as the same number: 44.45 for 44.45000076293945; others as they are.

    So are whole numbers and those that a reader would write out, such as 2600000.25.
    """
    if value.is_integer() or len(repr(value)) <= _WRITTEN:
        return value
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else value


# A value of the data: kept as it is, and shown as a reader would write it.
DataValue = Annotated[Finite, PlainSerializer(shortest, when_used="json")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StrictModel(BaseModel):
    """Base of every part of a spec: immutable, no unknown key, no coercion of one type into another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def describe_validation_error(error: ValidationError, prefix: str = "") -> str:
    """The first thing that is wrong, for a reader: the field with its dots, and the rule.

    Args:
        error: As pydantic raises it.
        prefix: Keys that lead to what was validated, such as ``model.init_args``.

    Returns:
        Text such as "`dubio.committee.seed`: Input should be greater than or equal to 0".
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, ((prefix,) if prefix else ()) + first["loc"]))
    return f"`{field}`: {first['msg']}"


class NetworkSpec(StrictModel):
    """Which network, with which arguments.

    Attributes:
        class_path: A name of the registry, or a class of a module that the operator trusts.
        init_args: Numbers, booleans, short strings, and short lists and dicts of them; never a path, a URL or a class.
    """

    class_path: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=MAX_STRING)]
    init_args: dict[str, Any]

    @field_validator("init_args")
    @classmethod
    def _plain_arguments(cls, init_args: dict[str, Any]) -> dict[str, Any]:
        if len(init_args) > MAX_LIST:
            raise ValueError(f"Expected at most {MAX_LIST} arguments, but got {len(init_args)}.")
        for name, value in init_args.items():
            _check_plain(value, f"init_args.{name}", MAX_DEPTH)
        return init_args


class SiteSpec(StrictModel):
    """One dropout site, see `dubio.uncertainty.Site`."""

    kind: Name
    p: Rate
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=8)]


class CommitteeSpec(StrictModel):
    """How to draw the committee again, and how to know that it is the same one.

    Attributes:
        num_samples: K.
        seed: Of the mask generator.
        sites: Those that the network had when the checkpoint was calibrated.
        fingerprint: SHA-256 over sites and masks.
        mc_sites: Names, patterns or kinds of the sites that were chosen; None for all.
        mc_rates: Rates by name, pattern or kind that override those of the training; None for no other.
    """

    num_samples: Annotated[int, Field(ge=2, le=4096)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    sites: Annotated[list[SiteSpec], Field(min_length=1, max_length=MAX_SITES)]
    fingerprint: Sha256
    mc_sites: Annotated[list[Name], Field(min_length=1, max_length=MAX_LIST)] | None = None
    mc_rates: Annotated[dict[Name, Rate], Field(min_length=1, max_length=MAX_LIST)] | None = None


class Temperature(StrictModel):
    """Temperatures that divide the logits before softmax; 1 changes nothing.

    Attributes:
        deterministic: For the deterministic prediction.
        mc: For every member.
    """

    deterministic: Annotated[Finite, Field(gt=0)] = 1.0
    mc: Annotated[Finite, Field(gt=0)] = 1.0


class Tuning(StrictModel):
    """How the committee's rates were tuned.

    Attributes:
        factor: That all rates were multiplied by.
        factors: That were tried.
        nll: Mean negative log-likelihood of each, in nats, at its best temperature.
        rows: How many rows judged.
        split: Which they are from.
        date: ISO 8601 in UTC.
    """

    factor: Annotated[Finite, Field(gt=0)]
    factors: Annotated[list[Finite], Field(min_length=1, max_length=MAX_LIST)]
    nll: Annotated[list[Finite], Field(min_length=1, max_length=MAX_LIST)]
    rows: Annotated[int, Field(ge=1)]
    split: Name
    date: Name


class Measured(StrictModel):
    """Figures of a model on rows that it was neither trained nor calibrated on.

    Attributes:
        rows: How many there were.
        accuracy: Of the deterministic predictions.
        mc_accuracy: Of the members' mean.
        flagged: Share of them that was flagged, which are false alarms.
    """

    rows: Annotated[int, Field(ge=1)]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    mc_accuracy: Annotated[float, Field(ge=0, le=1)]
    flagged: Annotated[float, Field(ge=0, le=1)]


class Provenance(StrictModel):
    """Where a model comes from.

    Attributes:
        data: Name of the data set.
        data_sha256: Over the calibration rows.
        weights_sha256: Over the parameters and buffers, see `dubio.models.checkpoint.state_dict.sha256`.
        date: Of the calibration, ISO 8601 in UTC.
        versions: Of dubio, torch, pytorch-lightning and Python.
        tuning: How the committee's rates were tuned; None if they were not.
        measured: On the test split; None if that was not done.
    """

    data: Name
    data_sha256: Sha256
    weights_sha256: Sha256
    date: Name
    versions: dict[str, str]
    tuning: Tuning | None = None
    measured: Measured | None = None


def _check_plain(value: object, where: str, depth: int) -> None:
    if isinstance(value, list | tuple):
        if depth == 0 or len(value) > MAX_LIST:
            raise ValueError(f"Expected `{where}` to nest at most {MAX_DEPTH} lists of at most {MAX_LIST} values.")
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]", depth - 1)
    elif isinstance(value, dict):
        if depth == 0 or len(value) > MAX_LIST:
            raise ValueError(f"Expected `{where}` to nest at most {MAX_DEPTH} dicts of at most {MAX_LIST} values.")
        for key, item in value.items():
            if not isinstance(key, str) or not key.isidentifier() or len(key) > MAX_STRING:
                raise ValueError(f"Expected the keys of `{where}` to be plain names, but got {str(key)[:80]!r}.")
            _check_plain(item, f"{where}.{key}", depth - 1)
    elif isinstance(value, str):
        # A name such as "mean" is plain; what could be resolved to a file, a URL or a class is not.
        if not value.replace("_", "").replace("-", "").isalnum() or len(value) > MAX_STRING:
            raise ValueError(f"Expected `{where}` to be a number or a plain name, but got {value[:80]!r}.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"Expected `{where}` to be finite, but got {value}.")
    elif value is not None and not isinstance(value, bool | int):
        raise ValueError(
            f"Expected `{where}` to be a number, a boolean, a plain name, or a list or a dict of them, but got "
            f"{type(value).__name__}."
        )

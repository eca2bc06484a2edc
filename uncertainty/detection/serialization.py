"""Plain state: fitted dataclasses as dicts of numbers and tensors, and back, distrusting what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from dubio.uncertainty.detection.adaptive import AdaptiveSampling, Stage
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.detector import DISTANCES, OUTPUT_SCORES, Detector, Part
from dubio.uncertainty.detection.ecdf import Ranks
from dubio.uncertainty.errors import NotFitted, UncertaintyError

STOPPING_VERSION = 1
_NUMBERS = ("members", "below", "above", "clearance")  # of a stage, beside its ranks

Fitted = TypeVar("Fitted")


def dump(fitted: Any) -> dict[str, Any]:
    """The fields of a fitted dataclass by name."""
    return {field.name: getattr(fitted, field.name) for field in fields(fitted)}


def load(kind: type[Fitted], state: object, where: str) -> Fitted:
    """Build a fitted dataclass from its dumped fields.

    A tensor field's name ends in its axes (``bank_NF``), so the name says how many axes are due.

    Args:
        kind: a dataclass with fields of type Tensor, int or float.
        state: what a file holds; anything.
        where: names the state in errors.

    Raises:
        UncertaintyError: a field is missing, unknown, of the wrong type or number of axes, or not finite.
    """
    names = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(state, Mapping) or set(state) != set(names):
        found = sorted(map(_describe, state)) if isinstance(state, Mapping) else _describe(state)
        raise UncertaintyError(f"Expected `{where}` to be a dict with the keys {sorted(names)}, but got {found}.")
    for name, kind_name in names.items():
        _check(state[name], kind_name, name, f"{where}.{name}")
    return kind(**state)


def _check(value: object, kind_name: str, name: str, where: str) -> None:
    if kind_name == "Tensor":
        axes = len(name.rsplit("_", 1)[-1])
        if not isinstance(value, Tensor) or not _is_plain(value) or value.ndim != axes or not value.numel():
            found = _describe(value)
            raise UncertaintyError(
                f"Expected `{where}` to be a dense float32 or float64 tensor with {axes} axes, but got {found}."
            )
        if not bool(torch.isfinite(value).all()):
            raise UncertaintyError(f"Expected `{where}` to be finite, but got NaN or infinity.")
    elif isinstance(value, bool) or not isinstance(value, int if kind_name == "int" else float):
        raise UncertaintyError(f"Expected `{where}` to be of type {kind_name}, but got {_describe(value)}.")
    elif isinstance(value, int) and value.bit_length() > 63:
        raise UncertaintyError(f"Expected `{where}` to fit into 64 bits, but it has {value.bit_length()}.")


def _is_plain(tensor: Tensor) -> bool:
    """Whether every element is a float that was really stored: a stride of 0 makes gigabytes out of one number."""
    return (
        type(tensor) is Tensor
        and tensor.dtype in (torch.float32, torch.float64)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_meta
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _describe(value: object) -> str:
    # Never the repr of just anything: that of a very large integer, for one, is refused by Python itself.
    if isinstance(value, Tensor):
        return f"{value.dtype} {'nested' if value.is_nested else list(value.shape)} ({value.layout})"
    return repr(value[:80]) if isinstance(value, str) else type(value).__name__


def dump_detector(detector: Detector) -> dict[str, Any]:
    """The parts of a detector as plain data; its calibration is dumped on its own."""
    return {
        "parts": [
            {
                "name": part.name,
                "ranks": dump(part.ranks),
                "fitted": None if part.fitted is None else dump(part.fitted),
            }
            for part in detector.parts
        ]
    }


def load_detector(state: object, where: str = "detector") -> Detector:
    """Build a detector, not calibrated, from its dumped parts.

    Raises:
        UncertaintyError: the state is not what :func:`dump_detector` gives.
    """
    parts = state.get("parts") if isinstance(state, Mapping) else None
    if not isinstance(parts, list) or not parts:
        raise UncertaintyError(
            f"Expected `{where}.parts` to be a list of at least one part, but got {_describe(parts)}."
        )
    loaded = tuple(_load_part(part, f"{where}.parts[{index}]") for index, part in enumerate(parts))
    names = [part.name for part in loaded]
    if len(set(names)) != len(names):
        raise UncertaintyError(f"Expected `{where}.parts` to have different names, but got {names[:10]}.")
    return Detector(loaded)


def _load_part(state: object, where: str) -> Part:
    if not isinstance(state, Mapping) or set(state) != {"name", "ranks", "fitted"}:
        raise UncertaintyError(f"Expected `{where}` to be a dict with the keys ['fitted', 'name', 'ranks'].")
    name = state["name"]
    ranks = load(Ranks, state["ranks"], f"{where}.ranks")
    if isinstance(name, str) and name in DISTANCES:
        return Part(name, ranks, load(DISTANCES[name], state["fitted"], f"{where}.fitted"))
    if isinstance(name, str) and name in OUTPUT_SCORES and state["fitted"] is None:
        return Part(name, ranks, None)
    known = [*DISTANCES, *OUTPUT_SCORES]
    raise UncertaintyError(f"Expected `{where}.name` to be one of {known}, with its state, but got {_describe(name)}.")


def dump_stopping(stopping: AdaptiveSampling) -> dict[str, Any]:
    """A calibrated stopping rule as plain data.

    Raises:
        NotFitted: it is not calibrated.
    """
    if stopping.calibration is None:
        raise NotFitted("Expected a calibrated stopping rule; call calibrate() with the calibration split first.")
    return {
        "format_version": STOPPING_VERSION,
        "committee": stopping.committee,
        "decided": stopping.decided,
        "stages": [
            {
                **{name: getattr(stage, name) for name in _NUMBERS},
                "ranks": [dump(ranks) for ranks in stage.ranks],
            }
            for stage in stopping.stages
        ],
        "calibration": dump(stopping.calibration),
    }


def load_stopping(state: object, detector: Detector, where: str = "auto") -> AdaptiveSampling:
    """Build a stopping rule for a calibrated detector from its dumped state.

    Raises:
        UncertaintyError: the state is not what :func:`dump_stopping` gives, or promises other than the detector.
    """
    keys = {"format_version", "committee", "decided", "stages", "calibration"}
    if not isinstance(state, Mapping) or set(state) != keys:
        raise UncertaintyError(f"Expected `{where}` to be a dict with the keys {sorted(keys)}.")
    if state["format_version"] != STOPPING_VERSION:
        raise UncertaintyError(
            f"Expected `{where}.format_version` to be {STOPPING_VERSION}, but got {_describe(state['format_version'])}."
        )
    if not isinstance(state["stages"], list):
        raise UncertaintyError(f"Expected `{where}.stages` to be a list, but got {_describe(state['stages'])}.")
    _check_number(state["committee"], "int", f"{where}.committee")
    _check_number(state["decided"], "float", f"{where}.decided")
    asking = sum(part.asks_members for part in detector.parts)
    stages = tuple(
        _load_stage(stage, asking, f"{where}.stages[{index}]") for index, stage in enumerate(state["stages"])
    )
    calibration = load(Calibration, state["calibration"], f"{where}.calibration")
    promises = [
        None if each is None else (len(each.scores_N), each.alpha, each.delta)
        for each in (calibration, detector.calibration)
    ]
    if promises[0] != promises[1]:
        raise UncertaintyError(
            f"Expected `{where}.calibration` to make the detector's own promise (rows, alpha, delta) {promises[1]}, "
            f"but got {promises[0]}; calibrate again."
        )
    return AdaptiveSampling(stages, state["committee"], state["decided"], calibration)


def _load_stage(state: object, asking: int, where: str) -> Stage:
    if not isinstance(state, Mapping) or set(state) != {*_NUMBERS, "ranks"}:
        raise UncertaintyError(f"Expected `{where}` to be a dict with the keys {sorted([*_NUMBERS, 'ranks'])}.")
    ranks = state["ranks"]
    if not isinstance(ranks, list) or len(ranks) != asking:
        raise UncertaintyError(
            f"Expected `{where}.ranks` to be a list with one entry for each of the detector's {asking} scores of the "
            f"members, but got {_describe(ranks)}."
        )
    for name in _NUMBERS:
        _check_number(state[name], "int" if name == "members" else "float", f"{where}.{name}")
    loaded = tuple(load(Ranks, each, f"{where}.ranks[{index}]") for index, each in enumerate(ranks))
    return Stage(ranks=loaded, **{name: state[name] for name in _NUMBERS})


def _check_number(value: object, kind_name: str, where: str) -> None:
    _check(value, kind_name, "", where)
    if value != value:  # NaN: no rank would be below or above it
        raise UncertaintyError(f"Expected `{where}` to be a number, but got NaN.")

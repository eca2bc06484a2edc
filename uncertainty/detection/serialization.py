"""Serialization: fitted dataclasses as dicts of numbers and tensors, and back, distrusting what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from dubio.uncertainty.detection.adaptive import AdaptiveSampling, Stage
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.detector import Detector, with_borrowed
from dubio.uncertainty.detection.ecdf import Ranks
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.promises import AnswerPromises
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.detection.scores import Score
from dubio.uncertainty.detection.selective import Acceptance
from dubio.uncertainty.errors import NotFitted, UncertaintyError

STOPPING_VERSION = 2
MOST_RISKS = 20
# A module's dotted name, or a list of blocks, is never longer.
LONGEST = 1000

Fitted = TypeVar("Fitted")


def dump(fitted: Any) -> dict[str, Any]:
    """The fields of a fitted dataclass by name; those of dataclasses inside it alike."""
    return {field.name: _dumped(getattr(fitted, field.name)) for field in fields(fitted)}


def _dumped(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_dumped(each) for each in value]
    return dump(value) if is_dataclass(value) else value


def load(kind: type[Fitted], state: object, where: str, **built: Any) -> Fitted:
    """Build a fitted dataclass from its dumped fields.

    A tensor field's name ends in its axes (``bank_NF``), so the name says how many axes are due.

    Args:
        kind: A dataclass with fields of type Tensor, int, float or str, of dataclasses of the same kind, and of tuples
            of those.
        state: What a file holds; anything.
        where: Names the state in errors.
        built: Fields that the state does not hold.

    Raises:
        UncertaintyError: If a field is missing, unknown, of the wrong type or number of axes, or not finite.
    """
    due = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name not in built]  # type: ignore[arg-type]
    held = _mapping(state, set(names), where)
    return kind(**{name: _loaded(due[name], held[name], f"{where}.{name}") for name in names}, **built)


def _loaded(kind: Any, value: object, where: str) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return load(kind, value, where)
    if get_args(kind):  # a tuple of any length
        if not isinstance(value, list) or not 0 < len(value) <= LONGEST:
            raise UncertaintyError(
                f"Expected `{where}` to be a list of 1 to {LONGEST} entries, but got {_describe(value)}."
            )
        return tuple(_loaded(get_args(kind)[0], each, f"{where}[{index}]") for index, each in enumerate(value))
    _check(value, kind, where)
    return value


def _check(value: object, kind: type, where: str) -> None:
    if kind is Tensor:
        axes = len(where.rsplit("_", 1)[-1])
        if not isinstance(value, Tensor) or not _is_stored(value) or value.ndim != axes or not value.numel():
            raise UncertaintyError(
                f"Expected `{where}` to be a dense float32 or float64 tensor with {axes} axes, but got "
                f"{_describe(value)}."
            )
        if not bool(torch.isfinite(value).all()):
            raise UncertaintyError(f"Expected `{where}` to be finite, but got NaN or infinity.")
    elif isinstance(value, bool) or not isinstance(value, kind):
        raise UncertaintyError(f"Expected `{where}` to be of type {kind.__name__}, but got {_describe(value)}.")
    elif isinstance(value, str) and len(value) > LONGEST:
        raise UncertaintyError(f"Expected `{where}` to have at most {LONGEST} characters, but it has {len(value)}.")
    elif isinstance(value, int) and value.bit_length() > 63:
        raise UncertaintyError(f"Expected `{where}` to fit into 64 bits, but it has {value.bit_length()}.")
    elif value != value:
        raise UncertaintyError(f"Expected `{where}` to be a number, but got NaN.")


def _is_stored(tensor: Tensor) -> bool:
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
    """The scores of a detector as plain data; its calibration is dumped on its own."""
    known = {score.name: score for score in detector.scores}
    return {
        "parts": [
            {
                "name": score.name,
                "ranks": dump(detector.ranks[score.name]),
                # What was learned from the training split, if anything, and if no other part has it.
                "fitted": None if score.borrows(known.get(score.lender or "")) else dump(score) or None,
            }
            for score in detector.scores
        ]
    }


def load_detector(state: object, where: str = "detector") -> Detector:
    """Build a detector, not calibrated, from its dumped scores.

    Raises:
        UncertaintyError: If the state is not what `dump_detector` gives.
    """
    parts = state.get("parts") if isinstance(state, Mapping) else None
    if not isinstance(parts, list) or not parts:
        raise UncertaintyError(
            f"Expected `{where}.parts` to be a list of at least one part, but got {_describe(parts)}."
        )
    names = [part.get("name") for part in parts if isinstance(part, Mapping)]
    loaded = [_load_part(part, names, f"{where}.parts[{index}]") for index, part in enumerate(parts)]
    ranks = {name: ranks for name, _, ranks in loaded}
    if len(ranks) != len(loaded):
        raise UncertaintyError(
            f"Expected `{where}.parts` to have different names, but got {[name for name, *_ in loaded][:10]}."
        )
    own = {name: score for name, score, _ in loaded if score is not None}
    return Detector(tuple(with_borrowed(list(ranks), own)), ranks)


def _load_part(state: object, names: Sequence[object], where: str) -> tuple[str, Score | None, Ranks]:
    """A score's name, the score if it has a state of its own, and its ranks."""
    keyed = _mapping(state, {"name", "ranks", "fitted"}, where)
    name, fitted = keyed["name"], keyed["fitted"]
    kind = SCORES.get(name) if isinstance(name, str) else None
    borrowed = kind is not None and fitted is None and kind.lender is not None and kind.lender in names
    if kind is None or not (borrowed or (fitted is not None) is bool(fields(kind))):
        raise UncertaintyError(
            f"Expected `{where}.name` to be one of {list(SCORES)}, with its state, but got {_describe(name)}."
        )
    score = None if borrowed else load(kind, {} if fitted is None else fitted, f"{where}.fitted")
    return kind.name, score, load(Ranks, keyed["ranks"], f"{where}.ranks")


def dump_stopping(stopping: AdaptiveSampling) -> dict[str, Any]:
    """A calibrated stopping rule as plain data.

    Raises:
        NotFitted: If it is not calibrated.
    """
    if stopping.calibration is None:
        raise NotFitted("Expected a calibrated stopping rule; call calibrate() with the calibration split first.")
    return {
        **dump(stopping),
        "format_version": STOPPING_VERSION,
        "stages": [
            {**dump(stage), "ranks": [dump(ranks) for ranks in stage.ranks.values()]} for stage in stopping.stages
        ],
        "calibration": dump(stopping.calibration),
    }


def load_stopping(state: object, detector: Detector, where: str = "auto") -> AdaptiveSampling:
    """Build a stopping rule for a calibrated detector from its dumped state.

    Raises:
        UncertaintyError: If the state is not what `dump_stopping` gives, or promises other than the detector.
    """
    keyed = _mapping(state, {"format_version", "committee", "decided", "stages", "calibration"}, where)
    if keyed["format_version"] != STOPPING_VERSION:
        raise UncertaintyError(
            f"Expected `{where}.format_version` to be {STOPPING_VERSION}, but got {_describe(keyed['format_version'])}."
        )
    if not isinstance(keyed["stages"], list):
        raise UncertaintyError(f"Expected `{where}.stages` to be a list, but got {_describe(keyed['stages'])}.")
    asking = [score.name for score in detector.scores if score.asks_members]
    stages = tuple(
        _load_stage(stage, asking, f"{where}.stages[{index}]") for index, stage in enumerate(keyed["stages"])
    )
    calibration = load(Calibration, keyed["calibration"], f"{where}.calibration")
    promises = [
        None if each is None else (len(each.scores_N), each.alpha, each.delta)
        for each in (calibration, detector.calibration)
    ]
    if promises[0] != promises[1]:
        raise UncertaintyError(
            f"Expected `{where}.calibration` to make the detector's own promise (rows, alpha, delta) {promises[1]}, "
            f"but got {promises[0]}; calibrate again."
        )
    numbers = {name: keyed[name] for name in ("committee", "decided")}
    return load(AdaptiveSampling, numbers, where, stages=stages, calibration=calibration)


def _load_stage(state: object, asking: Sequence[str], where: str) -> Stage:
    numbers = dict(_mapping(state, {field.name for field in fields(Stage)}, where))
    ranks = numbers.pop("ranks")
    if not isinstance(ranks, list) or len(ranks) != len(asking):
        raise UncertaintyError(
            f"Expected `{where}.ranks` to be a list with one entry for each of the detector's {len(asking)} scores of "
            f"the members, but got {_describe(ranks)}."
        )
    loaded = {
        name: load(Ranks, each, f"{where}.ranks[{index}]")
        for index, (name, each) in enumerate(zip(asking, ranks, strict=True))
    }
    return load(Stage, numbers, where, ranks=loaded)


def dump_promises(promises: AnswerPromises) -> dict[str, Any]:
    """What is promised about answers as plain data."""
    return {
        "acceptances": [dump(acceptance) for acceptance in promises.acceptances],
        "label_sets": dump(promises.label_sets),
    }


def load_promises(state: object, flag: Calibration, num_classes: int, where: str = "answers") -> AnswerPromises:
    """Build what is promised about answers from its dumped state.

    Args:
        state: What a file holds; anything.
        flag: The calibration of the flag on answers of the same kind.
        num_classes: C.
        where: Names the state in errors.

    Raises:
        UncertaintyError: If the state is not what `dump_promises` gives, or does not go with the flag.
    """
    keyed = _mapping(state, {"acceptances", "label_sets"}, where)
    listed = keyed["acceptances"]
    if not isinstance(listed, list) or len(listed) > MOST_RISKS:
        raise UncertaintyError(
            f"Expected `{where}.acceptances` to be a list of at most {MOST_RISKS} risks, but got {_describe(listed)}."
        )
    acceptances = tuple(_load_acceptance(each, f"{where}.acceptances[{index}]") for index, each in enumerate(listed))
    sets = dict(_mapping(keyed["label_sets"], {field.name for field in fields(LabelSets)}, f"{where}.label_sets"))
    quantiles_G = sets.pop("quantiles_G")
    _check(quantiles_G, Tensor, f"{where}.label_sets.quantiles_G")
    label_sets = load(LabelSets, sets, f"{where}.label_sets", quantiles_G=quantiles_G)
    promises = AnswerPromises(acceptances, label_sets)
    promises.check(flag, num_classes)
    return promises


def _load_acceptance(state: object, where: str) -> Acceptance:
    numbers = dict(_mapping(state, {field.name for field in fields(Acceptance)}, where))
    refusal = numbers.pop("refusal")
    if refusal is not None:
        _check(refusal, str, f"{where}.refusal")
    return load(Acceptance, numbers, where, refusal=refusal)


def _mapping(state: object, keys: set[str], where: str) -> Mapping[str, Any]:
    if not isinstance(state, Mapping) or set(state) != keys:
        got = sorted(map(_describe, state)) if isinstance(state, Mapping) else _describe(state)
        raise UncertaintyError(f"Expected `{where}` to be a dict with the keys {sorted(keys)}, but got {got}.")
    return state

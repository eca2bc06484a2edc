"""From fitted detector and stopping rule to what is promised about answers, and what is said where nothing can be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from dubio.models import Predictor
from dubio.training import promise
from dubio.training.data.module import TensorDataModule
from dubio.uncertainty import AdaptiveSampling, Detector, Outputs
from dubio.uncertainty.detection.label_sets import LabelSets, rows_for
from dubio.uncertainty.detection.promises import AnswerPromises, with_all_members, with_as_many_as_it_takes
from dubio.uncertainty.detection.rounding import Rounding
from dubio.uncertainty.detection.selective import Acceptance
from dubio.uncertainty.errors import NotFitted


def fit(
    predictor: Predictor,
    detector: Detector,
    stopping: AdaptiveSampling,
    select: tuple[Outputs, Tensor],
    calibration: tuple[Outputs, Tensor],
    rounding: Rounding,
    risks: Sequence[float],
    label_sets: LabelSets,
) -> Mapping[str, AnswerPromises]:
    """What is promised about answers of all members, and about those of as many as it takes.

    Args:
        predictor: With its temperatures.
        detector: Calibrated.
        stopping: Calibrated.
        select: What all members say about the select split, and its true classes.
        calibration: The same of the calibration split.
        rounding: As measured.
        risks: Of accepted answers, each for itself.
        label_sets: Says which.
    """
    flags = (detector.calibration, stopping.calibration)
    if flags[0] is None or flags[1] is None:
        raise NotFitted("Expected a calibrated detector and stopping rule; calibrate them first.")
    everybody = partial(with_all_members, predictor.classify, detector, rounding=rounding)
    auto = partial(with_as_many_as_it_takes, predictor.classify, detector, rounding=rounding, stopping=stopping)
    return {
        "promises": AnswerPromises.fit(everybody(*select), everybody(*calibration), flags[0], risks, label_sets),
        "auto_promises": AnswerPromises.fit(auto(*select), auto(*calibration), flags[1], risks, label_sets),
    }


def caveats(predictor: Predictor, data: TensorDataModule, path: Path) -> list[str]:
    """What is not promised although it was asked for, and what would change that; one line each.

    Args:
        predictor: That of the checkpoint.
        data: Of its fit or calibration.
        path: Of the checkpoint.
    """
    if predictor.promises is None:
        return []
    acceptances = predictor.promises.acceptances
    lines = [
        f"no answer is accepted at a risk of {each.risk:g}: the {each.rows} calibration rows cannot show with "
        f"confidence {1 - each.delta:g} that accepted answers err so seldom ({each.refusal}); {each.advice()}"
        f"{f': {promise.more_rows(data, each.rows_due)}' if each.rows_due else ''}."
        for each in acceptances
        if each.refusal
    ]
    if any(each.refusal and each.risk_due < 1 for each in acceptances):
        lines[-1] += f" To promise what they carry: {_calibrate(acceptances, path)}"
    sets = predictor.promises.label_sets
    if sets.unbounded:
        named = ", ".join(repr(predictor.classes[group]) for group in sets.unbounded[:5])
        which = "all label sets hold every class" if sets.by == "all" else f"of {named} the label sets hold too much"
        lines.append(
            f"{which}: a coverage of {sets.coverage:g} takes at least {rows_for(sets.coverage)} calibration rows"
            f"{'' if sets.by == 'all' else ' of each'}; set `calibration.coverage` lower, or calibrate on more rows."
        )
    return lines


def _calibrate(acceptances: Sequence[Acceptance], path: Path) -> str:
    """The command that calibrates a checkpoint for the risks that its rows carry."""
    due = [each.risk_due if each.refusal else each.risk for each in acceptances]
    risks = [f"{risk:g}" for risk in dict.fromkeys(due) if risk < 1]
    setting = ["--calibration.risk", risks[0] if len(risks) == 1 else f"[{','.join(risks)}]"]
    config = path.parent / "config.yaml"
    own = ["--config", str(config)] if config.is_file() else []
    ckpt = [] if own and path.name == "model.ckpt" else ["--ckpt_path", str(path)]
    return shlex.join(["dubio-train", "calibrate", *own, *ckpt, *setting])

"""Figures of the answers: how honest both are, and whether the promise about accepted ones holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from detection_figures import DELTA
from detection_networks import Trained
from torch import Tensor

from dubio.training.quality import Quality, intervals
from dubio.training.report.acceptance_resplits import resplit_acceptance
from dubio.uncertainty import Detector
from dubio.uncertainty.detection import temperature
from dubio.uncertainty.detection.answers import Answers, LabelledAnswers
from dubio.uncertainty.detection.promises import AnswerPromises

RISK = 0.02
DETERMINISTIC, MC = "deterministic", "MC dropout"


def quality(trained: Trained) -> dict[str, Any]:
    """Of the test split, both answers before and after the temperature."""
    labels_B, outputs = trained.splits.labels["test"], trained.splits.test
    applied, logits_BC = trained.predictor.temperature, outputs.deterministic.logits_BC
    probs: Mapping[str, Mapping[str, Tensor]] = {
        DETERMINISTIC: {"before": logits_BC.softmax(-1), "after": (logits_BC / applied.deterministic).softmax(-1)},
        MC: {
            "before": temperature.undo(outputs.probs_KBC, applied.mc).mean(0),
            "after": outputs.summary.mean_BC,
        },
    }
    return {
        answer: {when: asdict(Quality.of(each, labels_B)) for when, each in moments.items()}
        | {"ECE interval": intervals(moments["after"], labels_B)["ece"]}
        for answer, moments in probs.items()
    }


def acceptance(trained: Trained, detector: Detector) -> dict[str, Any]:
    """What is accepted at a risk of .02, how much of it is wrong, and the same over 400 resplits."""
    select, calibration, test = (_labelled(trained, detector, name) for name in ("select", "calibration", "test"))
    assert detector.calibration is not None
    (promise,) = AnswerPromises.fit(select, calibration, detector.calibration, (RISK,)).acceptances
    if promise.refusal:
        return {"refusal": f"{promise.refusal}: {promise.advice()}"}
    accepted_B = promise.accepts(test.answers, test.high_N)
    wrong_B = accepted_B & (test.answers.label_B != test.labels_N)
    drawn = resplit_acceptance(select, _joined(calibration, test), len(calibration), trained.task.alpha, promise)
    promised = int(drawn.promised_R.sum())
    return {
        "accepted": float(accepted_B.double().mean()),
        "wrong": int(wrong_B.sum()) / max(1, int(accepted_B.sum())),
        "promised": promised,
        "kept": 1 - float(drawn.broken_R.mean()),
        "within": float(drawn.within_R.sum()) / max(1, promised),
        "accepted in resplits": float(np.mean(drawn.accepted_R)) / drawn.measured,
        "wrong in resplits": float(drawn.wrong_R.sum() / max(1, drawn.accepted_R.sum())),
    }


def lines(seeds: list[dict[str, Any]]) -> list[str]:
    """What is told about the answers of some seeds."""
    told = [
        "",
        "| answer | accuracy | NLL before, after temperature | ECE before, after |",
        "| --- | --- | --- | --- |",
    ]
    for answer in (DETERMINISTIC, MC):
        each = [seed["quality"][answer] for seed in seeds]
        accuracy = np.mean([one["after"]["accuracy"] for one in each])
        nll, ece = (
            ", ".join(f"{np.mean([one[when][name] for one in each]):.4f}" for when in ("before", "after"))
            for name in ("nll", "ece")
        )
        told.append(f"| {answer} | {accuracy:.2%} | {nll} | {ece} |")
    for number, seed in enumerate(seeds):
        low, high = seed["quality"][MC]["ECE interval"]
        told.append(
            f"\nseed {number}: ECE of the mean {seed['quality'][MC]['after']['ece']:.4f} ({low:.4f} to {high:.4f})"
        )
        found = seed["acceptance"]
        if "refusal" in found:
            told.append(f"\nseed {number}: no promise at a risk of {RISK}: {found['refusal']}")
            continue
        told.append(
            f"\nseed {number}: at a risk of {RISK} {found['accepted']:.1%} of the test rows are accepted and "
            f"{found['wrong']:.2%} of these are wrong; over 400 resplits {found['accepted in resplits']:.1%} and "
            f"{found['wrong in resplits']:.2%}, {found['promised']} rules, the risk kept on all held-out rows in "
            f"{found['kept']:.1%} (promised: {1 - DELTA:.0%}), on the measured ones in {found['within']:.1%}"
        )
    return told


def _labelled(trained: Trained, detector: Detector, split: str) -> LabelledAnswers:
    """The rows of a split as one evaluation answered them."""
    outputs = getattr(trained.splits, split)
    label_B, probs_BC = trained.predictor.classify(outputs.deterministic)
    scores_N, labels_N = detector.score(outputs), trained.splits.labels[split]
    answers = Answers(label_B, probs_BC, outputs.summary.mean_BC)
    return LabelledAnswers(answers, labels_N, scores_N, scores_N, torch.ones_like(labels_N, dtype=torch.bool), 0.0)


def _joined(one: LabelledAnswers, other: LabelledAnswers) -> LabelledAnswers:
    answers = [torch.cat(pair) for pair in zip(vars(one.answers).values(), vars(other.answers).values(), strict=True)]
    rows = [
        torch.cat([getattr(each, name) for each in (one, other)]) for name in ("labels_N", "low_N", "high_N", "sure_N")
    ]
    return LabelledAnswers(Answers(*answers), *rows, one.rounding)

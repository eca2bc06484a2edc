"""Figures of a detector: how well scores tell strangers apart, and whether the promise holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from dubio.uncertainty import Calibration, Detector, Outputs
from dubio.uncertainty.detection import conformal

DELTA = 0.05
RESPLITS = 400
ROWS = 64  # that are scored together where time is taken


@dataclass(frozen=True)
class Splits:
    """What a network and its members say about the rows of each split, and the true classes."""

    select: Outputs
    calibration: Outputs
    test: Outputs
    labels: Mapping[str, Tensor]


def auroc(seen_B: Tensor, strange_B: Tensor) -> float:
    """Probability that a stranger scores higher than a test row, ties half."""
    truth = np.r_[np.zeros(len(seen_B)), np.ones(len(strange_B))]
    return float(roc_auc_score(truth, torch.cat([seen_B, strange_B]).double().numpy()))


def flags(detector: Detector, score_B: Tensor) -> int:
    """How many inputs with these composite scores are flagged."""
    calibration = detector.calibration
    assert calibration is not None
    return int((calibration.p_value(score_B) <= calibration.level).sum())


def pair(detector: Detector, seen_B: Tensor, strange: Outputs) -> dict[str, float]:
    """Figures of one set of strangers.

    Two figures are called FPR95. OpenOOD and pytorch-ood count strangers as positive: the share of ordinary inputs that
    are flagged where 95% of the strangers are. The papers on MSP, ODIN and energy count ordinary inputs as positive:
    the share of strangers that pass where 95% of the ordinary inputs do. F1 is that of the flag as it is set, strangers
    being positive.
    """
    strange_B = detector.score(strange)
    caught, alarms = flags(detector, strange_B), flags(detector, seen_B)
    return {
        "auroc": auroc(seen_B, strange_B),
        "flagged": caught / len(strange_B),
        "f1": 2 * caught / (len(strange_B) + caught + alarms),
        "ordinary flagged at 95% of strangers": float((seen_B >= torch.quantile(strange_B, 0.05)).double().mean()),
        "strangers passed at 95% of ordinary": float((strange_B <= torch.quantile(seen_B, 0.95)).double().mean()),
    }


def resplits(scores: Tensor, rows: int, alpha: float) -> dict[str, float]:
    """Realised false alarms of fresh divisions of calibration and test rows, against their exact law.

    Of m test rows, Beta-binomial(m, a, n + 1 - a) are flagged where a of n calibration scores may be; the share of
    divisions that keep alpha is held against that law's by a one-sided binomial test.

    Args:
        scores: Composite scores of calibration and test rows together.
        rows: n.
        alpha: Promised.
    """
    level = conformal.level(rows, alpha, DELTA)
    generator, measured = torch.Generator().manual_seed(0), len(scores) - rows
    alarms = []
    for _ in range(RESPLITS):
        shuffled = scores[torch.randperm(len(scores), generator=generator)]
        fresh = Calibration.fit(shuffled[:rows], alpha, DELTA)
        alarms.append(int((fresh.p_value(shuffled[rows:]) <= fresh.level).sum()))
    most = int(alpha * measured + 1e-9)
    within = int((np.array(alarms) <= most).sum())
    allowed = round(level * (rows + 1))
    law = float(stats.betabinom(measured, allowed, rows + 1 - allowed).cdf(most))
    return {
        "mean": float(np.mean(alarms)) / measured,
        "within": within / RESPLITS,
        "law": law,
        "p-value": float(stats.binomtest(within, RESPLITS, law, alternative="less").pvalue),
    }


def milliseconds(work: Callable[[], Any], rounds: int = 7) -> float:
    """The median time of some calls."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def scoring_ms(detector: Detector, test: Outputs) -> float:
    """Milliseconds a row of scoring, without the passes, in batches of 64."""
    few = test.take(torch.arange(ROWS) % len(test.deterministic.logits_BC))

    def score() -> None:
        # What several scores share of the members' answers is computed once, and anew each time.
        detector.score(Outputs(few.deterministic, few.probs_KBC))

    return milliseconds(score) / ROWS

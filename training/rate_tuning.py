"""Rates tuned for the committee: how much dropout answers best, after the training is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor

from dubio.models import Predictor
from dubio.models.spec import Tuning
from dubio.training.errors import TrainingError
from dubio.uncertainty.detection import measures, temperature

# Beyond this a member keeps next to nothing.
MAX_RATE = 0.95


def check(factors: Sequence[float]) -> None:
    """Refuses factors that make no grid.

    Raises:
        TrainingError: If one is not positive and finite, or there twice.
    """
    if any(not 0 < factor < math.inf for factor in factors) or len(set(factors)) < len(factors):
        raise TrainingError(
            f"Expected `calibration.tune_rates` to be positive factors, and none twice, but got {list(factors)}."
        )


def tune(
    build: Callable[[dict[str, float] | None], Predictor],
    base: dict[str, float] | None,
    factors: Sequence[float],
    x: Tensor,
    labels_N: Tensor,
    batch: int,
) -> tuple[dict[str, float], Tuning]:
    """Tries common factors on all rates, and keeps the one with the largest likelihood.

    Each is judged with the temperature that suits it best, since a temperature is fitted in any case.

    Args:
        build: Makes a predictor with the given rates by site.
        base: Rates to begin with; None for those of the training.
        factors: What to multiply them by; the products are cut at 0.95.
        x: Raw rows of the validation split, `[N, *shape]`.
        labels_N: Their classes.
        batch: Rows that are asked at a time.

    Returns:
        Rates by the names of the sites, and how they were found.
    """
    sites = build(base).committee.sites
    # A rate that the user set beyond the limit stays.
    grid = [{site.name: min(site.p * factor, max(site.p, MAX_RATE)) for site in sites} for factor in factors]
    losses = []
    for rates in grid:
        predictor = build(rates)
        with torch.inference_mode():
            logits_KNC = torch.cat([predictor.member_logits(rows) for rows in x.split(batch)], dim=1)
            losses.append(_nll(logits_KNC, labels_N))
    best = losses.index(min(losses))
    return grid[best], Tuning(
        factor=float(factors[best]),
        factors=list(map(float, factors)),
        nll=losses,
        rows=len(x),
        split="validation",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _nll(logits_KNC: Tensor, labels_N: Tensor) -> float:
    """Mean negative log-likelihood of the members' mean in nats, at the best temperature.

    A probability of 0 counts as the smallest number: rows whose true class the network masks would hide all others.
    """
    log_mean_NC = measures.log_mean_softmax(logits_KNC.double() / temperature.fit(logits_KNC, labels_N))
    log_mean_NC = log_mean_NC.clamp(min=math.log(temperature.SMALLEST))
    return float(measures.negative_log_likelihood(log_mean_NC, labels_N.to(log_mean_NC.device)).mean())

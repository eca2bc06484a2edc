"""Rates tuned for the committee: how much dropout answers best, after the training is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor

from dubio.models import Predictor
from dubio.models.spec import MAX_LIST, Tuning
from dubio.training.errors import TrainingError
from dubio.uncertainty.detection import measures, temperature
from dubio.uncertainty.errors import NoDropoutFound

# Beyond this a member keeps next to nothing.
MAX_RATE = 0.95
# Tried one after the other where the members' mean is worse than the deterministic prediction.
LOWER = (0.7, 0.5, 0.35, 0.25, 0.15)
# So much larger (nats) may the mean's negative log-likelihood be: half a per cent of the true class's probability.
SLACK = 0.005


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
    predictor = build(base)
    grid = [_scaled(predictor, factor) for factor in factors]
    with torch.inference_mode():
        losses = [float(_losses(_member_logits(build(rates), x, batch), labels_N).mean()) for rates in grid]
    best = losses.index(min(losses))
    return grid[best], _told(factors, best, losses, len(x))


def lower(
    predictor: Predictor,
    build: Callable[[dict[str, float] | None], Predictor],
    x: Tensor,
    labels_N: Tensor,
    batch: int,
) -> tuple[dict[str, float], Tuning] | None:
    """Lower rates where those of the training make the members' mean worse than the deterministic prediction.

    Members that disagree too much make a mean that is too unsure, and no temperature of theirs mends that: the mean of
    sure members that disagree is as unsure. Lower rates do, and with rates of 0 the mean would be the deterministic
    prediction. So the rates are lowered, step by step and no further than until the mean is not worse any more. Of
    few rows it may be worse by chance, but then lower rates cost next to nothing.

    Args:
        predictor: With the rates of the training.
        build: Makes a predictor with the given rates by site.
        x: Raw rows of the validation split, `[N, *shape]`, at least one.
        labels_N: Their classes.
        batch: Rows that are asked at a time.

    Returns:
        Rates by the names of the sites, and how they were found; None where those of the training are as good as the
        deterministic prediction, no lower ones are better, or there are more sites than a checkpoint can name.
    """
    if len(predictor.committee.sites) > MAX_LIST:
        return None
    with torch.inference_mode():
        logits_BC = torch.cat([predictor.deterministic(rows).logits_BC for rows in x.split(batch)])
        most = float(_losses(logits_BC.unsqueeze(0), labels_N).mean()) + SLACK
        losses = [float(_losses(_member_logits(predictor, x, batch), labels_N).mean())]
        factors, found = [1.0], [_scaled(predictor, 1.0)]
        for factor in LOWER:
            if losses[-1] <= most:
                break
            rates = _scaled(predictor, factor)
            try:
                lowered = build(rates)
            except NoDropoutFound:  # so low that these members agree
                break
            found.append(rates)
            factors.append(factor)
            losses.append(float(_losses(_member_logits(lowered, x, batch), labels_N).mean()))
    best = losses.index(min(losses))
    return (found[best], _told(factors, best, losses, len(x))) if best else None


def _scaled(predictor: Predictor, factor: float) -> dict[str, float]:
    # A rate that the user set beyond the limit stays.
    return {site.name: min(site.p * factor, max(site.p, MAX_RATE)) for site in predictor.committee.sites}


def _told(factors: Sequence[float], best: int, losses: list[float], rows: int) -> Tuning:
    return Tuning(
        factor=float(factors[best]),
        factors=list(map(float, factors)),
        nll=losses,
        rows=rows,
        split="validation",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _member_logits(predictor: Predictor, x: Tensor, batch: int) -> Tensor:
    return torch.cat([predictor.member_logits(rows) for rows in x.split(batch)], dim=1)


def _losses(logits_KNC: Tensor, labels_N: Tensor) -> Tensor:
    """Negative log-likelihoods of the members' mean in nats, at the best temperature.

    A probability of 0 counts as the smallest number: rows whose true class the network masks would hide all others.
    """
    log_mean_NC = measures.log_mean_softmax(logits_KNC.double() / temperature.fit(logits_KNC, labels_N))
    log_mean_NC = log_mean_NC.clamp(min=math.log(temperature.SMALLEST))
    return measures.negative_log_likelihood(log_mean_NC, labels_N.to(log_mean_NC.device))

"""Rates tuned for the committee: how much dropout answers best, after the training is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor

from dubio.models import Predictor
from dubio.models.spec import Tuning
from dubio.training.errors import TrainingError
from dubio.uncertainty.detection import temperature

# Beyond this a member keeps next to nothing.
LARGEST = 0.95


def check(factors: Sequence[float]) -> None:
    """Refuse factors that make no grid.

    Raises:
        TrainingError: one is not positive, or twice there.
    """
    if any(not 0 < factor < float("inf") for factor in factors) or len(set(factors)) < len(factors):
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
    """Try common factors on all rates, and keep the one with the largest likelihood.

    Each is judged with the temperature that suits it best, since a temperature is fitted in any case.

    Args:
        build: a predictor with the given rates by site.
        base: rates to begin with; None for those of the training.
        factors: to multiply them by; the products are cut at 0.95.
        x: raw rows of the validation split ``[N, ...]``.
        labels_N: their labels.
        batch: rows that are asked at a time.

    Returns:
        Rates by the names of the sites, and how they were found.
    """
    sites = build(base).committee.sites
    tried: list[tuple[float, dict[str, float]]] = []
    for factor in factors:
        # A rate that the user set beyond the limit stays.
        rates = {site.name: min(site.p * factor, max(site.p, LARGEST)) for site in sites}
        predictor = build(rates)
        with torch.inference_mode():
            logits_KNC = torch.cat([predictor.member_logits(rows) for rows in x.split(batch)], dim=1)
            tried.append((_nll(logits_KNC, labels_N), rates))
    best = min(range(len(factors)), key=lambda index: tried[index][0])
    return tried[best][1], Tuning(
        factor=float(factors[best]),
        factors=list(map(float, factors)),
        nll=[loss for loss, _ in tried],
        rows=len(x),
        split="validation",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _nll(logits_KNC: Tensor, labels_N: Tensor) -> float:
    """Mean negative log-likelihood of the members' mean in nats, at the best temperature."""
    scaled = logits_KNC.double() / temperature.fit(logits_KNC, labels_N)
    log_mean_NC = scaled.log_softmax(-1).logsumexp(0) - torch.tensor(len(scaled), dtype=torch.float64).log()
    return float(-log_mean_NC.gather(1, labels_N.to(log_mean_NC.device).unsqueeze(1)).mean())

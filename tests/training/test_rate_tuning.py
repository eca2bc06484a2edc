from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.datasets import load_iris, load_wine
from torch import Tensor, nn

from dubio.models import MLP, InputSpec, NetworkSpec, Predictor, load, save
from dubio.training import CalibrationSettings, Digits, calibrate, rate_tuning
from dubio.training.errors import TrainingError
from dubio.uncertainty.detection import temperature

ARGUMENTS = {"in_features": 64, "widths": [48, 24], "num_classes": 10, "rates": [0.2, 0.4]}
SPEC = NetworkSpec(class_path="dubio.models.MLP", init_args=ARGUMENTS)


@pytest.fixture(scope="module")
def network(digits: Digits) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(**ARGUMENTS)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(5):
            for x, labels in digits.train_dataloader():
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x), labels).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


def _likelihood(network: nn.Module, digits: Digits, rates: dict[str, float]) -> float:
    """NLL of the members' mean on the validation split, at the temperature that scipy finds."""
    predictor = Predictor.build(network, SPEC, digits.input, digits.classes, num_samples=8, rates=rates)
    x, labels = digits.raw("validation")
    logits_KNC = predictor.member_logits(x).double().numpy()

    def loss(log_t: float, prior: float) -> float:
        log_mean_NC = logsumexp(log_softmax(logits_KNC / np.exp(log_t), -1), 0) - np.log(len(logits_KNC))
        true, wrong = log_mean_NC[np.arange(len(labels)), labels], prior * 0.5 / (len(labels) + 1)
        told = (1 - wrong) * true + wrong * np.log1p(-np.exp(true))
        return float(-told.mean() + prior * 2 * log_t**2 / len(labels))

    # The temperature is fitted with its prior, and judged by the likelihood itself.
    best = minimize_scalar(loss, bounds=(-3, 3), args=(1.0,), method="bounded").x
    return loss(best, 0.0)


def test_the_likeliest_factor_is_kept_and_written_down(network: nn.Module, digits: Digits, tmp_path: Path):
    factors = (0.25, 1.0, 2.2)
    predictor = calibrate(network, SPEC, digits, CalibrationSettings(num_samples=8, tune_rates=factors))
    tried = [{"body.3": 0.2 * factor, "body.6": 0.4 * factor} for factor in factors]
    due = [_likelihood(network, digits, rates) for rates in tried]
    tuning = predictor.provenance.tuning
    assert tuning.nll == pytest.approx(due, rel=1e-3)
    assert (tuning.factor, tuning.split, tuning.rows) == (
        factors[int(np.argmin(due))],
        "validation",
        len(digits.raw("validation")[1]),
    )
    assert {site.name: site.p for site in predictor.committee.sites} == pytest.approx(tried[int(np.argmin(due))])

    torch.save({"state_dict": {f"network.{name}": each for name, each in network.state_dict().items()}}, tmp_path / "w")
    save(predictor, tmp_path / "w", tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    assert loaded.committee.fingerprint == predictor.committee.fingerprint
    assert loaded.provenance.tuning == tuning
    x, _ = digits.raw("test")
    # Each measures which strategy runs its members fastest, and strategies round differently.
    np.testing.assert_allclose(loaded.predict(x[:5]).mc_mean, predictor.predict(x[:5]).mc_mean, atol=1e-5)


def test_only_the_chosen_sites_are_tuned_and_their_products_are_cut(network: nn.Module, digits: Digits):
    settings = CalibrationSettings(num_samples=8, mc_sites=("body.6",), mc_rates={"body.6": 0.5}, tune_rates=(10.0,))
    predictor = calibrate(network, SPEC, digits, settings)
    assert [(site.name, site.p) for site in predictor.committee.sites] == [("body.6", 0.95)]


@pytest.mark.parametrize("factors", [(0.0,), (-1.0, 2.0), (float("nan"),), (float("inf"),), (1.0, 1.0)])
def test_factors_that_make_no_grid_are_refused(factors: tuple[float, ...]):
    with pytest.raises(TrainingError, match=r"`calibration\.tune_rates`"):
        CalibrationSettings(tune_rates=factors)


class MasksSome(nn.Module):
    """Gives no probability to one class, which the input decides."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        masked_B1 = (x.flatten(1).sum(1, keepdim=True).abs() * 7).long() % 10
        return self.network(x).scatter(1, masked_B1, -math.inf)


def test_rows_whose_true_class_is_masked_hide_no_others(network: nn.Module, digits: Digits):
    masking = MasksSome(network).eval()

    def build(rates: dict[str, float] | None) -> Predictor:
        names = None if rates is None else {f"network.{name.removeprefix('network.')}": p for name, p in rates.items()}
        return Predictor.build(
            masking, SPEC, digits.input, digits.classes, num_samples=8, rates=names, measure_seconds=0.1
        )

    x, labels = digits.raw("validation")
    _, tuning = rate_tuning.tune(build, None, (0.5, 2.0), x, labels, 500)
    assert len(set(tuning.nll)) == 2
    for factor, nll in zip(tuning.factors, tuning.nll, strict=True):
        logits_KNC = build({"body.3": 0.2 * factor, "body.6": 0.4 * factor}).member_logits(x)
        log_mean_NC = logits_KNC.double().div(temperature.fit(logits_KNC, labels)).softmax(-1).mean(0).log()
        told = log_mean_NC[torch.arange(len(labels)), labels]
        hidden = told == -math.inf
        assert 0 < int(hidden.sum()) < len(labels)
        smallest = math.log(2.0**-149)  # of single precision
        assert nll == pytest.approx(-float(torch.where(hidden, smallest, told).mean()), rel=1e-6)


def _predictor(
    network: nn.Module, digits: Digits, rates: dict[str, float] | None = None, members: int = 8
) -> Predictor:
    return Predictor.build(
        network, SPEC, digits.input, digits.classes, num_samples=members, rates=rates, measure_seconds=0.1
    )


def temperature_scaled(network: nn.Module, digits: Digits) -> float:
    """NLL of the deterministic prediction on the validation split at its best temperature."""
    x, labels = digits.raw("validation")
    logits_NC = _predictor(network, digits).deterministic(x).logits_BC.double()
    log_probs_NC = (logits_NC / temperature.fit(logits_NC.unsqueeze(0), labels)).log_softmax(-1)
    return float(nn.functional.nll_loss(log_probs_NC, labels))


def test_rates_that_make_the_mean_worse_than_the_deterministic_answer_are_lowered(network: nn.Module, digits: Digits):
    """Rates beyond those of the training stand for a network that such rates do not suit."""
    x, labels = digits.raw("validation")
    trained = _predictor(network, digits)
    high = {site.name: 0.8 for site in trained.committee.sites}
    predictor = _predictor(network, digits, high)
    asked: list[dict[str, float]] = []

    def build(rates: dict[str, float] | None) -> Predictor:
        asked.append(dict(rates or {}))
        return _predictor(network, digits, rates)

    found = rate_tuning.lower(predictor, build, x, labels, 250)
    assert found is not None
    rates, tuning = found
    assert asked == [{name: pytest.approx(0.8 * factor) for name in high} for factor in rate_tuning.LOWER[: len(asked)]]
    assert tuning.factors == [1.0, *rate_tuning.LOWER[: len(asked)]]
    # No further than until the mean is not worse any more: all but the last are.
    deterministic = temperature_scaled(network, digits)
    assert all(nll > deterministic + 0.005 for nll in tuning.nll[:-1])
    assert tuning.nll[-1] <= deterministic + 0.005
    assert tuning.factor == tuning.factors[-1] < 1
    assert rates == {name: pytest.approx(0.8 * tuning.factor) for name in high}
    for factor, nll in zip(tuning.factors, tuning.nll, strict=True):
        due = _likelihood(network, digits, dict.fromkeys(high, 0.8 * factor))
        assert nll == pytest.approx(due, rel=1e-3)
    assert (tuning.rows, tuning.split) == (len(labels), "validation")


def test_rates_so_low_that_the_members_agree_are_none(network: nn.Module, digits: Digits):
    x, labels = digits.raw("validation")
    predictor = _predictor(network, digits, {site.name: 0.8 for site in _predictor(network, digits).committee.sites})
    tried: list[dict[str, float]] = []

    def build(rates: dict[str, float] | None) -> Predictor:
        tried.append(dict(rates or {}))
        return _predictor(network, digits, dict.fromkeys(rates or {}, 1e-7))

    assert rate_tuning.lower(predictor, build, x, labels, 250) is None
    assert len(tried) == 1


def test_rates_under_which_the_mean_is_as_good_are_left_alone(network: nn.Module, digits: Digits):
    x, labels = digits.raw("validation")
    low = {site.name: 0.005 for site in _predictor(network, digits).committee.sites}
    predictor = _predictor(network, digits, low, members=32)
    assert rate_tuning.lower(predictor, lambda rates: pytest.fail("nothing to try"), x, labels, 250) is None


def _unseen(load: Callable[..., tuple[np.ndarray, np.ndarray]], seed: int) -> tuple[float, float]:
    """NLL of the deterministic prediction and of the mean of 8 members, on rows that nothing was fitted to."""
    x, labels = (torch.from_numpy(each) for each in load(return_X_y=True))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, labels = ((x - x.mean(0)) / x.std(0)).float()[order], labels[order]
    trained, validation, select = (int(share * len(x)) for share in (0.4, 0.5, 0.65))
    arguments = {"in_features": x.shape[1], "widths": [64, 32], "rates": [0.5, 0.5], "num_classes": 3}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MLP(**arguments)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[:trained]), labels[:trained]).backward()
            optimizer.step()
    network.eval().requires_grad_(False)
    numbers = {"mean": (0.0,) * x.shape[1], "std": (1.0,) * x.shape[1], "low": -1e4, "high": 1e4}
    spec = InputSpec(kind="numbers", shape=(x.shape[1],), **numbers)

    def build(rates: dict[str, float] | None) -> Predictor:
        named = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
        return Predictor.build(network, named, spec, ("a", "b", "c"), 8, rates=rates, measure_seconds=0.05)

    predictor = build(None)
    lowered = rate_tuning.lower(predictor, build, x[trained:validation], labels[trained:validation], 250)
    predictor = predictor if lowered is None else build(lowered[0])

    def nll(logits: Callable[[Tensor], Tensor]) -> float:
        fitted = temperature.fit(logits(x[validation:select]), labels[validation:select])
        log_mean_NC = (logits(x[select:]).double() / fitted).softmax(-1).mean(0).log()
        return float(nn.functional.nll_loss(log_mean_NC, labels[select:]))

    return nll(lambda rows: predictor.deterministic(rows).logits_BC[None]), nll(predictor.member_logits)


@pytest.mark.parametrize("load", [load_iris, load_wine])
def test_on_rows_never_seen_the_mean_is_no_worse_than_the_deterministic_answer(load):
    """Of few members with large rates, that 15 validation rows judge."""
    deterministic, mean = np.mean([_unseen(load, seed) for seed in range(4)], axis=0)
    assert mean < 1.05 * deterministic


def test_a_calibration_lowers_rates_unless_it_is_told_which(network: nn.Module, digits: Digits):
    """What the user says counts."""
    settings = {"num_samples": 4, "scores": ("energy",)}
    lowered = calibrate(network, SPEC, digits, CalibrationSettings(**settings), measure_seconds=0.1)
    x, labels = digits.raw("validation")
    due = rate_tuning.lower(
        _predictor(network, digits, members=4), lambda rates: _predictor(network, digits, rates, 4), x, labels, 250
    )
    assert due is not None  # four members of rates .2 and .4 are worse
    assert [site.p for site in lowered.committee.sites] == pytest.approx(list(due[0].values()))
    assert lowered.provenance.tuning.factor == due[1].factor < 1
    for told in ({"tune_rates": (1.0,)}, {"mc_rates": {"dropout": 0.3}}):
        kept = calibrate(network, SPEC, digits, CalibrationSettings(**settings, **told), measure_seconds=0.1)
        assert kept.committee.sites != lowered.committee.sites
        assert kept.provenance.tuning is None or kept.provenance.tuning.factor == 1

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import table

RATES = """
from pytorch_lightning import Callback

class Rates(Callback):
    rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        Rates.rates.append(optimizer.param_groups[0]["lr"])
"""
COSINE = ["--model.scheduler", "dubio.training.WarmupCosine", "--model.scheduler.warmup", "0.25"]
TORCHS = ["--model.scheduler", "CosineAnnealingLR", "--model.scheduler.T_max", "4"]
PLATEAU = ["--model.scheduler", "pytorch_lightning.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val_loss"]

Fit = Callable[..., list[float]]
Halfway = Callable[..., str]


@pytest.fixture
def rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fit]:
    """Fits, and returns the rate of each step."""
    (tmp_path / "seen_rates.py").write_text(RATES)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    def fit(*more: str) -> list[float]:
        table.fit(tmp_path, "--trainer.callbacks+=seen_rates.Rates", *more)
        seen = list(sys.modules["seen_rates"].Rates.rates)
        sys.modules["seen_rates"].Rates.rates.clear()
        return seen

    yield fit
    sys.modules.pop("seen_rates", None)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Halfway:
    """Gives a checkpoint after two epochs; each is made once."""

    @cache
    def make(*more: str) -> str:
        return str(table.fit(tmp_path_factory.mktemp("halfway"), *more) / "checkpoints" / "last.ckpt")

    return make


def resumed(source: str, epochs: int = 4) -> list[str]:
    return ["--ckpt_path", source, "--trainer.max_epochs", str(epochs)]


def cosine(lr: float, steps: int, warmup: float = 0.25) -> list[float]:
    rising = int(warmup * steps)
    up = [lr * (step + 1) / (rising + 1) for step in range(rising)]
    return up + [lr * (1 + math.cos(math.pi * step / (steps - rising))) / 2 for step in range(steps - rising)]


def test_more_epochs_are_planned_anew(rates: Fit, halfway: Halfway):
    source = halfway(*COSINE)
    assert rates(*COSINE, *resumed(source)) == pytest.approx(cosine(0.01, 4 * table.STEPS)[2 * table.STEPS :])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], ["--model.optimizer.lr", "0.002"], [0.002] * 12),
        (COSINE, ["--model.optimizer.lr", "0.002", *COSINE], cosine(0.002, 24)[12:]),
        (COSINE, [], [0.01] * 12),
        ([], COSINE, cosine(0.01, 24)[12:]),
        (COSINE, TORCHS, [0.005] * 6 + [0.01 * (1 + math.cos(math.pi * 3 / 4)) / 2] * 6),
        (TORCHS, COSINE, cosine(0.01, 24)[12:]),
        (PLATEAU, [*PLATEAU, "--model.optimizer.lr", "0.002"], [0.002] * 12),
        (
            [*TORCHS, "--model.optimizer.lr", "0.001"],
            [*TORCHS, "--model.scheduler.T_max", "24", "--model.scheduler_interval", "step"],
            [0.01 * (1 + math.cos(math.pi * step / 24)) / 2 for step in range(12, 24)],
        ),
    ],
)
def test_a_rate_or_schedule_that_was_changed_counts_and_is_named(
    rates: Fit,
    halfway: Halfway,
    capsys: pytest.CaptureFixture[str],
    before: list[str],
    after: list[str],
    expected: list[float],
):
    source = halfway(*before)
    capsys.readouterr()
    assert rates(*after, *resumed(source)) == pytest.approx(expected)
    note = next(line for line in capsys.readouterr().err.splitlines() if "note" in line)
    assert "goes on after epoch 2 with `model.init_args." in note
    assert note.endswith(f"the learning rate is {expected[0]:g} now.")


@pytest.mark.parametrize("schedule", [[], COSINE, TORCHS, PLATEAU])
def test_what_was_not_changed_goes_on_as_it_was(
    rates: Fit, halfway: Halfway, capsys: pytest.CaptureFixture[str], schedule: list[str]
):
    planned = [*schedule, "--model.scheduler.steps", "24"] if schedule is COSINE else schedule
    whole = rates(*planned, "--trainer.max_epochs", "4")
    source = halfway(*planned)
    capsys.readouterr()
    assert rates(*planned, *resumed(source)) == whole[12:]
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert all("no answer is accepted at a risk of" in note for note in notes)  # so few rows promise nothing


def test_weight_decay_and_betas_that_were_changed_count(halfway: Halfway, tmp_path: Path):
    source = halfway()
    more = ["--model.optimizer.weight_decay", "0.3", "--model.optimizer.betas", "[0.8, 0.99]"]
    run = table.fit(tmp_path, *more, *resumed(source))
    weights, others = table.content(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert (weights["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert list(weights["betas"]) == list(others["betas"]) == [0.8, 0.99]


def test_another_patience_counts(halfway: Halfway, tmp_path: Path):
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"]
    never = [*stop, "--trainer.callbacks.min_delta=1e9"]
    source = halfway(*never, "--trainer.callbacks.patience=2")
    # The first epoch is better than none; three that are no better follow.
    run = table.fit(tmp_path, *never, "--trainer.callbacks.patience=3", *resumed(source, 20))
    assert table.content(run / "checkpoints" / "last.ckpt")["epoch"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1"], "torch.optim.AdamW -> torch.optim.SGD"),
        (["--model.optimizer.amsgrad", "true"], "amsgrad` False -> True"),
    ],
)
def test_the_state_of_another_optimizer_is_refused(
    halfway: Halfway, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
):
    source = halfway()
    line = table.refused(capsys, tmp_path, *more, *resumed(source))
    assert "Expected the optimizer whose state the checkpoint holds" in line
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_averaged_weights_are_not_taken_for_raw_ones(
    halfway: Halfway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = halfway("--trainer.callbacks+=EMAWeightAveraging")
    assert "Expected the callback that averages weights" in table.refused(capsys, tmp_path, *resumed(source))
    table.fit(tmp_path, "--trainer.callbacks+=EMAWeightAveraging", *resumed(source))


def test_a_clock_that_has_run_down_is_told(halfway: Halfway, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Lightning would train nothing and say nothing."""
    source = halfway("--trainer.max_time", "01:00:00:00")
    line = table.refused(capsys, tmp_path, "--trainer.max_time", "00:00:00:00", *resumed(source))
    assert "Expected `trainer.max_time` to be more than the" in line
    table.fit(tmp_path, "--trainer.max_time", "01:00:00:00", *resumed(source))

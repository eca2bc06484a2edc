from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD

from dubio.training import WarmupCosine
from dubio.training.errors import TrainingError
from tests import table


def _rates(scheduler: WarmupCosine, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def _optimizer() -> SGD:
    return SGD(nn.Linear(1, 1).parameters(), lr=2.0)


def test_it_rises_in_a_line_and_falls_along_half_a_cosine():
    rates = _rates(WarmupCosine(_optimizer(), warmup=0.3, floor=0.1, steps=10), 12)
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.5])
    falling = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * done / 7)) / 2) for done in range(8)]
    assert rates[3:11] == pytest.approx(falling)
    assert rates[11] == pytest.approx(0.2)


def test_without_a_warm_up_it_is_torchs_cosine():
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(_optimizer(), T_max=20)
    ours = _rates(WarmupCosine(_optimizer(), warmup=0.0, steps=20), 20)
    assert ours == pytest.approx(_rates(reference, 20))


def test_the_number_of_steps_may_come_later_and_the_first_rate_is_mended():
    late = WarmupCosine(_optimizer(), warmup=0.5)
    late.plan(10)
    assert _rates(late, 10) == pytest.approx(_rates(WarmupCosine(_optimizer(), warmup=0.5, steps=10), 10))
    given = WarmupCosine(_optimizer(), steps=10)
    given.plan(99)
    assert given.steps == 10


def test_it_goes_on_where_it_was_under_the_plan_that_holds_now():
    first = WarmupCosine(_optimizer(), warmup=0.2, steps=10)
    _rates(first, 4)
    state = first.state_dict()
    assert set(map(type, state.values())) <= {int, float, bool, list, type(None)}
    same = WarmupCosine(_optimizer(), warmup=0.2, steps=10)
    same.load_state_dict(state)
    assert _rates(same, 6) == _rates(first, 6)
    longer = WarmupCosine(_optimizer(), warmup=0.3, floor=0.1, steps=20)
    longer.load_state_dict(state)
    whole = WarmupCosine(_optimizer(), warmup=0.3, floor=0.1, steps=20)
    assert longer.get_last_lr() == [longer.optimizer.param_groups[0]["lr"]]
    assert _rates(longer, 16) == _rates(whole, 20)[4:]


def test_a_training_without_an_end_cannot_be_planned():
    with pytest.raises(TrainingError, match=r"steps are known .*`steps`"):
        WarmupCosine(_optimizer()).plan(math.inf)
    WarmupCosine(_optimizer(), steps=10).plan(math.inf)


@pytest.mark.slow
def test_a_training_that_a_clock_ends_has_the_rates_of_the_steps_that_were_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cosine = ["--model.scheduler", "dubio.training.WarmupCosine"]
    clock = ["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:01"]
    line = table.refused(capsys, tmp_path, *clock, *cosine)
    assert "how many `trainer.max_time` allows); set one of them, or `steps`" in line
    for schedule in ([*cosine, "--model.scheduler.steps", "50"], ["--model.scheduler", "CosineAnnealingLR"]):
        more = ["--model.scheduler.T_max", "9"] if "CosineAnnealingLR" in schedule else []
        run = table.fit(tmp_path, *clock, *schedule, *more)
        assert table.content(run / "checkpoints" / "last.ckpt")["global_step"] >= table.STEPS


@pytest.mark.parametrize("arguments", [{"warmup": 1.0}, {"floor": -0.1}, {"steps": 0}])
def test_wrong_arguments_are_named(arguments: dict):
    with pytest.raises(TrainingError, match=next(iter(arguments))):
        WarmupCosine(_optimizer(), **arguments)

from __future__ import annotations

from pathlib import Path

import pytest

from dubio.models import load
from tests import table

EMA = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"]
NORMALIZED = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
"""


@pytest.mark.filterwarnings("ignore:(?s).*Unable to serialize instance cpu")
def test_an_average_that_no_checkpoint_holds_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    swa = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"]
    line = table.refused(capsys, tmp_path, *swa)
    assert "before averaging would be served; use EMAWeightAveraging" in line
    assert not (tmp_path / "runs").exists()


def test_an_average_that_begins_after_the_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Lightning would validate, keep and serve the weights before the first step."""
    steps = 2 * table.STEPS
    late = ["--trainer.callbacks.update_starting_at_step", str(steps)]
    assert "EMAWeightAveraging to average at least once" in table.refused(capsys, tmp_path, *EMA, *late)
    assert not list(tmp_path.rglob("*.ckpt"))
    run = table.fit(tmp_path, *EMA, "--trainer.callbacks.update_starting_at_step", str(steps - 1))
    assert table.content(run / "checkpoints" / "last.ckpt")["averaging_state"]["n_averaged"] == 1


def test_the_statistics_of_a_batch_norm_are_those_of_the_average(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "normalized_net.py").write_text(NORMALIZED)
    monkeypatch.syspath_prepend(tmp_path)
    network = ["--model.network", "normalized_net.Net", *EMA]
    line = table.refused(capsys, tmp_path, *network, "--trainer.callbacks.use_buffers=false")
    assert "`use_buffers` of EMAWeightAveraging to be true" in line
    run = table.fit(tmp_path, *network)
    last = table.content(run / "checkpoints" / "last.ckpt")
    assert last["epoch"] == table.content(run / "model.ckpt")["epoch"]
    served = load(run / "model.ckpt", trusted=["normalized_net"]).network.state_dict()
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        assert served[name].equal(last["state_dict"][f"network.{name}"])
        assert not served[name].equal(last["current_model_state"][f"network.{name}"])

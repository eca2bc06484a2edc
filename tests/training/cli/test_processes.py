"""Several processes train one model, and one of them calibrates and writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from sklearn.datasets import load_digits

from dubio.models import load
from dubio.models.checkpoint import file
from dubio.training.cli import processes
from dubio.training.cli.main import main
from dubio.training.errors import TrainingError
from dubio.training.splits.shares import Share, same_input
from tests.training.ranks import together

ELASTIC = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "9279",
}
PORT = 9270

# What each process saw, in a file of its own, and which of them calibrated or wrote.
WITNESS = """
import json
import os
import torch
from pytorch_lightning import Callback
from dubio.models.checkpoint import file
from dubio.training import calibration

RANK = os.environ.get("RANK", "0")

def told(what):
    with open(f"seen-{RANK}.jsonl", "a") as log:
        log.write(json.dumps(what) + "\\n")

def watched(where, name):
    real = getattr(where, name)
    def watching(*args, **kwargs):
        told({"did": name, "rows": len(args[2].splits["train"].x) if name == "calibrate" else 0})
        return real(*args, **kwargs)
    setattr(where, name, watching)

watched(calibration, "calibrate")
watched(file, "write")

class Witness(Callback):
    def on_train_start(self, trainer, pl_module):
        drawn = torch.rand(4).tolist() if os.environ.get("DRAWS") else []
        data = trainer.datamodule
        told({"drawn": drawn, "held": len(data.splits["train"].x), "input": data.input.model_dump_json()})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        data = trainer.datamodule.input
        x = batch[0][:, 0].double() * data.std[0] + data.mean[0]
        told({"epoch": trainer.current_epoch, "rows": [round(each) for each in x.tolist()]})

class Broken(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if RANK == "1" and batch_idx == 1:
            raise ValueError("the second process is out of order")
"""


def config(folder: Path, *callbacks: str) -> None:
    """Digits with the number of the row before the pixels, and a small network for them."""
    digits = load_digits()
    x = np.hstack([np.arange(len(digits.data))[:, None], digits.data]).astype(np.float32)
    np.savez(folder / "digits.npz", x=x, y=digits.target)
    (folder / "witness.py").write_text(WITNESS)
    network = {"class_path": "dubio.models.MLP", "init_args": {"widths": [64], "rates": [0.2]}}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    model = {"network": network, "optimizer": optimizer, "class_weights": "balanced"}
    content = {
        "name": "ranks",
        "model": {"class_path": "dubio.training.Classifier", "init_args": model},
        "data": {"class_path": "dubio.training.Arrays", "init_args": {"path": "digits.npz", "batch_size": 32}},
        "trainer": {
            "max_epochs": 6,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "callbacks": [{"class_path": f"witness.{name}"} for name in callbacks],
        },
        "calibration": {"num_samples": 4, "tune_rates": [1.0]},
    }
    (folder / "ranks.yaml").write_text(yaml.safe_dump(content))


def torchrun(folder: Path, port: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine, as docs/distributed.md starts them."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    arguments = ["--config", "ranks.yaml", "--trainer.devices", "2", "--trainer.strategy", "ddp", *more]
    return subprocess.run(
        [sys.executable, *start, "-m", "dubio.training", "fit", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def seen(folder: Path, rank: int) -> list[dict]:
    return [json.loads(line) for line in (folder / f"seen-{rank}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_calibrate_once_and_write_what_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config(tmp_path, "Witness")
    monkeypatch.setenv("DRAWS", "1")
    ran = torchrun(tmp_path, PORT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    monkeypatch.delenv("DRAWS")
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    config(tmp_path / "alone")
    main(["fit", "--config", "ranks.yaml"])
    # The same rows, divided and scaled as by one process.
    two, one = (file.read_content(path / "runs" / "ranks" / "model.ckpt") for path in (tmp_path, tmp_path / "alone"))
    divisions = [content["dubio"]["divisions"][0] for content in (two, one)]
    for part in ("rows", "digests"):
        for name, each in divisions[1][part].items():
            assert torch.equal(divisions[0][part][name], each)
    predictors = [load(path / "runs" / "ranks" / "model.ckpt") for path in (tmp_path, tmp_path / "alone")]
    assert same_input(*(predictor.input for predictor in predictors))
    # Each row once an epoch, by the number that it begins with.
    logs = [seen(tmp_path, rank) for rank in range(2)]
    train = sorted(divisions[0]["rows"]["train"].tolist())
    for epoch in range(6):
        batches = [[each["rows"] for each in log if each.get("epoch") == epoch] for log in logs]
        assert sorted(row for part in batches for batch in part for row in batch) == train
        assert len(batches[0]) == len(batches[1])
    starts = [next(each for each in log if "held" in each) for log in logs]
    assert [start["held"] for start in starts] == [len(train) - len(train) // 2, len(train) // 2]
    assert starts[0]["input"] == starts[1]["input"]
    assert starts[0]["drawn"] != starts[1]["drawn"]
    # One has calibrated, on all training rows, and written.
    did = [[each for each in log if "did" in each] for log in logs]
    assert {"did": "calibrate", "rows": len(train)} in did[0]
    assert did[1] == []
    # As good as alone, within three standard errors of 180 test rows at 95%.
    measured = [predictor.provenance.measured for predictor in predictors]
    assert abs(measured[0].accuracy - measured[1].accuracy) < 3 * 0.023
    assert min(each.accuracy for each in measured) > 0.85


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_what_it_said(tmp_path: Path):
    config(tmp_path, "Broken")
    began = time.monotonic()
    ran = torchrun(tmp_path, PORT + 1)
    assert ran.returncode != 0
    assert "dubio-train: error: the second process is out of order" in ran.stderr
    assert time.monotonic() - began < 200  # it neither hangs nor waits for torch's half an hour
    assert not (tmp_path / "runs" / "ranks" / "model.ckpt").exists()


def settings(**given: object) -> Namespace:
    known = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "overfit_batches": 0.0}
    return Namespace(**{**known, "use_distributed_sampler": True, **given})


def test_which_process_it_is_is_known_before_there_is_a_trainer(monkeypatch: pytest.MonkeyPatch):
    assert processes.share(settings()) == Share()
    # Lightning starts the others later; each of them then finds its rank in the environment.
    assert processes.share(settings(devices=2)) == Share(0, 2)
    # A strategy that forks copies what one process has read.
    assert processes.share(settings(devices=2, strategy="ddp_spawn")) == Share()
    assert processes.share(settings(devices=2, overfit_batches=4)) == Share()
    assert processes.share(settings(devices=2, use_distributed_sampler=False)) == Share()
    for name, value in ELASTIC.items():
        monkeypatch.setenv(name, value)
    built = Namespace(class_path="pytorch_lightning.strategies.DDPStrategy")
    two = [settings(devices=2, num_nodes=2, strategy=strategy) for strategy in ("ddp", built)]
    # In a process of its own: Lightning keeps its rank for as long as it lives.
    assert together(lambda _: [processes.share(each) for each in two], count=1) == [("gave", [Share(3, 4)] * 2)]


def test_one_works_and_the_others_wait_for_it(tmp_path: Path):
    def work(rank: int) -> bool:
        def slowly() -> None:
            time.sleep(0.3)
            (tmp_path / f"written-by-{rank}").touch()

        processes.alone(slowly, rank)
        return (tmp_path / "written-by-0").exists()

    assert together(work) == [("gave", True), ("gave", True)]
    assert [path.name for path in tmp_path.iterdir()] == ["written-by-0"]


def test_where_the_one_fails_the_others_end_without_a_word_of_their_own():
    def work(rank: int) -> None:
        def fail() -> None:
            raise TrainingError("the rows are too few")

        processes.alone(fail, rank)

    (first, told), (second, status) = together(work)
    assert (first, second) == ("TrainingError", "SystemExit")
    assert told.startswith("the rows are too few")
    assert status.splitlines()[0] == "1"


def test_where_the_one_is_killed_the_others_say_so():
    def work(rank: int) -> None:
        processes.alone(lambda: os._exit(9), rank)

    # Process 0 gives no answer at all, so that of process 1 is the only one.
    (only,) = together(work, answers=1)
    assert only[0] == "TrainingError"
    assert "Expected process 0 to calibrate" in only[1]


def test_where_the_one_is_gone_before_the_others_wait_they_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=1))

    def work(rank: int) -> None:
        if rank == 0:
            os._exit(9)
        processes.alone(int, rank)

    (only,) = together(work, answers=1)
    assert only[0] == "TrainingError"
    assert "Expected process 0 to calibrate" in only[1]


def test_alone_it_just_works():
    done: list[int] = []
    processes.alone(lambda: done.append(1), 0)
    assert done == [1]

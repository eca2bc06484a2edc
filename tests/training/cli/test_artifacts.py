"""What a fit leaves in MLflow and Weights & Biases."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, WandbLogger

from dubio.models import load
from dubio.training.cli import artifacts
from dubio.training.cli.main import main
from tests import table


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a folder for MLflow, which leaves it in the environment."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = set(os.environ)
    yield f"file:{tmp_path / 'mlruns'}"
    for name in set(os.environ) - before:
        if "MLFLOW" in name:
            del os.environ[name]


@pytest.mark.slow
def test_a_run_of_mlflow_has_parameters_curves_the_checkpoint_and_the_report(store: str, tmp_path: Path):
    config = table.write(tmp_path)
    logger = ["--trainer.logger", "MLFlowLogger", "--trainer.logger.experiment_name", "tables"]
    logger += ["--trainer.logger.tracking_uri", store]
    data = ["--data.path", str(tmp_path / "table.csv"), "--runs", str(tmp_path / "runs")]
    main(["fit", "--config", str(config), *data, *logger, "--trainer.max_epochs", "3"])

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tables")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    parameters = run.data.params
    assert parameters["network/init_args/widths"] == "[16, 16]"
    assert parameters["calibration/num_samples"] == "4"
    assert parameters["data/init_args/target"] == "label"
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert len(client.get_metric_history(run.info.run_id, name)) == 3, name
    servable = tmp_path / "runs" / "table" / "model.ckpt"
    measured = load(servable, measure_seconds=0).provenance.measured
    assert run.data.metrics["test_accuracy"] == pytest.approx(measured.accuracy)
    assert run.data.metrics["test_flagged"] == pytest.approx(measured.flagged)

    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert (folder / "model.ckpt").read_bytes() == servable.read_bytes()
    assert (folder / "config.yaml").read_text() == (servable.parent / "config.yaml").read_text()
    told = json.loads((folder / "model_report" / "report.json").read_text())
    assert told
    assert (folder / "model_report" / "report.html").is_file()


class Offline(WandbLogger):
    """Keeps what it is sent; the library of the real one is not installed."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(
            id="r1", log_artifact=lambda path, name, type: self.sent.append((Path(path).name, name, type))
        )


def test_weights_and_biases_gets_each_with_its_type(tmp_path: Path):
    logger = Offline()
    (tmp_path / "model_report").mkdir()
    artifacts.send(logger, [tmp_path / "model.ckpt", tmp_path / "config.yaml", tmp_path / "model_report"])
    assert logger.sent == [
        ("model.ckpt", "r1-model.ckpt", "model"),
        ("config.yaml", "r1-config.yaml", "config"),
        ("model_report", "r1-model_report", "report"),
    ]


def test_others_keep_no_files(store: str, tmp_path: Path):
    mlflow, csv = MLFlowLogger("a", tracking_uri=store), CSVLogger(str(tmp_path))
    assert artifacts.keepers([csv, mlflow]) == [mlflow]
    assert artifacts.keepers([csv]) == []

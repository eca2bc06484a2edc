"""Weights of other libraries: calibrated by the command line, served, and answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from starlette.testclient import TestClient
from torch import nn

from dubio.models import MLP, TransformersNet, load
from dubio.serving.app import create_app
from dubio.serving.settings import Settings
from dubio.training.cli.main import main
from tests.models.networks.transformers_models import BERT, DISTILBERT, build, tokens

ROWS = 300


def calibrated(folder: Path, network: dict[str, Any], x: np.ndarray, weights: Path) -> Path:
    """The checkpoint that the command writes, for rows that the network itself has labelled."""
    np.savez(folder / "rows.npz", x=x, y=np.arange(len(x)) % 3)
    content = {
        "name": "foreign",
        "runs": str(folder / "runs"),
        "model": {"class_path": "dubio.training.Classifier", "init_args": {"network": network}},
        "data": {
            "class_path": "dubio.training.Arrays",
            "init_args": {"path": str(folder / "rows.npz"), "mean": 0.0, "std": 1.0},
        },
        "trainer": {"accelerator": "cpu"},
        "calibration": {
            "num_samples": 6,
            "alpha": 0.1,
            "scores": ["mutual_information", "unit_mahalanobis"],
            "tune_rates": [1.0],
        },
    }
    (folder / "foreign.yaml").write_text(yaml.safe_dump(content))
    main(["calibrate", "--config", str(folder / "foreign.yaml"), "--ckpt_path", str(weights)])
    return folder / "runs" / "foreign" / "model.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "settings"), [("bert", BERT), ("distilbert", DISTILBERT)])
def test_a_sequence_classifier_is_calibrated_and_served(architecture: str, settings: dict[str, Any], tmp_path: Path):
    theirs = build(architecture, settings)
    theirs.save_pretrained(tmp_path / "theirs")
    arguments = TransformersNet.arguments(tmp_path / "theirs")
    assert arguments["config"] == settings
    network = {"class_path": "dubio.models.TransformersNet", "init_args": arguments}
    x = tokens(ROWS, seed=1)
    path = calibrated(tmp_path, network, x.numpy(), tmp_path / "theirs" / "model.safetensors")

    predictor = load(path, measure_seconds=0.1)
    assert {site.kind for site in predictor.committee.sites} == {"dropout", "attention"}
    with torch.no_grad():
        logits_BC = theirs(input_ids=x[:5], attention_mask=(x[:5] != 0).long()).logits
    due = (logits_BC / predictor.temperature.deterministic).softmax(-1).numpy()
    answer = predictor.predict(x[:5])
    np.testing.assert_allclose(answer.probabilities, due, atol=1e-5)
    assert answer.flagged is not None
    assert float(answer.mc_std.min()) > 0

    service = create_app(Settings(models=(str(path),), torch_threads=1))
    with TestClient(service.asgi, "http://localhost") as client:
        served = client.post("/v1/predict", json={"instances": x[:5].tolist()}).json()["predictions"]
    for row, prediction in enumerate(served):
        assert prediction["deterministic"]["probabilities"] == pytest.approx(due[row].tolist(), abs=1e-5)
        assert prediction["mc"]["mean"] == pytest.approx(answer.mc_mean[row].tolist(), abs=1e-4)
        assert prediction["ood"]["flagged"] in (True, False)


def test_safetensors_of_a_network_of_dubios_own(tmp_path: Path):
    arguments = {"in_features": 4, "widths": [8], "rates": [0.5], "num_classes": 3}
    network = MLP(**arguments).eval()
    save_file({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "w.safetensors")
    x = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    path = calibrated(
        tmp_path, {"class_path": "dubio.models.MLP", "init_args": arguments}, x, tmp_path / "w.safetensors"
    )
    predictor = load(path, measure_seconds=0.1)
    with torch.no_grad():
        due = network(torch.from_numpy(x[:5]))
    assert torch.equal(predictor.deterministic(x[:5]).logits_BC, due)


def test_a_model_that_returns_its_logits_by_name_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "by_name.py").write_text(
        "from types import SimpleNamespace\n"
        "from dubio.models import MLP\n"
        "class ByName(MLP):\n"
        "    def forward(self, x):\n"
        "        return SimpleNamespace(logits=super().forward(x))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(SystemExit):
        calibrated(tmp_path, {"class_path": "by_name.ByName"}, np.zeros((ROWS, 4)), tmp_path / "w.pt")
    assert "wrap it in dubio.models.SequenceClassifier" in capsys.readouterr().err

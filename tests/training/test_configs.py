"""Every config on the digits trains a little, calibrates, loads, predicts and is tested again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models import load
from training.cli import main

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("digits_*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_config_becomes_a_model(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "8"]
    main(["fit", "--config", str(config), *few])
    path = tmp_path / "runs" / config.stem / "model.ckpt"
    assert "dubio" in torch.load(path, weights_only=True)
    predictor = load(path)
    settings = yaml.safe_load(config.read_text())
    assert predictor.network_spec.class_path == settings["model"]["init_args"]["network"]["class_path"]
    prediction = predictor.predict(np.zeros((3, 1, 8, 8)))
    assert float(prediction.mc_std.max()) > 0
    assert prediction.flagged is not None
    main(["test", "--config", str(config), "--ckpt_path", str(path), "--trainer.enable_progress_bar", "false"])


def test_every_config_names_itself() -> None:
    for config in CONFIGS[0].parent.glob("*.yaml"):
        text = config.read_text()
        assert yaml.safe_load(text)["name"] == config.stem
        assert f"--config configs/{config.name}" in text

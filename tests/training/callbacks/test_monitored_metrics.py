from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import table

EARLY = "--trainer.callbacks+=EarlyStopping"
PLATEAU = ["--model.scheduler", "pytorch_lightning.cli.ReduceLROnPlateau"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([EARLY, "--trainer.callbacks.monitor=gap", "--trainer.callbacks.mode=max"], "of EarlyStopping .*'gap'; known"),
        (["--checkpoint.monitor", "val_acuracy", "--checkpoint.mode", "max"], "mean `val_accuracy`"),
        (["--checkpoint.monitor", "val_losss", "--checkpoint.mode", "min"], "of BestCheckpoint .*mean `val_loss`"),
        ([*PLATEAU, "--model.scheduler.monitor", "val_recall"], "of ReduceLROnPlateau .*'val_recall'"),
    ],
)
def test_a_metric_that_nobody_measures_is_refused_before_the_first_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    assert re.search(message, table.refused(capsys, tmp_path, *arguments))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_is_measured_may_be_watched(tmp_path: Path):
    table.fit(
        tmp_path, EARLY, "--trainer.callbacks.monitor=train_loss", *PLATEAU, "--model.scheduler.monitor", "val_loss"
    )

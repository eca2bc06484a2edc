from __future__ import annotations

from pathlib import Path

import pytest

from models import load
from training.cli import main


def test_a_checkpoint_is_audited(runs: Path, capsys: pytest.CaptureFixture[str]):
    path = runs / "digits_mlp" / "model.ckpt"
    main(["audit", "--ckpt", str(path)])
    printed = capsys.readouterr().out
    committee = load(path).committee
    assert printed == f"{committee.audit()}\n"
    assert all(f"{site.name}  {site.kind}" in printed for site in committee.sites)


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["audit", "--ckpt", str(tmp_path / "none.ckpt")])
    assert caught.value.code == 2
    assert "none.ckpt: no such file" in capsys.readouterr().err

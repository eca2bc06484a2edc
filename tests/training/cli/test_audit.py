from __future__ import annotations

import re
from pathlib import Path

import pytest

from dubio.models import load
from dubio.training.cli.main import main


def _without_strategy(report: str) -> list[str]:
    head, _, tail = report.replace("in use", "agrees").partition("rows  strategy  milliseconds")
    return [line for line in (head + tail.partition("\n\n")[2]).splitlines() if "strategy:" not in line]


def test_a_checkpoint_is_audited(runs: Path, capsys: pytest.CaptureFixture[str]):
    path = runs / "digits_mlp" / "model.ckpt"
    main(["audit", "--ckpt", str(path)])
    printed = capsys.readouterr().out
    committee = load(path).committee
    # Which strategy is fastest is measured by each of the two, and may differ on a busy machine.
    assert _without_strategy(printed) == _without_strategy(f"{committee.audit()}\n")
    assert re.search(r"strategy: (chain|thinned)", printed)
    assert all(f"{site.name}  {site.kind}" in printed for site in committee.sites)


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["audit", "--ckpt", str(tmp_path / "none.ckpt")])
    assert caught.value.code == 2
    assert "none.ckpt: no such file" in capsys.readouterr().err

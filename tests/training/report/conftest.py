"""A table, and one report of a quick model of the digits, written by the command line, that several tests look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dubio.models import Predictor
from dubio.models.checkpoint import file
from dubio.training import Digits, Table
from dubio.training.cli.main import main
from dubio.training.report import build
from dubio.training.report.content import Report


@dataclass(frozen=True)
class Written:
    """A report, and what it is of."""

    checkpoint: Path
    folder: Path
    content: Report
    predictor: Predictor
    data: Digits


@pytest.fixture(scope="session")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    path, folder = runs / "digits_mlp" / "model.ckpt", tmp_path_factory.mktemp("report")
    main(["report", "--ckpt", str(path), "--output", str(folder)])
    data = Digits()
    data.follow(file.data_record(path, file.read_content(path)), "test")
    content = Report.model_validate_json((folder / "report.json").read_text())
    return Written(path, folder, content, build.reproducible(path, []), data)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """400 rows of a number with holes and a name."""
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    draws = np.random.default_rng(0)
    lines = ["age,town,label"]
    for index in range(400):
        age = "" if index % 7 == 0 else f"{draws.normal(40, 10):.3f}"
        lines.append(f"{age},{('Bonn', 'Ulm')[index % 2]},{('no', 'yes')[index % 3 == 0]}")
    path.write_text("\n".join(lines))
    return Table(str(path), target="label")

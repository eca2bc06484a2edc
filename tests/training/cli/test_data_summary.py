from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from rich.console import Console

from dubio.training import Arrays, Digits, ImageFolder, Text
from dubio.training import Table as DataTable
from dubio.training.cli.data_summary import table
from dubio.training.cli.main import main
from dubio.training.data.module import TensorDataModule
from tests.training import coins

ROWS = 600


def cells(text: str) -> dict[str, str]:
    """What stands behind each word of the first column of the first table."""
    found, key = {}, ""
    for line in text.partition("└")[0].splitlines():
        if line.startswith("│"):
            name, told = (cell.strip() for cell in line.strip("│").split("│"))
            key = name or key  # a line without is the rest of the one before
            found[key] = f"{found.get(key, '')} {told}".strip()
    return found


def told(data: TensorDataModule) -> dict[str, str]:
    written = io.StringIO()
    Console(width=300, file=written).print(table(data))
    return cells(written.getvalue())


def visits(folder: Path) -> Path:
    """Two visits of each patient, in order; nothing tells who is ill."""
    random = np.random.default_rng(0)
    columns: dict[str, object] = {
        "nr": range(ROWS),
        "patient": [f"p{row // 2}" for row in range(ROWS)],
        "city": random.choice(["Bonn", "Kiel", "Ulm"], ROWS),
        "day": [f"2026-01-{1 + row // 20:02}" for row in range(ROWS)],
        "ill": ["yes" if row % 3 else "no" for row in range(ROWS)],
        "note": "[red]free",
        **{f"value {index}": random.normal(size=ROWS) for index in range(12)},
    }
    pl.DataFrame(columns, strict=False).write_csv(folder / "visits.csv")
    return folder / "visits.csv"


def test_of_a_table_the_columns_are_told_by_what_they_are_for(tmp_path: Path):
    data = DataTable(str(visits(tmp_path)), target="ill", ignore=("note", "nr"), group="patient", time="day")
    sizes = {name: len(part.labels) for name, part in data.splits.items()}
    assert told(data) == {
        "rows": f"{ROWS}: " + ", ".join(f"{name} {size}" for name, size in sizes.items()),
        "numeric": "12: " + ", ".join(f"value {index}" for index in range(10)) + " and 2 others",
        "categorical": "1: city (3)",
        "ignored": "nr, note",
        "group": "patient",
        "time": "day",
        "target": "ill: 2 classes, no (200), yes (400)",
    }


def test_of_texts_the_column_and_the_tokens_are_told(tmp_path: Path):
    rows = [{"say": f"rain {row % 5}", "as": f"intent {row % 12}", "by": row} for row in range(ROWS)]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    facts = told(Text(str(tmp_path / "f.jsonl"), text="say", label="as", length=7))
    # Two tokens stand for padding and for words that are not known.
    assert facts["tokens"] == "the first 7 of a text; 8 are known (word), capitals count as small letters"
    assert (facts["text"], facts["ignored"]) == ("say", "by")
    assert facts["target"].startswith("as: 12 classes, intent 0 (50), intent 1 (50), intent 10 (50)")
    assert facts["target"].endswith("intent 7 (50) and 2 others")


def test_of_images_the_size_and_the_classes_are_told(tmp_path: Path, digits: Digits):
    for number in range(120):
        path = tmp_path / "pets" / ("[b]cat" if number % 3 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), number).save(path)
    facts = told(ImageFolder(str(tmp_path / "pets"), size=(4, 4)))
    assert facts["images"] == "3 x 4 x 4 (channels, height, width), to which files of other sizes are resized"
    assert facts["classes"] == "2: [b]cat (80), dog (40)"
    facts = told(digits)
    assert facts["images"] == "1 x 8 x 8 (channels, height, width)"
    assert facts["classes"].startswith("10: 0 (178), 1 (182), 2 (177)")
    assert "ignored" not in facts


def test_a_column_of_an_array_that_counts_the_rows_is_told(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    x[:, 1] = np.arange(ROWS)
    np.savez(tmp_path / "f.npz", x=x, y=np.arange(ROWS) % 2)
    data = Arrays(str(tmp_path / "f.npz"))
    assert told(data)["numbers"] == "3 a row"
    (doubt,) = data.load().doubts
    assert "column 1 of `x` holds 0, 1, 2, ... in the order of the rows (a row number?); leave it out, in req" in doubt


def test_a_fit_tells_before_the_training_what_is_seen_and_what_is_odd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    trial = ["--trainer.fast_dev_run", "true", "--trainer.enable_progress_bar", "false"]
    common = ["--config", "table_mlp", "--data.path", visits(tmp_path).name, "--data.target", "ill", *trial]
    main(["fit", *common, "--data.ignore", "[note, day]"])
    said = capsys.readouterr()
    assert re.fullmatch(r"2: patient \(2\d\d\), city \(3\)", cells(said.out)["categorical"])
    warnings = [line for line in said.err.splitlines() if line.startswith("dubio-train: warning: ")]
    assert warnings == [
        "dubio-train: warning: visits.csv: column 'nr' holds 0, 1, 2, ... in the order of the rows (a row number?); "
        "leave it out with `--data.ignore '[note, day, nr]'`.",
        "dubio-train: warning: visits.csv: column 'patient' holds 300 names in 600 rows, so most occur once or twice; "
        "leave it out with `--data.ignore '[note, day, patient]'`, or keep rows that share it in one split with "
        "`--data.group patient`.",
    ]
    main(["fit", *common, "--data.ignore", "[note, day, nr]", "--data.group", "patient"])
    said = capsys.readouterr()
    assert "column" not in said.err
    assert cells(said.out)["group"] == "patient"


def test_of_a_calibration_other_rows_than_those_of_the_fit_are_told(coin: Path, capsys: pytest.CaptureFixture[str]):
    coins.run("calibrate", "--calibration.alpha", "0.1")
    assert "what the network sees" not in capsys.readouterr().out
    coins.run("calibrate", "--data.path", coins.save(coin / "new.csv", coins.rows(300, 1)))
    said = capsys.readouterr()
    assert "what the network sees of new.csv" in said.out
    assert cells(said.out.partition("runs/coin")[0])["ignored"] == "id"
    assert "warning" not in said.err

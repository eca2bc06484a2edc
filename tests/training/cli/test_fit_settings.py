from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from dubio.models import load
from dubio.models.checkpoint import file
from dubio.training import Arrays, Digits, ImageFolder, Synthetic, Table, Text
from dubio.training.cli import first_checkpoint
from dubio.training.cli.main import main
from dubio.training.cli.messages import options
from dubio.training.data.module import TensorDataModule

BASE = {
    "name": "base",
    "model": {
        "class_path": "dubio.training.Classifier",
        "init_args": {"network": {"class_path": "dubio.models.MLP", "init_args": {"widths": [8], "rates": [0.3]}}},
    },
    # As a configuration that is used for many tables: what it says of them is no more than a placeholder.
    "data": {"class_path": "dubio.training.Table", "init_args": {"path": "data.csv", "target": "label", "ignore": []}},
    "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False},
    "calibration": {"num_samples": 4, "alpha": 0.2, "k": 5},
}
# Everything that says how this table is read.
LINE = ["--data.target", "bought", "--data.separator", ";", "--data.decimal", ",", "--data.thousands", "."]
LINE += ["--data.ignore", "[id]", "--data.group", "patient", "--data.time", "day", "--data.categorical", "[code]"]
LINE += ["--data.missing", "[none]"]


def write(path: Path, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    income = [f"1.{row % 10}{draw.integers(10, 99)},{draw.integers(1000):03d}" for row in range(rows)]
    frame = pl.DataFrame(
        {
            "id": [f"i{seed}-{row}" for row in range(rows)],
            "patient": [f"p{row // 2}" for row in range(rows)],
            "day": [1000 * seed + row for row in range(rows)],
            "income": ["none" if row % 9 == 0 else each for row, each in enumerate(income)],
            "age": [f"{draw.random() * 90:.6f}".replace(".", ",") for _ in range(rows)],
            "code": [f"0{draw.integers(1, 4)}" for _ in range(rows)],
            "bought": [("yes", "no")[draw.integers(2)] for _ in range(rows)],
        }
    )
    frame.write_csv(path, separator=";")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of a table whose reading was said on the command line alone; not to be written into."""
    folder = tmp_path_factory.mktemp("fit_settings")
    write(folder / "fit.csv", 300, seed=0)
    write(folder / "new.csv", 200, seed=1)
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", "base.yaml", "--data.path", "fit.csv", *LINE])
    return folder


@pytest.fixture
def here(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(fitted, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def number(cell: str) -> float:
    return float(cell.replace(".", "").replace(",", "."))


@pytest.mark.parametrize("checkpoint", [[], ["--ckpt_path", "runs/base/model.ckpt"], ["--ckpt_path", "other.ckpt"]])
def test_a_new_file_is_read_as_the_file_of_the_fit(
    checkpoint: list[str], here: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy("runs/base/model.ckpt", "other.ckpt")
    main(["predict", "--config", "base.yaml", "--data.path", "new.csv", *checkpoint, "--ids", "[id]"])
    path = checkpoint[-1] if checkpoint else "runs/base/model.ckpt"
    note = capsys.readouterr().err.splitlines()[0]
    assert note.startswith(f"dubio-train: note: the data are read as at the fit of {path}, not as configured: ")
    assert '`data.target` is "bought", not "label"; `data.ignore` is ["id"], not []. What' in note
    told = pl.read_csv("runs/base/predictions.csv")
    cells = pl.read_csv("new.csv", separator=";", infer_schema=False)
    rows = [
        {
            name: row[name] if name == "code" else None if row[name] == "none" else number(row[name])
            for name in ("income", "age", "code")
        }
        for row in cells.to_dicts()
    ]
    served = load("runs/base/model.ckpt").predict(rows)
    assert told["id"].to_list() == cells["id"].to_list()
    np.testing.assert_allclose(told["mc.mean.yes"], served.mc_mean[:, 1], atol=1e-5)


def test_every_command_takes_them(here: Path, capsys: pytest.CaptureFixture[str]):
    main(["validate", "--config", "base.yaml", "--data.path", "new.csv"])
    main(["test", "--config", "base.yaml", "--data.path", "fit.csv"])
    capsys.readouterr()
    main(["calibrate", "--config", "base.yaml", "--data.path", "new.csv"])
    # The file of a calibration is divided by groups and time, too, for those of the fit are not forgotten.
    assert "calibration rows are of 30 groups" in capsys.readouterr().err
    path = "runs/base/model.ckpt"
    calibrated = file.data_record(path, file.read_content(path)).divisions[1].rows
    assert [int(calibrated[name].min()) for name in ("validation", "select", "calibration", "test")] == [0, 40, 80, 140]
    # Those of the fit stay, also after a calibration on another file.
    main(["predict", "--config", "base.yaml", "--data.path", "fit.csv"])
    assert pl.read_csv("runs/base/predictions.csv")["split"].head(180).to_list() == ["train"] * 180


def test_what_the_command_line_sets_is_taken_and_told_or_refused(here: Path, capsys: pytest.CaptureFixture[str]):
    comma = (here / "new.csv").read_text().replace(",", "!").replace(".", ",").replace("!", ".")
    (here / "comma.csv").write_text(comma)
    main(["predict", "--config", "base.yaml", "--data.path", "new.csv"])
    due = pl.read_csv("runs/base/predictions.csv")["mc.mean.yes"]
    capsys.readouterr()
    other = ["--data.path", "comma.csv", "--data.decimal", ".", "--data.thousands", ","]
    main(["predict", "--config", "base.yaml", *other])
    told = 'at the fit of runs/base/model.ckpt: `data.decimal` is "." and was ","; `data.thousands` is "," and was ".".'
    assert told in capsys.readouterr().err
    np.testing.assert_allclose(pl.read_csv("runs/base/predictions.csv")["mc.mean.yes"], due, atol=1e-5)
    line = fails(capsys, "test", "--config", "base.yaml", "--data.path", "new.csv", "--data.missing", "[x]")
    assert (
        "`data.init_args.missing` to be ['none'], as the inputs of this checkpoint are encoded, but got ['x']" in line
    )
    line = fails(capsys, "test", "--config", "base.yaml", "--data.path", "fit.csv", "--data.group", "null")
    assert "`data.init_args.group` to be patient, by which the rows of this checkpoint were divided" in line


def test_other_columns_that_are_ignored_change_nothing_and_nothing_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    main(["predict", "--config", "base.yaml", "--data.path", "new.csv"])
    due = pl.read_csv("runs/base/predictions.csv")["mc.mean.yes"]
    frame = pl.read_csv("new.csv", separator=";", infer_schema=False)
    frame.with_columns(pl.lit("a").alias("note")).write_csv("more.csv", separator=";")
    line = fails(capsys, "predict", "--config", "base.yaml", "--data.path", "more.csv")
    assert "leave out what the network does not see with `--data.ignore '[id, note]'`" in line
    main(["predict", "--config", "base.yaml", "--data.path", "more.csv", "--data.ignore", "[note]"])
    assert "`data.ignore`" not in capsys.readouterr().err  # that of the fit holds as well
    np.testing.assert_allclose(pl.read_csv("runs/base/predictions.csv")["mc.mean.yes"], due, atol=1e-5)
    line = fails(capsys, "calibrate", "--config", "base.yaml", "--data.path", "new.csv", "--data.ignore", "[age]")
    assert "`data.init_args.ignore` to name no column that the network of this checkpoint sees, but got 'age'" in line


def test_a_word_that_was_no_missing_value_at_the_fit_is_told_with_what_helps(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    text = (here / "new.csv").read_text()
    (here / "dash.csv").write_text(text.replace("none", "-", 1))
    line = fails(capsys, "predict", "--config", "base.yaml", "--data.path", "dash.csv")
    assert "got the text '-'; mend it; if it says that there is none, leave the cell empty, or fit again" in line
    (here / "dash.csv").write_text(text.replace("none", "", 1))
    main(["predict", "--config", "base.yaml", "--data.path", "dash.csv"])


def test_a_configuration_of_dubios_that_the_fit_overruled_is_no_news(
    fitted: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["--config", "table_mlp", "--data.path", "new.csv", "--ckpt_path", "runs/base/model.ckpt"]
    main(["predict", *arguments])
    assert "not as configured" not in capsys.readouterr().err
    main(["predict", "--config", "base.yaml", "--data.path", "new.csv"])
    assert "not as configured" in capsys.readouterr().err  # whose file it is may have edited it since


def test_what_rows_have_in_common_need_not_be_in_another_file(here: Path, capsys: pytest.CaptureFixture[str]):
    pl.read_csv("new.csv", separator=";", infer_schema=False).drop("patient", "day", "id").write_csv(
        "few.csv", separator=";"
    )
    arguments = ["--config", "base.yaml", "--data.path", "few.csv"]
    main(["test", *arguments])
    line = fails(capsys, "calibrate", *arguments)
    assert (
        "few.csv: expected a column 'patient', but there is none; if these rows have none, add `--data.group null`"
        in line
    )
    main(["calibrate", *arguments, "--data.group", "null", "--data.time", "null"])


def test_the_second_line_of_what_comes_next_predicts(here: Path, capsys: pytest.CaptureFixture[str]):
    main(["calibrate", "--config", "base.yaml", "--data.path", "fit.csv", "--output", "served.ckpt"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert lines[0] == "next: dubio-serve served.ckpt"
    command = shlex.split(lines[1].removeprefix("next: "))
    assert command[:2] == ["dubio-train", "predict"]
    assert command[-2:] == ["--data.path", "fit.csv"]
    main(command[1:])
    assert len(pl.read_csv("runs/base/predictions.csv")) == 300


def test_a_configuration_of_another_class_of_data_is_left_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]):
    line = fails(capsys, "test", "--config", "base.yaml", "--config", "data: {class_path: dubio.training.Digits}")
    assert "expected inputs of kind table, as the checkpoint has, but got image" in line
    assert "cannot" not in line


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["--config", "base.yaml"], "runs/base/model.ckpt"),
        (["--config=some/base.yaml", "--name", "other", "--runs", "elsewhere"], "elsewhere/other/model.ckpt"),
        (["--config", "recipes/max_norm", "--ckpt_path", "best"], "runs/max_norm/checkpoints/best.ckpt"),
        (["--ckpt_path", "a.ckpt"], "a.ckpt"),
        (["--data.path", "a.csv"], None),
    ],
)
def test_the_checkpoint_of_a_command_is_known_from_its_arguments(
    arguments: list[str], path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("some").mkdir()
    for name in ("base.yaml", "some/base.yaml"):
        Path(name).write_text("threads: 1")
    assert first_checkpoint.find(arguments) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (Table("a.csv", "y"), ["target", "columns", "ignore", "group", "time", "split", "categorical", "missing"]),
        (Table("a.csv", "y"), ["separator", "decimal", "thousands", "seed", "duplicates", "train", "mean", "std"]),
        (Text("a.csv"), ["text", "label", "group", "time", "split", "tokenizer", "tokens", "lowercase", "length"]),
        (Arrays("a.npz"), ["channels", "mean", "std"]),
        (ImageFolder("a"), ["size", "channels", "nested"]),
        (Synthetic(), ["kind", "rows", "features", "num_classes", "noise"]),
        (Digits(), ["seed", "train"]),
    ],
)
def test_a_checkpoint_keeps_what_reads_the_data_under_the_names_of_its_settings(
    data: TensorDataModule, names: list[str]
):
    kept = {**data.settings(), **data.reading()}
    assert {*names} <= kept.keys() <= {*options(f"dubio.training.{type(data).__name__}")}

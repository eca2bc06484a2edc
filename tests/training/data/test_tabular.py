from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from dubio.models import load
from dubio.training import Table
from dubio.training.cli.main import main
from dubio.training.errors import DataUnavailable, TrainingError, UnreadableData
from dubio.training.splits.random_splits import SPLITS, SplitName

ROWS = 600


def frame(rows: int = ROWS) -> pl.DataFrame:
    """Flowers whose length and colour tell their kind; every seventh length is missing."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, rows)
    length = np.where(kind == 1, 6.0, 3.0) + random.normal(0, 0.7, rows)
    colour = np.where(random.random(rows) < 0.85, kind, 1 - kind)
    return pl.DataFrame(
        {
            "length": [None if row % 7 == 0 else float(np.float32(value)) for row, value in enumerate(length)],
            "colour": [("red", "blue")[each] for each in colour],
            "wild": random.random(rows) < 0.5,
            "zone": random.integers(1, 5, rows),
            "kind": [("rose", "iris")[each] for each in kind],
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    frame().write_csv(tmp_path / "flowers.csv")
    return tmp_path / "flowers.csv"


def test_columns_are_learned_on_the_training_rows_alone(path: Path):
    data = Table(str(path), target="kind", categorical=("zone",))
    train = frame()[[int(row) for row in _parts(data)["train"]]]
    length, colour, wild, zone = data.input.columns
    there = train["length"].drop_nulls()
    assert (length.kind, length.missing) == ("numeric", True)
    assert (length.low, length.fill, length.high) == pytest.approx((there.min(), there.median(), there.max()), rel=1e-6)
    assert (colour.categories, colour.missing) == (["blue", "red"], False)
    assert wild.categories == ["false", "true"]
    assert zone.categories == ["1", "2", "3", "4"]
    assert data.classes == ("iris", "rose")
    assert data.input.shape == (2 + 3 + 3 + 5,)
    # Values are scaled; what says that something is the case is not.
    encoded = data.splits["train"].x
    assert data.input.mean == pytest.approx([float(encoded[:, 0].mean(dtype=np.float64))] + [0.0] * 12)
    assert data.input.std == pytest.approx([float(encoded[:, 0].std(dtype=np.float64))] + [1.0] * 12)


def test_the_encoding_is_that_of_scikit_learn(path: Path):
    data = Table(str(path), target="kind", columns=("length", "colour"))
    part = _parts(data)
    raw = frame().with_columns(pl.col("length").fill_null(float("nan"))).select("length", "colour").to_numpy()
    peer = ColumnTransformer(
        [
            ("length", SimpleImputer(strategy="median", add_indicator=True), [0]),
            ("colour", OneHotEncoder(handle_unknown="ignore"), [1]),
        ],
        sparse_threshold=0,
    ).fit(raw[part["train"]])
    for name in SPLITS:
        expected = peer.transform(raw[part[name]]).astype(np.float32)
        np.testing.assert_array_equal(data.splits[name].x[:, :4], expected)
        assert not data.splits[name].x[:, 4].any()


def test_a_checkpoint_does_not_depend_on_the_kind_of_file(tmp_path: Path, path: Path):
    pl.read_csv(path).write_parquet(tmp_path / "flowers.parquet")
    quick = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "4"]
    common = ["--config", "configs/table_mlp.yaml", "--data.target", "kind", *quick]
    states = []
    for name in ("flowers.csv", "flowers.parquet"):
        main(["fit", *common, "--data.path", str(tmp_path / name), "--runs", str(tmp_path / name[:-4])])
        states.append(torch.load(tmp_path / name[:-4] / "table_mlp" / "model.ckpt", weights_only=True))
    one, other = states
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    assert one["dubio"]["input"] == other["dubio"]["input"]
    assert one["dubio"]["provenance"]["data_sha256"] == other["dubio"]["provenance"]["data_sha256"]


def _parts(data: Table) -> dict[SplitName, np.ndarray]:
    kinds = np.array([data.classes.index(kind) for kind in frame()["kind"].to_list()])
    return data.divide(kinds, data.classes)


def test_a_value_that_only_other_rows_have_is_outside(tmp_path: Path):
    rows = frame()
    own = np.array([SPLITS[row % 5] for row in range(ROWS)])
    length = np.where(own == "test", 99.0, 5.0)
    colour = np.where(own == "test", "green", np.where(np.arange(ROWS) % 2, "red", "blue"))
    rows = rows.with_columns(pl.Series("length", length), pl.Series("colour", colour), pl.Series("part", own))
    rows.write_csv(tmp_path / "flowers.csv")
    data = Table(str(tmp_path / "flowers.csv"), target="kind", split="part")
    assert list(data.input.reader.columns) == ["length", "colour", "wild", "zone"]
    assert data.input.reader.columns["length"].high == 5.0
    assert data.input.reader.columns["colour"].categories == ["blue", "red"]
    for name in SPLITS:
        outside = data.input.reader.outside(data.raw(name)[0])
        assert outside.tolist() == [name == "test"] * len(outside)


def test_csv_and_parquet_give_the_same(tmp_path: Path, path: Path):
    pl.read_csv(path).write_parquet(tmp_path / "flowers.parquet")
    one, other = (Table(str(tmp_path / name), target="kind") for name in ("flowers.csv", "flowers.parquet"))
    assert one.input == other.input
    for name in SPLITS:
        assert np.array_equal(one.splits[name].x, other.splits[name].x)
        assert np.array_equal(one.splits[name].labels, other.splits[name].labels)


def test_columns_can_be_chosen_ordered_and_left_out(path: Path):
    chosen = Table(str(path), target="kind", columns=("colour", "length"))
    assert list(chosen.input.reader.columns) == ["colour", "length"]
    assert list(Table(str(path), target="kind", ignore=("wild", "zone")).input.reader.columns) == ["length", "colour"]


def test_a_group_is_on_one_side_and_no_input_unless_it_is_asked_for(tmp_path: Path):
    random = np.random.default_rng(0)
    rows = frame().with_columns(pl.Series("patient", random.integers(0, 60, ROWS)))
    rows.with_columns(pl.Series("length", np.arange(ROWS, dtype=np.float64))).write_csv(tmp_path / "flowers.csv")
    path, patients = str(tmp_path / "flowers.csv"), rows["patient"].to_numpy()
    data = Table(path, target="kind", group="patient")
    assert "patient" not in data.input.reader.columns
    members = [set(patients[part.x[:, 0].astype(int)].tolist()) for part in data.splits.values()]
    assert sum(map(len, members)) == len(set(patients.tolist()))
    asked = Table(path, target="kind", group="patient", columns=("length", "patient"))
    assert list(asked.input.reader.columns) == ["length", "patient"]
    rows.with_columns(pl.Series("patient", [None, *patients[1:]])).write_csv(tmp_path / "holes.csv")
    with pytest.raises(TrainingError, match="line 2, column 'patient' to name the row's group, but it is missing"):
        Table(str(tmp_path / "holes.csv"), target="kind", group="patient").setup()


def test_calibration_and_test_are_later_than_training(tmp_path: Path):
    days = np.random.default_rng(0).permutation(ROWS) // 2
    when = [(date(2024, 1, 1) + timedelta(days=int(day))).isoformat() for day in days]
    rows = frame().with_columns(pl.Series("length", days.astype(np.float64)), pl.Series("when", when))
    rows.write_csv(tmp_path / "flowers.csv")
    data = Table(str(tmp_path / "flowers.csv"), target="kind", time="when")
    assert list(data.input.reader.columns) == ["length", "colour", "wild", "zone"]
    for one, other in pairwise(data.splits.values()):
        assert one.x[:, 0].max() < other.x[:, 0].min()
    rows.with_columns(pl.Series("when", ["soon", *when[1:]])).write_csv(tmp_path / "soon.csv")
    with pytest.raises(
        TrainingError, match=r"soon\.csv: expected line 2, column 'when' to be a time .* but got 'soon'"
    ):
        Table(str(tmp_path / "soon.csv"), target="kind", time="when").setup()
    with pytest.raises(TrainingError, match=r"expected a column 'wen', but there is none; did you mean `when`"):
        Table(str(tmp_path / "flowers.csv"), target="kind", time="wen").setup()


def test_whole_numbers_as_labels_keep_their_order(tmp_path: Path):
    rows = frame().with_columns(pl.Series("kind", [(2, 10)[row % 2] for row in range(ROWS)]))
    rows.write_csv(tmp_path / "flowers.csv")
    assert Table(str(tmp_path / "flowers.csv"), target="kind").classes == ("2", "10")


def test_a_table_trains_and_is_asked_by_column(tmp_path: Path, path: Path):
    bars = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    given = ["--config", "configs/table_mlp.yaml", "--data.path", str(path), "--data.target", "kind"]
    short = ["--runs", str(tmp_path), "--trainer.max_epochs", "8", "--calibration.num_samples", "16"]
    main(["fit", *given, *short, *bars])
    predictor = load(tmp_path / "table_mlp" / "model.ckpt")
    rows = frame(40).drop("kind").to_dicts()
    answer = predictor.predict(rows)
    raw = predictor.predict(torch.from_numpy(predictor.input.reader.read(rows)))
    assert np.array_equal(answer.mc_mean, raw.mc_mean)
    right = [predictor.classes[label] for label in answer.label] == np.array(frame(40)["kind"].to_list())
    assert right.mean() > 0.9
    typical = predictor.input.reader.example()
    strange = predictor.predict([typical, {**typical, "length": 1e4}, {**typical, "colour": "plaid"}])
    assert strange.flagged.tolist() == [False, True, True]
    assert strange.reasons == [None, "out_of_range", "out_of_range"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "kynd"}, "expected a column 'kynd', but there is none; did you mean `kind`?"),
        ({"target": "zzz"}, "it has 'length', 'colour', 'wild', 'zone', 'kind'"),
        ({"target": "kind", "ignore": ("coulour",)}, "did you mean `colour`?"),
        ({"target": "length"}, "line 2, column 'length' to be a label, a name or a whole number, but it is missing"),
        (
            {"target": "kind", "classes": ("rose", "lily")},
            r"line \d+, column 'kind' to be one of 'rose', 'lily', but got 'iris'",
        ),
        ({"target": "kind", "split": "colour"}, "line 2, column 'colour' to be one of train, validation"),
        ({"target": "kind", "columns": ("kind", "wild")}, "'kind' is the target or the split"),
        ({"target": "kind", "split": "zone", "columns": ("wild", "zone")}, "'zone' is the target or the split"),
        ({"target": "kind", "columns": ("wild", "wild")}, "'wild' is listed twice"),
        ({"target": "kind", "columns": ("wild",), "ignore": ("wild",)}, "expected columns beside 'kind'"),
        ({"target": "kind", "separator": '"'}, "no quote or end of a line"),
        ({"target": "kind", "separator": ";"}, "set `--data.separator ,`"),
    ],
)
def test_a_setting_that_does_not_fit_the_file_is_told(path: Path, settings: dict[str, object], message: str):
    with pytest.raises(TrainingError, match=message):
        Table(str(path), **settings).setup()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": [f"2024-01-{1 + row % 28:02}" for row in range(ROWS)]}, "column 'length' to hold numbers or names"),
        (
            {"length": [float("inf") if row == 3 else 1.0 for row in range(ROWS)]},
            "column 'length' to hold finite numbers of 32 bits, but line 5 has 'inf'",
        ),
        ({"length": [None] * ROWS}, "column 'length'"),
        ({"colour": [f"c{row % 250}" for row in range(ROWS)]}, None),
        (
            {"colour": [f"c{row * 4}" for row in range(ROWS)]},
            "of its 600 values 600 are different, and line 2 has 'c0'",
        ),
        (
            {"colour": ["\u00a0red" if row == 4 else "red" for row in range(ROWS)]},
            "line 2 has the name 'red' and line 6",
        ),
        (
            {"kind": ["No" if row == 4 else ("no", "yes")[row % 2] for row in range(ROWS)]},
            "line 2 has the class 'no' and",
        ),
        (
            {"kind": ["None" if row == 4 else "ab"[row % 2] for row in range(ROWS)]},
            "line 6, .*'None' stands for a missing",
        ),
        ({"colour": ["w" * 300 if row % 2 else "v" for row in range(ROWS)]}, "at most 256 characters, but one has 300"),
        (
            {"zone": ["12a" if row == 7 else str(row) for row in range(ROWS)]},
            "most .* are numbers, and line 9 has '12a'",
        ),
        ({"": list(range(ROWS))}, r"1 to 256 characters, but got '';.*pandas: index=False"),
        (
            {"length": ["1e39" if row == 7 else "1" for row in range(ROWS)]},
            "column 'length' .* finite numbers .* line 9 has '1e39'",
        ),
        ({"kind": [None if row == 4 else "ab"[row % 2] for row in range(ROWS)]}, "line 6, column 'kind' to be a label"),
        (
            {"kind": [1.5] * ROWS},
            r"line 2, column 'kind' to be a label, a name or a whole number, but got 1\.5\. Dubio classifies",
        ),
        (
            {"kind": [str(row % 200) for row in range(ROWS)]},
            "200 classes among 600 rows look like a quantity. Dubio classifies",
        ),
        ({"kind": ["a"] * ROWS}, "at least two classes"),
        ({"kind": ["a", "b", "b"] + ["c"] * (ROWS - 3)}, "'a' has 1, class 'b' has 2; merge the class"),
    ],
)
def test_a_file_that_does_not_fit_is_told_with_line_and_column(tmp_path: Path, change, message: str | None):
    frame().with_columns(**{name: pl.Series(values) for name, values in change.items()}).write_csv(tmp_path / "f.csv")
    data = Table(str(tmp_path / "f.csv"), target="kind")
    if message is None:
        data.setup()
        return
    with pytest.raises(TrainingError, match=message) as caught:
        data.setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("a,kind\n", "expected rows, but it has none"),
        ("a,kind\n1,x\n1,2,3,4\n", "expected line 3 to have 2 values"),
    ],
)
def test_a_file_that_is_no_table_is_told(tmp_path: Path, text: str, message: str):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(UnreadableData, match=message):
        Table(str(tmp_path / "f.csv"), target="kind").setup()
    (tmp_path / "f.parquet").write_text("no parquet")
    with pytest.raises(UnreadableData, match="cannot be read"):
        Table(str(tmp_path / "f.parquet"), target="kind").setup()
    (tmp_path / "f.xlsx").write_text("")
    with pytest.raises(UnreadableData, match=r"expected a \.csv or .parquet file"):
        Table(str(tmp_path / "f.xlsx"), target="kind").setup()
    with pytest.raises(DataUnavailable, match="no such file"):
        Table(str(tmp_path / "nothing.csv"), target="kind").setup()


@pytest.mark.parametrize("seed", range(6))
def test_one_hole_may_fall_into_any_split(tmp_path: Path, seed: int):
    wild = [None if row == 9 else (row % 2 == 0) for row in range(ROWS)]
    width = [None if row == 11 else float(row % 7) for row in range(ROWS)]
    frame().with_columns(pl.Series("wild", wild), pl.Series("width", width)).write_csv(tmp_path / "f.csv")
    data = Table(str(tmp_path / "f.csv"), target="kind", seed=seed)
    columns = data.input.reader.columns
    assert [columns[name].missing for name in ("wild", "width", "colour")] == [True, True, False]
    numbers = np.concatenate([data.splits[name].x for name in SPLITS])
    features = data.input.reader.features
    assert [numbers[:, features.index(f"{name} is missing")].sum() for name in ("wild", "width")] == [1, 1]


def test_empty_texts_of_a_parquet_file_are_holes(tmp_path: Path):
    holes = frame().with_columns(pl.Series("colour", ["" if row % 3 == 0 else "red" for row in range(ROWS)]))
    holes.write_parquet(tmp_path / "f.parquet")
    column = Table(str(tmp_path / "f.parquet"), target="kind").input.reader.columns["colour"]
    assert (column.categories, column.missing) == (["red"], True)


def test_slips_are_names_where_that_is_said(tmp_path: Path):
    zone = pl.Series("zone", ["other" if row % 9 == 0 else str(row % 3) for row in range(ROWS)])
    frame().with_columns(zone).write_csv(tmp_path / "f.csv")
    with pytest.raises(UnreadableData, match="line 2 has 'other'"):
        Table(str(tmp_path / "f.csv"), target="kind").setup()
    named = Table(str(tmp_path / "f.csv"), target="kind", categorical=("zone",))
    assert named.input.reader.columns["zone"].categories == ["0", "1", "2", "other"]


def test_a_word_for_missing_can_be_a_class(tmp_path: Path):
    damage = pl.Series("kind", [("None", "Minor", "Severe")[row % 3] for row in range(ROWS)])
    frame().with_columns(damage).write_csv(tmp_path / "f.csv")
    with pytest.raises(
        UnreadableData, match=r"line 2, column 'kind' .* 'None' stands for a missing .*init_args.classes"
    ):
        Table(str(tmp_path / "f.csv"), target="kind").setup()
    listed = Table(str(tmp_path / "f.csv"), target="kind", classes=("None", "Minor", "Severe"))
    unlisted = Table(str(tmp_path / "f.csv"), target="kind", missing=("NA",))
    assert (listed.classes, unlisted.classes) == (("None", "Minor", "Severe"), ("Minor", "None", "Severe"))
    assert sum(len(listed.splits[name].labels) for name in SPLITS) == ROWS


def test_labels_are_read_as_names_are(tmp_path: Path):
    (tmp_path / "f.csv").write_text(
        "a, kind\n" + "".join(f"{row % 7}, {('1.0', '0.0')[row % 2]}\n" for row in range(200))
    )
    assert Table(str(tmp_path / "f.csv"), target="kind").classes == ("0", "1")


def test_how_a_file_is_written_can_be_said_on_the_command_line(capsys: pytest.CaptureFixture[str]):
    said = ["--data.decimal", ",", "--data.thousands", ".", "--data.missing", "['NA','?']", "--data.separator", ";"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", "table_mlp", *said, "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert {name: settings[name] for name in ("decimal", "thousands", "missing", "separator")} == {
        "decimal": ",",
        "thousands": ".",
        "missing": ["NA", "?"],
        "separator": ";",
    }

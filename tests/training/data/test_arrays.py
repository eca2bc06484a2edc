from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from dubio.models import load
from dubio.training import Arrays
from dubio.training.cli.main import main
from dubio.training.errors import DataUnavailable, InvalidSplit, TrainingError, UnreadableData

ROOT = Path(__file__).resolve().parents[3]
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(5.0, 2.0, (200, 3))
Y = np.arange(200) % 2


def archive(folder: Path, **arrays: object) -> str:
    path = folder / "mine.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def test_rows_keep_their_labels_and_the_scale_is_that_of_the_training_rows(tmp_path: Path):
    data = Arrays(archive(tmp_path, x=X, y=Y))
    labels_by_row = {tuple(row): label for row, label in zip(X.astype(np.float32).tolist(), Y.tolist(), strict=True)}
    seen = 0
    for name in data.splits:
        x, labels = data.raw(name)
        assert [labels_by_row[tuple(row)] for row in x.tolist()] == labels.tolist()
        seen += len(x)
    assert seen == len(X)
    train = data.raw("train")[0].double()
    assert data.input.kind == "numbers"
    assert data.input.mean == pytest.approx(train.mean(0).tolist())
    assert data.input.std == pytest.approx(train.std(0, correction=0).tolist())
    assert (data.input.low, data.input.high) == (float(train.min()), float(train.max()))
    assert data.classes == ("0", "1")


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [((5, 4), "first", (1, 5, 4)), ((3, 5, 4), "first", (3, 5, 4)), ((5, 4, 3), "last", (3, 5, 4))],
)
def test_the_axes_say_what_an_input_is(tmp_path: Path, shape: tuple[int, ...], channels: str, expected: tuple[int]):
    x = GENERATOR.integers(0, 256, (100, *shape)).astype(np.uint8)
    data = Arrays(archive(tmp_path, x=x, y=np.arange(100) % 2), channels=channels)
    assert (data.input.kind, data.input.shape) == ("image", expected)
    first = data.raw("train")[0][0].numpy()
    images = np.moveaxis(x, -1, 1) if channels == "last" else x.reshape(100, *expected)
    assert any(np.array_equal(first, image) for image in images)


def test_names_may_be_labels_in_the_file_or_in_the_configuration(tmp_path: Path):
    words = np.array(["no", "yes"])
    plain = Arrays(archive(tmp_path, x=X, y=words[Y]))
    assert plain.classes == ("no", "yes")
    turned = Arrays(archive(tmp_path, x=X, y=words[Y]), classes=("yes", "no"))
    of_row = {tuple(row): int(word) for row, word in zip(X.astype(np.float32).tolist(), Y, strict=True)}
    for data, expected in ((plain, [0, 1]), (turned, [1, 0])):
        rows = data.splits["test"]
        assert [expected[of_row[tuple(row)]] for row in rows.x.tolist()] == rows.labels.tolist()
    assert Arrays(archive(tmp_path, x=X, y=Y, classes=words)).classes == ("no", "yes")
    assert Arrays(archive(tmp_path, x=X, y=Y + 5)).classes == ("5", "6")


def test_the_file_may_divide_its_rows_itself(tmp_path: Path):
    own = np.array(["train", "validation", "select", "calibration", "test"])[(np.arange(200) // 2) % 5]
    data = Arrays(archive(tmp_path, x=X, y=Y, split=own))
    for name in data.splits:
        assert np.array_equal(data.splits[name].x, X[own == name].astype(np.float32))
    own[:] = "train"
    with pytest.raises(InvalidSplit, match="validation split has no row of class '0'"):
        Arrays(archive(tmp_path, x=X, y=Y, split=own)).setup()
    own[7] = "holdout"
    with pytest.raises(InvalidSplit, match="row 7 has 'holdout'"):
        Arrays(archive(tmp_path, x=X, y=Y, split=np.where(np.arange(200) == 7, "holdout", own))).setup()


def test_a_scale_of_the_networks_own_is_kept(tmp_path: Path):
    data = Arrays(archive(tmp_path, x=X, y=Y), mean=0.0, std=(1.0, 2.0, 4.0))
    assert (data.input.mean, data.input.std) == ((0.0, 0.0, 0.0), (1.0, 2.0, 4.0))
    with pytest.raises(TrainingError, match=r"`data\.init_args\.std` to be one finite number, or 3"):
        _ = Arrays(archive(tmp_path, x=X, y=Y), mean=0.0, std=(1.0, 2.0)).input
    with pytest.raises(TrainingError, match="positive"):
        _ = Arrays(archive(tmp_path, x=X, y=Y), mean=0.0, std=0.0).input
    with pytest.raises(TrainingError, match="both or neither"):
        Arrays(archive(tmp_path, x=X, y=Y), mean=0.0)


HOLES = X.copy()
HOLES[17, 2] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"an array `y`, but it is missing; it holds \['x'\]"),
        ({"y": Y}, "an array `x`, but it is missing"),
        ({"x": X, "y": Y[:-1]}, r"one label for each of the 200 rows of `x`, but got shape \[199\]"),
        ({"x": X[:, 0], "y": Y}, r"\[N, F\] numbers, .* but got shape \[200\]"),
        ({"x": X[:0], "y": Y[:0]}, "rows in `x`, but it is empty"),
        ({"x": X.astype(str), "y": Y}, "numbers in `x`, but got <U"),
        ({"x": HOLES, "y": Y}, r"row 17 holds nan at \[2\]"),
        ({"x": X * 1e300, "y": Y}, r"row 0 holds -?inf"),
        ({"x": X, "y": Y.astype(float)}, "integers or names, but got float64"),
        ({"x": X, "y": Y, "classes": ["a", "b", "c"]}, "rows of every class, but there is none of 'c'"),
        ({"x": X, "y": Y * 2, "classes": ["a", "b"]}, "an integer from 0 to 1, one a class, but row 1 has 2"),
        ({"x": X, "y": np.where(Y, "b", "z"), "classes": ["a", "b"]}, "one of 'a', 'b', but row 0 has z"),
        ({"x": X, "y": Y * 0}, "at least two classes"),
        ({"x": np.zeros((200, 8, 8, 3)), "y": Y}, "channels: last"),
        ({"x": X, "y": np.array([None] * 200)}, "it holds Python objects"),
        ({"x": X[:40], "y": (np.arange(40) > 36).astype(int), "classes": ["a", "b"]}, "class 'b' has 3"),
        ({"x": X[:20], "y": Y[:20]}, r"`data\.init_args\.\w+` larger|rows of class '.' are left"),
    ],
)
def test_a_file_that_does_not_fit_is_told_in_one_line(tmp_path: Path, arrays: dict[str, object], message: str):
    with pytest.raises(TrainingError, match=message) as caught:
        Arrays(archive(tmp_path, **arrays)).setup()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_told_so(tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"nowhere\.npz: no such file"):
        Arrays(str(tmp_path / "nowhere.npz")).setup()
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(UnreadableData, match=r"bad\.npz"):
        Arrays(str(tmp_path / "bad.npz")).setup()
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(UnreadableData, match="holds one array"):
        Arrays(str(tmp_path / "one.npy")).setup()


def test_the_example_becomes_a_model(tmp_path: Path):
    tumours = load_breast_cancer()
    path = archive(tmp_path, x=tumours.data, y=tumours.target, classes=tumours.target_names)
    config = ["--config", str(ROOT / "configs" / "arrays_mlp.yaml"), "--data.path", path, "--runs", str(tmp_path)]
    quick = ["--trainer.max_epochs", "8", "--trainer.enable_progress_bar", "false", "--calibration.num_samples", "8"]
    main(["fit", *config, *quick])
    predictor = load(tmp_path / "arrays_mlp" / "model.ckpt")
    assert predictor.classes == ("malignant", "benign")
    assert (predictor.predict(tumours.data).label == tumours.target).mean() > 0.85
    assert predictor.predict(tumours.data[:1] * 20).reasons == ["out_of_range"]


def test_a_bad_file_ends_the_command_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = archive(tmp_path, x=HOLES, y=Y)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(ROOT / "configs" / "arrays_mlp.yaml"), "--data.path", path])
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("dubio-train: error: ")
    assert "row 17" in line


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_a_spread_below_the_step_of_32_bits_is_refused(tmp_path: Path, kind: type):
    milliseconds = 1_700_000_000_000 + GENERATOR.integers(0, 60_000, 200)
    x = np.stack([np.arange(200), milliseconds], axis=1).astype(kind)
    with pytest.raises(
        UnreadableData, match=r"column 1 lies from 17000\d+.* to 17000\d+.*; subtract a number near them"
    ):
        Arrays(archive(tmp_path, x=x, y=Y)).setup()
    Arrays(archive(tmp_path, x=x - x.min(axis=0), y=Y)).setup()  # the cure

from __future__ import annotations

import csv
import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact

from dubio.training import Arrays, Digits, Synthetic, Table, Text
from dubio.training.data.module import FractionDataModule, TensorDataModule
from dubio.training.errors import DataWarning, InvalidSplit, TrainingError, UnreadableData
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.division import _tail, digests, same_division, splits_of
from dubio.training.splits.random_splits import SPLITS


def write(path: Path, rows: Sequence[Sequence[object]], header: str = "a,b,label") -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return str(path)


def numbers(count: int, seed: int) -> list[tuple[float, float, str]]:
    draw = np.random.default_rng(seed)
    return [(*draw.normal(size=2).round(6).tolist(), "yes" if draw.random() < 0.5 else "no") for _ in range(count)]


def few(count: int, seed: int, levels: int = 3) -> list[tuple[str, str, str]]:
    draw = np.random.default_rng(seed)
    return [(f"a{draw.integers(levels)}", f"b{draw.integers(2)}", draw.choice(["no", "yes"])) for _ in range(count)]


@pytest.fixture
def fit(tmp_path: Path) -> Table:
    """Rows of numbers, none of them twice, divided for a fit."""
    data = Table(write(tmp_path / "fit.csv", numbers(300, seed=0)), target="label")
    data.setup()
    return data


def followed(data: TensorDataModule, fit: TensorDataModule, purpose: str = "test") -> TensorDataModule:
    data.follow(fit.record, purpose)
    return data


def test_a_digest_is_that_of_the_numbers_whatever_their_type():
    x = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    expected = [
        int.from_bytes(hashlib.blake2b(struct.pack("<2d", *row), digest_size=8).digest(), "little", signed=True)
        for row in x.tolist()
    ]
    assert digests(x).tolist() == digests(x.astype(np.float32)).tolist() == expected
    assert digests(np.array([[-0.0, 1.0]]))[0] == expected[0]
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert digests(image[:, :, ::2])[1] == digests(np.ascontiguousarray(image[1:, :, ::2]))[0]


def test_equal_and_only_equal_rows_share_a_digest():
    x = np.random.default_rng(0).normal(size=(2000, 3))
    assert len(set(digests(np.concatenate([x, x])).tolist())) == 2000


@pytest.mark.parametrize("purpose", ["validate", "test", "calibrate"])
def test_the_file_of_the_fit_keeps_its_division_and_its_order(fit: Table, purpose: str):
    again = followed(Table(str(fit.path), target="label"), fit, purpose)
    for name in SPLITS:
        assert torch.equal(again.raw(name)[0], fit.raw(name)[0])
        assert torch.equal(again.raw(name)[1], fit.raw(name)[1])
    assert again.input == fit.input
    assert [same_division(*pair) for pair in zip(again.divisions, [fit.division], strict=True)] == [True]


def test_labels_that_were_mended_move_no_row(fit: Table):
    rows = [line.split(",") for line in fit.path.read_text().splitlines()[1:]]
    mended = [(a, b, "no" if label == "yes" else "yes") for a, b, label in rows]
    again = followed(Table(write(fit.path, mended), target="label"), fit)
    assert torch.equal(again.raw("test")[0], fit.raw("test")[0])
    assert torch.equal(again.raw("test")[1], 1 - fit.raw("test")[1])


@pytest.mark.parametrize(("setting", "value"), [("seed", 1), ("calibration", 0.2)])
def test_another_division_of_the_rows_of_the_fit_is_refused(fit: Table, setting: str, value: float):
    fractions = {"test": 0.04} if setting == "calibration" else {}
    other = Table(str(fit.path), target="label", **{setting: value}, **fractions)
    with pytest.raises(InvalidSplit, match=rf"`data\.init_args\.{setting}` to be \S+, by which .* but got {value:g}"):
        followed(other, fit).raw("test")


def test_another_file_is_encoded_as_the_checkpoint_says_and_used_whole(fit: Table, tmp_path: Path):
    rows = [(a + 10, b, label) for a, b, label in numbers(20, seed=1)]
    other = followed(Table(write(tmp_path / "other.csv", rows), target="label", seed=5), fit)
    x, labels = other.raw("test")
    assert x.numpy() == pytest.approx(np.array([row[:2] for row in rows]))
    assert [other.classes[label] for label in labels.tolist()] == [row[2] for row in rows]
    assert other.input == fit.input
    assert len(other.raw("train")[0]) == 0
    normalised = torch.cat([batch for batch, _ in other.test_dataloader()])
    expected = (x - torch.tensor(fit.input.mean)) / torch.tensor(fit.input.std)
    assert torch.allclose(normalised, expected, atol=1e-6)


def test_one_class_alone_may_be_tested(fit: Table, tmp_path: Path):
    other = followed(Table(write(tmp_path / "o.csv", [(1.5, 2.5, "yes")] * 2), target="label"), fit)
    assert other.raw("test")[1].tolist() == [1, 1]


def test_a_new_file_is_divided_to_calibrate_on_without_a_training_split(fit: Table, tmp_path: Path):
    other = followed(Table(write(tmp_path / "other.csv", numbers(400, seed=1)), target="label"), fit, "calibrate")
    assert [len(other.raw(name)[0]) for name in SPLITS] == [0, 80, 80, 120, 120]
    assert other.divisions[0].data == "fit.csv"
    assert other.divisions[1].data == "other.csv"


def test_rows_that_were_trained_on_are_refused_with_their_lines(fit: Table, tmp_path: Path):
    trained = fit.load().rows["train"][:2].tolist()
    known = [line.split(",") for line in fit.path.read_text().splitlines()[1:]]
    rows = [*numbers(18, seed=1), *(known[row] for row in trained)]
    other = Table(write(tmp_path / "other.csv", rows), target="label")
    with pytest.raises(
        InvalidSplit,
        match=r"other\.csv: expected rows .* 2 of 20 \(10\.0%\) .* \(train 2\): line 20 to 21\. Leave them",
    ):
        followed(other, fit).raw("test")
    with pytest.raises(InvalidSplit, match=r"used before \(train 2\):"):
        followed(Table(str(tmp_path / "other.csv"), target="label"), fit, "validate").raw("validation")


def test_a_file_that_grew_or_was_shuffled_is_another_file(fit: Table, tmp_path: Path):
    known = [line.split(",") for line in fit.path.read_text().splitlines()[1:]]
    held_out = len(fit.load().rows["test"])
    for rows in ([*known, *numbers(5, seed=1)], known[::-1]):
        count = rf"{300 - held_out} of {len(rows)} "
        other = Table(write(tmp_path / "other.csv", rows), target="label")
        with pytest.raises(InvalidSplit, match=count):
            followed(other, fit).raw("test")


def test_rows_that_set_the_level_are_not_for_a_test_but_may_calibrate_again(fit: Table, tmp_path: Path):
    known = [line.split(",") for line in fit.path.read_text().splitlines()[1:]]
    rows = [known[row] for row in fit.load().rows["calibration"]]
    path = write(tmp_path / "other.csv", rows)
    with pytest.raises(InvalidSplit, match=r"36 of 36 \(100\.0%\)"):
        followed(Table(path, target="label"), fit).raw("test")
    assert len(followed(Table(path, target="label"), fit, "calibrate").raw("calibration")[0])


@pytest.mark.parametrize(
    ("purpose", "told"),
    [
        ("validate", r"12 of 72 \(16\.7%\) .* \(train 12\): line 2 to 3, line 12 to 21\."),
        ("calibrate", r"12 of 72 \(16\.7%\) .* \(train 12\): line 2 to 3, line 12 to 21\."),
        ("test", r"15 of 72 \(20\.8%\) .* \(train 12, calibration 3\): line 2 to 3, line 12 to 21, line 71 to 73\."),
    ],
)
def test_seen_rows_are_counted_once_over_the_whole_file(fit: Table, tmp_path: Path, purpose: str, told: str):
    known = [line.split(",") for line in fit.path.read_text().splitlines()[1:]]
    train, level, free = (
        [known[row] for row in fit.load().rows[name]][:count]
        for name, count in (("train", 12), ("calibration", 3), ("test", 3))
    )
    new = numbers(54, seed=1)
    rows = [*train[:2], *new[:5], *free, *train[2:], *new[5:], *level]
    path = write(tmp_path / "other.csv", rows)
    with pytest.raises(InvalidSplit, match=told):
        followed(Table(path, target="label"), fit, purpose).raw("test")
    # And the list of all is where the message says.
    other = followed(Table(path, target="label"), fit, "predict")
    due = ["train"] * 2 + [None] * 5 + ["test"] * 3 + ["train"] * 10 + [None] * 49 + ["calibration"] * 3
    assert splits_of(other.load(), fit.record) == due


def test_of_many_places_the_first_are_named(fit: Table, tmp_path: Path):
    known = [line.split(",") for line in fit.path.read_text().splitlines()[1:]]
    rows = [row for pair in zip(known, numbers(300, seed=1), strict=True) for row in pair]
    with pytest.raises(InvalidSplit, match=r"of 600 .* line \d+ and \d+ more\. Leave them out") as caught:
        followed(Table(write(tmp_path / "o.csv", rows), target="label"), fit).raw("test")
    left = int(str(caught.value).split(" and ")[-1].split(" more")[0])
    assert left == 300 - len(fit.load().rows["test"]) - 10


def test_where_rows_naturally_recur_new_ones_may_equal_trained_ones(tmp_path: Path):
    fit = Table(write(tmp_path / "fit.csv", few(300, seed=0)), target="label")
    again = followed(Table(str(fit.path), target="label"), fit)
    assert torch.equal(again.raw("test")[0], fit.raw("test")[0])
    new = followed(Table(write(tmp_path / "new.csv", few(50, seed=1)), target="label"), fit)
    told = r"new\.csv: 50 of 50 \(100\.0%\) equal .* natural here: of the rows that were held out, 100\.0% do"
    with pytest.warns(DataWarning, match=told):
        assert len(new.raw("test")[0]) == 50


def test_trained_rows_among_those_that_naturally_recur_are_found(tmp_path: Path):
    """400 kinds of rows: of the rows held out about a third equal training rows; of the trained ones, all do."""
    fit = Table(write(tmp_path / "fit.csv", few(300, 0, levels=200)), target="label", categorical=())
    new = [row for row in few(120, 1, levels=200) if row[0] in {a for a, *_ in few(300, 0, levels=200)}]
    with pytest.warns(DataWarning, match="natural here"):
        assert len(followed(Table(write(tmp_path / "new.csv", new), target="label"), fit).raw("test")[0]) == len(new)
    trained = [few(300, 0, levels=200)[row] for row in fit.load().rows["train"][:100]]
    with pytest.raises(
        InvalidSplit, match=r"100 of 100 \(100\.0%\) .*, and of the rows that were held out, \d\d\.\d% do:"
    ):
        followed(Table(write(tmp_path / "old.csv", trained), target="label"), fit).raw("test")


@pytest.mark.parametrize(("count", "rows", "natural", "free"), [(3, 20, 2, 100), (20, 20, 30, 60), (1, 50, 1, 40)])
def test_how_likely_equal_rows_are_is_fishers_test(count: int, rows: int, natural: int, free: int):
    expected = fisher_exact([[count, rows - count], [natural, free - natural]], alternative="greater").pvalue
    assert _tail(count, rows, natural, free) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("a,label", ["1", "yes"], "a column 'b'"),
        ("a,b,c,label", ["1", "2", "3", "yes"], r"but got 'c'; leave out .* `--data\.ignore '\[c\]'`"),
        (
            "a,b,label",
            ["1", "x", "yes"],
            "line 2, column 'b' to be a finite number, as it was in the fit, but got the text 'x'",
        ),
        ("a,b,label", ["1", "", "yes"], "line 2, column 'b' to have a value"),
        ("a,b,label", ["1", "2", "maybe"], "checkpoint's classes, 'no', 'yes', but line 2 has maybe"),
    ],
)
def test_what_the_checkpoint_does_not_know_is_refused(fit: Table, tmp_path: Path, header, row, message):
    other = Table(write(tmp_path / "other.csv", [row], header), target="label")
    with pytest.raises(UnreadableData, match=message):
        followed(other, fit).raw("test")


def test_a_column_that_the_fit_did_not_see_need_not_be_there(tmp_path: Path):
    rows = [(*row[:2], number, row[2]) for number, row in enumerate(numbers(300, seed=0))]
    fit = Table(write(tmp_path / "fit.csv", rows, "a,b,id,label"), target="label", ignore=("id",))
    other = Table(write(tmp_path / "other.csv", numbers(3, seed=1)), target="label", ignore=("id",))
    assert followed(other, fit).raw("test")[0].shape == (3, 2)


def test_the_one_slip_among_the_numbers_of_another_file_is_named(fit: Table, tmp_path: Path):
    rows = [["1", "2", "yes"], ["2", "x", "no"], ["3", "4", "no"]]
    other = Table(write(tmp_path / "other.csv", rows, "a,b,label"), target="label")
    with pytest.raises(
        UnreadableData, match="line 3, column 'b' to be a finite number, as it was in the fit, but got the text 'x'"
    ):
        followed(other, fit).raw("test")


def test_ids_are_carried_as_they_were_written(fit: Table, tmp_path: Path):
    rows = [["007", "1", "2"], ["NA", "3", "4"], [" 7", "5", "6"]]
    other = Table(write(tmp_path / "other.csv", rows, "key,a,b"), target="label")
    other.ids = ("key",)
    assert followed(other, fit, "predict").load().ids["key"][:2] == ["007", "NA"]


def test_names_of_whole_numbers_stay_names(tmp_path: Path):
    rows = [(f"0{place}", place, label) for place in range(8) for label in ("no", "yes") for _ in range(20)]
    fit = Table(write(tmp_path / "fit.csv", rows), target="label", categorical=("a",))
    path = write(tmp_path / "other.csv", [("05", 5, "no"), ("5", 5, "no")])
    with pytest.raises(TrainingError, match=r"`data\.init_args\.categorical` to be \['a'\], .* but got \[\]"):
        followed(Table(path, target="label"), fit)
    other = followed(Table(path, target="label", categorical=("a",)), fit, "predict")
    place, unseen = other.raw("test")[0][:, :9].argmax(1).tolist()
    assert (place, unseen) == (5, 8)


@pytest.mark.filterwarnings("ignore:.*tokens outside the training rows are unknown")
def test_texts_keep_vocabulary_and_classes(tmp_path: Path):
    def texts(path: str, rows: Sequence[tuple[str, str]]) -> str:
        (tmp_path / path).write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
        return str(tmp_path / path)

    rows = [(f"{word} number {count}", word) for count in range(60) for word in ("alpha", "beta")]
    fit = Text(texts("fit.jsonl", rows), length=4)
    other = Text(texts("new.jsonl", [("gamma number beta", "beta"), ("beta alpha", "alpha")]), length=4, seed=3)
    x, labels = followed(other, fit).raw("test")
    words = fit.input.tokenizer.vocabulary
    assert [[words[int(token)] for token in row] for row in x.tolist()] == [
        ["[UNK]", "number", "beta", "[PAD]"],
        ["beta", "alpha", "[PAD]", "[PAD]"],
    ]
    assert labels.tolist() == [1, 0]
    for setting, value in (("tokens", 20), ("length", 5), ("lowercase", False), ("tokenizer", "bpe")):
        different = Text(str(tmp_path / "new.jsonl"), **{"length": 4, setting: value})
        with pytest.raises(TrainingError, match=rf"`data\.init_args\.{setting}` to be .* but got {value}"):
            followed(different, fit)


def test_labels_that_are_numbers_are_those_of_the_checkpoint(tmp_path: Path):
    def save(name: str, y: Sequence[int], seed: int, **more: object) -> str:
        x = np.random.default_rng(seed).normal(size=(len(y), 3))
        np.savez(tmp_path / name, x=x, y=np.array(y), **more)
        return str(tmp_path / name)

    fit = Arrays(save("fit.npz", [3, 5, 8] * 60, 0))
    assert followed(Arrays(save("new.npz", [8, 5], 1)), fit).raw("test")[1].tolist() == [2, 1]
    named = Arrays(save("named.npz", [0, 1, 2] * 60, 0, classes=np.array(["a", "b", "c"])))
    turned = Arrays(save("turned.npz", [0, 2], 1, classes=np.array(["c", "b", "a"])))
    assert followed(turned, named).raw("test")[1].tolist() == [2, 0]
    other = Arrays(save("other.npz", [0, 2], 1, classes=np.array(["x", "b", "a"])))
    with pytest.raises(UnreadableData, match="but row 0 has x"):
        followed(other, named).raw("test")
    wide = np.savez(tmp_path / "wide.npz", x=np.zeros((2, 4)), y=np.array([3, 5]))
    assert wide is None
    with pytest.raises(UnreadableData, match=r"inputs of shape \[3\], as the checkpoint has, but got \[4\]"):
        followed(Arrays(str(tmp_path / "wide.npz")), fit).raw("test")


def test_a_scale_other_than_the_fits_is_refused(fit: Table):
    with pytest.raises(TrainingError, match=r"`data\.init_args\.mean` to be None, .* but got 1"):
        followed(Table(str(fit.path), target="label", mean=1.0, std=2.0), fit)


def test_rows_that_divide_themselves_keep_to_it(tmp_path: Path):
    splits = np.repeat(SPLITS, 20)
    rows = [(*row[:2], split, row[2]) for row, split in zip(numbers(100, seed=0), splits, strict=True)]
    header = "a,b,part,label"
    fit = Table(write(tmp_path / "fit.csv", rows, header), target="label", split="part")
    other = [(*row[:2], split, row[2]) for row, split in zip(numbers(100, seed=1), splits, strict=True)]
    new = Table(write(tmp_path / "new.csv", other, header), target="label", split="part")
    assert followed(new, fit).raw("test")[0].numpy() == pytest.approx(np.array([row[:2] for row in other[80:]]))
    assert len(new.raw("train")[0]) == 0
    part = Table(write(tmp_path / "part.csv", other[60:80], header), target="label", split="part")
    with pytest.raises(InvalidSplit, match=r"part\.csv: expected rows in the test split, but there are none"):
        followed(part, fit).raw("test")


def test_a_source_that_moves_rows_of_the_fit_is_refused(tmp_path: Path):
    x, y = np.random.default_rng(0).normal(size=(100, 2)), np.array([0, 1] * 50)
    np.savez(tmp_path / "fit.npz", x=x, y=y, split=np.repeat(SPLITS, 20))
    fit = Arrays(str(tmp_path / "fit.npz"))
    fit.setup()
    np.savez(tmp_path / "fit.npz", x=x, y=y, split=np.roll(np.repeat(SPLITS, 20), 2))
    told = r"8 rows .* elsewhere \(validation 2, select 2, calibration 2, test 2\): row 0 to 1, row 40 to 41, "
    with pytest.raises(InvalidSplit, match=told):
        followed(Arrays(str(tmp_path / "fit.npz")), fit).raw("test")


def test_a_module_of_ones_own_follows_without_knowing_it(tmp_path: Path):
    class Own(FractionDataModule):
        title = "own"

        def __init__(self, seed: int, add: float = 0) -> None:
            super().__init__()
            self.rows_seed, self.add = seed, add

        def read(self) -> Dataset:
            x = np.random.default_rng(self.rows_seed).normal(size=(200, 3)) + self.add
            examples = Examples(x, np.arange(200) % 2)
            parts = self.divide(examples.labels, ("even", "odd"))
            return Dataset.of_numbers(examples.divide(parts), ("even", "odd"), parts=parts)

    fit = Own(0)
    again, other = followed(Own(0), fit), followed(Own(1, add=10), fit)
    assert torch.equal(again.raw("test")[0], fit.raw("test")[0])
    assert again.input == other.input == fit.input
    assert len(other.raw("test")[0]) == 200


def test_what_is_drawn_anew_is_new():
    fit, fresh = Synthetic("moons", rows=300), Synthetic("moons", rows=300, seed=1)
    assert len(followed(fresh, fit).raw("test")[0]) == 300
    with pytest.raises(UnreadableData, match="of kind numbers, as the checkpoint has, but got image"):
        followed(Digits(), fit).raw("test")


def test_a_source_that_says_itself_what_is_for_the_test_needs_no_training_rows(tmp_path: Path):
    x, y = np.random.default_rng(0).normal(size=(320, 2)), np.array([0, 1] * 160)
    np.savez(tmp_path / "fit.npz", x=x[:300], y=y[:300])
    np.savez(tmp_path / "new.npz", x=x[300:], y=y[300:], split=np.array(["test"] * 20))
    fit = Arrays(str(tmp_path / "fit.npz"))
    rows, labels = followed(Arrays(str(tmp_path / "new.npz")), fit).raw("test")
    assert np.array_equal(rows, x[300:].astype(np.float32))
    assert np.array_equal(labels, y[300:])


def test_duplicates_that_the_fit_dropped_are_dropped_again(tmp_path: Path):
    x, y = np.random.default_rng(0).normal(size=(200, 2)), np.array([0, 1] * 100)
    x[100:140] = x[:40]
    np.savez(tmp_path / "fit.npz", x=x, y=y)
    fit = Arrays(str(tmp_path / "fit.npz"), duplicates="drop")
    due, kept = fit.raw("test")[0], sum(len(each.labels) for each in fit.splits.values())
    assert 160 <= kept < 200
    assert np.array_equal(followed(Arrays(str(tmp_path / "fit.npz"), duplicates="drop"), fit).raw("test")[0], due)

"""Each of several processes holds its share of the training rows, and all know the same about all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dubio.training import Arrays, Digits, ImageFolder, Table
from dubio.training.data.module import TensorDataModule
from dubio.training.data.text import Text
from dubio.training.errors import TrainingError
from dubio.training.splits.shares import Moments, Share, same_input
from tests import table
from tests.training.ranks import together

Source = Callable[[], TensorDataModule]


def arrays(folder: Path, **more: object) -> Source:
    """Rows whose first number is that of the row; the second is large, and the third is the same in all."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(301, 3))
    x[:, 0], x[:, 1], x[:, 2] = np.arange(301), x[:, 1] + 1000, 7
    np.savez(folder / "rows.npz", x=x, y=np.arange(301) % 3)
    return lambda: Arrays(str(folder / "rows.npz"), **more)


def images(folder: Path) -> Source:
    generator = np.random.default_rng(0)
    for number in range(75):
        place = folder / "pets" / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(place / f"{number:02}.png")
    return lambda: ImageFolder(str(folder / "pets"))


def rows(folder: Path) -> Source:
    table.write(folder)
    return lambda: Table(str(folder / "table.csv"), target="label")


def texts(folder: Path) -> Source:
    words = ("rain", "sun", "wind", "snow", "fog")
    lines = [f'{{"text": "{words[n % 5]} {n}", "label": "{"ab"[n % 2]}"}}' for n in range(90)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return lambda: Text(str(folder / "texts.jsonl"), tokens=200)


SOURCES = {"arrays": arrays, "images": images, "table": rows, "texts": texts, "digits": lambda _: Digits}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return SOURCES[request.param](tmp_path)


def shared(source: Source, rank: int, count: int) -> TensorDataModule:
    data = source()
    data.share = Share(rank, count)
    return data


def both(source: Source) -> list[TensorDataModule]:
    """Two processes' data, read here: the threads of polars do not survive a fork."""
    parts = [shared(source, rank, 2) for rank in range(2)]
    for part in parts:
        part.load()
    return parts


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_training_row_is_in_one_share_and_the_rest_is_in_all(source: Source, count: int):
    whole, parts = source(), [shared(source, rank, count) for rank in range(count)]
    train, labels = whole.raw("train")
    for rank, part in enumerate(parts):
        x, own = part.raw("train")
        assert torch.equal(x, train[rank::count])
        assert torch.equal(own, labels[rank::count])
        assert np.array_equal(part.load().labels("train"), labels.numpy())
        assert part.classes == whole.classes
        for name in ("validation", "select", "calibration", "test"):
            assert all(torch.equal(a, b) for a, b in zip(part.raw(name), whole.raw(name), strict=True))
            assert np.array_equal(part.load().rows[name], whole.load().rows[name])
        assert np.array_equal(part.load().rows["train"], whole.load().rows["train"])
        # No hidden reference to the rows of the others.
        held = part.splits["train"].x
        assert held.base is None or held.base.size <= sum(each.x.size for each in part.splits.values())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_together_they_know_what_one_process_would(source: Source):
    whole, parts = source(), both(source)

    def setup(rank: int) -> object:
        data = parts[rank]
        data.setup("fit")
        digests = {name: part.numpy() for name, part in data.division.digests.items()}
        return data.input.model_dump(), digests, data.load().labels("train"), data.division.settings

    (_, first), (_, second) = answers = together(setup)
    assert [kind for kind, _ in answers] == ["gave", "gave"], answers
    assert first[0] == second[0]
    assert same_input(type(whole.input).model_validate(first[0]), whole.input)
    for spec, digests, labels, settings in (first, second):
        assert spec["mean"] == pytest.approx(whole.input.mean, rel=1e-12)
        assert spec["std"] == pytest.approx(whole.input.std, rel=1e-9)
        assert settings == whole.division.settings
        assert np.array_equal(labels, whole.splits["train"].labels)
        for name, part in whole.division.digests.items():
            assert np.array_equal(digests[name], part.numpy())


def test_a_scale_that_was_given_stays(tmp_path: Path):
    source = arrays(tmp_path, mean=2.0, std=3.0)
    parts = both(source)

    def setup(rank: int) -> object:
        data = parts[rank]
        data.setup("fit")
        return data.input.mean, data.input.std, data.input.low, data.input.high

    whole = source().input
    due = ("gave", (whole.mean, whole.std, whole.low, whole.high))
    assert together(setup) == [due, due]


def test_another_file_in_one_process_is_found_out(tmp_path: Path):
    (tmp_path / "other").mkdir()
    first = arrays(tmp_path)
    np.savez(tmp_path / "other" / "rows.npz", x=np.arange(903.0).reshape(301, 3), y=np.arange(301) % 3)

    parts = shared(first, 0, 2), shared(lambda: Arrays(str(tmp_path / "other" / "rows.npz")), 1, 2)
    for part in parts:
        part.load()
    for kind, told in together(lambda rank: parts[rank].setup("fit")):
        assert kind == "UnreadableData"
        assert "Expected process 1 to divide the same rows as process 0" in told


def test_a_process_that_is_another_than_was_guessed_is_found_out(tmp_path: Path):
    source = arrays(tmp_path)
    parts = [shared(source, 0, 2) for _ in range(2)]  # both took themselves for the first
    for part in parts:
        part.load()
    told = together(lambda rank: parts[rank].setup("fit"), answers=1)
    assert told[0][0] == "TrainingError"
    assert "Expected process 1 of 2 to hold that share of the rows, but it holds share 0 of 2" in told[0][1]


def test_processes_that_were_not_started_are_told(tmp_path: Path):
    data = shared(arrays(tmp_path), 0, 2)
    with pytest.raises(TrainingError, match=r"Expected 2 processes that train together.*`torchrun`"):
        data.setup("fit")


def test_what_takes_all_rows_says_why():
    assert Digits().undivided is None
    assert "`data.init_args.sampling: balanced`" in str(Digits(sampling="balanced").undivided)
    assert "`data.init_args.duplicates: drop`" in str(Digits(duplicates="drop").undivided)


@pytest.mark.parametrize("shape", [(101, 3), (101, 2, 4, 5)])
def test_moments_of_shares_are_those_of_all_rows(shape: tuple[int, ...]):
    x = np.random.default_rng(0).normal(1e6, 1.0, shape)  # where a difference of squares would lose all digits
    parts = [Moments.of(x[rank::4]) for rank in range(4)]
    found, axes = Moments.together(parts), (0, *range(2, x.ndim))
    assert found.rows == 101
    np.testing.assert_allclose(found.mean, x.mean(axes), rtol=1e-14)
    np.testing.assert_allclose(found.variance, x.var(axes), rtol=1e-9)
    assert (found.low, found.high) == (x.min(), x.max())


def test_inputs_that_differ_by_more_than_rounding_are_others():
    spec = Digits().input
    near = spec.model_copy(update={"mean": tuple(each * (1 + 1e-13) for each in spec.mean)})
    assert same_input(spec, near)
    for name, value in {"mean": (4.0,), "std": (2.0,), "high": 17.0}.items():
        assert not same_input(spec, spec.model_copy(update={name: value}))

"""Whatever a file writes, the network eats the right numbers, and a served row is the trained row bit for bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dubio.models import MLP, NetworkSpec, Predictor
from dubio.serving.v1.decode import decode_request
from dubio.training import Table
from dubio.training.splits.random_splits import SPLITS

ROWS = 120
NUMBERS = [round(0.25 * row + 1200 * (row % 2), 2) for row in range(ROWS)]
NOW = 1_700_000_000_000


def written(folder: Path, cells: list[str], separator: str = ",") -> str:
    """A file whose column x decides the class, in the order of its rows."""
    with (folder / "f.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["x", "kind", "part"])
        writer.writerows([cell, "ab"[row % 2], SPLITS[row // 2 % 5]] for row, cell in enumerate(cells))
    return str(folder / "f.csv")


def rows_of(data: Table) -> np.ndarray:
    """The encoded rows in the order of the file."""
    x = np.empty((ROWS, *data.input.shape), dtype=np.float32)
    for index, name in enumerate(SPLITS):
        x[[row for row in range(ROWS) if row // 2 % 5 == index]] = data.splits[name].x
    return x


def served(data: Table, values: list[Any]) -> np.ndarray:
    """What the service makes of a request."""
    body = json.dumps({"instances": [{"x": value} for value in values]}).encode()
    return decode_request(body, spec=data.input, committee=2, max_rows=ROWS).inputs


def predictor(data: Table) -> Predictor:
    arguments = {"in_features": data.input.shape[0], "num_classes": 2, "widths": [64], "rates": [0.5]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MLP(**arguments).eval().requires_grad_(False)
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args=arguments)
    return Predictor.build(network, spec, data.input, data.classes, num_samples=8, strategy="loop")


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize(
    ("write", "settings", "separator"),
    [
        (str, {}, ","),
        (lambda number: f"+{number}", {}, ","),
        (lambda number: f"  {number:e} ", {}, ","),
        (lambda number: f"{number:,.2f}", {"thousands": ","}, ","),
        (german, {"decimal": ",", "thousands": "."}, ";"),
        (lambda number: f"{number:.2f}".replace(".", ","), {"decimal": ","}, ";"),
        (lambda number: f"\u00a0{number}\u200b", {}, ","),
    ],
    ids=["plain", "sign", "exponent", "thousands", "german", "decimal", "invisible"],
)
def test_numbers_in_any_spelling_are_those_numbers(tmp_path: Path, write, settings: dict[str, Any], separator: str):
    path = written(tmp_path, list(map(write, NUMBERS)), separator)
    data = Table(path, target="kind", split="part", separator=separator, **settings)
    assert data.input.reader.columns["x"].kind == "numeric"
    assert rows_of(data).tolist() == np.float32(NUMBERS)[:, None].tolist()
    assert np.array_equal(served(data, NUMBERS), rows_of(data))


@pytest.mark.parametrize("hole", ["", "NA", "NAN", "-nan", "?", " N/A ", "<NA>", "-999"])
def test_a_hole_in_any_spelling_is_a_hole(tmp_path: Path, hole: str):
    cells = [hole if row % 11 == 3 else str(number) for row, number in enumerate(NUMBERS)]
    data = Table(written(tmp_path, cells), target="kind", split="part", missing=("NA", "N/A", "<NA>", "?", "-999"))
    x = rows_of(data)
    assert x[:, 1].tolist() == [float(row % 11 == 3) for row in range(ROWS)]
    there = x[:, 1] == 0
    assert x[there, 0].tolist() == np.float32(NUMBERS)[there].tolist()
    assert np.array_equal(served(data, [None if row % 11 == 3 else value for row, value in enumerate(NUMBERS)]), x)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["True", "False"], [True, False]),
        (["TRUE", "FALSE"], ["true", False]),
        ([" red", " blue"], ["red", "blue"]),
        (["Zu\u0308rich", "Bern"], ["Z\u00fcrich", "bern"]),
        (["1.0", "2.0"], [1, "2"]),
        (["8001", "08001"], [8001, "08001"]),
        (["None", "some"], ["None", "some"]),
        (["NA", "EU"], ["NA", "EU"]),
        (["NA", "EU"], [None, "EU"]),
    ],
    ids=str,
)
def test_the_words_of_the_file_are_those_of_the_request(tmp_path: Path, cells: list[str], values: list[Any]):
    path = written(tmp_path, [cells[row % 2] for row in range(ROWS)])
    data = Table(path, target="kind", split="part", categorical=("x",))
    first, second = served(data, values)
    assert not np.array_equal(first, second)
    assert np.array_equal(rows_of(data), np.stack([first, second] * (ROWS // 2)))
    assert first[-1] == second[-1] == 0  # neither is a category that no training row had
    outside = data.input.reader.outside(torch.from_numpy(served(data, values)))
    assert outside.tolist() == [False, False]


@pytest.mark.parametrize(
    "numbers",
    [
        [NOW + 37 * row + 9000 * (row % 2) for row in range(ROWS)],
        [2_600_000 + row / 8 + 20 * (row % 2) for row in range(ROWS)],
    ],
    ids=["milliseconds", "coordinates"],
)
def test_what_is_far_from_0_keeps_its_digits_up_to_the_answer(tmp_path: Path, numbers: list[float]):
    data = Table(written(tmp_path, list(map(str, numbers))), target="kind", split="part")
    x = rows_of(data)
    column = data.input.reader.columns["x"]
    assert (x[:, 0].astype(np.float64) + column.offset).tolist() == numbers
    assert np.array_equal(served(data, numbers), x)
    model = predictor(data)
    asked, trained = model.predict([{"x": number} for number in numbers]), model.predict(x)
    assert np.array_equal(asked.probabilities, trained.probabilities)
    assert len(np.unique(asked.probabilities[:, 0])) > ROWS / 2
    normalised = model.encode(torch.from_numpy(x))[:, 0].double()
    train = np.array([numbers[row] for row in range(ROWS) if row // 2 % 5 == 0], dtype=np.float64)
    np.testing.assert_allclose(normalised, (np.array(numbers) - train.mean()) / train.std(), rtol=1e-5, atol=1e-5)


def test_given_mean_and_std_are_those_of_the_column(tmp_path: Path):
    numbers = [NOW + 37 * row for row in range(ROWS)]
    data = Table(written(tmp_path, list(map(str, numbers))), target="kind", split="part", mean=float(NOW), std=100.0)
    normalised = predictor(data).encode(torch.from_numpy(rows_of(data)))[:, 0]
    np.testing.assert_allclose(normalised, 0.37 * np.arange(ROWS), rtol=1e-5, atol=1e-5)

"""A table of coin flips, and what `dubio-train` says about it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from dubio.models import load
from dubio.training.cli.main import main

ROWS = 300
NUMBERS = tuple("abcdefghij")
COLUMNS = (*NUMBERS, "place")


def rows(count: int, seed: int) -> list[dict[str, object]]:
    """Flips of a coin: nothing in a row says which label it has, so a network can only learn them by heart."""
    draw = np.random.default_rng(seed)
    return [
        {
            "id": f"r{seed}-{number}",
            **{name: round(float(draw.normal()), 6) for name in NUMBERS},
            "place": str(draw.choice(["here", "there"])),
            "label": str(draw.choice(["no", "yes"])),
        }
        for number in range(count)
    ]


def save(path: Path, content: list[dict[str, object]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return str(path)


def run(verb: str, *arguments: str) -> None:
    main([verb, "--config", "coin.yaml", *arguments])


def fails(capsys: pytest.CaptureFixture[str], verb: str, *arguments: str) -> str:
    with pytest.raises(SystemExit):
        run(verb, *arguments)
    return capsys.readouterr().err.splitlines()[-1]


def accuracy(capsys: pytest.CaptureFixture[str]) -> float:
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "test_accuracy" in line)
    return float(line.split("│")[2])


def served_accuracy(content: list[dict[str, object]]) -> float:
    predictor = load("runs/coin/model.ckpt")
    answer = predictor.predict([{name: row[name] for name in COLUMNS} for row in content])
    return float(
        np.mean([predictor.classes[label] == row["label"] for label, row in zip(answer.label, content, strict=True)])
    )

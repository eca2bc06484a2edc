"""Every score there is stands in the registry, under its own name."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from dubio.uncertainty import detection
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.detection.scores import Score


def test_every_score_that_the_code_defines_is_registered_by_its_name():
    folder = Path(detection.__path__[0])
    modules = [importlib.import_module(f"dubio.uncertainty.detection.{path.stem}") for path in folder.glob("*.py")]
    classes = {each for module in modules for _, each in inspect.getmembers(module, inspect.isclass)}
    scores = {each for each in classes if issubclass(each, Score) and not inspect.isabstract(each)}
    assert scores == set(SCORES.values())
    assert {name: score.name for name, score in SCORES.items()} == {name: name for name in SCORES}

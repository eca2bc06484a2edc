from __future__ import annotations

import inspect

import pytest
import pytorch_lightning.loggers
from jsonargparse import Namespace

from dubio.training.cli import loggers


def completed(*paths: str, **init_args: object) -> list[dict]:
    chosen = [Namespace(class_path=path, init_args=Namespace(**init_args)) for path in paths]
    trainer = Namespace(logger=chosen if len(chosen) > 1 else chosen[0])
    loggers.complete(trainer, "runs/a")
    return [vars(each.init_args) for each in chosen]


@pytest.mark.parametrize("name", ["TensorBoardLogger", "CSVLogger"])
def test_a_logger_that_needs_a_folder_gets_the_runs(name: str):
    assert completed(f"pytorch_lightning.loggers.{name}") == [{"save_dir": "runs/a", "name": "logs"}]


def test_what_was_given_stays():
    path = "pytorch_lightning.loggers.TensorBoardLogger"
    assert completed(path, save_dir="board") == [{"save_dir": "board"}]
    assert completed(path, name="mine") == [{"name": "mine", "save_dir": "runs/a"}]


def test_each_of_several_is_completed_and_others_have_a_folder_of_their_own():
    module = pytorch_lightning.loggers
    for name in ("MLFlowLogger", "WandbLogger"):  # which docs/training.md names; neither library is installed
        known = inspect.signature(getattr(module, name)).parameters
        assert known["save_dir"].default is not inspect.Parameter.empty
        assert {"MLFlowLogger": {"experiment_name", "tracking_uri"}, "WandbLogger": {"project"}}[name] <= set(known)
    paths = [f"pytorch_lightning.loggers.{name}" for name in ("MLFlowLogger", "CSVLogger")]
    assert completed(*paths) == [{}, {"save_dir": "runs/a", "name": "logs"}]


@pytest.mark.parametrize("logger", [None, True, False])
def test_no_logger_and_the_default_one_are_left_alone(logger: bool | None):
    trainer = Namespace(logger=logger)
    loggers.complete(trainer, "runs/a")
    assert trainer.logger is logger


def test_a_class_that_is_not_there_is_left_to_the_parser():
    assert completed("nowhere.Logger") == [{}]

from __future__ import annotations

import pytest
from jsonargparse import Namespace

from dubio.training.cli.parser import HelpFormatter, Parser, run_name


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"name": "mine", "config": ["configs/a.yaml"]}, "mine"),
        ({"config": ["configs/a.yaml", "b.yaml"]}, "a"),
        ({"config": [None]}, None),  # was given as text
        ({}, None),
    ],
)
def test_a_run_is_called_as_it_is_told_or_like_its_first_file(config: dict, name: str | None):
    assert run_name(Namespace(**config)) == name


def test_a_logger_that_needs_a_folder_gets_the_runs_before_it_is_validated():
    logger = Namespace(class_path="pytorch_lightning.loggers.TensorBoardLogger")
    config = Namespace(name="a", runs="runs", trainer=Namespace(logger=logger))
    parser = Parser()
    for key in ("name", "runs", "trainer.logger"):
        parser.add_argument(f"--{key}")
    parser.validate(config)
    assert logger.init_args.save_dir == "runs/a"


def test_the_help_lists_the_commands_that_are_not_lightnings_too():
    parser = Parser(formatter_class=HelpFormatter)
    parser.add_subcommands().add_subcommand("predict", Parser(description="Lightning's"))
    said = " ".join(parser.format_help().split())
    assert "{predict,audit,compare,configs,report}" in said
    assert "predict Answer every row of a file as the service would" in said
    assert "audit Say which dropout sites" in said

from __future__ import annotations

import pytest

from dubio.training.cli import command_line, lightning_cli, settings


@pytest.fixture(scope="module")
def parsers() -> dict[str, set[str]]:
    """What the parser of each command takes."""
    found: dict[str, set[str]] = {}

    class Spy(lightning_cli.CLI):
        def parse_arguments(self, parser, args) -> None:
            found.update({name: set(self._parser(name).get_defaults().keys()) for name in self.subcommands()})
            raise KeyError("nothing is to be run")

    with pytest.raises(KeyError, match="nothing is to be run"):
        command_line.run(Spy, ["nothing"])
    return found


def test_every_verb_is_known(parsers: dict[str, set[str]]):
    assert set(settings.VERBS) == set(parsers)


@pytest.mark.parametrize("verb", settings.VERBS)
def test_the_sources_tell_what_the_parser_takes(verb: str, parsers: dict[str, set[str]]):
    known = settings.of(verb)
    assert known is not None
    assert parsers[verb] - set(known) == set()  # or a right command line would be refused
    beside = set(known) - parsers[verb]
    assert beside <= {"config", "print_config", *settings.SECTIONS}


def test_predict_takes_its_own_settings():
    known = settings.of("predict")
    assert {"ckpt_path", "output", "ids"} <= set(known)
    assert "return_predictions" not in known
    assert known["output"].help.startswith("File to write")

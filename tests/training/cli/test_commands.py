from __future__ import annotations

import pytest

from dubio.training.cli.commands import PARSERS
from dubio.training.cli.main import main
from dubio.training.cli.messages import COMMANDS


def test_each_command_that_is_listed_has_a_parser():
    assert set(PARSERS) == set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_listed_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: dubio-train {command} ")

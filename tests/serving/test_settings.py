from __future__ import annotations

import ast
import inspect
from itertools import pairwise

import pytest
from pydantic import ValidationError

from serving import settings as module
from serving.settings import Settings


def test_the_environment_sets_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBIO_MODELS", "a=x.ckpt, y.ckpt,")
    monkeypatch.setenv("DUBIO_TRUSTED", "acme.networks")
    monkeypatch.setenv("DUBIO_PORT", "9000")
    settings = Settings(port=9001)
    assert settings.models == ("a=x.ckpt", "y.ckpt")
    assert settings.trusted == ("acme.networks",)
    assert settings.port == 9001


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"max_rows": 0}, {"log_level": "loud"}, {"prot": 1}])
def test_wrong_values_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_every_setting_is_described_under_its_field() -> None:
    [body] = [node.body for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ClassDef)]
    for field, following in pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), ast.unparse(field)

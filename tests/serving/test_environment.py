from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from dubio.serving.cli import main
from dubio.serving.environment import KEYS, describe
from dubio.serving.settings import Settings

SETTINGS = list(Settings.model_fields)
# All of a Service named `dubio`, as its pods see it, and of one named `dubio-metrics`.
KUBERNETES = {
    "DUBIO_SERVICE_HOST": "10.96.0.12",
    "DUBIO_SERVICE_PORT": "8000",
    "DUBIO_SERVICE_PORT_HTTP": "8000",
    "DUBIO_PORT": "tcp://10.96.0.12:8000",
    "DUBIO_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "DUBIO_PORT_8000_TCP_PROTO": "tcp",
    "DUBIO_PORT_8000_TCP_PORT": "8000",
    "DUBIO_PORT_8000_TCP_ADDR": "10.96.0.12",
    "DUBIO_METRICS_SERVICE_HOST": "10.96.0.13",
    "DUBIO_METRICS_PORT": "tcp://10.96.0.13:9000",
    "DUBIO_METRICS_PORT_9000_TCP_ADDR": "10.96.0.13",
}


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an environment that has none."""
    for name in SETTINGS:
        monkeypatch.delenv(f"DUBIO_{name.upper()}", raising=False)
    return Settings()


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in KEYS])
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_unset(name: str, empty: str, defaults: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DUBIO_{name.upper()}", empty)
    assert Settings() == defaults


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_variable_of_keys_is_refused(
    name: str, empty: str, defaults: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DUBIO_{name.upper()}", empty)
    with pytest.raises(ValidationError, match=f"DUBIO_{name.upper()} is to say who may call the service, but is empty"):
        Settings()


def test_kubernetes_sets_nothing(defaults: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert Settings() == defaults
    [line] = describe(KUBERNETES, SETTINGS)
    assert "DUBIO_PORT is 'tcp://10.96.0.12:8000'" in line
    assert "enableServiceLinks: false" in line
    assert describe({**KUBERNETES, "DUBIO_PORT": "9000"}, SETTINGS) == []


def test_a_variable_that_is_no_setting_is_told_with_the_nearest() -> None:
    environment = {"DUBIO_PROT": "1", "dubio_port": "1", "DUBIO_MAX_ROWS": "1", "DUBIO_TRACEBACK": "1", "HOME": "/"}
    assert describe(environment, SETTINGS) == ["DUBIO_PROT is no setting and is ignored; did you mean `DUBIO_PORT`?"]
    assert describe({"DUBIO_METRICS_PORT": "9000"}, SETTINGS) == ["DUBIO_METRICS_PORT is no setting and is ignored"]


@pytest.mark.parametrize("name", ["DUBIO_API_KEYS", "DUBIO_API_KEYS_FILE"])
def test_a_service_whose_keys_are_empty_does_not_start(command: Any, checkpoint: Path, name: str) -> None:
    code, line = command.refused(str(checkpoint), "--port", "0", **{name: ""})
    assert code == 2
    assert f"{name} is to say who may call the service, but is empty" in line
    assert "or unset it if everybody may" in line


@pytest.mark.parametrize("name", ["DUBIO_API_KEY", "DUBIO_KEYS", "DUBIO_API_KEYS_FLIE"])
def test_a_service_whose_keys_have_another_name_does_not_start_open(
    name: str, defaults: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "infer:some-secret-0123456789")
    assert main(["a=none.ckpt", "--port", "0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{name} is no setting" in line
    assert "DUBIO_API_KEYS and DUBIO_API_KEYS_FILE" in line
    assert "some-secret" not in line


@pytest.mark.slow
def test_with_keys_such_a_name_is_only_told(command: Any) -> None:
    more = {"DUBIO_API_KEY": "for-a-client", "DUBIO_API_KEYS": "infer:some-secret-0123456789"}
    done = command.run("a=none.ckpt", "--port", "0", **more)
    assert "DUBIO_API_KEY is no setting and is ignored; did you mean `DUBIO_API_KEYS`?" in done.stderr
    assert "none.ckpt: no such file" in done.stderr


def test_an_empty_repository_is_not_the_working_directory(command: Any) -> None:
    code, line = command.refused("--port", "0", DUBIO_MODEL_REPOSITORY="")
    assert (code, "name at least one checkpoint" in line) == (2, True)


@pytest.mark.parametrize("option", ["--model-repository", "--api-keys-file", "--host", "--trusted", "--root-path"])
def test_an_empty_option_is_refused(option: str, defaults: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a=none.ckpt", "--port", "0", option, ""]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "empty" in line
    assert option in line


@pytest.mark.slow
def test_a_service_starts_among_variables_of_compose_and_kubernetes(
    command: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DUBIO_TEST_DATA", "DUBIO_TEST_MLSERVER"):  # of these tests
        monkeypatch.delenv(name, raising=False)
    empty = {f"DUBIO_{name.upper()}": "" for name in SETTINGS if name not in (*KEYS, "torch_threads")}
    with command.started(str(checkpoint), **{**empty, **KUBERNETES}) as service:
        assert httpx.get(f"{service.url}/v2/health/ready").status_code == 200
        warnings = [line for line in service.log.splitlines() if "WARNING" in line]
        assert len(warnings) == 1, warnings
        assert "DUBIO_PORT is 'tcp://10.96.0.12:8000'" in warnings[0]

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dubio.serving.settings import SECTIONS, Settings, describe_unknown
from dubio.uncertainty.execution.choice import NAMES


def test_the_environment_sets_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBIO_MODELS", "a=x.ckpt, y.ckpt,")
    monkeypatch.setenv("DUBIO_TRUSTED", "acme.networks")
    monkeypatch.setenv("DUBIO_PORT", "9000")
    settings = Settings(port=9001)
    assert settings.models == ("a=x.ckpt", "y.ckpt")
    assert settings.trusted == ("acme.networks",)
    assert settings.port == 9001


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"max_rows": 0},
        {"log_level": "loud"},
        {"prot": 1},
        {"grace_seconds": 5, "drain_seconds": 6},
        {"model_control": "sometimes"},
        {"poll_seconds": 0.0},
        {"workers": 2, "model_control": "explicit"},
    ],
)
def test_wrong_values_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_every_setting_is_described_under_its_field() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_sections_begin_with_settings() -> None:
    assert SECTIONS.keys() <= Settings.model_fields.keys()
    assert next(iter(SECTIONS)) == next(iter(Settings.model_fields))  # so that every setting is in one


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBIO_API_KEYS", "infer:some-secret-0123456789")
    settings = Settings()
    assert settings.api_keys is not None
    assert "some-secret" in settings.api_keys.get_secret_value()
    assert "some-secret" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize("origin", ["*", "https://app.example.org", "http://localhost:3000", "capacitor://localhost"])
def test_origins_are_taken_as_browsers_send_them(origin: str) -> None:
    assert Settings(cors_origins=origin).cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://app.example.org/", "https://a.example.org/x", "https://"]
)
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=(origin,))


def test_connections_outlive_those_of_load_balancers() -> None:
    assert Settings().keep_alive_seconds >= 65


def test_a_variable_that_is_no_setting_is_told_with_the_nearest() -> None:
    environment = {"DUBIO_PROT": "1", "dubio_port": "1", "DUBIO_MAX_ROWS": "1", "DUBIO_TRACEBACK": "1", "HOME": "/"}
    assert describe_unknown(environment) == ["DUBIO_PROT is no setting and is ignored; did you mean `DUBIO_PORT`?"]
    assert describe_unknown({"DUBIO_SERVICE_HOST": "10.0.0.1"}) == ["DUBIO_SERVICE_HOST is no setting and is ignored"]


def test_a_strategy_is_one_of_a_committee_or_one_for_each_size_of_batch() -> None:
    for strategy in (*NAMES, "chain up to 16 rows, thinned"):
        assert Settings(strategy=strategy).strategy == strategy
    for strategy in ("fastest", "chain up to 16 rows", "chain, thinned", ""):
        with pytest.raises(ValueError, match=r"expected one of chain, .* but got '"):
            Settings(strategy=strategy)

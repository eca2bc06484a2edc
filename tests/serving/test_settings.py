from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr, ValidationError

from dubio.serving.app import create_app
from dubio.serving.errors import InvalidKeys
from dubio.serving.settings import OWN_PATHS, SECTIONS, Settings
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
        {"stalled_seconds": 5, "hung_seconds": 4},
        {"timeout_seconds": 60, "hung_seconds": 5},  # unset, stalled_seconds is the timeout
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


@pytest.mark.parametrize("host", ["*", "dubio", "dubio.example.org", "*.example.org", "dubio.ns.svc.cluster.local."])
def test_these_are_hosts(host: str) -> None:
    assert Settings(allowed_hosts=host).allowed_hosts == (host,)


@pytest.mark.parametrize("host", ["http://a.example", "a.example:80", "a.example/x", "a*", "*.*.a", "a b", "."])
def test_these_are_no_hosts(host: str) -> None:
    with pytest.raises(ValidationError, match="is no host name"):
        Settings(allowed_hosts=(host,))


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


def test_a_key_given_empty_is_not_no_key() -> None:
    with pytest.raises(InvalidKeys, match="Expected DUBIO_API_KEYS to hold at least one scope:key, but it is empty"):
        create_app(Settings(api_keys=SecretStr("")))


@pytest.mark.parametrize(
    ("given", "taken"), [("/dubio", "/dubio"), ("/a/b.c_d~e-f/", "/a/b.c_d~e-f"), ("/", None), ("/v1beta", "/v1beta")]
)
def test_a_prefix_is_kept_without_its_last_slash(given: str, taken: str | None) -> None:
    assert Settings(root_path=given).root_path == taken


@pytest.mark.parametrize("given", ["dubio", "//dubio", "/a//b", "/a b", "/ä", "https://a/b", "/v2", "/v1/x", "/docs"])
def test_what_is_no_prefix_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="must begin with /"):
        Settings(root_path=given)


def test_no_prefix_can_be_taken_for_a_path_of_the_service(settings: Callable[..., Settings]) -> None:
    api = create_app(settings(models=("a=none.ckpt",))).api
    paths = [route.path for included in api.routes for route in included.original_router.routes]
    assert {path.split("/")[1] for path in paths} - {""} == OWN_PATHS


@pytest.mark.parametrize("proxy", ["*", "proxy.internal", "10.0.0.1/8", "10.0.0", "127.0.0.1:80"])
def test_what_is_no_network_is_no_trusted_proxy(proxy: str) -> None:
    with pytest.raises(ValidationError, match="write an address or a network"):
        Settings(trusted_proxies=proxy)


def test_a_strategy_is_one_of_a_committee_or_one_for_each_size_of_batch() -> None:
    for strategy in (*NAMES, "chain up to 16 rows, thinned"):
        assert Settings(strategy=strategy).strategy == strategy
    for strategy in ("fastest", "chain up to 16 rows", "chain, thinned"):
        with pytest.raises(ValueError, match=r"expected one of chain, .* but got '"):
            Settings(strategy=strategy)

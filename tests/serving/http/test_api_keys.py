from __future__ import annotations

import hmac
import logging
import pickle
import re
from pathlib import Path

import pytest

from dubio.serving.errors import InvalidKeys
from dubio.serving.http import api_keys as module
from dubio.serving.http.api_keys import ApiKeys, Scope

INFER = "infer-key-0123456789"
BOTH = "both/keys+0123456789=="


def written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_gives_each_key_its_scopes(tmp_path: Path) -> None:
    text = f"# who may do what\n\ninfer:{INFER}\n  admin, metrics : {BOTH}  \n"
    keys = ApiKeys.read(path=written(tmp_path, text), environment=None)
    assert keys.scopes(INFER.encode()) == {Scope.INFER}
    assert keys.scopes(BOTH.encode()) == {Scope.ADMIN, Scope.METRICS}
    for wrong in [b"", INFER[:-1].encode(), INFER.encode() + b"x", INFER.upper().encode(), b"\xff" * 20]:
        assert keys.scopes(wrong) is None


def test_file_and_environment_add_up(tmp_path: Path) -> None:
    keys = ApiKeys.read(path=written(tmp_path, f"infer:{INFER}"), environment=f" admin,metrics:{BOTH}\n")
    assert keys.scopes(INFER.encode()) == {Scope.INFER}
    assert keys.grants(Scope.ADMIN)
    assert keys.any


def test_without_sources_there_is_no_key() -> None:
    keys = ApiKeys.read(path=None, environment=None)
    assert not keys.any
    assert not keys.grants(Scope.ADMIN)
    assert keys.scopes(b"") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "at least one"),
        ("# nobody\n", "at least one"),
        (f"{INFER}\n", "line 1 to be scope[,scope]:key"),
        (f"\nroot:{INFER}\n", "line 2 to be among infer, review, admin, metrics"),
        (f":{INFER}", "to be among"),
        ("infer:short", "16 to 256"),
        (f"infer:{INFER}\nadmin:{INFER}", "repeats that of"),
        ("infer:" + "k" * 300, "16 to 256"),
        (f"infer:{INFER} {BOTH}", "characters"),
        (f'[{{"scopes": ["infer"], "key": "{INFER}"}}]', "line 1 to be among"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_without_repeating_a_key(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidKeys, match=re.escape(complaint)) as caught:
        ApiKeys.read(path=path, environment=None)
    message = str(caught.value)
    assert str(path) in message
    for secret in (INFER, BOTH, "short", "kkkk"):
        assert secret not in message


def test_an_empty_environment_variable_is_a_mistake_and_not_an_open_door() -> None:
    with pytest.raises(InvalidKeys, match="DUBIO_API_KEYS"):
        ApiKeys.read(path=None, environment=" ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidKeys, match="No such file"):
        ApiKeys.read(path=tmp_path / "none", environment=None)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidKeys, match="UTF-8"):
        ApiKeys.read(path=tmp_path / "binary", environment=None)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(
    mode: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="dubio"):
        ApiKeys.read(path=written(tmp_path, f"infer:{INFER}", mode), environment=None)
    assert ("chmod 600" in caplog.text) == warned
    assert INFER not in caplog.text


def test_every_key_is_compared_in_constant_time_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def watch(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    keys = ApiKeys([(INFER, frozenset({Scope.INFER})), (BOTH, frozenset({Scope.ADMIN})), ("x" * 20, frozenset())])
    monkeypatch.setattr(module, "hmac", type("watched", (), {"compare_digest": staticmethod(watch)}))
    for presented in (INFER, BOTH, "nobody"):
        compared.clear()
        keys.scopes(presented.encode())
        assert len(compared) == 3
        # Digests of one length, never the keys: neither content nor length of a key shows in the time taken.
        assert {len(value) for pair in compared for value in pair} == {32}


def test_no_key_is_kept() -> None:
    keys = ApiKeys([(INFER, frozenset({Scope.INFER}))])
    assert INFER.encode() not in pickle.dumps(keys)

"""API keys: where they come from, what each may do, and the comparison that tells nobody how close a guess was."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import stat
from collections.abc import Iterable
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path

from dubio.serving.errors import InvalidKeys

_log = logging.getLogger("dubio")

# What `Authorization: Bearer` may carry (RFC 6750), and long enough that guessing is hopeless.
_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
_SHORTEST = 16
_LONGEST = 256


class Scope(StrEnum):
    """What a key may be good for. None includes another: a key that shall do two things names both."""

    INFER = "infer"
    REVIEW = "review"
    ADMIN = "admin"
    METRICS = "metrics"


class ApiKeys:
    """The accepted keys. Only their digests are kept."""

    def __init__(self, keys: Iterable[tuple[str, frozenset[Scope]]] = ()) -> None:
        """Keep the digests of keys, each with its scopes."""
        # Keyed with a secret of this process: equal prefixes of keys give unrelated digests.
        self._secret = secrets.token_bytes(32)
        self._scopes = [(self._digest(key.encode()), scopes) for key, scopes in keys]

    @classmethod
    def read(cls, *, path: Path | None, environment: str | None) -> ApiKeys:
        """Read the keys of a file and of an environment variable together.

        Args:
            path: File with one `scope[,scope]:key` a line; `#` begins a comment. None if there is none.
            environment: Entries of the same form between white space. None if the variable is not set.

        Raises:
            InvalidKeys: A source is unreadable, holds no key, or an entry breaks a rule. No message repeats a key.
        """
        entries: list[tuple[str, str]] = []
        if path is not None:
            entries += _from_file(path)
        if environment is not None:
            if not environment.strip():
                raise InvalidKeys("Expected DUBIO_API_KEYS to hold at least one scope:key, but it is empty; unset it.")
            entries += [(f"DUBIO_API_KEYS, entry {i}", text) for i, text in enumerate(environment.split(), 1)]
        return cls(_checked(entries))

    def replace(self, other: ApiKeys) -> None:
        """Accept the keys of `other` from now on, and no others."""
        self._secret, self._scopes = other._secret, other._scopes

    @property
    def any(self) -> bool:
        """Whether there is a key at all; without one, access is open to all but administrators."""
        return bool(self._scopes)

    def grants(self, scope: Scope) -> bool:
        """Whether some key has this scope."""
        return any(scope in scopes for _, scopes in self._scopes)

    def scopes(self, presented: bytes) -> frozenset[Scope] | None:
        """Tell what a key may do.

        Every digest is compared, in constant time, so that the answer's delay says nothing about the keys.

        Args:
            presented: Key as a client sent it.

        Returns:
            Its scopes; None when it is none of ours.
        """
        digest = self._digest(presented)
        granted: frozenset[Scope] | None = None
        for known, scopes in self._scopes:
            if hmac.compare_digest(digest, known):
                granted = scopes
        return granted

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, digest_size=32, key=self._secret).digest()


def _from_file(path: Path) -> list[tuple[str, str]]:
    """Where each entry stands, for complaints, and the entry."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidKeys(f"Expected `api_keys_file` to be a readable file, but {path}: {why}.") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("The API keys in %s can be read by other users; chmod 600 keeps them private.", path)
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    entries = [(f"{path}, line {number}", line) for number, line in lines if line and line[0] != "#"]
    if not entries:
        raise InvalidKeys(f"Expected {path} to hold at least one scope:key, but it holds none; add one.")
    return entries


def _checked(entries: Iterable[tuple[str, str]]) -> list[tuple[str, frozenset[Scope]]]:
    seen: dict[str, str] = {}
    checked = []
    for where, text in entries:
        scopes, _, key = (part.strip() for part in text.partition(":"))
        if not key:
            # A line without a colon may be a bare key, so what was there is not repeated.
            raise InvalidKeys(f"Expected {where} to be scope[,scope]:key, but there is no key after a colon.")
        names = [name.strip() for name in scopes.split(",")]
        if not set(names) <= set(Scope):
            raise InvalidKeys(
                f"Expected the scopes in {where} to be among {', '.join(Scope)}, but one is not; "
                "an entry is scope[,scope]:key."
            )
        if not _SHORTEST <= len(key) <= _LONGEST or not _KEY.match(key):
            raise InvalidKeys(
                f"Expected the key in {where} to have {_SHORTEST} to {_LONGEST} of the characters "
                "A-Z a-z 0-9 . _ ~ + / - with = at the end only, but it has not; "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one."
            )
        if key in seen:
            raise InvalidKeys(f"Expected all keys to differ, but {where} repeats that of {seen[key]}; name it once.")
        seen[key] = where
        checked.append((key, frozenset(Scope(name) for name in names)))
    return checked

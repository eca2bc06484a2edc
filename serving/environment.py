"""The `DUBIO_*` variables of the environment: what they set, and which of them others have set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

PREFIX = "DUBIO_"
KEYS = ("api_keys", "api_keys_file")
"""Settings that close the service. An empty one may be a secret that did not arrive, so it does not count as unset."""

# Variables of the command line for training, and of docker-compose.yml.
_OTHERS = {"DUBIO_TRACEBACK", "DUBIO_BIND"}
# What Kubernetes sets in every pod for each service of its namespace, here for one whose name begins with `dubio`.
_SERVICE_LINK = re.compile(
    r"DUBIO_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z"
)
_PORT_LINK = re.compile(r"DUBIO_([A-Z0-9_]+_)?PORT\Z")


class Environment(EnvSettingsSource):
    """Values of settings; a variable that is empty, or that Kubernetes has set, sets nothing."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read the variable of a setting."""
        value, key, is_complex = super().get_field_value(field, field_name)
        if value is not None and field_name not in KEYS:
            value = None if not value.strip() or _is_link(variable(field_name), value) else value
        return value, key, is_complex


def variable(setting: str) -> str:
    """The name of the variable of a setting."""
    return PREFIX + setting.upper()


def describe(environment: Mapping[str, str], settings: Collection[str]) -> list[str]:
    """Describe variables that look like settings and set nothing.

    Args:
        environment: Variables by name, such as `os.environ`.
        settings: The names of all settings.

    Returns:
        A sentence for each of them.
    """
    known = [variable(setting) for setting in settings]
    lines = [f"{name} is no setting and is ignored{_hint(name, known)}" for name in unknown(environment, settings)]
    for name, value in sorted(environment.items()):
        if name.upper() in known and _is_link(name, value):
            lines.append(
                f"{name} is {value[:100]!r}, as Kubernetes sets it for a Service of this name, and is ignored; "
                "`enableServiceLinks: false` keeps it out of the pod."
            )
    return lines


def unknown(environment: Mapping[str, str], settings: Collection[str]) -> list[str]:
    """The names of variables that look like settings and are none, nor Kubernetes'."""
    known = {variable(setting) for setting in settings} | _OTHERS
    return [
        name
        for name in sorted(environment)
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_link(name, environment[name])
    ]


def _is_link(name: str, value: str) -> bool:
    name = name.upper()
    return bool(_SERVICE_LINK.match(name) or (_PORT_LINK.match(name) and "://" in value))


def _hint(name: str, known: Collection[str]) -> str:
    from dubio.models.errors import nearest  # with torch, which a start without such a variable need not await

    near = nearest(name, known, cutoff=0.8)
    return f"; did you mean `{near}`?" if near else ""

"""docker-compose.yml: what stands beside the service, and what can be set. `tests/test_repository.py` has the rest."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dubio.serving.settings import Settings
from tests.docker.conftest import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
BESIDE = {"postgres": "store", "prometheus": "monitoring", "grafana": "monitoring"}
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")


def interpolated(value: Any) -> Any:
    """What Compose makes of a value where no variable is set."""
    if isinstance(value, dict):
        return {key: interpolated(each) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each) for each in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: match[2] or "", value).replace("$$", "$")
    return value


def documented() -> dict[str, str]:
    """The variables of .env.example, with the values that they have by default."""
    return dict(re.findall(r"^# ([A-Z_]+)=(.*)$", EXAMPLE, flags=re.MULTILINE))


def test_without_a_profile_there_are_training_and_service_alone() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"train", "serve"}
    assert {name: SERVICES[name]["profiles"] for name in BESIDE} == {name: [BESIDE[name]] for name in BESIDE}


def test_what_is_named_is_there() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"], mount
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        for needed in service.get("depends_on", []):
            # One of a profile that is off would not be found.
            assert set(SERVICES[needed].get("profiles", [])) <= set(service.get("profiles", []))
    for secret in interpolated(COMPOSE["secrets"]).values():
        assert (ROOT / secret["file"]).is_file()


def test_nothing_is_required_for_a_profile_that_is_off() -> None:
    """Compose fills in the whole file before it looks at profiles, so `:?` would stop the plain `up`."""
    assert "${" not in VARIABLE.sub("", TEXT.replace("${DUBIO_API_KEYS}", ""))
    for name, default in VARIABLE.findall(TEXT.replace("${DUBIO_API_KEYS}", "")):
        assert f"{name}:-" in TEXT, f"Compose warns of {name} where it is not set"
        assert default == documented()[name], f".env.example says {documented()[name]!r} of {name}"


@pytest.mark.parametrize("name", sorted(BESIDE))
def test_images_of_others_are_pinned_and_run_as_an_ordinary_user(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert image
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?", tag)
    uid = SERVICES[name]["user"].partition(":")[0]
    assert int(uid) > 0


def test_the_network_reaches_nothing_but_the_service_and_that_only_by_choice() -> None:
    published = {name: interpolated(service["ports"]) for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"serve", "serve-gpu", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in ("prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:${") for port in SERVICES[name]["ports"])


def test_no_password_is_known_to_everybody() -> None:
    for service in SERVICES.values():
        environment = interpolated(service.get("environment", {}))
        assert all(not value for key, value in environment.items() if "PASSWORD" in key)


def test_grafana_does_not_start_without_a_password(tmp_path: Path) -> None:
    shell, flag, script = interpolated(SERVICES["grafana"]["entrypoint"])
    assert "exec /run.sh\n" in script
    script = script.replace("/run.sh", "echo started")
    for password, code, out in [("", 64, ""), ("chosen", 0, "started\n")]:
        environment = {"GF_SECURITY_ADMIN_PASSWORD": password}
        done = subprocess.run([shell, flag, script], env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, out)
        assert ("set GRAFANA_PASSWORD in .env" in done.stderr) == (code != 0)


def test_each_variable_is_explained() -> None:
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    passed_on = {name for given in environments for name, value in given.items() if value is None}
    filled_in = {name for name, _ in VARIABLE.findall(TEXT.replace("${DUBIO_API_KEYS}", ""))}
    assert set(documented()) == passed_on | filled_in
    blocks = [block.splitlines() for block in EXAMPLE.split("\n\n")]
    for name in documented():
        [block] = [block for block in blocks if any(line.startswith(f"# {name}=") for line in block)]
        assert not re.match(r"# [A-Z_]+=", block[0]), f"nothing explains {name}"
    settings = {f"DUBIO_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in passed_on if name.startswith("DUBIO_")} <= settings


@pytest.mark.parametrize("name", ["serve", "serve-gpu"])
def test_what_was_learned_from_traffic_outlives_the_container(name: str) -> None:
    folder = SERVICES[name]["environment"]["DUBIO_STATE_FOLDER"]
    assert f"state:{folder}" in SERVICES[name]["volumes"]
    # A new volume belongs to whom the folder in the image does.
    dockerfile = (ROOT / "docker" / "serve.Dockerfile").read_text(encoding="utf-8")
    [made] = re.findall(r"install -d -o dubio -g dubio (.*)$", dockerfile, flags=re.MULTILINE)
    assert folder in made.split()


def test_the_example_itself_sets_nothing() -> None:
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


STORE = ["DUBIO_STORE_INPUT", "DUBIO_STORE_SHARE", "DUBIO_STORE_DAYS", "DUBIO_STORE_BYTES"]


@pytest.mark.parametrize("variable", ["DUBIO_WORKERS", "DUBIO_ACCESS_LOG", "DUBIO_DRAIN_SECONDS", "DUBIO_PORT", *STORE])
def test_defaults_are_told_as_they_are(variable: str) -> None:
    default = Settings.model_fields[variable.removeprefix("DUBIO_").lower()].default
    assert documented()[variable] == (f"{default:g}" if isinstance(default, float) else str(default).lower())

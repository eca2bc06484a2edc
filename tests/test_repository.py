"""What lies around the code agrees with it: metadata, pins, changelog, configurations, images and docs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _requirements() -> list[Requirement]:
    lines = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    return [Requirement(line) for line in lines]


def _pins() -> dict[str, str]:
    lines = [line for line in _text("constraints.txt").splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def _instructions(dockerfile: str, instruction: str) -> list[str]:
    joined = _text(dockerfile).replace("\\\n", " ")
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{instruction} ")]


def test_newest_version_in_the_changelog_is_the_projects():
    versions = re.findall(r"^## \[(\d[^\]]*)\]", _text("CHANGELOG.md"), flags=re.MULTILINE)
    assert versions[0] == PROJECT["version"]


@pytest.mark.parametrize("requirement", _requirements(), ids=lambda requirement: requirement.name)
def test_each_requirement_is_pinned_within_its_range(requirement: Requirement):
    pins = _pins()
    name = canonicalize_name(requirement.name)
    assert name in pins, f"constraints.txt does not pin {name}"
    assert requirement.specifier.contains(pins[name])


def test_pins_hold_on_every_machine():
    # A local version (2.13.0+cpu) exists on one index only.
    assert [f"{name}=={version}" for name, version in _pins().items() if "+" in version] == []


def test_malicious_and_unsafe_versions_of_lightning_are_refused():
    (lightning,) = [each for each in _requirements() if each.name == "pytorch-lightning"]
    assert not any(lightning.specifier.contains(version) for version in ("2.6.2", "2.6.3", "2.6.5"))


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_console_scripts_have_their_module(script: str):
    module, _, _function = PROJECT["scripts"][script].partition(":")
    assert (ROOT / (module.replace(".", "/") + ".py")).is_file()


def test_licence_is_apache():
    licence = _text("LICENSE")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "Copyright 2026 The Dubio Authors" in licence


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_are_valid_yaml(path: Path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_there_is_a_configuration_for_what_the_images_train():
    (command,) = _instructions("docker/train.Dockerfile", "CMD")
    assert (ROOT / "configs" / f"{yaml.safe_load(command)[-1]}.yaml").is_file()
    assert SERVICES["train"]["command"] == yaml.safe_load(command)


@pytest.mark.parametrize("name", ["train", "serve"])
def test_each_image_runs_its_command_as_an_ordinary_user(name: str):
    dockerfile = f"docker/{name}.Dockerfile"
    assert _instructions(dockerfile, "USER") == ["10001:10001"]
    assert yaml.safe_load(_instructions(dockerfile, "ENTRYPOINT")[0]) == [f"dubio-{name}"]
    assert f"dubio-{name}" in PROJECT["scripts"]


def test_serving_image_checks_its_health_and_stops_on_a_signal():
    (check,) = _instructions("docker/serve.Dockerfile", "HEALTHCHECK")
    command = yaml.safe_load(check.partition(" CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "/v2/health/ready" in command[2]
    assert _instructions("docker/serve.Dockerfile", "STOPSIGNAL") == ["SIGTERM"]


def test_images_get_what_they_install_and_nothing_else():
    allowed = {line[1:].rstrip("/") for line in _text(".dockerignore").splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "hatch_build.py", "constraints.txt", "requirements"} <= allowed
    assert {PROJECT["readme"], "LICENSE", "configs"} <= allowed
    assert {"dubio", "uncertainty", "models", "training", "serving", "scale"} <= allowed
    assert not {"tests", "runs", ".git", ".venv"} & allowed


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_hardened(name: str):
    service = SERVICES[name]
    if "build" in service:  # tests/docker/test_compose.py asks after the images of others
        assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith("/tmp:")
    assert all("size=" in mount for mount in service["tmpfs"])
    assert service["mem_limit"] == service["memswap_limit"]  # or it would swap
    assert service["pids_limit"] > 0


def test_keys_come_as_a_secret_that_no_image_or_commit_holds():
    added = yaml.safe_load(_text("docker/keys.yml"))
    for name in ("serve", "serve-gpu"):
        (secret,) = added["services"][name]["secrets"]
        assert added["services"][name]["environment"] == {"DUBIO_API_KEYS_FILE": f"/run/secrets/{secret}"}
        assert added["secrets"][secret] == {"file": "./keys.txt"}
        assert SERVICES[name].get("profiles") == added["services"][name].get("profiles")
    assert "keys.txt" in _text(".gitignore").split()
    assert "keys.txt" in _text(".dockerignore").split() or "*" in _text(".dockerignore").split()


@pytest.mark.parametrize(("train", "serve"), [("train", "serve"), ("train-gpu", "serve-gpu")])
def test_service_waits_for_the_model_and_reads_it_from_the_shared_volume(train: str, serve: str):
    assert SERVICES[serve]["depends_on"] == {train: {"condition": "service_completed_successfully"}}
    assert SERVICES[train]["volumes"] == ["runs:/app/runs"]
    assert SERVICES[serve]["volumes"][0] == "runs:/app/runs:ro"
    assert "runs" in COMPOSE["volumes"]


@pytest.mark.parametrize("name", ["serve", "serve-gpu"])
def test_service_has_a_health_check_that_compiles(name: str):
    kind, python, flag, code = SERVICES[name]["healthcheck"]["test"]
    assert (kind, python, flag) == ("CMD", "python", "-c")
    compile(code, "healthcheck", "exec")
    assert f":{SERVICES[name]['environment']['DUBIO_PORT']}/v2/health/ready" in code


@pytest.mark.parametrize("name", ["serve", "serve-gpu"])
@pytest.mark.parametrize("variable", ["DUBIO_API_KEYS", "DUBIO_API_KEYS_FILE"])
def test_keys_that_are_not_set_are_not_set_to_nothing(name: str, variable: str):
    environment = SERVICES[name]["environment"]
    assert variable in environment
    assert environment[variable] is None  # an interpolation would make an empty one of one that is not set


def test_only_the_gpu_profile_asks_for_a_gpu():
    with_gpu = {name for name, service in SERVICES.items() if "deploy" in service}
    in_profile = {name for name, service in SERVICES.items() if service.get("profiles") == ["gpu"]}
    assert with_gpu == in_profile == {"train-gpu", "serve-gpu"}
    assert SERVICES["serve-gpu"]["environment"]["DUBIO_DEVICE"] == "cuda"
    assert SERVICES["serve"]["environment"]["DUBIO_DEVICE"] == "cpu"


def test_ci_runs_what_a_contributor_runs():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert _text(".ci/run").rstrip().endswith("\nmake lint\nmake docs\n.ci/audit\nmake test")


GOOD = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "Dependency not found"}
BAD = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}],
}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([GOOD, UNKNOWN], 0, "audit: 1 of 2 packages looked up, 0 with known vulnerabilities"),
        ([UNKNOWN], 0, "audit: skipped: none of 1 packages could be looked up from here"),
        ([GOOD, BAD], 1, "audit: c 2: CVE-1, mended in 2.1"),
    ],
)
def test_the_audit_says_what_it_could_look_up(tmp_path: Path, packages: list[dict], code: int, said: str):
    (tmp_path / "audit.json").write_text(json.dumps({"dependencies": packages, "fixes": []}))
    script = [sys.executable, ROOT / ".ci" / "audit_summary.py", tmp_path / "audit.json"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (code, said)
    assert os.access(ROOT / ".ci" / "audit", os.X_OK)


def test_make_test_fails_where_too_little_is_covered():
    coverage = tomllib.loads(_text("pyproject.toml"))["tool"]["coverage"]
    assert coverage["report"]["fail_under"] == 95
    assert coverage["run"]["branch"] is True
    assert {"dubio", "uncertainty", "models", "training", "serving", "scale"} == set(coverage["run"]["source"])
    recipe = _text("Makefile").partition("\ntest: ")[2].partition("\n\n")[0]
    assert "--cov " in recipe
    assert "--fail-under=100 --include='uncertainty/detection/conformal.py,models/checkpoint/*'" in recipe


def test_documentation_names_nothing_that_is_missing():
    outcome = subprocess.run(
        [sys.executable, "docs/check_links.py"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr

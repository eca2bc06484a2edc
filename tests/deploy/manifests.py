"""The manifests of deploy/, as kustomize puts them together."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.serving.command import Running

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
# The oldest that deploy/kubernetes/kustomization.yaml names, and the newest there is.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """The manifests of a file."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def kustomization(folder: Path) -> Manifest:
    """What a folder's kustomization says."""
    [found] = documents(folder / "kustomization.yaml")
    return found


def rendered(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` applies: the resources, with the images that the kustomization names."""
    said = kustomization(folder)
    assert set(said) <= {"apiVersion", "kind", "resources", "images"}, "this reads no more than these"
    images = {each["name"]: f"{each['newName']}:{each['newTag']}" for each in said.get("images", [])}
    found = [copy.deepcopy(each) for name in said["resources"] for each in documents(folder / name)]
    for manifest in found:
        for container in containers(manifest):
            container["image"] = images.get(container["image"], container["image"])
    return found


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    [found] = [each for each in manifests if each["kind"] == kind]
    return found


def pod(manifest: Manifest) -> Manifest | None:
    """What a manifest says of pods, if it makes any."""
    if manifest["kind"] == "Deployment":
        return manifest["spec"]["template"]["spec"]
    return manifest["spec"] if manifest["kind"] == "ClusterServingRuntime" else None


def containers(manifest: Manifest) -> list[Manifest]:
    """The containers of the pods that a manifest makes."""
    return (pod(manifest) or {}).get("containers", [])


def values(container: Manifest) -> dict[str, str]:
    """The variables of a container that are given as they are."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def settings_of(container: Manifest) -> dict[str, Any]:
    """The settings that a container gets, by name; None for what comes from elsewhere."""
    given = {each["name"]: each.get("value") for each in container["env"]}
    return {name.removeprefix("DUBIO_").lower(): value for name, value in given.items() if name.startswith("DUBIO_")}


def environment_of(container: Manifest, **instead: str) -> dict[str, str]:
    """The variables that a container gets in a namespace called `team`, with others for gRPC's port and as given."""
    given = {name: value.replace("$(NAMESPACE)", "team") for name, value in values(container).items()}
    return {**given, "DUBIO_GRPC_PORT": "0", **instead}


def url_of(service: Running) -> str:
    """Where a container's command, which listens everywhere, is reached from here."""
    return service.url.replace("0.0.0.0", "127.0.0.1")


def secrets_of_page() -> dict[str, set[str]]:
    """The keys of every Secret that the page's commands make, by its name."""
    made: dict[str, set[str]] = {}
    for line in re.findall(r"^ *kubectl create secret generic (.+)$", PAGE.replace("\\\n", " "), re.MULTILINE):
        name, *options = line.split()
        made[name] = {re.split("=", option)[1].rpartition("/")[2] for option in options if "--from-" in option}
    return made

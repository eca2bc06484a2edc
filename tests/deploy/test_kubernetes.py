"""deploy/kubernetes against the published schemas, the settings, and the command that the container runs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from dubio.serving.cli import parse
from dubio.serving.settings import Settings
from tests.deploy.manifests import (
    DEPLOY,
    PAGE,
    ROOT,
    VERSIONS,
    containers,
    documents,
    environment_of,
    kustomization,
    of_kind,
    pod,
    rendered,
    secrets_of_page,
    settings_of,
    url_of,
)

FOLDER = DEPLOY / "kubernetes"
BASE = rendered(FOLDER)
ALL = [*BASE, *rendered(FOLDER / "monitoring")]
DEPLOYMENT = of_kind(BASE, "Deployment")
POD = pod(DEPLOYMENT)
[CONTAINER] = containers(DEPLOYMENT)
LABELS = {"app.kubernetes.io/name": "dubio"}
# These come with their operators, and no schema of theirs is here.
WITHOUT_SCHEMA = {"ServiceMonitor"}
KEY = "a-key-of-a-test-0123"


@pytest.mark.parametrize("version", VERSIONS)
def test_each_manifest_keeps_the_published_schema(version: str) -> None:
    for manifest in ALL:
        if manifest["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(manifest, version, strict=True)
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_kustomize_puts_together_what_lies_there() -> None:
    for folder in (FOLDER, FOLDER / "monitoring"):
        files = {path.name for path in folder.glob("*.yaml")}
        assert files == {"kustomization.yaml", *kustomization(folder)["resources"]}
    assert f"Kubernetes ({VERSIONS[0]} or newer)" in (FOLDER / "kustomization.yaml").read_text()
    names = [(each["kind"], each["metadata"]["name"]) for each in ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("folder", ["kubernetes", "kubernetes/monitoring", "kserve"])
def test_kubectl_puts_together_the_same(folder: str) -> None:
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("there is no kubectl here")
    done = subprocess.run([kubectl, "kustomize", DEPLOY / folder], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

    def by_kind(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(manifests, key=lambda each: each["kind"])

    assert by_kind(list(yaml.safe_load_all(done.stdout))) == by_kind(rendered(DEPLOY / folder))


def test_what_is_selected_is_what_is_labelled() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert labels == LABELS
    assert DEPLOYMENT["spec"]["selector"] == {"matchLabels": labels}
    service = of_kind(BASE, "Service")
    assert service["spec"]["selector"] == labels
    assert of_kind(BASE, "PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": labels}
    assert of_kind(BASE, "NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": labels}
    assert POD["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": labels}
    monitor = of_kind(ALL, "ServiceMonitor")
    assert monitor["spec"]["selector"] == {"matchLabels": service["metadata"]["labels"]}
    assert service["metadata"]["name"] == "dubio"  # the scrape job, which the alerts ask for
    target = of_kind(BASE, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": DEPLOYMENT["metadata"]["name"]}
    assert POD["serviceAccountName"] == of_kind(BASE, "ServiceAccount")["metadata"]["name"]


def test_ports_agree() -> None:
    listening = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    settings = settings_of(CONTAINER)
    assert listening == {"http": int(settings["port"]), "grpc": int(settings["grpc_port"])}
    service = {each["name"]: (each["port"], each["targetPort"]) for each in of_kind(BASE, "Service")["spec"]["ports"]}
    assert service == {name: (port, name) for name, port in listening.items()}
    [endpoint] = of_kind(ALL, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in service
    for rule in of_kind(BASE, "NetworkPolicy")["spec"]["ingress"]:
        assert {each["port"] for each in rule["ports"]} <= set(listening)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["port"] == "http"
        assert asked["path"] in {f"/v2/health/{word}" for word in ("live", "ready")}
    assert endpoint["path"] == "/metrics"


def test_what_is_referred_to_is_there_or_made_by_a_command_of_the_page() -> None:
    made = secrets_of_page()
    claims = {each["metadata"]["name"] for each in BASE if each["kind"] == "PersistentVolumeClaim"}
    mounted = {each["name"] for each in CONTAINER["volumeMounts"]}
    assert {volume["name"] for volume in POD["volumes"]} == mounted
    for volume in POD["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims
        if "secret" in volume:
            assert {item["key"] for item in volume["secret"]["items"]} <= made[volume["secret"]["secretName"]]
    for variable in CONTAINER["env"]:
        if "secretKeyRef" in variable.get("valueFrom", {}):
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["key"] in made[reference["name"]]
            assert reference["optional"]
    [endpoint] = of_kind(ALL, "ServiceMonitor")["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["key"] in made[credentials["name"]]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those with which the container's command runs."""
    for variable, value in environment_of(CONTAINER).items():
        monkeypatch.setenv(variable, value)
    return parse(CONTAINER["args"])


def test_each_option_and_variable_is_a_setting(settings: Settings) -> None:
    assert set(settings_of(CONTAINER)) <= set(Settings.model_fields)
    assert settings.model_repository == Path("/models")
    assert settings.model_control == "poll"
    assert settings.workers == 1
    assert settings.host == "0.0.0.0"
    assert settings.allowed_hosts == ("dubio", "dubio.team", "dubio.team.svc", "dubio.team.svc.cluster.local")
    mounts = {each["mountPath"]: each for each in CONTAINER["volumeMounts"]}
    assert str(settings.model_repository) in mounts
    assert str(settings.api_keys_file.parent) in mounts
    # What the environment refers to is defined before it.
    names = [each["name"] for each in CONTAINER["env"]]
    assert names.index("NAMESPACE") < names.index("DUBIO_ALLOWED_HOSTS")


def test_times_agree_with_the_settings(settings: Settings) -> None:
    assert settings.grace_seconds == Settings.model_fields["grace_seconds"].default
    assert POD["terminationGracePeriodSeconds"] > settings.grace_seconds > settings.drain_seconds
    ready, startup = CONTAINER["readinessProbe"], CONTAINER["startupProbe"]
    assert "lifecycle" not in CONTAINER
    # It goes on accepting until a probe has found out.
    assert settings.drain_seconds >= ready["periodSeconds"] * ready["failureThreshold"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 2 * settings.load_seconds
    hung = settings.hung_seconds or 5 * settings.timeout_seconds
    assert f"DUBIO_HUNG_SECONDS ({hung:g})" in (FOLDER / "deployment.yaml").read_text()


def test_a_rollout_and_a_drained_node_leave_no_gap() -> None:
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in DEPLOYMENT["spec"]  # or each `apply` would undo the autoscaler's work
    scaling = of_kind(BASE, "HorizontalPodAutoscaler")["spec"]
    assert (
        scaling["maxReplicas"] > scaling["minReplicas"] > of_kind(BASE, "PodDisruptionBudget")["spec"]["maxUnavailable"]
    )


def test_the_pod_may_do_nothing_but_serve() -> None:
    assert POD["automountServiceAccountToken"] is False
    assert of_kind(BASE, "ServiceAccount")["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False
    uid = (ROOT / "docker" / "serve.Dockerfile").read_text().partition("\nUSER ")[2].partition("\n")[0]
    outer = POD["securityContext"]
    assert f"{outer['runAsUser']}:{outer['runAsGroup']}" == uid
    assert outer["runAsNonRoot"] is True
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [each["mountPath"] for each in CONTAINER["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["/tmp"]  # HOME of the image, and what TMPDIR is unless it is set
    [empty] = [volume["emptyDir"] for volume in POD["volumes"] if "emptyDir" in volume]
    assert empty["sizeLimit"]
    resources = CONTAINER["resources"]
    assert resources["limits"]["memory"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]
    policy = of_kind(BASE, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] for rule in policy["ingress"])
    assert all(rule["to"] and rule["ports"] for rule in policy["egress"])


def test_the_image_is_that_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for folder in (FOLDER, DEPLOY / "kserve"):
        assert kustomization(folder)["images"] == [
            {"name": "dubio-serve", "newName": "registry.example.org/dubio-serve", "newTag": version}
        ]
        [found] = [each["image"] for manifest in rendered(folder) for each in containers(manifest)]
        assert found == f"registry.example.org/dubio-serve:{version}"


def test_the_page_names_what_lies_there() -> None:
    for path in DEPLOY.rglob("*.yaml"):
        if path.name != "kustomization.yaml":
            assert path.name in PAGE, path
    for path in re.findall(r"deploy/[\w./-]+", PAGE):
        assert (ROOT / path.rstrip(".")).exists(), path
    for path in DEPLOY.rglob("*.yaml"):
        assert documents(path)
        assert path.read_text().startswith("#"), f"nothing says what {path.name} is for"


def test_the_containers_command_answers_its_probes(command: Any, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "bars" / "1").mkdir(parents=True)
    shutil.copy(checkpoint, tmp_path / "models" / "bars" / "1" / "model.ckpt")
    (tmp_path / "keys.txt").write_text(f"infer:{KEY}\nmetrics:{KEY}-metrics\n")
    # Nobody has to notice its end here.
    instead = {"DUBIO_API_KEYS_FILE": f"{tmp_path}/keys.txt", "DUBIO_DRAIN_SECONDS": "0"}
    environment = environment_of(CONTAINER, **instead)
    arguments = [each.replace("/models", f"{tmp_path}/models") for each in CONTAINER["args"]]
    with command.started(*arguments, "--strategy", "loop", **environment) as service:
        assert set(re.findall(r"(\w+) is no setting", service.log)) <= {"DUBIO_TEST_DATA"}  # of whoever runs the tests
        with httpx.Client(base_url=url_of(service)) as client:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):  # which send no key
                assert client.get(CONTAINER[probe]["httpGet"]["path"]).status_code == 200
            body = {"instances": [[[5.0] * 8] * 8]}
            for host, status in [("dubio.team.svc", 200), ("dubio", 200), ("elsewhere.example.org", 421)]:
                headers = {"Host": host, "X-API-Key": KEY}
                assert client.post("/v1/models/bars/predict", json=body, headers=headers).status_code == status
            assert client.post("/v1/models/bars/predict", json=body).status_code == 401
            [endpoint] = of_kind(ALL, "ServiceMonitor")["spec"]["endpoints"]
            scraped = client.get(endpoint["path"], headers={"Authorization": f"Bearer {KEY}-metrics"})
            assert "dubio_waiting_rows 0.0" in scraped.text
        assert service.finish(signal.SIGTERM) == 0

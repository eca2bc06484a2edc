"""deploy/kserve against KServe's own classes, the settings, and a Prometheus that is asked as KEDA asks."""

from __future__ import annotations

import asyncio
import functools
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kserve
import kubernetes
import kubernetes_validate
import pytest
import yaml

from dubio.serving.cli import parse
from dubio.serving.settings import Settings
from dubio.serving.telemetry.gauges import WAITING_ROWS
from tests.deploy.manifests import DEPLOY, PAGE, VERSIONS, containers, documents, environment_of, settings_of, url_of
from tests.docker.conftest import started
from tests.serving.command import Running

FOLDER = DEPLOY / "kserve"
[RUNTIME] = documents(FOLDER / "serving-runtime.yaml")
[CONTAINER] = containers(RUNTIME)
[SERVICE] = documents(FOLDER / "inference-service.yaml")
[GRPC_SERVICE] = documents(FOLDER / "inference-service-grpc.yaml")
[MONITOR] = documents(FOLDER / "pod-monitor.yaml")
[METRIC] = SERVICE["spec"]["predictor"]["autoScaling"]["metrics"]
QUERY = METRIC["external"]["metric"]["query"]
# What Kubernetes gives a pod to end unless it is told otherwise.
DEFAULT_PATIENCE = 30


def read(kind: str, value: Any) -> Any:
    """A manifest as an object of KServe's client, whose classes know every field and which of them must be there."""
    if kind.startswith("list["):
        return [read(kind.removeprefix("list[").removesuffix("]"), each) for each in value]
    found = getattr(kserve, kind, None) or getattr(kubernetes.client, kind, None)
    if found is None:  # a word, a number, or a map of words
        return value
    fields = {wire: name for name, wire in found.attribute_map.items()}
    assert set(value) <= set(fields), f"{kind} has no {set(value) - set(fields)}"
    return found(**{fields[wire]: read(found.openapi_types[fields[wire]], each) for wire, each in value.items()})


def kind_of(manifest: dict[str, Any]) -> str:
    version = manifest["apiVersion"].rpartition("/")[2]
    return f"{version[0].upper()}{version[1:]}{manifest['kind']}"


@pytest.mark.parametrize("manifest", [RUNTIME, SERVICE, GRPC_SERVICE], ids=lambda each: each["metadata"]["name"])
def test_each_manifest_is_one_that_kserve_knows(manifest: dict[str, Any]) -> None:
    assert manifest["apiVersion"].startswith("serving.kserve.io/")
    read(kind_of(manifest), manifest)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [(("predictor", "model", "storageURI"), "V1beta1ModelSpec has no"), (("predictr",), "V1beta1InferenceServiceSpec")],
)
def test_a_field_that_kserve_does_not_know_is_seen(path: tuple[str, ...], complaint: str) -> None:
    wrong = yaml.safe_load(yaml.safe_dump(SERVICE))
    functools.reduce(dict.__getitem__, path[:-1], wrong["spec"])[path[-1]] = "x"
    with pytest.raises(AssertionError, match=complaint):
        read("V1beta1InferenceService", wrong)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_containers_keep_the_schema_of_kubernetes(version: str) -> None:
    runtime = {key: RUNTIME["spec"][key] for key in ("containers", "volumes")}
    more = {"ports": SERVICE["spec"]["predictor"]["model"]["ports"]}
    for spec in (runtime, {**runtime, "containers": [{**CONTAINER, **more}]}):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def test_runtime_and_services_agree() -> None:
    formats = {(each["name"], each["version"]) for each in RUNTIME["spec"]["supportedModelFormats"]}
    settings = settings_of(CONTAINER)
    assert CONTAINER["name"] == "kserve-container"
    for service, protocol, port in [
        (SERVICE, "v2", {"name": "http1", "containerPort": int(settings["port"]), "protocol": "TCP"}),
        (GRPC_SERVICE, "grpc-v2", {"name": "h2c", "containerPort": int(settings["grpc_port"]), "protocol": "TCP"}),
    ]:
        predictor = service["spec"]["predictor"]
        model = predictor["model"]
        assert model["runtime"] == RUNTIME["metadata"]["name"]
        assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
        assert model["protocolVersion"] == protocol
        assert protocol in RUNTIME["spec"]["protocolVersions"]
        assert model["ports"] == [port]
        assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
        assert predictor["terminationGracePeriodSeconds"] > float(settings["grace_seconds"])
    assert float(settings["drain_seconds"]) < float(settings["grace_seconds"]) < DEFAULT_PATIENCE
    assert int(settings["port"]) == 8080  # what KServe takes where no port is named
    annotations = RUNTIME["spec"]["annotations"]
    assert annotations == {"prometheus.kserve.io/port": settings["port"], "prometheus.kserve.io/path": "/metrics"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == int(settings["port"])
    [endpoint] = MONITOR["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == SERVICE["spec"]["predictor"]["model"]["ports"][0]["name"]
    assert endpoint["path"] == annotations["prometheus.kserve.io/path"]
    assert "inference-service.yaml" in PAGE


def test_the_container_may_do_nothing_but_serve() -> None:
    context = CONTAINER["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [each["mountPath"] for each in CONTAINER["volumeMounts"]] == ["/tmp"]


def arguments(folder: Path) -> list[str]:
    """The container's, as KServe fills them in for the InferenceService, with a folder in place of /mnt/models."""
    name = SERVICE["metadata"]["name"]
    return [each.replace("{{.Name}}", name).replace("/mnt/models", str(folder)) for each in CONTAINER["args"]]


def test_each_argument_and_variable_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(settings_of(CONTAINER)) <= set(Settings.model_fields)
    for name, value in environment_of(CONTAINER).items():
        monkeypatch.setenv(name, value)
    settings = parse(arguments(Path("/mnt/models")))
    assert settings.models == ("digits=/mnt/models",)
    assert settings.allowed_hosts == ("*",)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)


def test_keda_asks_for_what_the_service_exposes() -> None:
    assert set(re.findall(r"\bdubio_\w+", QUERY)) == {WAITING_ROWS.name}
    name, namespace = SERVICE["metadata"]["name"], SERVICE["metadata"]["namespace"]
    assert f'namespace="{namespace}"' in QUERY
    assert f'pod=~"{name}-predictor-.*"' in QUERY
    assert MONITOR["metadata"]["namespace"] == namespace
    # The controller reads `value`, whatever the type, and KEDA divides the sum by it.
    assert METRIC["external"]["target"]["type"] == "Value"
    rows = float(METRIC["external"]["target"]["value"])
    fields = Settings.model_fields
    assert rows == 2 * fields["max_batch_rows"].default
    assert rows < fields["max_queue_rows"].default / 2  # more replicas before anybody is refused
    predictor = SERVICE["spec"]["predictor"]
    assert 1 <= predictor["minReplicas"] < predictor["maxReplicas"]
    assert METRIC["external"]["metric"]["backend"] == "prometheus"
    assert SERVICE["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"


@pytest.fixture(scope="module")
def service(command: Any, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The container's command, with what KServe's init container leaves."""
    folder = tmp_path_factory.mktemp("mnt") / "models"
    folder.mkdir()
    shutil.copy(checkpoint, folder / "model.ckpt")
    with command.started(*arguments(folder), "--strategy", "loop", **environment_of(CONTAINER)) as service:
        assert set(re.findall(r"(\w+) is no setting", service.log)) <= {"DUBIO_TEST_DATA"}  # of whoever runs the tests
        yield service


@pytest.fixture(scope="module")
def url(service: Running) -> str:
    return url_of(service)


def test_the_containers_command_answers_its_probes_and_its_model_by_the_services_name(url: str) -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert httpx.get(url + CONTAINER[probe]["httpGet"]["path"]).status_code == 200
    # By whatever name KServe publishes it.
    body = {"inputs": [{"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [5.0] * 64}]}
    answer = httpx.post(f"{url}/v2/models/digits/infer", json=body, headers={"Host": "digits-default.example.org"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_name"] == "digits"


def test_it_answers_kserves_client_over_grpc(service: Running) -> None:
    address = "127.0.0.1:" + re.search(r" and on \S+:(\d+) for gRPC", service.log)[1]

    async def ask() -> kserve.InferResponse:
        async with kserve.InferenceGRPCClient(address) as client:
            assert await client.is_server_ready()
            rows = kserve.InferInput("input", [1, 1, 8, 8], "FP32", data=[5.0] * 64)
            return await client.infer(kserve.InferRequest("digits", [rows]))

    assert {"label", "ood_flag"} <= {output.name for output in asyncio.run(ask()).outputs}


def test_the_query_counts_the_rows_that_wait(url: str, tmp_path: Path) -> None:
    """Against a real Prometheus, with the labels that the operator gives a pod."""
    labels = {"namespace": "default", "pod": "digits-predictor-7c9f-abcde"}
    target = {"targets": [url.removeprefix("http://")], "labels": labels}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "a", "static_configs": [target]}]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with started(tmp_path / "prometheus.yml", tmp_path) as prometheus:
        prometheus.wait_for(QUERY)
        assert prometheus.values(QUERY) == [0.0]
        stop = threading.Event()

        def ask() -> None:
            body = {"instances": [[[5.0] * 8] * 8] * 1024}
            while not stop.is_set():
                httpx.post(f"{url}/v1/models/digits/predict", json=body, timeout=60)

        callers = [threading.Thread(target=ask) for _ in range(2)]
        for caller in callers:
            caller.start()
        try:
            deadline = time.monotonic() + 60
            while max(prometheus.values(QUERY), default=0.0) <= 0:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        assert prometheus.values(QUERY.replace("digits", "others")) == []

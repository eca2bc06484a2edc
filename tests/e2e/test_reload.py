"""Mixed load while the model is swapped every second, and SIGTERM at its end: nothing fails, nothing is mixed up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from dubio import models
from dubio.models import MLP, InputSpec, NetworkSpec, Prediction, Predictor
from tests.serving.command import Command
from tests.serving.conftest import HIGH, SIDE, draw_bars, write_checkpoint

pytestmark = pytest.mark.slow

KEY = "end-to-end-key-0123456789"
INPUTS = draw_bars(24, 9)[0]
DRAIN_SECONDS = 1.0

Answer = dict[str, np.ndarray]
"""What a request got, by the name it has in the Open Inference Protocol."""


@dataclass(frozen=True)
class Kind:
    """One kind of request: how to ask for some rows, and how to read the answer."""

    name: str
    path: str
    body: Callable[[np.ndarray], tuple[bytes, dict[str, str]]]
    read: Callable[[bytes, int], Answer]


def as_v1(rows: np.ndarray) -> tuple[bytes, dict[str, str]]:
    return json.dumps({"instances": rows.tolist()}).encode(), {"Content-Type": "application/json"}


def read_v1(body: bytes, _: int) -> Answer:
    predictions = json.loads(body)["predictions"]
    return {
        "probabilities": np.array([each["deterministic"]["probabilities"] for each in predictions]),
        "mc_mean": np.array([each["mc"]["mean"] for each in predictions]),
        "mc_std": np.array([each["mc"]["std"] for each in predictions]),
        "ood_p_value": np.array([each["ood"]["p_value"] for each in predictions]),
    }


def as_v2(*outputs: str, binary: bool) -> Callable[[np.ndarray], tuple[bytes, dict[str, str]]]:
    def body(rows: np.ndarray) -> tuple[bytes, dict[str, str]]:
        tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32"}
        document = {"inputs": [tensor], "outputs": [{"name": output} for output in outputs]}
        if not binary:
            return json.dumps({**document, "inputs": [{**tensor, "data": rows.tolist()}]}).encode(), {}
        tensor["parameters"] = {"binary_data_size": rows.nbytes}
        head = json.dumps({**document, "parameters": {"binary_data_output": True}}).encode()
        return head + rows.tobytes(), {"Inference-Header-Content-Length": str(len(head))}

    return body


def read_v2(body: bytes, json_bytes: int) -> Answer:
    document = json.loads(body[:json_bytes])
    rest, outputs = body[json_bytes:], {}
    for output in document["outputs"]:
        if "data" in output:
            values = np.array(output["data"])
        else:
            size = output["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:size], np.float32), rest[size:]
        outputs[output["name"]] = values.reshape(output["shape"])
    assert not rest
    return outputs


KINDS = [
    Kind("v1", "/v1/models/bars/predict", as_v1, read_v1),
    Kind(
        "v2 JSON",
        "/v2/models/bars/infer",
        as_v2("probabilities", "mc_mean", "mc_std", "ood_p_value", binary=False),
        read_v2,
    ),
    Kind("v2 deterministic", "/v2/models/bars/infer", as_v2("probabilities", binary=True), read_v2),
    Kind("v2 MC", "/v2/models/bars/versions/1/infer", as_v2("mc_mean", "mc_std", binary=True), read_v2),
]


def value(prediction: Prediction, name: str) -> np.ndarray:
    values = prediction.p_value if name == "ood_p_value" else getattr(prediction, name)
    assert values is not None
    return values


@dataclass
class Caller:
    """Asks one kind of request again and again, and keeps what went wrong."""

    kind: Kind
    port: int
    predictors: list[Predictor]
    rows: int
    seed: int
    stopped: threading.Event
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    by_version: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        # One row at a time: what a row's answer is does not depend on the others in its batch.
        self._expected = [[each.predict(row[None]) for row in INPUTS] for each in self.predictors]

    def run(self) -> None:
        """Until stopped; a caller that breaks is a failure, too."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self._ask(connection)
        except Exception as error:
            self.wrong.append(f"{self.kind.name}: broke: {error!r}")
        finally:
            connection.close()

    def _ask(self, connection: HTTPConnection) -> None:
        generator = np.random.default_rng(self.seed)
        while not self.stopped.is_set():
            chosen = generator.integers(0, len(INPUTS), self.rows)
            body, headers = self.kind.body(INPUTS[chosen])
            try:
                connection.request("POST", self.kind.path, body, {"X-API-Key": KEY, **headers})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException) as error:
                self.wrong.append(f"{self.kind.name}: no answer: {error!r}")
                connection.close()
                continue
            if answer.status != 200:
                self.wrong.append(f"{self.kind.name}: {answer.status} {content[:300]!r}")
                continue
            length = int(answer.getheader("Inference-Header-Content-Length", len(content)))
            self.check(self.kind.read(content, length), chosen)

    def check(self, answer: Answer, chosen: np.ndarray) -> None:
        """All of an answer comes from one and the same version."""
        self.answered += 1
        fitting = [index for index, expected in enumerate(self._expected) if self._fits(answer, expected, chosen)]
        if len(fitting) != 1:
            self.wrong.append(f"{self.kind.name}: rows {chosen} fit versions {fitting}: {answer}")
        self.by_version.update(fitting)

    def _fits(self, answer: Answer, expected: list[Prediction], chosen: np.ndarray) -> bool:
        for name, served in answer.items():
            wanted = np.concatenate([value(expected[index], name) for index in chosen])
            # Other rows in its batch change the last bits of a row's sums; by their rank, never a p-value's.
            if served.shape != wanted.shape or not np.allclose(served, wanted, rtol=0, atol=1e-6):
                return False
        return True


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for the same inputs with other weights."""
    arguments = {"in_features": SIDE * SIDE, "widths": [32, 16], "num_classes": 4, "rates": [0.3, 0.2]}
    inputs = InputSpec(kind="image", shape=(1, SIDE, SIDE), mean=(4.0,), std=(4.0,), low=0.0, high=HIGH)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = MLP(**arguments)
    path = tmp_path_factory.mktemp("other") / "model.ckpt"
    return write_checkpoint(
        path, network, NetworkSpec(class_path="dubio.models.MLP", init_args=arguments), inputs, draw_bars
    )


def put(checkpoint: Path, place: Path) -> None:
    """Whole or not at all, as a careful deployment does it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint, place.with_suffix(".new"))
    os.replace(place.with_suffix(".new"), place)


def swap_under_load(checkpoints: list[Path], root: Path, *, control: str, seconds: float) -> None:
    predictors = [models.load(path) for path in checkpoints]
    place = root / "bars" / "1" / "model.ckpt"
    put(checkpoints[0], place)
    arguments = ("--model-repository", str(root), "--model-control", control)
    environment = {"DUBIO_API_KEYS": f"infer,admin:{KEY}", "DUBIO_POLL_SECONDS": "0.2"}
    environment["DUBIO_DRAIN_SECONDS"] = str(DRAIN_SECONDS)
    with Command().started(*arguments, **environment) as running:
        headers = {"X-API-Key": KEY}
        with httpx.Client(base_url=running.url, headers=headers, timeout=30) as client:
            port = client.base_url.port
            assert port is not None

            def load() -> None:
                if control == "explicit":
                    assert client.post("/v2/repository/models/bars/load").status_code == 200

            load()
            stopped = threading.Event()
            callers = [
                Caller(kind, port, predictors, rows, index, stopped)
                for index, (kind, rows) in enumerate([*((kind, 1) for kind in KINDS), (KINDS[0], 3), (KINDS[2], 5)])
            ]
            threads = [threading.Thread(target=caller.run) for caller in callers]
            for thread in threads:
                thread.start()
            end = time.monotonic() + seconds
            swaps = 0
            while time.monotonic() < end:
                time.sleep(1)
                swaps += 1
                put(checkpoints[swaps % 2], place)
                load()
            running.process.send_signal(signal.SIGTERM)
            # Callers learn late that the service is going: it goes on answering while it drains.
            time.sleep(DRAIN_SECONDS / 2)
            stopped.set()
            for thread in threads:
                thread.join()
        assert running.process.wait(timeout=30) == 0, running.log
        assert "Traceback" not in running.log

    assert [line for caller in callers for line in caller.wrong] == []
    answered = {caller.kind.name: caller.answered for caller in callers}
    assert min(answered.values()) > 5 * seconds, answered
    # Both versions were served again and again, and to every kind of request.
    assert all(set(caller.by_version) == {0, 1} for caller in callers)


def test_swaps_by_request_under_load(checkpoint: Path, other_checkpoint: Path, tmp_path: Path) -> None:
    swap_under_load([checkpoint, other_checkpoint], tmp_path, control="explicit", seconds=5)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["explicit", "poll"])
def test_swaps_under_load_for_long(checkpoint: Path, other_checkpoint: Path, tmp_path: Path, control: str) -> None:
    swap_under_load([checkpoint, other_checkpoint], tmp_path, control=control, seconds=30)


def test_answers_alone_are_the_predictors_to_the_bit(checkpoint: Path, command: Command) -> None:
    """Nothing between the predictor and the socket changes a number."""
    # As the service prepares it, which fills batches up to sizes that agree; and run in one way, fast or not.
    predictor = models.load(checkpoint, strategy="chain").batch_invariant()
    started = command.started(str(checkpoint), "--strategy", "chain")
    with started as running, httpx.Client(base_url=running.url) as client:
        for row in INPUTS:
            for kind in KINDS[1:3]:
                body, headers = kind.body(row[None])
                answer = client.post(f"/v2/models/{checkpoint.parent.name}/infer", content=body, headers=headers)
                assert answer.status_code == 200, answer.text
                length = int(answer.headers.get("Inference-Header-Content-Length", len(answer.content)))
                for name, served in kind.read(answer.content, length).items():
                    expected = value(predictor.predict(row[None]), name)
                    np.testing.assert_array_equal(served.astype(expected.dtype), expected, strict=True)

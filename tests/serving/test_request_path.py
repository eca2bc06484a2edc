"""How much of the source one prediction runs through: a reader who follows a request opens these files."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

import httpx
import numpy as np

from dubio.serving.http.request import choose
from dubio.serving.wire.envelope import name_value

ROOT = Path(__file__).parents[2]
PACKAGES = ("serving", "models", "training", "uncertainty", "scale")
# With the chain, which this model is answered by wherever it was measured, a file for each kind of score, one for each
# of the two promises and the label sets, one where flags are left to be watched for drift, and one for the store.
MOST = 46
# What runs behind the answers, once a second.
BEHIND = "dubio-drift"


class FileRecorder:
    """Which files of the four packages run a function, in this thread and those that start within the context."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._recording = False

    def __enter__(self) -> FileRecorder:
        self._before = sys.getprofile(), threading.getprofile()
        sys.setprofile(self._note)
        threading.setprofile(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(self._before[0])
        threading.setprofile(self._before[1])

    def files_of(self, call: Callable[[], object]) -> list[str]:
        """The files that run while `call` does, relative to the repository, in order."""
        self._names.clear()
        self._recording = True
        call()
        self._recording = False
        # The packages are imported through links in `dubio/`.
        paths = [Path(name).resolve() for name in self._names]
        inside = [path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT)]
        return sorted(str(path) for path in inside if path.parts[0] in PACKAGES)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if self._recording and event == "call" and threading.current_thread().name != BEHIND:
            self._names.add(frame.f_code.co_filename)


def test_the_recorder_sees_other_threads_and_only_what_runs_meanwhile() -> None:
    with FileRecorder() as recorder:
        choose("gzip")
        thread = threading.Thread(target=lambda: name_value(3))
        assert recorder.files_of(lambda: (thread.start(), thread.join())) == ["serving/wire/envelope.py"]
    assert recorder.files_of(lambda: choose("gzip")) == []


def test_a_prediction_runs_through_few_files(
    serve: Callable, settings: Callable, checkpoint: Path, bars: np.ndarray
) -> None:
    body = {"instances": bars[:1].tolist()}
    with (
        FileRecorder() as recorder,
        serve(settings(models=(str(checkpoint),), strategy="chain")) as base,
        httpx.Client(base_url=base, timeout=60) as client,
    ):
        for _ in range(3):
            assert client.post("/v1/predict", json=body).status_code == 200
        files = recorder.files_of(lambda: client.post("/v1/predict", json=body))
    assert {"serving/v1/routes.py", "serving/v1/decode.py", "models/predictor.py"} <= set(files)
    assert len(files) <= MOST, "\n".join(files)

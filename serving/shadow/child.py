"""The process of a shadow. Started by `dubio.serving.shadow.process` alone; it ends when its parent does.

It is the first to be stopped where processor time or memory is short.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from dubio.models.errors import InvalidInput, NotEnoughMemory, UnreadableCheckpoint
from dubio.models.memory import exhausted
from dubio.serving.compute.model_facts import fingerprint
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource

_LOWEST_PRIORITY = 19
_LONGEST_REASON = 1000


def main(descriptor: int) -> None:
    """Load the version that the parent names, and answer what it sends, until it is gone."""
    _let_others_go_first()
    with suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    torch.set_num_threads(1)
    with Connection(descriptor) as connection, suppress(EOFError, ConnectionError):
        request = orjson.loads(connection.recv_bytes())
        try:
            predictor = _load(request).predictor
        except Exception as error:  # whatever a file can do; the parent tells it
            connection.send_bytes(orjson.dumps({"error": _reason(error)}))
            return
        ready = {"input": predictor.input.model_dump(mode="json"), "fingerprint": fingerprint(predictor)}
        connection.send_bytes(orjson.dumps({**ready, "promise": predictor.no_promise is None}))
        while True:
            shape = orjson.loads(connection.recv_bytes())
            inputs = np.frombuffer(connection.recv_bytes(), np.float32).reshape(shape)
            began = time.monotonic()
            answer: dict[str, Any] = {}
            try:
                prediction = predictor.predict(inputs.copy())
                flags = prediction.flags
                flagged = [] if flags is None or flags.flagged is None else flags.flagged.tolist()
                answer = {"labels": [predictor.classes[each] for each in prediction.label.tolist()], "flagged": flagged}
            except InvalidInput as error:  # which the live version takes
                answer = {"error": _reason(error)}
            except Exception as error:
                if exhausted(error) is not None:
                    sys.exit("There is not enough memory.")
                raise
            spent = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time()}
            connection.send_bytes(orjson.dumps({**answer, **spent}))


def _let_others_go_first() -> None:
    """Run when nothing else wants to: of Linux's policies, the one that gives way as soon as a thread wakes up."""
    if sys.platform == "linux":
        with suppress(OSError):  # where that is not allowed, priority is what there is
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(_LOWEST_PRIORITY)


def _load(request: dict[str, Any]) -> Any:
    first, *also = map(Path, request["paths"])
    source = ModelSource(request["name"], first, tuple(also), request["version"], Path(request["root"]))
    # This process is the trial.
    return Loader(**request["loader"], device="cpu", trial=False).load(source)


def _reason(error: Exception) -> str:
    """Why it cannot be done, without the paths of this machine."""
    text = error.reason if isinstance(error, UnreadableCheckpoint | NotEnoughMemory) else str(error)
    return (" ".join(text.split()) or type(error).__name__)[:_LONGEST_REASON]


if __name__ == "__main__":
    main(int(sys.argv[1]))

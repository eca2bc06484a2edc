from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dubio.serving.app import create_app
from dubio.serving.errors import InvalidModelSource
from dubio.serving.settings import Settings


def test_two_models_of_one_name_are_refused_at_once(settings: Callable) -> None:
    with pytest.raises(InvalidModelSource):
        create_app(settings(models=("a=x.ckpt", "a=y.ckpt")))


def test_health_answers_while_a_model_runs(
    serve: Callable, settings: Callable, gated_checkpoint: Path, gate: Path
) -> None:
    with serve(settings(models=(str(gated_checkpoint),), trusted=("gated_networks",))) as base:
        gate.touch()
        answers: list[httpx.Response] = []
        body = {"instances": [[1, 2, 3, 4, 5]]}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{base}/v1/predict", json=body, timeout=60))
        )
        asking.start()
        while not (waiting := gate.with_suffix(".waiting")).exists():
            time.sleep(0.01)
        assert httpx.get(f"{base}/v2/health/ready").status_code == 200
        assert asking.is_alive()
        gate.unlink()
        waiting.unlink()
        asking.join()
    assert answers[0].status_code == 200


def test_what_was_loaded_is_left_to_no_garbage_collection(checkpoint: Path) -> None:
    application = create_app(Settings(models=(str(checkpoint),), torch_threads=1))

    async def run() -> tuple[int, int]:
        async with application.lifespan():
            inside = gc.get_freeze_count()
        return inside, gc.get_freeze_count()

    inside, after = asyncio.run(run())
    assert inside > 100_000
    assert after == 0

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Sequence
from typing import Any
from weakref import ref

from dubio.serving.repository.registry import ServedModel
from dubio.serving.web.description import Description


def model(name: str) -> ServedModel:
    return ServedModel(name, "1", None)  # type: ignore[arg-type] # nothing is asked of it


class Made:
    """Every description that was made: of which models, and in which thread."""

    def __init__(self) -> None:
        self.of: list[list[str]] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, models: Sequence[ServedModel]) -> dict[str, Any]:
        self.of.append([each.name for each in models])
        self.threads.add(threading.current_thread())
        return {"models": self.of[-1]}


def test_it_is_made_once_for_what_is_loaded_and_apart_from_the_event_loop() -> None:
    made, loaded = Made(), [model("a")]
    description = Description(made, loaded)

    async def read(*examples: bool) -> list[list[str]]:
        contents = await asyncio.gather(*(description.read(examples=each) for each in examples))
        return [json.loads(content)["models"] for content in contents]

    async def run() -> None:
        assert await read(True, True, False, True) == [["a"], ["a"], [], ["a"]]
        assert sorted(made.of) == [[], ["a"]]
        loaded.append(model("b"))
        assert await read(True, False, True) == [["a", "b"], [], ["a", "b"]]
        loaded[0] = model("a")  # another version of the same name
        assert await read(True) == [["a", "b"]]

    asyncio.run(run())
    assert sorted(made.of) == [[], ["a"], ["a", "b"], ["a", "b"]]
    assert threading.main_thread() not in made.threads


def test_it_keeps_no_model_in_memory() -> None:
    loaded = [model("a")]
    description, gone = Description(Made(), loaded), ref(loaded[0])
    asyncio.run(description.read(examples=True))
    loaded.clear()
    gc.collect()
    assert gone() is None

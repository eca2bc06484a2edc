from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dubio.serving.errors import ControlRefused
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.repository import ModelRepository, ModelSource
from dubio.serving.v2.control import RepositoryControl


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"model_control": "poll"}, "but it is poll"), ({"workers": 3}, "but there are 3, and a request reaches one")],
)
def test_what_contradicts_the_start_is_refused_before_anything_is_done(
    settings: Callable, numbers_checkpoint: Path, given: dict, complaint: str
) -> None:
    source = ModelSource.parse(f"row={numbers_checkpoint}")
    repository = ModelRepository([source], Loader(device="cpu", trusted=(), trial=False))
    control = RepositoryControl(repository, settings(**given))
    for change in (control.load, control.unload):
        with pytest.raises(ControlRefused, match=complaint):
            asyncio.run(change("row"))
    repository.load()
    [state] = asyncio.run(control.index(only_ready=True))
    assert (state.name, state.state) == ("row", "READY")
    repository.close()

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dubio.serving.app import create_app
from dubio.serving.errors import NotReady, UnknownModel
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.v2.status import look_up, report, require_ready


def test_a_service_is_ready_once_its_models_are_loaded_and_until_it_stops(
    settings: Callable, numbers_checkpoint: Path
) -> None:
    lifecycle = Lifecycle()
    application = create_app(settings(models=(str(numbers_checkpoint),)), lifecycle)
    service, repository = application.service, application.repository
    with pytest.raises(NotReady, match="0 of 1 models are loaded so far"):
        require_ready(service, lifecycle)
    with pytest.raises(NotReady):
        look_up(repository, "row", None)
    repository.load()
    require_ready(service, lifecycle)
    model = look_up(repository, "row", None)
    assert look_up(repository, "row", "1") is model
    with pytest.raises(UnknownModel, match=r"^Request for unknown model: 'row' version 2 is not found\."):
        look_up(repository, "row", "2")
    [statistics] = report(service, [model])["model_stats"]
    assert (statistics["name"], statistics["inference_count"]) == ("row", 0)
    lifecycle.stopping = True
    with pytest.raises(NotReady, match="stopping"):
        require_ready(service, lifecycle)
    service.executor.close()
    repository.close()

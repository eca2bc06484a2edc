from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest


@pytest.mark.slow
def test_workers_do_not_outlive_their_supervisor(command: Any, numbers_checkpoint: Path, tmp_path: Path) -> None:
    with command.started(str(numbers_checkpoint), "--workers", "2", TMPDIR=str(tmp_path)) as service:
        children = psutil.Process(service.process.pid).children()
        service.process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
        assert service.log.count("the supervisor is gone") == 2
    # It had no time to tidy up; the next one does it.
    [left] = tmp_path.glob("dubio-*")
    with command.started(str(numbers_checkpoint), "--workers", "2", TMPDIR=str(tmp_path)):
        assert not left.exists()

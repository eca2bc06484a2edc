"""The page on gRPC runs as it is printed, but for its port."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.docs.blocks import Block, Workspace, blocks, free_port


@pytest.mark.slow
def test_the_page_on_grpc_runs_as_printed(tmp_path: Path):
    workspace = Workspace(tmp_path)
    port = str(free_port())
    workspace.run(Block("", "bash", "dubio-train fit --config configs/digits_mlp.yaml --trainer.max_epochs 3"))
    try:
        answers = [
            workspace.run(replace(block, text=block.text.replace("8001", port)))
            for block in blocks("docs/grpc.md")
            if block.language in ("bash", "python")
        ]
    finally:
        workspace.stop()
    assert len(answers) == 2
    assert 'name: "input"' in answers[1]
    assert "(2, 10)" in answers[1]

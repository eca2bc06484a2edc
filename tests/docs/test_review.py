"""The loop: flagged rows are labelled, exported and trained on, by the page's own commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dubio.models import load
from tests.docs.blocks import Workspace, blocks


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.stop()


@pytest.mark.slow
def test_what_was_flagged_and_labelled_is_known_after_the_next_fit(workspace: Workspace) -> None:
    printed = [workspace.run(block) for block in blocks("docs/review.md") if block.language in ("bash", "python")]
    assert '"accuracy"' in printed[-1]
    workspace.stop()
    digits = load_digits()
    negatives, truth = (16 - digits.images[1000:])[:, None].astype(np.float32), digits.target[1000:].astype(str)
    runs = workspace.folder / "runs"
    first, second = (load(runs / name / "model.ckpt") for name in ("digits_mlp", "digits_more"))
    answers = [model.predict(negatives) for model in (first, second)]
    right = [
        (np.array(model.classes)[answer.label] == truth).mean()
        for model, answer in zip((first, second), answers, strict=True)
    ]
    assert answers[0].flagged.mean() > 0.9
    assert right[0] < 0.5
    assert right[1] > right[0] + 0.3
    reviewed = np.load(workspace.folder / "reviews.npz")
    assert set(reviewed["y"].tolist()) == set(map(str, range(10)))

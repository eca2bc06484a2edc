"""Strangers: inputs that are like no training data, which a report asks about beside the test rows."""

from __future__ import annotations

import torch
from torch import Tensor

from dubio.models import InputSpec
from dubio.models.inputs.text import PADDING, UNKNOWN
from dubio.training.data import ood
from dubio.training.data.module import TensorDataModule

ROWS = 500  # of each kind of stranger, at most


def out_of_distribution(data: TensorDataModule, test_x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Raw inputs that are like no training data, by name: those of the data set, and some that are made.

    Args:
        data: Describes the inputs.
        test_x: Raw rows of the test split, of which some strangers are made.
        seed: Draws them.
    """
    found = {name: rows[:ROWS] for name, rows in data.out_of_distribution().items()}
    spec, generator = data.input, torch.Generator().manual_seed(seed)
    if spec.kind == "image":
        if max(spec.shape[1:]) <= 200:  # the photographs have 427 rows of pixels
            found["photograph patches"] = ood.photograph_patches(spec, min(ROWS, len(test_x)), seed)
        found["inverted"] = ood.inverted(spec, test_x[:ROWS])
    if spec.kind == "text":
        found["words drawn from the vocabulary"] = _drawn_words(test_x[:ROWS], spec, generator)
    else:
        found["uniform noise"] = ood.uniform_noise(spec, min(ROWS, len(test_x)), seed)
    if spec.kind in ("table", "numbers"):
        found["columns of different rows"] = _mixed_rows(test_x[:ROWS], spec, generator)
    return found


def _mixed_rows(x: Tensor, spec: InputSpec, generator: torch.Generator) -> Tensor:
    """Each column from another row: every value is one that occurs, but not with the others."""
    widths = [1] * x.shape[1] if spec.columns is None else [len(column.features) for column in spec.columns]
    parts = [part[torch.randperm(len(x), generator=generator)] for part in x.split(widths, dim=1)]
    return torch.cat(parts, dim=1)


def _drawn_words(x: Tensor, spec: InputSpec, generator: torch.Generator) -> Tensor:
    """As many words as the texts have, drawn from the vocabulary."""
    words = torch.randint(UNKNOWN + 1, int(spec.high) + 1, x.shape, generator=generator).to(x.dtype)
    return torch.where(x == PADDING, x, words)

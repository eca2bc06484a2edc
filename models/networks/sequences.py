"""Sequences: what a network makes of rows or tokens, and which steps of a sequence are there at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubio.models.networks.validation import check_sizes


class InputEmbedding(nn.Module):
    """Turns an input into steps with features: rows of numbers as they are, tokens by a table.

    Args:
        features: Numbers in each step.
        vocabulary: How many tokens there are; 0 for rows of numbers.
        padding: What fills up sequences that are shorter: a token, or a number that a whole row consists of. It is
            compared with what the network gets, after normalisation. None if all sequences are equally long.

    Raises:
        ValueError: If a size is not positive, or the vocabulary negative.
    """

    def __init__(self, features: int, vocabulary: int = 0, padding: float | None = None) -> None:
        super().__init__()
        check_sizes(features=features)
        if vocabulary < 0:
            raise ValueError(
                f"Expected `vocabulary` to be a number of tokens, or 0 for rows of numbers, but got {vocabulary}."
            )
        self.padding = padding
        self.table = nn.Embedding(vocabulary, features) if vocabulary else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Steps ``[B, L, features]``, and whether each is there, ``[B, L]``; None if all are.

        Args:
            x: Tokens ``[B, L]``, whole numbers of any type; or rows ``[B, L, features]`` or, of images,
                ``[B, channels, H, features]``. A token beyond the vocabulary counts as the nearest one within.
        """
        if self.table is None:
            rows_BLF = x.flatten(1, -2)
            return rows_BLF, None if self.padding is None else (rows_BLF != self.padding).any(-1)
        tokens_BL = x.flatten(1)
        present_BL = None if self.padding is None else tokens_BL != self.padding
        known_BL = tokens_BL.clamp(0, self.table.num_embeddings - 1).round().long()
        steps_BLF: Tensor = self.table(known_BL)
        return steps_BLF, present_BL


def masked_mean(steps_BLF: Tensor, present_BL: Tensor | None) -> Tensor:
    """The mean ``[B, F]`` of the steps that are there; zeros where none is."""
    if present_BL is None:
        return steps_BLF.mean(1)
    weights_BL1 = present_BL.unsqueeze(-1).to(steps_BLF.dtype)
    return (steps_BLF * weights_BL1).sum(1) / weights_BL1.sum(1).clamp(min=1)


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Sines and cosines ``[length, width]`` that tell positions apart (Vaswani 2017, section 3.5)."""
    position_L1 = torch.arange(length).unsqueeze(1)
    rate_W = 10_000.0 ** (-(torch.arange(width) // 2 * 2) / width)
    angle_LW = position_L1 * rate_W
    return torch.where(torch.arange(width) % 2 == 0, angle_LW.sin(), angle_LW.cos())

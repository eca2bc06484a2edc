"""Convolutional network over the tokens of a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models.networks.sequences import InputEmbedding
from dubio.models.networks.validation import check_rates, check_sizes


class TextCNN(nn.Module):
    """Convolutions over windows of several sizes, the largest value of each over the text, and a head (Kim 2014).

    Args:
        vocabulary: How many tokens there are.
        features: Size of a token's embedding.
        windows: Tokens that a convolution sees at a time, one convolution each.
        width: Channels of each convolution.
        padding: Token that fills up shorter texts, see `dubio.models.networks.sequences.InputEmbedding`.
        word_rate: Share of tokens that a text does without, as wholes (Gal and Ghahramani 2016).
        embedding_rate: Dropout rate on the numbers of the embeddings.
        head_rate: Dropout rate before the head.
        num_classes: C.

    Raises:
        ValueError: If a size is not positive, or a rate not in [0, 1].
    """

    def __init__(
        self,
        vocabulary: int = 8000,
        features: int = 256,
        windows: Sequence[int] = (1, 2, 3),
        width: int = 256,
        padding: float | None = None,
        word_rate: float = 0.1,
        embedding_rate: float = 0.3,
        head_rate: float = 0.5,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(vocabulary=vocabulary, windows=windows, width=width, num_classes=num_classes)
        check_rates(word_rate=word_rate, embedding_rate=embedding_rate, head_rate=head_rate)
        self.steps = InputEmbedding(features, vocabulary, padding)
        self.drop_words = nn.Dropout1d(word_rate)
        self.drop_numbers = nn.Dropout(embedding_rate)
        self.windows = nn.ModuleList(nn.Conv1d(features, width, window, padding=window - 1) for window in windows)
        self.drop = nn.Dropout(head_rate)
        self.head = nn.Linear(len(windows) * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of tokens ``[B, L]``."""
        steps_BLF, present_BL = self.steps(x)
        steps_BLF = self.drop_numbers(self.drop_words(steps_BLF))
        if present_BL is not None:
            # Zeros, as beyond the ends: how far a text is filled up changes nothing.
            steps_BLF = steps_BLF * present_BL.unsqueeze(-1)
        pooled = [F.relu(window(steps_BLF.transpose(1, 2))).amax(-1) for window in self.windows]
        logits_BC: Tensor = self.head(self.drop(torch.cat(pooled, dim=-1)))
        return logits_BC

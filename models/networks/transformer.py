"""Transformer encoder with dropout on the attention and behind each sub-layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models.networks import sequences
from dubio.models.networks.validation import check_rates, check_sizes

POSITIONS = ("learned", "sinusoidal")
POOLINGS = ("mean", "cls")


class TransformerNet(nn.Module):
    """A transformer encoder over the rows or tokens of an input (Vaswani 2017), pooled, and a linear head.

    Each row is projected to the width, each token is looked up, and its position is added. Layers normalise before
    each sub-layer (Xiong 2020), which trains without a warm-up.

    Args:
        features: Numbers in each row; unused for tokens.
        length: Rows or tokens of an input, at most.
        width: Of the representation.
        layers: Encoder layers.
        heads: Attention heads; their number divides the width.
        feedforward: Units between the two linear layers of a sub-layer.
        vocabulary: How many tokens there are; 0 for rows of numbers.
        padding: What fills up shorter sequences, see `dubio.models.networks.sequences.InputEmbedding`;
            nothing attends to a padded step.
        positions: ``learned``, or ``sinusoidal`` as in the paper.
        pooling: ``mean`` over the steps, or ``cls``: a learned first step, whose representation is taken.
        rate: Dropout rate behind and within each sub-layer.
        attention_rate: Dropout rate on attention weights; that of the sub-layers by default.
        embedding_rate: Dropout rate on the sum of embedding and position.
        head_rate: Dropout rate before the head.
        num_classes: C.

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], the heads do not divide the width, or a choice is
            unknown.
    """

    def __init__(
        self,
        features: int = 28,
        length: int = 28,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        feedforward: int = 256,
        vocabulary: int = 0,
        padding: float | None = None,
        positions: str = "learned",
        pooling: str = "mean",
        rate: float = 0.1,
        attention_rate: float | None = None,
        embedding_rate: float = 0.0,
        head_rate: float = 0.1,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(features=features, length=length, width=width, layers=layers, heads=heads)
        check_sizes(feedforward=feedforward, num_classes=num_classes)
        attention_rate = rate if attention_rate is None else attention_rate
        check_rates(rate=rate, attention_rate=attention_rate, embedding_rate=embedding_rate, head_rate=head_rate)
        if width % heads:
            raise ValueError(f"Expected `heads` to divide `width`, but {heads} does not divide {width}.")
        for name, value, known in (("positions", positions, POSITIONS), ("pooling", pooling, POOLINGS)):
            if value not in known:
                raise ValueError(f"Expected `{name}` to be one of {list(known)}, but got {value!r}.")
        self.pooling, self.embedding_rate = pooling, embedding_rate
        self.steps = sequences.InputEmbedding(width if vocabulary else features, vocabulary, padding)
        self.embed = nn.Identity() if vocabulary else nn.Linear(features, width)
        if positions == "learned":
            self.position = nn.Parameter(0.02 * torch.randn(length, width))
        else:
            self.register_buffer("position", sequences.sinusoidal_positions(length, width), persistent=False)
        if pooling == "cls":
            self.cls = nn.Parameter(0.02 * torch.randn(1, width))
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, rate, "gelu", batch_first=True, norm_first=True)
        layer.self_attn.dropout = attention_rate
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.drop = nn.Dropout(head_rate)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of sequences ``[B, L, features]``, the rows of images ``[B, channels, H, features]``, or
        tokens ``[B, L]``.

        Raises:
            ValueError: If the sequences are too long.
        """
        rows_BLF, present_BL = self.steps(x)
        length, most = rows_BLF.shape[1], self.position.shape[0]
        if length > most:
            raise ValueError(f"Expected at most `length` = {most} rows, but got {length}.")
        embedded_BLW = self.embed(rows_BLF) + self.position[:length]
        if self.pooling == "cls":
            embedded_BLW = torch.cat([self.cls.expand(len(x), 1, -1), embedded_BLW], dim=1)
            if present_BL is not None:
                present_BL = F.pad(present_BL, (1, 0), value=True)
        embedded_BLW = F.dropout(embedded_BLW, self.embedding_rate, self.training)
        encoded_BLW = self.encoder(embedded_BLW, src_key_padding_mask=_unattended(present_BL))
        pooled_BW = encoded_BLW[:, 0] if self.pooling == "cls" else sequences.masked_mean(encoded_BLW, present_BL)
        logits_BC: Tensor = self.head(self.drop(pooled_BW))
        return logits_BC

    def no_weight_decay(self) -> set[str]:
        """Parameters that are no weights of units, although they are matrices."""
        return {"position", "cls"}


def _unattended(present_BL: Tensor | None) -> Tensor | None:
    """Where attention may not look; somewhere it must, or its softmax over nothing would be no number."""
    if present_BL is None:
        return None
    somewhere_B1 = present_BL.any(1, keepdim=True)
    return ~present_BL & somewhere_B1

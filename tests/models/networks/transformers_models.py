"""Tiny models of transformers with weights of a seed."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.3,
    "classifier_dropout": 0.4,
}
DISTILBERT = {
    "vocab_size": 40,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 12,
    "dropout": 0.2,
    "attention_dropout": 0.3,
    "seq_classif_dropout": 0.4,
}


def build(architecture: str, settings: dict[str, Any], classes: int = 3, attention: str = "sdpa") -> nn.Module:
    """A sequence classifier of the library itself, in eval mode, whose answers differ by input."""
    config = transformers.AutoConfig.for_model(architecture, num_labels=classes, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():  # the library begins with so small ones that all inputs look alike
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tokens(rows: int, length: int = 8, vocabulary: int = 40, seed: int = 0) -> torch.Tensor:
    """Sequences of different lengths, filled up with 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(1, vocabulary, (rows, length), generator=generator)
    ends = torch.randint(2, length + 1, (rows, 1), generator=generator)
    return torch.where(torch.arange(length) < ends, drawn, 0)

"""The transformer against its formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import TransformerNet
from uncertainty import Committee


def _layer(x: Tensor, state: dict[str, Tensor], name: str, heads: int) -> Tensor:
    """Pre-norm self-attention and feed-forward (Xiong 2020), head by head."""

    def get(leaf: str) -> Tensor:
        return state[f"{name}.{leaf}"]

    width = x.shape[-1]
    normed = F.layer_norm(x, (width,), get("norm1.weight"), get("norm1.bias"))
    queries, keys, values = F.linear(normed, get("self_attn.in_proj_weight"), get("self_attn.in_proj_bias")).chunk(
        3, -1
    )
    attended = []
    for q, k, v in zip(queries.chunk(heads, -1), keys.chunk(heads, -1), values.chunk(heads, -1), strict=True):
        attended.append((q @ k.mT / math.sqrt(width / heads)).softmax(-1) @ v)
    x = x + F.linear(torch.cat(attended, -1), get("self_attn.out_proj.weight"), get("self_attn.out_proj.bias"))
    normed = F.layer_norm(x, (width,), get("norm2.weight"), get("norm2.bias"))
    inner = F.gelu(F.linear(normed, get("linear1.weight"), get("linear1.bias")))
    return x + F.linear(inner, get("linear2.weight"), get("linear2.bias"))


def test_without_dropout_it_is_its_formula() -> None:
    torch.manual_seed(0)
    network = TransformerNet(features=5, length=9, width=12, layers=2, heads=3, feedforward=20, num_classes=4).eval()
    x, state = torch.randn(2, 7, 5), network.state_dict()
    encoded = F.linear(x, state["embed.weight"], state["embed.bias"]) + state["position"][:7]
    for index in range(2):
        encoded = _layer(encoded, state, f"encoder.layers.{index}", heads=3)
    encoded = F.layer_norm(encoded, (12,), state["encoder.norm.weight"], state["encoder.norm.bias"])
    due = F.linear(encoded.mean(1), state["head.weight"], state["head.bias"])
    torch.testing.assert_close(network(x), due, rtol=1e-4, atol=1e-5)


def test_attention_and_sub_layers_are_sites_of_its_committee() -> None:
    torch.manual_seed(0)
    network = TransformerNet(features=4, length=6, width=8, layers=2, heads=2, feedforward=10, num_classes=3).eval()
    committee = Committee(network, torch.randn(1, 6, 4), num_samples=6)
    # Each layer drops attention weights, behind the attention, within and behind the feed-forward part.
    assert len(committee.sites) == 2 * 4 + 1
    assert (2, 6, 6) in [site.shape for site in committee.sites]
    assert float(committee(torch.randn(3, 6, 4)).std(0).min()) > 0


@pytest.mark.parametrize("arguments", [{"heads": 3}, {"rate": 2.0}, {"head_rate": -1.0}, {"layers": 0}])
def test_wrong_arguments_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TransformerNet(**arguments)

"""The transformer against its formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.models import TransformerNet
from dubio.models.networks.sequences import sinusoidal_positions
from tests.quick import quick_committee


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
    committee = quick_committee(network, torch.randn(1, 6, 4), num_samples=6)
    # Each layer drops attention weights, behind the attention, within and behind the feed-forward part.
    assert len(committee.sites) == 2 * 4 + 1
    assert (2, 6, 6) in [site.shape for site in committee.sites]
    assert float(committee(torch.randn(3, 6, 4)).std(0).min()) > 0


def test_a_padded_sequence_is_the_sequence_alone() -> None:
    torch.manual_seed(0)
    sizes = {"length": 9, "width": 12, "layers": 2, "heads": 3, "feedforward": 20, "num_classes": 4}
    for pooling in ("mean", "cls"):
        network = TransformerNet(features=5, padding=0.0, pooling=pooling, **sizes).eval()
        x = torch.randn(2, 9, 5)
        x[0, 4:], x[1, 7:] = 0, 0
        due = torch.cat([network(x[:1, :4]), network(x[1:, :7])])
        torch.testing.assert_close(network(x), due, rtol=1e-4, atol=1e-5)
        # In training, where torch takes another way, with the rates at 0.
        trained = TransformerNet(features=5, padding=0.0, pooling=pooling, rate=0, head_rate=0, **sizes).train()
        trained.load_state_dict(network.state_dict())
        torch.testing.assert_close(trained(x), due, rtol=1e-4, atol=1e-5)
        assert bool(network(torch.zeros(1, 9, 5)).isfinite().all())


def test_the_first_step_of_cls_stands_for_all() -> None:
    torch.manual_seed(0)
    network = TransformerNet(features=5, length=9, width=12, layers=1, heads=3, feedforward=20, pooling="cls").eval()
    x, state = torch.randn(2, 7, 5), network.state_dict()
    rows = F.linear(x, state["embed.weight"], state["embed.bias"]) + state["position"][:7]
    encoded = _layer(torch.cat([state["cls"].expand(2, 1, 12), rows], 1), state, "encoder.layers.0", heads=3)
    encoded = F.layer_norm(encoded, (12,), state["encoder.norm.weight"], state["encoder.norm.bias"])
    due = F.linear(encoded[:, 0], state["head.weight"], state["head.bias"])
    torch.testing.assert_close(network(x), due, rtol=1e-4, atol=1e-5)


def test_tokens_are_embedded_and_sinusoids_are_no_weights() -> None:
    torch.manual_seed(0)
    tokens = {"length": 6, "width": 8, "layers": 1, "heads": 2, "feedforward": 10, "vocabulary": 11}
    network = TransformerNet(positions="sinusoidal", **tokens).eval()
    assert "position" not in network.state_dict()
    assert "embed.weight" not in network.state_dict()
    x = torch.tensor([[3, 1, 10, 0]])
    encoded = _layer(
        network.steps.table.weight[x] + sinusoidal_positions(4, 8), network.state_dict(), "encoder.layers.0", heads=2
    )
    normed = F.layer_norm(encoded, (8,), network.encoder.norm.weight, network.encoder.norm.bias)
    torch.testing.assert_close(network(x), network.head(normed.mean(1)), rtol=1e-4, atol=1e-5)


def test_each_kind_of_dropout_has_a_rate_of_its_own() -> None:
    network = TransformerNet(layers=1, rate=0.1, attention_rate=0.2, embedding_rate=0.3, head_rate=0.4).eval()
    committee = quick_committee(network, torch.randn(1, 28, 28), num_samples=2)
    found = [(site.kind, site.p) for site in committee.sites]
    assert found == [("dropout", 0.3), ("attention", 0.2)] + [("dropout", 0.1)] * 3 + [("dropout", 0.4)]


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="at most `length` = 6 rows, but got 7"):
        TransformerNet(features=4, length=6, width=8, layers=1, heads=2)(torch.zeros(1, 7, 4))


@pytest.mark.parametrize(
    "arguments",
    [{"heads": 3}, {"rate": 2.0}, {"head_rate": -1.0}, {"layers": 0}, {"pooling": "max"}, {"positions": "none"}],
)
def test_wrong_arguments_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TransformerNet(**arguments)

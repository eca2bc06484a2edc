"""Attention dropout: the masks act on the attention weights, as torch's own kernel would."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout import attention
from dubio.uncertainty.errors import UnsupportedNetwork, UnsupportedSite
from dubio.uncertainty.execution import decision
from tests.quick import quick_committee

L, E, H = 5, 8, 2


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", ["none", "float", "bool", "causal", "nothing allowed", "scaled", "grouped"])
def test_attention_in_the_open_is_torchs(mask):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=generator).unbind()
    allowed = torch.rand(6, 6, generator=generator) > 0.4
    allowed |= torch.eye(6, dtype=torch.bool)
    options = {
        "none": {},
        "float": {"attn_mask": torch.randn(2, 1, 6, 6, generator=generator)},
        "bool": {"attn_mask": allowed},
        "causal": {"is_causal": True},
        "nothing allowed": {"attn_mask": allowed & (torch.arange(6) != 2)[:, None]},
        "scaled": {"scale": 0.3},
        "grouped": {"enable_gqa": True},
    }[mask]
    if mask == "grouped":
        k, v = k[:, :2], v[:, :2]
    mine = attention.attend(lambda weights, p: weights, q, k, v, **options)
    _close(mine, F.scaled_dot_product_attention(q, k, v, **options))


def test_the_causal_mask_lies_on_the_device_of_the_queries():
    q = torch.zeros(1, 2, 4, 8, device="meta")
    assert attention.attend(lambda weights, p: weights, q, q, q, is_causal=True).is_meta


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_with_its_body_in_the_open_is_torchs(need_weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, H, bias=True, add_bias_kv=True, add_zero_attn=True)
    x = torch.randn(L, 3, E)
    padded = torch.tensor([[False] * L, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    weights = (layer.in_proj_weight, layer.in_proj_bias, layer.bias_k, layer.bias_v, True, 0.0)
    args = (x, x, x, E, H, *weights, layer.out_proj.weight, layer.out_proj.bias)
    options = {"training": False, "key_padding_mask": padded, "need_weights": need_weights}
    mine = attention.forward(
        F.multi_head_attention_forward, attention.named(F.multi_head_attention_forward, args, options)
    )
    theirs = F.multi_head_attention_forward(*args, **options)
    assert torch.equal(mine[0], theirs[0])
    assert (mine[1] is None and theirs[1] is None) or torch.equal(mine[1], theirs[1])


class Attending(nn.Module):
    """One layer of torch's attention, and the mean over time."""

    def __init__(self, batch_first: bool, need_weights: bool, p: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.attend = nn.MultiheadAttention(E, H, dropout=p, batch_first=batch_first)
        nn.init.normal_(self.attend.in_proj_bias)
        self.head = nn.Linear(E, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.attend.batch_first else x.transpose(0, 1)
        x = self.attend(x, x, x, need_weights=self.need_weights)[0]
        return self.head(x.mean(1 if self.attend.batch_first else 0))


def _attend(layer: nn.MultiheadAttention, x: Tensor, factors: Tensor | float = 1.0) -> Tensor:
    """Multi-head attention from its equations, with factors ``[H, L, L]`` on the weights."""
    q, k, v = (x @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=-1)
    heads = []
    for head in range(layer.num_heads):
        own = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
        weights = torch.softmax(q[..., own] @ k[..., own].mT / math.sqrt(layer.head_dim), dim=-1)
        heads.append((weights * (factors if isinstance(factors, float) else factors[head])) @ v[..., own])
    return torch.cat(heads, dim=-1) @ layer.out_proj.weight.T + layer.out_proj.bias


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_members_drop_attention_weights(batch_first, need_weights, keeps, in_training, distributed_alike, monkeypatch):
    monkeypatch.setattr(decision, "MIN_SPEEDUP", math.inf)  # the rule, whatever this machine finds fastest
    network = Attending(batch_first, need_weights).eval()
    x = torch.randn(4, L, E)
    plain = network(x)
    committee = quick_committee(network, x[:1], num_samples=6)
    (site,) = committee.sites
    assert (site.kind, site.p, site.shape, site.name) == ("attention", 0.3, (H, L, L), "attend")
    assert committee.strategy.startswith(("traced", "vmap"))
    factors = keeps(committee)[0] / 0.7
    with torch.no_grad():
        expected = torch.stack([network.head(_attend(network.attend, x, each).mean(1)) for each in factors])
    for rows in (slice(0, 1), slice(0, 4), slice(1, 4)):
        _close(committee(x[rows]), expected[:, rows])
    assert torch.equal(network(x), plain)
    distributed_alike(quick_committee(network, x[:1], num_samples=3000)(x[:1])[:, 0], in_training(network, x[:1], 3000))


class Encoder(nn.Module):
    """Torch's own encoder over tokens or vectors."""

    def __init__(self, batch_first: bool = True, norm_first: bool = False, tokens: int = 0, heads: int = H) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(tokens, E) if tokens else nn.Identity()
        layer = nn.TransformerEncoderLayer(E, heads, 16, 0.2, norm_first=norm_first, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(E, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


def _encode(network: Encoder, x: Tensor, factors: list[Tensor]) -> Tensor:
    """The encoder from its equations; each layer takes its masks for attention, output, hidden units, output."""
    masks = iter(factors)
    for layer in network.encoder.layers:

        def attend(h: Tensor, layer: nn.Module = layer) -> Tensor:
            return _attend(layer.self_attn, h, next(masks)) * next(masks)

        def feed(h: Tensor, layer: nn.Module = layer) -> Tensor:
            return layer.linear2(layer.linear1(h).relu() * next(masks)) * next(masks)

        if layer.norm_first:
            x = x + attend(layer.norm1(x))
            x = x + feed(layer.norm2(x))
        else:
            x = layer.norm1(x + attend(x))
            x = layer.norm2(x + feed(x))
    return network.head(x.mean(1))


@pytest.mark.parametrize(("batch_first", "norm_first"), [(True, False), (True, True), (False, False)])
def test_members_of_a_transformer_are_its_equations_with_masks(batch_first, norm_first, keeps):
    network = Encoder(batch_first, norm_first).eval()
    x = torch.randn(3, L, E)
    with torch.inference_mode():
        plain = network(x)
    committee = quick_committee(network, x[:1], num_samples=5)
    assert [site.kind for site in committee.sites] == ["attention", "dropout", "dropout", "dropout"] * 2
    assert committee.sites[4].name == "encoder.layers.1.self_attn"
    assert [site.shape for site in committee.sites[:4]] == [(H, L, L), (L, E), (L, 16), (L, E)]
    factors = [keep / 0.8 for keep in keeps(committee)]
    with torch.no_grad():
        expected = torch.stack([_encode(network, x, [each[k] for each in factors]) for k in range(5)])
    _close(committee(x), expected)
    _close(committee(x[:1]), expected[:, :1])
    # The fused kernel that answers deterministically is the one that plain eval mode uses.
    with torch.inference_mode():
        assert torch.equal(network(x), plain)


@pytest.mark.slow
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_transformer_is_distributed_as_in_training(norm_first, in_training, distributed_alike):
    network, x = Encoder(norm_first=norm_first).eval(), torch.randn(1, L, E)
    distributed_alike(quick_committee(network, x, num_samples=4000)(x)[:, 0], in_training(network, x, 4000))


def test_tokens_are_taken(keeps):
    network = Encoder(tokens=11).eval()
    x = torch.randint(11, (3, L))
    committee = quick_committee(network, x[:1], num_samples=4)
    factors = [keep / 0.8 for keep in keeps(committee)]
    with torch.no_grad():
        expected = torch.stack([_encode(network, network.embed(x), [each[k] for each in factors]) for k in range(4)])
    _close(committee(x), expected)
    assert committee(x[:0]).shape == (4, 0, 3)
    assert committee(x[:0]).dtype == torch.float32


def test_shorter_inputs_use_the_first_part_of_each_mask(keeps):
    network = Encoder(tokens=11).eval()
    committee = quick_committee(network, torch.zeros(1, L, dtype=torch.long), num_samples=4)
    for length in (1, 3, 5):
        x = torch.randint(11, (2, length))
        parts = [
            (keep[:, :, :length, :length] if site.kind == "attention" else keep[:, :length]) / 0.8
            for site, keep in zip(committee.sites, keeps(committee), strict=True)
        ]
        with torch.no_grad():
            expected = torch.stack([_encode(network, network.embed(x), [each[k] for each in parts]) for k in range(4)])
        _close(committee(x), expected)
        _close(committee(x[:1]), expected[:, :1])
    with pytest.raises(UnsupportedNetwork, match=r"at most \[2, 5, 5\] a row.*encoder.layers.0.self_attn"):
        committee(torch.zeros(1, L + 1, dtype=torch.long))


class Block(nn.Module):
    """Attention as it is written by hand: the rate shows only in train mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.qkv, self.p = nn.Linear(E, 3 * E), p

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, H, E // H)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)
        return x.transpose(1, 2).flatten(2)


def _blocks(*rates: float) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*map(Block, rates), nn.Flatten(), nn.Linear(L * E, 3)).eval()


def test_a_rate_that_only_train_mode_shows_is_found(keeps, in_training, distributed_alike):
    network, x = _blocks(0.4, 0.0, 0.25), torch.randn(3, L, E)
    committee = quick_committee(network, x[:1], num_samples=4)
    assert [(site.name, site.p, site.shape) for site in committee.sites] == [
        ("0", 0.4, (H, L, L)),
        ("2", 0.25, (H, L, L)),
    ]

    def block(layer: Block, h: Tensor, factors: Tensor | float) -> Tensor:
        q, k, v = (each.unflatten(-1, (H, E // H)) for each in layer.qkv(h).chunk(3, -1))
        weights = torch.einsum("blhe,bmhe->bhlm", q, k).div(math.sqrt(E // H)).softmax(-1) * factors
        return torch.einsum("bhlm,bmhe->blhe", weights, v).flatten(2)

    first, last = keeps(committee)[0] / 0.6, keeps(committee)[1] / 0.75
    with torch.no_grad():
        middle = [block(network[1], block(network[0], x, each), 1.0) for each in first]
        expected = torch.stack([network[4](block(network[2], middle[k], last[k]).flatten(1)) for k in range(4)])
    _close(committee(x), expected)
    distributed_alike(quick_committee(network, x[:1], num_samples=3000)(x[:1])[:, 0], in_training(network, x[:1], 3000))


def test_attention_that_drops_out_in_eval_mode_is_refused():
    class Always(Block):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, H, E // H)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v, None, self.p).transpose(1, 2).flatten(2)

    network = nn.Sequential(Always(0.25), nn.Flatten(), nn.Linear(L * E, 3)).eval()
    with pytest.raises(UnsupportedSite, match=r"site '0' \(attention, p=0.25\).*dropout_p of 0"):
        quick_committee(network, torch.randn(1, L, E))


def test_torchs_attention_that_drops_out_in_eval_mode_is_refused():
    class Always(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:
            weights = (self.in_proj_weight, self.in_proj_bias, None, None, False, self.dropout)
            args = (x, x, x, E, H, *weights, self.out_proj.weight, self.out_proj.bias)
            return F.multi_head_attention_forward(*args, training=True, need_weights=False)[0]

    layers = [Always(E, H, dropout=0.25), nn.Flatten(), nn.Linear(L * E, 3)]
    network = nn.Sequential(nn.Unflatten(1, (L, E)), *layers).eval()
    with pytest.raises(UnsupportedSite, match=r"site '1' \(attention, p=0.25\).*would be random"):
        quick_committee(network, torch.randn(1, L * E))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_a_fused_kernel_that_answers_otherwise_than_the_layers_is_refused():
    class Padded(nn.Module):
        def __init__(self, nested: bool) -> None:
            super().__init__()
            torch.manual_seed(4)
            layer = nn.TransformerEncoderLayer(E, H, 16, 0.2, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
            self.embed, self.head = nn.Embedding(9, E), nn.Linear(E, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(x), src_key_padding_mask=x == 0).mean(1))

    tokens = torch.tensor([[3, 4, 5, 0, 0]])
    with pytest.raises(UnsupportedNetwork, match="enable_nested_tensor=False"):
        quick_committee(Padded(True).eval(), tokens)
    assert quick_committee(Padded(False).eval(), tokens, num_samples=3)(tokens).shape == (3, 1, 3)


CHANGED = """
import inspect, sys
import torch.nn.functional as F
from torch import nn, randn

source = inspect.getsource(F.multi_head_attention_forward)
exec(source.replace("dropout_p", "drop_rate"), vars(F))  # as if a torch to come called it otherwise

from dubio.uncertainty import Committee
from dubio.uncertainty.errors import UnsupportedSite

class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attend(x, x, x)[0].mean(1))

plain = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
print(Committee(plain, randn(1, 8), num_samples=4)(randn(2, 8)).shape)
try:
    Committee(Attending().eval(), randn(1, 5, 8), num_samples=4)
except UnsupportedSite as error:
    print(error)
"""


def test_a_torch_that_changed_attention_is_refused_upon_use_and_harms_nothing_else():
    outcome = subprocess.run([sys.executable, "-c", CHANGED], capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    shape, error = outcome.stdout.splitlines()
    assert shape == "torch.Size([4, 2, 3])"
    assert "Expected torch.nn.functional.multi_head_attention_forward to take `dropout_p` and `training`" in error
    assert f"torch {torch.__version__} does not" in error


def _without_the_question(query, key, value, dropout_p=0.0, training=True):
    return query


def _without_the_rate(query, key, value, training=True):
    return query if F.has_torch_function((query,)) else key


@pytest.mark.parametrize("function", [_without_the_question, _without_the_rate, torch.relu, len])
def test_a_function_that_is_not_torchs_attention_is_refused(function):
    with pytest.raises(UnsupportedSite, match="has_torch_function first, but that of torch"):
        attention.named(function, (), {})

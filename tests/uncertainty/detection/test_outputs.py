"""Outputs of several batches is that of one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dubio.uncertainty import DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.errors import NoFeatures

FIRST, SECOND = Block("first", 1), Block("second", -1)


def _pass(rows: int, features: bool = True) -> DeterministicPass:
    blocks = {FIRST: torch.randn(rows, 8), SECOND: torch.randn(rows, 2)}
    features_BF = torch.randn(rows, 4) if features else None
    return DeterministicPass(torch.randn(rows, 6), torch.randn(rows, 3), features_BF, blocks)


def _outputs(rows: int) -> Outputs:
    return Outputs(_pass(rows), torch.rand(5, rows, 3))


def test_batches_are_joined_in_their_order():
    parts = [_outputs(2), _outputs(0), _outputs(3)]
    whole = Outputs.cat(parts)
    assert whole.probs_KBC.shape == (5, 5, 3)
    row = 0
    for part in parts:
        rows = slice(row, row := row + len(part.deterministic.logits_BC))
        assert torch.equal(whole.probs_KBC[:, rows], part.probs_KBC)
        assert torch.equal(whole.deterministic.inputs_BF[rows], part.deterministic.inputs_BF)
        assert torch.equal(whole.deterministic.logits_BC[rows], part.deterministic.logits_BC)
        assert torch.equal(whole.deterministic.features()[rows], part.deterministic.features())
        for block, pooled_BF in part.deterministic.blocks.items():
            assert torch.equal(whole.deterministic.blocks[block][rows], pooled_BF)


def test_some_rows_are_taken_in_the_order_asked_for():
    whole = _outputs(5)
    few = whole.take(torch.tensor([3, 0, 3]))
    for name in ("inputs_BF", "logits_BC", "features_BF"):
        assert torch.equal(getattr(few.deterministic, name), getattr(whole.deterministic, name)[[3, 0, 3]])
    assert few.deterministic.blocks.keys() == {FIRST, SECOND}
    for block, pooled_BF in few.deterministic.blocks.items():
        assert torch.equal(pooled_BF, whole.deterministic.blocks[block][[3, 0, 3]])
    assert torch.equal(few.probs_KBC, whole.probs_KBC[:, [3, 0, 3]])
    assert Outputs(_pass(5, features=False), whole.probs_KBC).take(torch.tensor([1])).deterministic.features_BF is None


def test_a_network_without_features_has_none_in_its_outputs():
    joined = DeterministicPass.cat([_pass(2, features=False), _pass(3, features=False)])
    assert joined.features_BF is None
    assert len(joined.logits_BC) == 5
    with pytest.raises(NoFeatures, match=r"nn\.Linear.*mutual_information"):
        joined.features()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_see_single_precision_at_least(dtype):
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype).eval()
    x = torch.randn(5, 6).to(dtype)
    logits_BC, features_BF = FeatureTap(network, x)(x)
    seen = DeterministicPass(x, logits_BC, features_BF)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for given, held in zip((x, logits_BC, features_BF), (seen.inputs_BF, seen.logits_BC, seen.features()), strict=True):
        assert given.dtype == dtype
        assert held.dtype == wide
        assert torch.equal(held, given.to(wide))


def test_tokens_become_numbers():
    assert DeterministicPass(torch.arange(6).view(2, 3), torch.zeros(2, 2), None).inputs_BF.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
def test_the_head_is_the_layer_that_makes_the_logits_of_the_features(bias, dtype):
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3, bias=bias)).to(dtype).eval()
    x = torch.randn(5, 6).to(dtype)
    head = FeatureTap(network, x).read(x).head()
    assert torch.equal(head.weight_CF, network[2].weight.double())
    assert torch.equal(head.bias_C, network[2].bias.double() if bias else torch.zeros(3, dtype=torch.float64))


def test_a_layer_that_does_something_else_with_its_weights_is_no_head():
    class Cosine(nn.Linear):
        def forward(self, input):
            return nn.functional.linear(nn.functional.normalize(input), nn.functional.normalize(self.weight))

    network = nn.Sequential(nn.Linear(6, 4), Cosine(4, 3)).eval()
    x = torch.randn(5, 6)
    seen = FeatureTap(network, x).read(x)
    assert seen.features().shape == (5, 4)
    with pytest.raises(NoFeatures, match="Cosine makes others"):
        seen.head()


def test_a_pass_that_was_put_together_by_hand_has_no_head():
    with pytest.raises(NoFeatures, match="FeatureTap"):
        _pass(2).head()

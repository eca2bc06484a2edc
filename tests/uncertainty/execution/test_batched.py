"""Batched chains: the plain loop over the members, in one batch."""

from __future__ import annotations

import pytest
import torch

from dubio.uncertainty.execution import batched
from dubio.uncertainty.execution.batched import BatchedChain
from tests.uncertainty.chains import ALL_MEMBERS, CHAINS, K, built


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_a_batched_chain_is_the_loop(name, rows):
    case = built(*CHAINS[name])
    x = case.inputs(rows)
    with torch.inference_mode():
        kept, expected = x.clone(), case.loop(x)
        strategy = BatchedChain(case.prefix(), case.chain(), case.banks, 2**24)
        torch.testing.assert_close(strategy(x, ALL_MEMBERS), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(strategy(x, ALL_MEMBERS), strategy(x, ALL_MEMBERS))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("numbers", [1, 500, 5000])
@pytest.mark.parametrize("name", ["mlp", "pools"])
def test_chunks_and_parts_of_the_members_do_not_matter(name, numbers, monkeypatch):
    monkeypatch.setattr(batched, "CACHED", 3000)
    case = built(*CHAINS[name])
    x = case.inputs(9)
    with torch.inference_mode():
        expected = case.loop(x)
        strategy = BatchedChain(case.prefix(), case.chain(), case.banks, numbers)
        for members in (ALL_MEMBERS, slice(0, 1), slice(2, 5), slice(K - 1, K)):
            torch.testing.assert_close(strategy(x, members), expected[members], rtol=1e-5, atol=1e-5)


def test_double_precision_stays_double():
    case = built(*CHAINS["the network of the models"], dtype=torch.float64)
    x = case.inputs(5)
    with torch.inference_mode():
        logits_KBC = BatchedChain(case.prefix(), case.chain(), case.banks, 2**24)(x, ALL_MEMBERS)
        torch.testing.assert_close(logits_KBC, case.loop(x), rtol=1e-12, atol=1e-12)
    assert logits_KBC.dtype == torch.float64

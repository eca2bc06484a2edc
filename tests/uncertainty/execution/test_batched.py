"""Folded chains: the plain loop over the members, in one batch."""

from __future__ import annotations

import pytest
import torch

from dubio.uncertainty.execution import batched
from dubio.uncertainty.execution.batched import Folded
from tests.uncertainty.chains import CHAINS, EVERYBODY, K, recorded


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_a_folded_chain_is_the_loop(name, rows):
    case = recorded(*CHAINS[name])
    assert case.chain is not None
    x = case.inputs(rows)
    with torch.inference_mode():
        kept, expected = x.clone(), case.loop(x)
        folded = Folded(case.before, case.chain, case.banks, 2**24)
        torch.testing.assert_close(folded(x, EVERYBODY), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(folded(x, EVERYBODY), folded(x, EVERYBODY))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("numbers", [1, 500, 5000])
@pytest.mark.parametrize("name", ["mlp", "pools"])
def test_chunks_and_parts_of_the_members_do_not_matter(name, numbers, monkeypatch):
    monkeypatch.setattr(batched, "CACHED", 3000)
    case = recorded(*CHAINS[name])
    assert case.chain is not None
    x = case.inputs(9)
    with torch.inference_mode():
        expected = case.loop(x)
        folded = Folded(case.before, case.chain, case.banks, numbers)
        for which in (EVERYBODY, slice(0, 1), slice(2, 5), slice(K - 1, K)):
            torch.testing.assert_close(folded(x, which), expected[which], rtol=1e-5, atol=1e-5)


def test_double_precision_stays_double():
    case = recorded(*CHAINS["the network of the models"], dtype=torch.float64)
    assert case.chain is not None
    x = case.inputs(5).double()
    with torch.inference_mode():
        logits_KBC = Folded(case.before, case.chain, case.banks, 2**24)(x, EVERYBODY)
        torch.testing.assert_close(logits_KBC, case.loop(x), rtol=1e-12, atol=1e-12)
    assert logits_KBC.dtype == torch.float64

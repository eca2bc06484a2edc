"""Outputs of several batches is that of one."""

from __future__ import annotations

import pytest
import torch

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.errors import NoFeatures


def _pass(rows: int, features: bool = True) -> DeterministicPass:
    return DeterministicPass(torch.randn(rows, 6), torch.randn(rows, 3), torch.randn(rows, 4) if features else None)


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


def test_a_network_without_features_has_none_in_its_outputs():
    joined = DeterministicPass.cat([_pass(2, features=False), _pass(3, features=False)])
    assert joined.features_BF is None
    assert len(joined.logits_BC) == 5
    with pytest.raises(NoFeatures, match=r"nn\.Linear.*mutual_information"):
        joined.features()

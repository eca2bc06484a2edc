"""Running members: one after the other, and all at once."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution import masked, masks


def _banks(case, num_samples: int = 6) -> list[Tensor]:
    sites = audit(case.network, case.inputs(1)).sites
    keeps = masks.draw(sites, num_samples, seed=1)
    cpu = torch.device("cpu")
    return [masks.scale(keep, site.p, torch.float32, cpu) for keep, site in zip(keeps, sites, strict=True)]


@torch.inference_mode()
def test_all_at_once_is_one_after_the_other(case):
    banks = _banks(case)
    for batch in (1, 4, 17):
        x = case.inputs(batch)
        torch.testing.assert_close(masked.vmap(case.network, x, banks), masked.loop(case.network, x, banks))


@torch.inference_mode()
def test_the_loop_runs_each_member_with_its_own_masks(case):
    banks = _banks(case)
    x = case.inputs(3)
    logits_KBC = masked.loop(case.network, x, banks)
    for k in range(6):
        assert torch.equal(logits_KBC[k], masked.run(case.network, x, [bank[k] for bank in banks]))


@torch.inference_mode()
def test_masks_of_one_give_the_deterministic_answer(case):
    ones = [torch.ones_like(bank[0]) for bank in _banks(case)]
    x = case.inputs(5)
    assert torch.equal(masked.run(case.network, x, ones), case.network(x))


def test_a_mask_multiplies_at_its_site():
    x = torch.tensor([[1.0, 2.0, 3.0]])
    masking = masked.Masking([torch.tensor([0.0, 2.0, 4.0]), torch.tensor([5.0, 6.0, 7.0])])
    with masking:
        assert F.dropout(x, 0.5, False).tolist() == [[0.0, 4.0, 12.0]]
        # A site with p = 0 takes no mask.
        assert F.dropout(x, 0.0, False).tolist() == x.tolist()
        assert F.dropout(x, p=0.5, training=False).tolist() == [[5.0, 12.0, 21.0]]
    assert F.dropout(x, 0.5, False).tolist() == x.tolist()


def test_only_the_thread_that_masks_is_masked():
    x, seen = torch.ones(1, 3), []
    with masked.Masking([torch.zeros(3)]):
        other = threading.Thread(target=lambda: seen.append(F.dropout(x, 0.5, False)))
        other.start()
        other.join()
        assert F.dropout(x, 0.5, False).tolist() == [[0.0, 0.0, 0.0]]
    assert seen[0].tolist() == [[1.0, 1.0, 1.0]]


def test_masking_ends_when_the_network_fails():
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        masked.run(Broken().eval(), torch.ones(1, 3), [torch.zeros(3)])
    assert F.dropout(torch.ones(1, 3), 0.5, False).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize(("given", "found"), [(0, "met one more"), (2, "but met 1")])
def test_other_sites_than_masks_are_refused(given, found):
    network = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).eval()
    with pytest.raises(UnsupportedNetwork, match=rf"Expected {given} dropout sites.*{found}"):
        masked.run(network, torch.randn(1, 6), [torch.ones(3)] * given)


def test_what_comes_before_the_first_site_runs_once_for_all_members():
    class Counting(nn.Linear):
        rows = 0

        def forward(self, x: Tensor) -> Tensor:
            # A tensor that vmap carries has the members' axis below the surface.
            carried = torch._C._functorch.is_batchedtensor(x)
            self.rows += 6 if carried else 1
            return super().forward(x)

    before, after = Counting(6, 8), Counting(8, 3)
    network = nn.Sequential(before, nn.Dropout(0.5), after).eval()
    with torch.inference_mode():
        masked.vmap(network, torch.randn(2, 6), [torch.ones(6, 8)])
    assert (before.rows, after.rows) == (1, 6)

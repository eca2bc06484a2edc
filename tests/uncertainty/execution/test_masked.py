"""Running members: one after the other, and all at once."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.errors import UnsupportedNetwork
from dubio.uncertainty.execution import masked
from tests.uncertainty.chains import banks_of


@torch.inference_mode()
def test_all_at_once_is_one_after_the_other(case):
    plan = audit(case.network, case.inputs(1))
    banks = banks_of(plan, 6)
    for batch in (1, 4, 17):
        x = case.inputs(batch)
        expected = masked.loop(plan, x, banks)
        torch.testing.assert_close(masked.vmap(plan, x, banks), expected)
        torch.testing.assert_close(masked.fold(plan, x, banks), expected)


@torch.inference_mode()
def test_the_loop_runs_each_member_with_its_own_masks(case):
    plan, x = audit(case.network, case.inputs(1)), case.inputs(3)
    banks = banks_of(plan, 6)
    logits_KBC = masked.loop(plan, x, banks)
    for k in range(6):
        assert torch.equal(logits_KBC[k], masked.run(plan, x, [bank[k] for bank in banks]))


@torch.inference_mode()
def test_masks_of_one_give_the_deterministic_answer(case):
    plan, x = audit(case.network, case.inputs(1)), case.inputs(5)
    ones = [torch.ones(site.shape) for site in plan.sites]
    assert torch.equal(masked.run(plan, x, ones), case.network(x))


# Three calls, of which the second has no rate and takes no mask.
DROPOUTS = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.0), nn.Dropout(0.5)).eval()


def test_a_mask_multiplies_at_its_site():
    x = torch.tensor([[1.0, 2.0, 3.0]])
    masking = masked.Masking(audit(DROPOUTS, x), [torch.tensor([0.0, 2.0, 4.0]), torch.tensor([5.0, 6.0, 7.0])], 1)
    with masking:
        assert F.dropout(x, 0.5, False).tolist() == [[0.0, 4.0, 12.0]]
        assert F.dropout(x, 0.0, False).tolist() == x.tolist()
        assert F.dropout(x, p=0.5, training=False).tolist() == [[5.0, 12.0, 21.0]]
    assert F.dropout(x, 0.5, False).tolist() == x.tolist()


@torch.inference_mode()
def test_a_member_leaves_the_input_alone_even_where_dropout_overwrites_it():
    network = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(3, 2)).eval()
    x = torch.tensor([[1.0, 2.0, 3.0]])
    plan, mask = audit(network, x.clone()), torch.tensor([0.0, 2.0, 2.0])
    given = x.clone()
    torch.testing.assert_close(masked.run(plan, given, [mask]), network[1](x * mask))
    assert torch.equal(given, x)


@torch.inference_mode()
def test_a_member_masks_each_row_alike_where_rows_are_merged_with_something_else():
    network = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten(0, 1), nn.Dropout(0.5), nn.Unflatten(0, (-1, 2)))
    network.extend([nn.Flatten(), nn.Linear(6, 2)]).eval()
    x = torch.randn(5, 6)
    plan = audit(network, x[:1])
    mask = torch.arange(1.0, 7.0).view(plan.sites[0].shape)
    torch.testing.assert_close(masked.run(plan, x, [mask]), network[5](x * mask.flatten()))


def test_only_the_thread_that_masks_is_masked():
    x, seen = torch.ones(1, 3), []
    with masked.Masking(audit(DROPOUTS, x), [torch.zeros(3)] * 2, 1):
        other = threading.Thread(target=lambda: seen.append(F.dropout(x, 0.5, False)))
        other.start()
        other.join()
        assert F.dropout(x, 0.5, False).tolist() == [[0.0, 0.0, 0.0]]
    assert seen[0].tolist() == [[1.0, 1.0, 1.0]]


def test_masking_ends_when_the_network_fails():
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("broken")

    x = torch.ones(1, 3)
    with pytest.raises(KeyError, match="broken"):
        masked.run(replace(audit(DROPOUTS, x), network=Broken().eval()), x, [torch.zeros(3)] * 2)
    assert F.dropout(x, 0.5, False).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize(("sites", "match"), [(1, "but met 1;"), (3, "met one more"), (0, "but met 0;")])
def test_other_sites_than_planned_are_refused(sites, match):
    x = torch.ones(1, 3)
    other = nn.Sequential(nn.Identity(), *[nn.Dropout(0.5)] * sites).eval()
    with pytest.raises(UnsupportedNetwork, match=rf"Expected 2 dropout sites.*{match}"):
        masked.run(replace(audit(DROPOUTS, x), network=other), x, [torch.ones(3)] * 2)


def test_what_comes_before_the_first_site_runs_once_for_all_members():
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    x = torch.randn(2, 6)
    plan = audit(network, x)
    before, after = 2 * 2 * 6 * 8, 2 * 2 * 8 * 3  # two operations a product, for two rows
    for run, due in ((masked.vmap, before + 6 * after), (masked.loop, 6 * before + 6 * after)):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            run(plan, x, banks_of(plan, 6))
        assert counter.get_total_flops() == due

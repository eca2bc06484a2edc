"""By how many standard errors a label leads: the formula, every choice of members, and the worst that can come."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection import adaptive


def clearance(probs_KBC: Tensor, committee: int, rounding: float = 0.0) -> Tensor:
    return adaptive.clearance(
        Outputs(DeterministicPass(probs_KBC[0], probs_KBC[0], None), probs_KBC), committee, rounding
    )


def _two_classes(*shares: float) -> Tensor:
    """Members that give the first of two classes these probabilities, about one input."""
    return torch.tensor([[[share, 1 - share]] for share in shares], dtype=torch.float64)


@pytest.mark.parametrize("known", [2, 3, 4])
def test_the_error_is_unbiased_over_every_choice_of_members(known):
    # Sampling without replacement: the variance of the mean lead over all choices is known by listing them all.
    shares = [0.51, 0.6, 0.53, 0.72, 0.55, 0.64]
    leads = {chosen: np.mean([2 * share - 1 for share in chosen]) for chosen in combinations(shares, known)}
    errors = {chosen: lead / float(clearance(_two_classes(*chosen), 6)) for chosen, lead in leads.items()}
    assert np.mean(np.square(list(errors.values()))) == pytest.approx(np.var(list(leads.values())))


def test_it_is_the_formula_for_the_closest_rival():
    generator = torch.Generator().manual_seed(0)
    probs_KBC = torch.randn((7, 50, 4), generator=generator, dtype=torch.float64).softmax(-1)
    for row, found in enumerate(clearance(probs_KBC, 40).tolist()):
        probs_KC = probs_KBC[:, row].numpy()
        top = probs_KC.mean(0).argmax()
        leads = [probs_KC[:, top] - probs_KC[:, rival] for rival in range(4) if rival != top]
        ratios = [lead.mean() / (lead.std(ddof=1) * math.sqrt((1 - 7 / 40) / 7)) for lead in leads]
        assert found == pytest.approx(min(ratios))


@pytest.mark.parametrize("seed", range(30))
def test_a_lead_is_final_exactly_if_the_worst_that_can_come_does_not_turn_it(seed):
    generator = torch.Generator().manual_seed(seed)
    probs_KBC = (3 * torch.randn((12, 1, 3), generator=generator, dtype=torch.float64)).softmax(-1)
    probs_KBC[..., 0] += 3 * torch.rand((), generator=generator, dtype=torch.float64)
    probs_KBC /= probs_KBC.sum(-1, keepdim=True)
    committee = 20
    top = int(probs_KBC.mean(0).argmax())
    turned = []
    for rival in {0, 1, 2} - {top}:
        rest = torch.zeros((committee - 12, 1, 3), dtype=torch.float64)
        rest[..., rival] = 1
        total_C = torch.cat([probs_KBC, rest]).sum(0)[0]
        turned.append(bool(total_C[rival] >= total_C[top]))
    assert math.isinf(float(clearance(probs_KBC, committee))) == (not any(turned))


def test_members_that_agree_leave_no_doubt_and_a_tie_leaves_nothing_else():
    assert clearance(_two_classes(0.75, 0.75, 0.75), 64).tolist() == [math.inf]
    assert clearance(_two_classes(0.5, 0.5, 0.5), 64).tolist() == [0]
    assert clearance(_two_classes(0.75, 0.25), 64).tolist() == [0]
    assert clearance(_two_classes(0.9, math.nan), 64).tolist() == [0]


def test_a_row_does_not_depend_on_its_company():
    generator = torch.Generator().manual_seed(0)
    probs_KBC = torch.randn((5, 30, 4), generator=generator, dtype=torch.float64).softmax(-1)
    alone = [float(clearance(probs_KBC[:, row : row + 1], 9)) for row in range(30)]
    assert clearance(probs_KBC, 9).tolist() == pytest.approx(alone, rel=1e-12)
    assert clearance(probs_KBC[:, :0], 9).shape == (0,)


@pytest.mark.parametrize("rounding", [1e-4, 0.01, 0.2])
def test_rounding_bounds_what_comes_out_of_members_that_moved(rounding):
    generator = torch.Generator().manual_seed(0)
    probs_KBC = torch.randn((6, 300, 2), generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    # A lead of two classes moves by twice what their probabilities do.
    moved_KB = (probs_KBC[..., 0] + rounding / 2 * (2 * torch.rand((6, 300), generator=generator) - 1)).clamp(0, 1)
    moved_B = clearance(torch.stack([moved_KB, 1 - moved_KB], dim=-1), 32)
    assert bool((clearance(probs_KBC, 32, -rounding) <= moved_B).all())
    assert bool((moved_B <= clearance(probs_KBC, 32, rounding)).all())
    assert clearance(_two_classes(0.75, 0.75), 64, 0.1).tolist() == [math.inf]
    assert clearance(_two_classes(0.75, 0.75), 64, -0.1).tolist() == pytest.approx([(0.5 - 0.1) / 0.1])
    assert clearance(_two_classes(0.54, 0.54), 64, -0.1).tolist() == [0]

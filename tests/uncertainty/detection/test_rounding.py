"""What two evaluations of one input may differ by is known, and no score gets past it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dubio.uncertainty import AdaptiveSampling, Calibration, Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection.adaptive import recorded
from dubio.uncertainty.detection.detector import SCORES
from dubio.uncertainty.detection.ecdf import Ranks
from dubio.uncertainty.detection.logit_scores import Energy, MaxSoftmax
from dubio.uncertainty.detection.rounding import ABSOLUTE, FACTOR, RELATIVE, Rounding, distinct, spread_out, varies
from dubio.uncertainty.errors import CalibrationSetTooSmall


def _logits(logits_BC: Tensor) -> Outputs:
    return Outputs(DeterministicPass(logits_BC, logits_BC, None), logits_BC.softmax(-1).unsqueeze(0))


@pytest.fixture(scope="module")
def detector(trained) -> Detector:
    return Detector.fit(trained.train, trained.train_labels_N, trained.select, tuple(SCORES))


def test_the_least_is_a_share_of_the_upper_halfs_spread_without_the_outermost():
    ranks = Ranks(torch.cat([torch.arange(100.0), torch.tensor([1e9])]).double())
    # Of 101 scores the middle is 50, and 95 is the last that counts.
    assert Rounding.least({"energy": ranks}).slack == {"energy": 45 * RELATIVE + ABSOLUTE}
    two = Rounding.least({"energy": Ranks(torch.tensor([1.0, 3.0]).double())})
    assert two.slack == {"energy": 2 * RELATIVE + ABSOLUTE}
    assert two.probability == RELATIVE


def test_bounds_are_the_ranks_of_what_may_come_out():
    ranks = {
        "energy": Ranks(torch.linspace(-30, 10, 41).double()),
        "max_softmax": Ranks(torch.tensor([0.0, 1.0]).double()),
    }
    rounding = Rounding({"energy": 0.5, "max_softmax": 0.125})
    outputs = _logits(torch.tensor([[5.0, 5.0], [0.0, 40.0]]))
    low_B, high_B = rounding.bounds([Energy(), MaxSoftmax()], ranks, outputs)
    energy_B = -outputs.deterministic.logits_BC.double().logsumexp(-1)
    slack_B = 0.5 + RELATIVE * energy_B.abs()
    # The select scores are a unit apart: so many of 41 are as large or larger.
    energy = [-math.log((11 - float(bound_B[0])) / 41) for bound_B in (energy_B - slack_B, energy_B + slack_B)]
    # Of two classes alike the other score is 1/2, and of a sure one 0, between select scores of 0 and 1.
    middle = 0.125 + RELATIVE / 2
    assert float(low_B[0]) == pytest.approx(energy[0] - math.log(1 - (0.5 - middle) / 2), abs=1e-6)
    assert float(high_B[0]) == pytest.approx(energy[1] - math.log(1 - (0.5 + middle) / 2), abs=1e-6)
    # The energy of a sure one is below all select scores, which takes nothing away.
    assert float(low_B[1]) == 0
    assert float(high_B[1]) == pytest.approx(-math.log(1 - 0.125 / 2), abs=1e-6)
    assert rounding.bounds([], ranks, outputs)[1].tolist() == [0.0, 0.0]


def test_what_is_measured_counts_four_times_over_where_it_is_more():
    rows = _logits(torch.tensor([[1.0, 2.0], [3.0, 5.0], [0.0, 0.0]]))
    moved_BC = rows.deterministic.logits_BC.clone()
    moved_BC[1] += 0.25  # energy moves by as much, probabilities do not
    least = Rounding({"energy": 1e-6, "max_softmax": 1e-6})
    found = least.measure([Energy(), MaxSoftmax()], rows, [_logits(moved_BC[:1]), _logits(moved_BC[1:])])
    energy = math.log(math.exp(3) + math.exp(5))
    assert found.slack["energy"] == pytest.approx(FACTOR * (0.25 - RELATIVE * energy), rel=1e-4)
    assert found.slack["max_softmax"] == 1e-6
    assert found.probability == RELATIVE
    moved_BC[2, 0] = 0.1
    share = 1 / (1 + math.exp(-0.1))
    assert least.measure([Energy()], rows, [_logits(moved_BC)]).probability == pytest.approx(
        FACTOR * (share - 0.5), rel=1e-5
    )


def test_rows_alone_score_within_what_is_allowed_for(trained, detector):
    alone = [trained.outputs(row) for row in trained.select.deterministic.inputs_BF[:100].split(1)]
    lows, highs = detector.least_rounding.bounds(
        detector.scores, detector.ranks, trained.select.take(torch.arange(100))
    )
    scores = torch.cat([detector.score(each) for each in alone])
    assert bool(((lows <= scores) & (scores <= highs)).all())
    rounding = detector.least_rounding.measure(detector.scores, trained.select.take(torch.arange(100)), alone)
    assert set(rounding.slack) == set(SCORES)
    assert all(rounding.slack[name] >= least for name, least in detector.least_rounding.slack.items())


@pytest.mark.parametrize("seed", range(3))
def test_a_kind_of_row_that_ties_with_the_threshold_is_not_flagged_however_it_is_rounded(trained, seed):
    """Ten kinds of a tenth each: a level of less than a tenth flags none of them."""
    kinds, generator = trained.select.take(torch.arange(10)), torch.Generator().manual_seed(seed)

    def rounded(rows: int) -> Outputs:
        drawn = kinds.take(torch.arange(rows) % 10)
        return Outputs(drawn.deterministic.map(shaken), shaken(drawn.probs_KBC))

    def shaken(values: Tensor) -> Tensor:
        return values * (1 + 2e-7 * (2 * torch.rand(values.shape, generator=generator) - 1))

    fitted = Detector.fit(trained.train, trained.train_labels_N, trained.select, tuple(SCORES))
    stopping = AdaptiveSampling.fit(fitted, trained.select, 500, stages=(4, 8))
    calibrating, asked = rounded(500), rounded(2000)
    detector, stopping = fitted.calibrate(calibrating), stopping.calibrate(fitted, calibrating)
    assert int(detector.judge(asked).flagged_B.sum()) == 0
    stopped = stopping.run(detector, asked.deterministic, recorded(asked.probs_KBC))
    assert int(stopping.judge(detector, stopped).flagged_B.sum()) == 0
    # What rounding does to scores that are taken as they come.
    plain = Calibration.fit(fitted.score(calibrating))
    assert int((plain.p_value(fitted.score(asked)) <= plain.level).sum()) > 0


def test_equal_rows_are_found_by_the_first():
    rows = torch.tensor([[1.0, 2.0], [0.0, 2.0], [1.0, 2.0], [1.0, 3.0], [0.0, 2.0]])
    assert distinct(rows).tolist() == [0, 1, 3]
    assert distinct(rows.bfloat16()).tolist() == [0, 1, 3]
    assert distinct(rows[:0]).tolist() == []


def test_equal_select_rows_are_ranked_once(trained):
    # The same ten rows, first as they are and then in other company, where they score differently by rounding.
    few = trained.select.take(torch.arange(10))
    moved = Outputs(replace(few.deterministic, logits_BC=few.deterministic.logits_BC * (1 + 3e-7)), few.probs_KBC)
    both = Detector.fit(trained.train, trained.train_labels_N, Outputs.cat([few, moved]), ("energy",))
    once = Detector.fit(trained.train, trained.train_labels_N, few, ("energy",))
    torch.testing.assert_close(both.ranks["energy"].scores_N, once.ranks["energy"].scores_N)
    assert len(once.ranks["energy"].scores_N) == 10


@pytest.mark.parametrize("size", [0.0, 1e-7, 1.0, 100.0])
def test_scores_that_differ_by_rounding_alone_do_not_vary(size):
    noise = (ABSOLUTE + RELATIVE * size) * torch.rand(
        50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert not varies(size + noise)
    assert varies(size + 20 * noise)
    spread_N, top = spread_out(size + noise), float((size + noise).max())
    assert spread_N.tolist() == pytest.approx([top, top + FACTOR * (ABSOLUTE + RELATIVE * top)], rel=1e-12)
    assert Ranks.fit(spread_N)(size + noise).tolist() == [0.0] * 50
    assert torch.equal(spread_out(size + 20 * noise), size + 20 * noise)


def test_a_single_select_row_ranks_nothing(trained):
    with pytest.raises(CalibrationSetTooSmall, match="at least 2 different"):
        Detector.fit(trained.train, trained.train_labels_N, trained.select.take(torch.tensor([3, 3])), ("energy",))

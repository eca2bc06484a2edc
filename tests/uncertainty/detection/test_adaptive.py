"""Asking fewer members keeps the promise, asks no more than it says, and seldom answers otherwise than all members."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from dubio.uncertainty import AdaptiveSampling, Calibration, Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection.adaptive import LEAST_CLEARANCE, Stopped, clearance, recorded
from dubio.uncertainty.detection.conformal import level
from dubio.uncertainty.detection.measures import summarise
from dubio.uncertainty.detection.scores import UNFAMILIAR
from dubio.uncertainty.errors import CalibrationSetTooSmall, NotFitted, UncertaintyError

N = 600  # calibration rows
STAGES = (4, 8)  # of 16
MI = "mutual_information"
ROUNDING = 1e-3  # of ranks, in nats: products of other batches round differently, and ranks magnify small scores


def _rows(outputs: Outputs, rows: Tensor | slice) -> Outputs:
    return outputs.take(rows)


def _disagreement(probs_KBC: Tensor) -> Tensor:
    return summarise(probs_KBC).mutual_information_B


@pytest.fixture(scope="module")
def detector(trained) -> Detector:
    return Detector.fit(trained.train, trained.train_labels_N, trained.select)


@pytest.fixture(scope="module")
def fitted(trained, detector) -> AdaptiveSampling:
    return AdaptiveSampling.fit(detector, trained.select, N, stages=STAGES)


@pytest.fixture(scope="module")
def stopping(trained, detector, fitted) -> AdaptiveSampling:
    return fitted.calibrate(detector, _rows(trained.held_out, slice(0, N)))


def _run(stopping: AdaptiveSampling, detector: Detector, outputs: Outputs) -> Stopped:
    return stopping.run(detector, outputs.deterministic, recorded(outputs.probs_KBC))


@pytest.fixture(scope="module")
def stopped(trained, detector, stopping) -> Stopped:
    """All held-out rows, those of the calibration first."""
    return _run(stopping, detector, trained.held_out)


@pytest.mark.parametrize(("alpha", "delta"), [(0.05, 0.05), (0.1, 0.2)])
def test_the_promise_holds_for_the_procedure(trained, detector, fitted, alpha, delta):
    n, splits = 400, 300
    scores_N = _run(fitted, detector, trained.held_out).ranks_SB.sum(0)
    generator = torch.Generator().manual_seed(11)
    rates = []
    for _ in range(splits):
        order = torch.randperm(len(scores_N), generator=generator)
        calibration = Calibration.fit(scores_N[order[:n]], alpha, delta)
        flagged_B = calibration.p_value(scores_N[order[n:]]) <= calibration.level
        rates.append(float(flagged_B.double().mean()))
    kept = int(np.sum(np.array(rates) <= alpha))
    # Where the promise holds with probability 1 - delta, fewer are as good as impossible.
    assert kept >= binom.ppf(1e-4, splits, 1 - delta)
    # It is not kept by flagging nothing.
    assert np.mean(rates) > alpha / 2


def test_the_calibration_is_that_of_the_procedures_own_scores(trained, detector, stopping, stopped):
    own = stopping.calibration
    highest_N = stopping.bounds(detector, _rows(trained.held_out, slice(0, N)), detector.least_rounding).highest_B
    assert torch.equal(own.scores_N, highest_N.sort().values)
    larger_N = highest_N - stopped.ranks_SB[:, :N].sum(0)
    assert bool((larger_N >= 0).all())
    # Composite scores of ordinary rows are a few nats, and rounding is little of that, above all near the threshold.
    assert float(larger_N.quantile(0.95)) < 0.005
    assert float((larger_N / highest_N)[highest_N > highest_N.quantile(0.9)].max()) < 0.001
    verdict = stopping.judge(detector, stopped)
    assert torch.equal(verdict.p_value_B, own.p_value(stopped.ranks_SB.sum(0)))
    assert torch.equal(verdict.flagged_B, verdict.p_value_B <= own.level)
    assert verdict.level == own.level


def _attained(stopping: AdaptiveSampling, detector: Detector, asked: Outputs, row: int) -> AdaptiveSampling:
    """A rule whose thresholds are exactly what some row attains."""
    stages = []
    for stage in stopping.stages:
        few_N = detector.rank(asked)[1:].sum(0) + stage.ranks[MI](_disagreement(asked.probs_KBC[: stage.members]))
        clear = min(float(clearance(Outputs(asked.deterministic, asked.probs_KBC[: stage.members]), 16)[row]), 20.0)
        below, above = sorted([float(few_N[row]), float(few_N[row + 1])])
        stages.append(replace(stage, below=below, above=above, clearance=clear))
    decided = float(detector.rank(asked)[1:, row].sum())
    return replace(stopping, stages=tuple(stages), decided=decided)


def test_no_row_gets_more_in_another_run_than_it_was_calibrated_with(trained, detector, stopping):
    asked, generator = _rows(trained.held_out, slice(0, 100)), torch.Generator().manual_seed(0)

    def shaken(values: Tensor) -> Tensor:
        return values * (1 + 4e-7 * (2 * torch.rand(values.shape, generator=generator) - 1))

    larger, elsewhere = 0, 0
    for row in range(30):
        rule = _attained(stopping, detector, asked, row)
        highest_N = rule.bounds(detector, asked, detector.least_rounding).highest_B
        moved = asked.deterministic.map(shaken)
        here, there = (_run(rule, detector, each) for each in (asked, Outputs(moved, shaken(asked.probs_KBC))))
        for run in (here, there):
            assert bool((run.ranks_SB.sum(0) <= highest_N).all())
        larger += int((there.ranks_SB.sum(0) > here.ranks_SB.sum(0)).sum())
        elsewhere += int((there.samples_B != here.samples_B).sum())
        # It is not more than what comes out at some stage, and far from all thresholds what comes out.
        stages = [(replace(stage, clearance=-1.0, below=math.inf),) for stage in rule.stages]
        runs = [_run(replace(rule, stages=each), detector, asked) for each in (*stages, ())]
        assert [int(run.samples_B.unique()) for run in runs] == [4, 8, 16]
        assert float((torch.stack([run.ranks_SB.sum(0) for run in runs]) - highest_N).abs().amin(0).max()) < 0.01
        assert float((highest_N - here.ranks_SB.sum(0)).median()) < 0.001
    assert larger > 500
    assert elsewhere > 5


def test_each_row_stops_as_one_would_do_it_by_hand(trained, detector, stopping):
    asked = _rows(trained.held_out, slice(N, N + 200))
    stopped = _run(stopping, detector, asked)
    assert detector.scores[0].name == MI
    distances = detector.rank(asked)[1:].sum(0)
    for row in range(200):
        for stage in stopping.stages:
            probs_KC = asked.probs_KBC[: stage.members, row].double().numpy()
            mean_C = probs_KC.mean(0)
            rank = float(stage.ranks[MI](_disagreement(asked.probs_KBC[: stage.members, row : row + 1])))
            top = mean_C.argmax()
            leads = [probs_KC[:, top] - probs_KC[:, rival] for rival in range(3) if rival != top]
            error = math.sqrt((1 - stage.members / 16) / stage.members)
            sure = all(
                lead.sum() > 16 - stage.members or lead.mean() > stage.clearance * lead.std(ddof=1) * error
                for lead in leads
            )
            score = distances[row] + rank
            if sure and (distances[row] > stopping.decided or score < stage.below or score > stage.above):
                samples = stage.members
                break
        else:
            rank = float(detector.rank(_rows(asked, slice(row, row + 1)))[0])
            samples = 16
        assert int(stopped.samples_B[row]) == samples
        assert float(stopped.ranks_SB[0, row]) == pytest.approx(rank, abs=ROUNDING)
        assert float(stopped.ranks_SB[1:, row].sum()) == pytest.approx(float(distances[row]), abs=ROUNDING)


def test_what_is_said_about_a_row_is_what_its_members_say(trained, detector, stopping):
    asked = _rows(trained.held_out, slice(N, N + 200))
    stopped = _run(stopping, detector, asked)
    assert set(stopped.samples_B.tolist()) == {4, 8, 16}
    for row, samples in enumerate(stopped.samples_B.tolist()):
        expected = summarise(asked.probs_KBC[:samples, row : row + 1])
        for name, value in vars(expected).items():
            torch.testing.assert_close(getattr(stopped.summary, name)[row : row + 1], value)


def test_nobody_is_asked_twice_or_for_nothing(trained, detector, stopping):
    asked = _rows(trained.held_out, slice(N, N + 200))
    answered = torch.zeros((16, 200), dtype=torch.int64)

    def ask(rows: Tensor, first: int, count: int) -> Tensor:
        answered[first : first + count, rows] += 1
        return asked.probs_KBC[first : first + count, rows]

    stopped = stopping.run(detector, asked.deterministic, ask)
    due = torch.arange(16).unsqueeze(1) < stopped.samples_B
    assert torch.equal(answered, due.long())


def test_a_row_stops_alone_where_it_stops_in_company(trained, detector, stopping, stopped):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled = _run(stopping, detector, _rows(trained.held_out, order))
    assert torch.equal(shuffled.samples_B, stopped.samples_B[order])
    torch.testing.assert_close(shuffled.ranks_SB, stopped.ranks_SB[:, order], rtol=0, atol=ROUNDING)
    for row in range(40):
        alone = _run(stopping, detector, _rows(trained.held_out, slice(row, row + 1)))
        assert alone.samples_B.tolist() == [int(stopped.samples_B[row])]
        torch.testing.assert_close(alone.ranks_SB, stopped.ranks_SB[:, row : row + 1], rtol=0, atol=ROUNDING)


def test_the_committee_answers_as_its_record_does(trained, detector, stopping, stopped):
    def ask(rows: Tensor, first: int, count: int) -> Tensor:
        return trained.committee(inputs[rows], count, first).softmax(-1)

    inputs = trained.held_out.deterministic.inputs_BF[:64]
    live = stopping.run(detector, trained.deterministic(inputs), ask)
    assert torch.equal(live.samples_B, stopped.samples_B[:64])
    torch.testing.assert_close(live.summary.mean_BC, stopped.summary.mean_BC[:64], rtol=0, atol=1e-5)
    torch.testing.assert_close(live.summary.std_BC, stopped.summary.std_BC[:64], rtol=0, atol=1e-5)


def test_seldom_another_answer_than_that_of_all_members(trained, detector, stopping, stopped):
    full = detector.calibrate(_rows(trained.held_out, slice(0, N))).judge(trained.held_out)
    early = stopping.judge(detector, stopped)
    new = slice(N, None)
    rows = len(stopped.samples_B) - N
    labels = stopped.summary.mean_BC.argmax(-1) != trained.held_out.probs_KBC.mean(0).argmax(-1)
    # A rule that got none of n select rows wrong gets a new one wrong with probability 1 / (n + 1) at most. There is
    # one rule for labels at each of two stages, and there are two for flags: one for each side.
    rate = 1 / (trained.select.probs_KBC.shape[1] + 1)
    assert int(labels[new].sum()) <= binom.ppf(0.999, rows, 2 * rate)
    assert int((early.flagged_B != full.flagged_B)[new].sum()) <= binom.ppf(0.999, rows, 4 * rate)
    assert int(early.flagged_B[new].sum()) > 0.02 * rows


def test_easy_rows_take_few_members(stopped):
    assert float(stopped.samples_B.double().mean()) < 10
    assert (stopped.samples_B == 16).any()


def test_all_members_are_asked_where_nothing_can_be_decided(trained, detector, stopping):
    # Whatever the flag, the members are split between two classes, half and half at every stage.
    asked = _rows(trained.held_out, slice(0, 5))
    split_KBC = torch.zeros_like(asked.probs_KBC)
    split_KBC[torch.arange(16), :, torch.arange(16) % 2] = 1
    stopped = _run(stopping, detector, replace(asked, probs_KBC=split_KBC))
    assert stopped.samples_B.tolist() == [16] * 5


def test_strangers_far_from_the_data_are_flagged_whatever_the_members_say(trained, detector, stopping):
    far = trained.outputs(1000 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    stopped = _run(stopping, detector, far)
    verdict = stopping.judge(detector, stopped)
    assert bool(verdict.flagged_B.all())
    assert set(verdict.reasons) == {UNFAMILIAR}
    assert (stopped.samples_B == 4).any()


def test_the_rules_hold_on_the_select_rows_they_were_learned_from(trained, detector, fitted):
    select = trained.select
    label_N = select.probs_KBC.mean(0).argmax(-1)
    scores_N = detector.score(select)
    threshold = float(scores_N.sort(descending=True).values[int(len(scores_N) * 0.04)])
    assert [stage.members for stage in fitted.stages] == [4, 8]
    for stage in fitted.stages:
        score_N = _disagreement(select.probs_KBC[: stage.members])
        assert torch.equal(stage.ranks[MI].scores_N, torch.unique(score_N.double()))
        few_N = detector.rank(select)[1:].sum(0) + stage.ranks[MI](score_N)
        assert bool((scores_N[few_N < stage.below] < threshold).all())
        assert bool((scores_N[few_N > stage.above] > threshold).all())
        assert stage.below < stage.above
        clear_N = clearance(Outputs(select.deterministic, select.probs_KBC[: stage.members]), 16) > stage.clearance
        settled_N = clear_N & ((few_N < stage.below) | (few_N > stage.above))
        assert 0.3 < float(settled_N.double().mean()) < 1
        few_label_N = select.probs_KBC[: stage.members].mean(0).argmax(-1)
        assert torch.equal(few_label_N[settled_N], label_N[settled_N])
        assert stage.clearance >= LEAST_CLEARANCE


def test_of_many_select_rows_a_thousandth_may_be_wrong_and_the_thresholds_lie_around_the_level(trained):
    select, rows = _rows(trained.held_out, slice(0, 3000)), 800
    detector = Detector.fit(trained.train, trained.train_labels_N, select)
    fitted = AdaptiveSampling.fit(detector, select, rows, alpha=0.1, delta=0.2, stages=STAGES)
    # Two standard errors of the logarithm of a share, from both splits, to either side of the level.
    share = level(rows, 0.1, 0.2)
    spread = math.exp(2 * math.sqrt(1 / (share * rows) + 1 / (share * 3000)))
    rounding = detector.least_rounding
    _, composite_N = rounding.bounds(detector.scores, detector.ranks, select)
    lowest = np.quantile(detector.score(select).numpy(), 1 - share * spread)
    highest = np.quantile(composite_N.numpy(), 1 - share / spread)
    assert lowest < highest
    assert fitted.decided == pytest.approx(highest, rel=1e-12)
    full_N = detector.score(select).numpy()
    label_N = select.probs_KBC.mean(0).argmax(-1)
    for stage in fitted.stages:
        few = Outputs(select.deterministic, select.probs_KBC[: stage.members])
        ranks = {**detector.ranks, **stage.ranks}
        low_N, high_N = (bound.numpy() for bound in rounding.bounds(detector.scores, ranks, few))
        turned_N = select.probs_KBC[: stage.members].mean(0).argmax(-1) != label_N
        clear_N = (
            clearance(Outputs(select.deterministic, select.probs_KBC[: stage.members]), 16)[turned_N]
            .sort(descending=True)
            .values
        )
        # Three of 3,000 rows lie beyond each bound; the fourth is the bound.
        assert stage.below == np.sort(low_N[full_N >= lowest])[3]
        assert stage.above == np.sort(high_N[full_N <= highest])[-4]
        assert stage.clearance == max(LEAST_CLEARANCE, float(clear_N[3]))
        assert float(clear_N[0]) > stage.clearance or float(clear_N[0]) <= LEAST_CLEARANCE


def test_where_few_members_never_give_another_label_the_least_clearance_is_asked_for():
    # Every member gives the first class .55 to .95, so no number of members turns a label.
    share_KB = 0.55 + 0.4 * torch.rand((16, 200), generator=torch.Generator().manual_seed(0))
    probs_KBC = torch.stack([share_KB, 1 - share_KB], dim=-1)
    seen = DeterministicPass(torch.arange(200.0).unsqueeze(1), probs_KBC[0], None)
    sure = Outputs(seen, probs_KBC)
    detector = Detector.fit(seen, torch.zeros(200, dtype=torch.int64), sure, [MI])
    fitted = AdaptiveSampling.fit(detector, sure, N, stages=STAGES)
    assert [stage.clearance for stage in fitted.stages] == [LEAST_CLEARANCE] * 2
    assert fitted.describe() == {"stages": [4, 8, 16]}


@pytest.mark.parametrize(("rows", "wrong"), [(999, 0), (1000, 1)])
def test_below_a_thousand_select_rows_none_may_be_wrong(trained, rows, wrong):
    select = _rows(trained.held_out, slice(0, rows))
    detector = Detector.fit(trained.train, trained.train_labels_N, select, [MI])
    (stage,) = AdaptiveSampling.fit(detector, select, N, stages=(4,)).stages
    few_N = stage.ranks[MI](_disagreement(select.probs_KBC[:4]))
    assert int((few_N[detector.rank(select)[0] <= _highest(detector, select)] > stage.above).sum()) == wrong


def _highest(detector: Detector, select: Outputs) -> float:
    share, n = level(N, 0.05, 0.05), select.probs_KBC.shape[1]
    spread = math.exp(2 * math.sqrt(1 / (share * N) + 1 / (share * n)))
    return float(np.quantile(detector.score(select).numpy(), 1 - share / spread))


def test_without_stages_it_is_the_detector(trained, detector):
    calibrating, asked = _rows(trained.held_out, slice(0, N)), _rows(trained.held_out, slice(N, N + 300))
    whole = AdaptiveSampling.fit(detector, trained.select, N, stages=(16, 32)).calibrate(detector, calibrating)
    assert whole.stages == ()
    stopped = _run(whole, detector, asked)
    expected = detector.calibrate(calibrating).judge(asked)
    found = whole.judge(detector, stopped)
    assert stopped.samples_B.tolist() == [16] * 300
    assert torch.equal(found.p_value_B, expected.p_value_B)
    assert found.reasons == expected.reasons


def test_a_detector_that_does_not_look_at_the_members_asks_for_the_label_alone(trained):
    detector = Detector.fit(trained.train, trained.train_labels_N, trained.select, ("neighbours", "energy"))
    calibrating, asked = _rows(trained.held_out, slice(0, N)), _rows(trained.held_out, slice(N, N + 500))
    stopping = AdaptiveSampling.fit(detector, trained.select, N, stages=STAGES).calibrate(detector, calibrating)
    stopped = _run(stopping, detector, asked)
    found, expected = stopping.judge(detector, stopped), detector.calibrate(calibrating).judge(asked)
    assert torch.equal(found.flagged_B, expected.flagged_B)
    assert torch.equal(found.p_value_B, expected.p_value_B)
    assert 4 < float(stopped.samples_B.double().mean()) < 8


def test_a_stage_whose_members_all_say_the_same_is_left_out(trained, detector):
    probs_KNC = trained.select.probs_KBC.clone()
    probs_KNC[:4] = probs_KNC[:1]
    same = Outputs(trained.select.deterministic, probs_KNC)
    detector = Detector.fit(trained.train, trained.train_labels_N, same)
    assert [stage.members for stage in AdaptiveSampling.fit(detector, same, N, stages=STAGES).stages] == [8]


def test_moving_to_a_device_keeps_every_number(trained, detector, stopping, stopped):
    moved = stopping.to(torch.device("cpu"))
    again = _run(moved, detector, _rows(trained.held_out, slice(0, 100)))
    assert torch.equal(again.samples_B, stopped.samples_B[:100])
    assert torch.equal(moved.judge(detector, again).p_value_B, stopping.judge(detector, again).p_value_B)


def test_nan_asks_everybody_is_flagged_and_spoils_no_other(trained, detector, stopping, stopped):
    asked = _rows(trained.held_out, slice(0, 3))
    probs_KBC = asked.probs_KBC.clone()
    probs_KBC[:, 1] = math.nan
    poisoned = _run(stopping, detector, replace(asked, probs_KBC=probs_KBC))
    assert poisoned.samples_B[1] == 16
    assert bool(stopping.judge(detector, poisoned).flagged_B[1])
    assert torch.equal(poisoned.samples_B[[0, 2]], stopped.samples_B[[0, 2]])


def test_a_verdict_needs_a_calibration(detector, fitted, stopped):
    with pytest.raises(NotFitted, match=r"calibrate\(\)"):
        fitted.judge(detector, stopped)


@pytest.mark.parametrize("stages", [(1, 4), (4, 4), (8, 4), (0,), (-4, 8)])
def test_stages_that_do_not_rise_are_refused(trained, detector, stages):
    with pytest.raises(UncertaintyError, match="stages of at least 2 members that rise"):
        AdaptiveSampling.fit(detector, trained.select, N, stages=stages)


def test_too_few_calibration_rows_are_refused(trained, detector):
    with pytest.raises(CalibrationSetTooSmall, match="at least 59"):
        AdaptiveSampling.fit(detector, trained.select, 58)

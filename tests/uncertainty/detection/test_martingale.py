"""E-processes over streams: the law of false alarms by simulation, delays, and state that comes back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import beta, binomtest

from dubio.uncertainty import Calibration
from dubio.uncertainty.detection.conformal import level
from dubio.uncertainty.detection.martingale import EProcess, FlagEProcess, PairedEProcess, PValueEProcess, load
from dubio.uncertainty.errors import UncertaintyError

ALPHA = DELTA = EPSILON = 0.05


def _alarms(process: EProcess, outcomes_TS: npt.NDArray[np.int64], payoffs: Any = None) -> npt.NDArray[np.float64]:
    """When each of S streams raises the alarm, infinity if it does not: all of them at once, in numpy."""
    payoffs_OJ = np.array(process.payoffs if payoffs is None else payoffs)
    wealth_SJ = np.zeros((outcomes_TS.shape[1], payoffs_OJ.shape[1]))
    alarm_S = np.full(len(wealth_SJ), np.inf)
    for t, outcome_S in enumerate(outcomes_TS, start=1):
        unspent, after = 1 / (1 + math.log(t)), 1 / (1 + math.log(t + 1))
        wealth_SJ = np.minimum((wealth_SJ + (unspent - after) / payoffs_OJ.shape[1]) * payoffs_OJ[outcome_S], 1e300)
        raised_S = (wealth_SJ.sum(1) + after >= 1 / process.epsilon) & np.isinf(alarm_S)
        alarm_S[raised_S] = t
    return alarm_S


def _counts(rows: int, length: int, streams: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """(n + 1) times the p-values of in-distribution streams, each with a calibration set of its own, ``[T, S]``."""
    counts_TS = np.empty((length, streams), dtype=np.int64)
    for stream in range(streams):
        scores = np.sort(generator.random(rows))
        counts_TS[:, stream] = 1 + np.searchsorted(scores, generator.random(length))
    return counts_TS


def _at_most(count: int, of: int, rate: float) -> bool:
    return binomtest(count, of, rate, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize("process", [FlagEProcess(), FlagEProcess(alpha=0.3, epsilon=0.01), PValueEProcess(rows=60)])
def test_one_stream_is_worth_what_the_formula_says(process: EProcess):
    generator = np.random.default_rng(0)
    values = generator.random(400) ** 4
    if isinstance(process, FlagEProcess):
        values = (values < 0.2).tolist()
    outcomes_TS = np.array([process.outcome(value) for value in values])[:, None]
    seen = process.observe(values)
    assert seen.seen == 400
    assert seen.alarm == _alarms(process, outcomes_TS)[0]
    assert process.observe(values[: seen.alarm - 1]).alarm is None
    assert process.observe(values[: seen.alarm]).e_value >= 1 / process.epsilon


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.5])
def test_while_the_promise_just_holds_payoffs_of_flags_have_mean_1_and_less_below(alpha: float):
    quiet, flagged = np.array(FlagEProcess(alpha=alpha).payoffs)
    assert (1 - alpha) * quiet + alpha * flagged == pytest.approx(1)
    assert ((1 - 0.9 * alpha) * quiet + 0.9 * alpha * flagged < 1).all()


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("mended", [0.0, 0.2])
def test_while_the_second_answer_is_just_too_bad_payoffs_of_differences_have_mean_1(margin: float, mended: float):
    """However many rows the second answer mends and spoils: their difference counts."""
    spoilt = mended + margin
    better, equal, worse = np.array(PairedEProcess(margin=margin).payoffs)
    assert mended * better + (1 - mended - spoilt) * equal + spoilt * worse == pytest.approx(1)
    assert (worse > 0).all()
    assert (worse < 1).all()
    assert [PairedEProcess().outcome(each) for each in (1, 0, -1, True, np.int64(-1))] == [0, 1, 2, 0, 2]


@pytest.mark.parametrize("rows", [1, 20, 1000, 5000])
def test_p_values_pay_1_at_most_under_any_law_that_the_bounds_allow(rows: int):
    payoffs_OJ = np.array(PValueEProcess(rows=rows).payoffs)
    counts = range(1, rows + 2)
    groups = np.array([PValueEProcess(rows=rows).outcome(count / (rows + 1)) for count in counts])
    assert (np.diff(groups) >= 0).all()
    last = np.flatnonzero(np.diff(groups, append=len(payoffs_OJ)))  # of each group its largest count
    bounds = np.append(beta.ppf(1 - 0.05 / (len(last) - 1), last[:-1] + 1, rows - last[:-1]), 1.0)  # j, n + 1 - j
    assert (np.diff(payoffs_OJ, axis=0) < 0).all()
    assert np.diff(bounds, prepend=0) @ payoffs_OJ == pytest.approx(1, abs=1e-6)


def test_false_alarms_of_flags_are_at_most_epsilon_however_long_the_stream():
    """At a rate of exactly alpha, for 20000 inputs."""
    generator = np.random.default_rng(0)
    alarms_S = _alarms(FlagEProcess(), (generator.random((20_000, 400)) < ALPHA).astype(np.int64))
    assert _at_most(int(np.isfinite(alarms_S).sum()), 400, EPSILON)


def _differences(mended: float, spoilt: float, length: int, streams: int, seed: int) -> npt.NDArray[np.int64]:
    """Outcomes of streams in which such shares of the rows are right for the second answer alone, or the first."""
    drawn_TS = np.random.default_rng(seed).random((length, streams))
    return np.where(drawn_TS < mended, 0, np.where(drawn_TS < mended + spoilt, 2, 1))


@pytest.mark.parametrize(("mended", "spoilt"), [(0.0, 0.05), (0.1, 0.15), (0.3, 0.35)])
def test_an_answer_that_is_just_too_bad_is_seldom_taken_for_one_that_is_not(mended: float, spoilt: float):
    alarms_S = _alarms(PairedEProcess(), _differences(mended, spoilt, 10_000, 400, 7))
    assert _at_most(int(np.isfinite(alarms_S).sum()), 400, EPSILON)


@pytest.mark.parametrize(("mended", "spoilt", "at_most"), [(0.0, 0.0, 98), (0.1, 0.0, 60), (0.05, 0.05, 500)])
def test_an_answer_that_is_no_worse_is_known_soon(mended: float, spoilt: float, at_most: int):
    """Although a tenth of the labels change, twice as many as the margin allows where no truth is known."""
    alarms_S = _alarms(PairedEProcess(), _differences(mended, spoilt, 1000, 200, 8))
    assert np.median(alarms_S) <= at_most


@pytest.mark.parametrize("rows", [200, 1000])
def test_false_alarms_over_the_calibration_draw_are_at_most_epsilon_and_delta(rows: int):
    generator = np.random.default_rng(1)
    counts_TS = _counts(rows, 10_000, 300, generator)
    flags_TS = (counts_TS <= round(level(rows, ALPHA, DELTA) * (rows + 1))).astype(np.int64)
    process = PValueEProcess(rows=rows)
    groups = np.array([0, *(process.outcome(count / (rows + 1)) for count in range(1, rows + 2))])
    for alarms_S in (_alarms(FlagEProcess(), flags_TS), _alarms(process, groups[counts_TS])):
        assert _at_most(int(np.isfinite(alarms_S).sum()), 300, EPSILON + DELTA)


def test_to_take_p_values_of_a_fixed_reference_for_uniform_raises_more_false_alarms():
    """The simulation above would see it."""
    generator = np.random.default_rng(1)
    process, counts_TS = PValueEProcess(rows=200), _counts(200, 10_000, 300, generator)
    of_count = np.array([0, *(process.outcome(count / 201) for count in range(1, 202))])
    largest = np.flatnonzero(np.diff(of_count, append=99))  # (n + 1) p of each group
    edges, powers = np.array([0, *largest]) / 201, np.array([0.2, 0.4, 0.6, 0.8, 0.9])
    naive = np.diff(edges[:, None] ** powers, axis=0) / np.diff(edges)[:, None]
    alarms_S = _alarms(process, of_count[counts_TS], naive)
    assert not _at_most(int(np.isfinite(alarms_S).sum()), 300, EPSILON + DELTA)


def test_tied_scores_raise_no_more_false_alarms():
    """Scores of three values, through the product's own p-values."""
    generator = np.random.default_rng(2)
    alarms = {"flags": 0, "p_values": 0}
    for _ in range(60):
        scores = torch.from_numpy(generator.integers(0, 3, 200) * (generator.random(200) < 0.3)).double()
        calibration = Calibration.fit(scores, ALPHA, DELTA)
        stream = torch.from_numpy(generator.integers(0, 3, 2000) * (generator.random(2000) < 0.3)).double()
        p_values = calibration.p_value(stream)
        alarms["flags"] += FlagEProcess().observe((p_values <= calibration.level).tolist()).alarm is not None
        alarms["p_values"] += PValueEProcess(rows=200).observe(p_values.tolist()).alarm is not None
    assert all(_at_most(count, 60, EPSILON + DELTA) for count in alarms.values())


def _contaminated(share: float, length: int, generator: np.random.Generator, quiet: int = 0) -> Any:
    """Flags at a level for 1000 calibration rows, of streams that hold strangers, 80% of whom are flagged."""
    flagged = round(level(1000, ALPHA, DELTA) * 1001)
    flags_TS = _counts(1000, quiet + length, 200, generator) <= flagged
    strangers_TS = generator.random((length, 200)) < share
    flags_TS[quiet:][strangers_TS] = generator.random(int(strangers_TS.sum())) < 0.8
    return flags_TS.astype(np.int64)


@pytest.mark.parametrize(("share", "length", "at_most"), [(0.1, 1000, 117), (0.2, 400, 28)])
def test_strangers_are_noticed_soon(share: float, length: int, at_most: int):
    alarms_S = _alarms(FlagEProcess(), _contaminated(share, length, np.random.default_rng(3)))
    assert np.median(alarms_S) <= at_most


def test_strangers_that_come_late_are_noticed_nearly_as_soon():
    """After 10000 quiet inputs, which leave a process that bets only once with nothing."""
    process, quiet = FlagEProcess(), 10_000
    flags_TS = _contaminated(0.2, 400, np.random.default_rng(4), quiet)
    alarms_S = _alarms(process, flags_TS)
    delays_S = alarms_S[alarms_S > quiet] - quiet
    assert np.median(delays_S) <= 150
    quiet_pay, flag_pay = np.log(np.array(process.payoffs))
    flags_S = flags_TS.cumsum(0)
    once_TS = np.array(
        [
            np.exp(flags_S[t, :, None] * flag_pay + (t + 1 - flags_S[t, :, None]) * quiet_pay).mean(1)
            for t in range(quiet, len(flags_TS))
        ]
    )
    assert np.median((once_TS >= 20).any(0)) == 0  # most are not noticed at all


def test_p_values_are_watched_too():
    """A tenth are strangers, whose p-values are the smallest there are."""
    generator = np.random.default_rng(5)
    delays = []
    for _ in range(20):
        p_values = _counts(1000, 600, 1, generator)[:, 0] / 1001
        p_values[generator.random(600) < 0.1] = 1 / 1001
        delays.append(PValueEProcess(rows=1000).observe(p_values.tolist()).alarm or math.inf)
    assert np.median(delays) < 150


@pytest.mark.parametrize("process", [FlagEProcess(alpha=0.1), PValueEProcess(rows=300, delta=0.1, epsilon=0.01)])
def test_a_restarted_process_goes_on_with_the_same_numbers(process: EProcess):
    generator = np.random.default_rng(6)
    values = (generator.random(300) < 0.3).tolist() if isinstance(process, FlagEProcess) else generator.random(300) ** 3
    whole = process.observe(values)
    parts = process
    for some in np.array_split(values, 7):
        parts = load(json.loads(json.dumps(parts.observe(some.tolist()).dump())))
    assert parts == whole
    assert whole.alarm is not None
    assert (parts.e_value, parts.dump()) == (whole.e_value, whole.dump())
    assert process.seen == 0  # it is another process: the first is as it was


def test_evidence_has_an_end():
    process = FlagEProcess().observe([True] * 2000)
    assert math.isfinite(process.e_value)
    assert process.alarm < 20
    assert load(json.loads(json.dumps(process.dump()))) == process


def test_a_paired_process_goes_on_with_the_same_numbers():
    process = PairedEProcess(margin=0.1, epsilon=0.01).observe([0, 1, -1] * 30)
    assert load(json.loads(json.dumps(process.dump()))) == process
    with pytest.raises(UncertaintyError, match="`margin`"):
        load({**process.dump(), "margin": 1.0})


def test_an_unlucky_alarm_stays_and_is_dated():
    process = FlagEProcess().observe([True] * 10)
    assert process.observe([False] * 5000).alarm == process.alarm < 10
    assert process.observe([False] * 5000).e_value < 1
    assert process.observe([False] * 5000).largest == process.largest


@pytest.mark.parametrize("value", [None, math.nan, "yes", 0.5, 2])
def test_what_is_no_flag_is_refused(value: Any):
    with pytest.raises(UncertaintyError, match="flags to be true or false"):
        FlagEProcess().observe([value])


@pytest.mark.parametrize("value", [None, math.nan, 0.5, 2, -2, "1"])
def test_what_is_no_difference_is_refused(value: Any):
    with pytest.raises(UncertaintyError, match="differences to be -1, 0 or 1"):
        PairedEProcess().observe([value])


@pytest.mark.parametrize("value", [None, math.nan, 0.0, -0.1, 1.1, math.inf])
def test_what_is_no_p_value_is_refused(value: Any):
    with pytest.raises(UncertaintyError, match=r"p-values in \(0, 1\]"):
        PValueEProcess().observe([value])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Pickle"}, "state of one of"),
        ({"extra": 1}, "state of one of"),
        ({"wealth": "all"}, "state of one of"),
        ({"wealth": [1.0]}, "`wealth` to be 6 numbers"),
        ({"wealth": [math.nan] * 6}, "`wealth` to be 6 numbers"),
        ({"wealth": [-1.0] * 6}, "`wealth` to be 6 numbers"),
        ({"largest": math.inf}, "`largest` to be one"),
        ({"largest": 30.0}, "if and only if"),
        ({"alarm": 2}, "if and only if"),
        ({"seen": -1}, "counts `seen`"),
        ({"seen": 1.5}, "counts `seen`"),
        ({"alarm": 99}, "counts `seen`"),
        ({"alpha": 0.0}, "`alpha`"),
        ({"alpha": "0.05"}, "`alpha`"),
        ({"epsilon": 1.0}, "`epsilon`"),
    ],
)
def test_state_that_no_stream_led_to_is_refused(change: dict[str, Any], message: str):
    state = FlagEProcess().observe([False] * 5).dump()
    with pytest.raises(UncertaintyError, match=message):
        load({**state, **change})


@pytest.mark.parametrize("change", [{"rows": 0}, {"rows": 10**9}, {"rows": 3.0}, {"delta": 2.0}, {"wealth": []}])
def test_the_same_holds_for_p_values(change: dict[str, Any]):
    state = PValueEProcess(rows=50).observe([0.5]).dump()
    with pytest.raises(UncertaintyError):
        load({**state, **change})

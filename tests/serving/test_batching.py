"""Batching: who is predicted with whom, who is dropped, and that nobody gets another's rows."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from dubio.models import Prediction, Work
from dubio.models.errors import InvalidInput
from dubio.serving.batching import Batcher, BatchRecord, Budget, Executor, Policy
from dubio.serving.errors import DeadlineExceeded, Overloaded, Stopping


class Gate:
    """A real predictor that can be held up, and that remembers what it was asked."""

    def __init__(self, predictor):
        self.predictor = predictor
        self.committee = predictor.committee
        self.input = predictor.input
        self.calls: list[tuple[int, int | None, Work]] = []
        self.open = threading.Event()
        self.open.set()

    def predict(self, x, *, samples=None, work=Work.FLAG):
        self.open.wait(10)
        self.calls.append((len(x), samples, work))
        return self.predictor.predict(x, samples=samples, work=work)


@pytest.fixture
def gate(predictor):
    return Gate(predictor)


def rows(gate, count, seed=0):
    spec = gate.input
    return np.random.default_rng(seed).uniform(spec.low, spec.high, (count, *spec.shape)).astype(np.float32)


def run(scenario, gate, *, policy=None, budget=None):
    """Run `scenario(batcher, records)` on a loop of its own; returns what it returns."""
    records: list[BatchRecord] = []

    async def main():
        executor = Executor(threads=2, torch_threads=1)
        batcher = Batcher(gate, executor, budget or Budget(1000, 10**9), policy or Policy(64), records.append)
        try:
            return await scenario(batcher, records)
        finally:
            gate.open.set()
            executor.close()

    return asyncio.run(main())


def ask(batcher, x, *, samples=None, work=Work.FLAG, timeout=None):
    return asyncio.create_task(batcher.submit(x, samples=samples, work=work, timeout=timeout))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def same(answer: Prediction, expected: Prediction):
    assert answer.samples == expected.samples
    np.testing.assert_array_equal(answer.label, expected.label)
    np.testing.assert_allclose(answer.mc_mean, expected.mc_mean, atol=1e-5)
    np.testing.assert_allclose(answer.mc_std, expected.mc_std, atol=1e-5)
    np.testing.assert_allclose(answer.p_value, expected.p_value, atol=0.05)


def test_an_idle_lane_answers_at_once_and_what_waits_is_predicted_together(gate):
    questions = [rows(gate, count, seed=count) for count in (1, 2, 3, 1)]

    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, x) for x in questions]
        await settle()
        gate.open.set()
        return await asyncio.gather(*tasks), records

    answers, records = run(scenario, gate)
    assert gate.calls == [(1, None, Work.FLAG), (6, None, Work.FLAG)]
    assert [(record.rows, record.requests, record.failed) for record in records] == [(1, 1, 0), (6, 3, 0)]
    for x, answer in zip(questions, answers, strict=True):
        same(answer, gate.predictor.predict(x))


def test_batches_stay_within_the_policy_unless_one_request_is_larger(gate):
    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, count)) for count in (1, 3, 2, 3, 9)]
        await settle()
        gate.open.set()
        await asyncio.gather(*tasks)

    run(scenario, gate, policy=Policy(max_rows=5))
    assert [count for count, _, _ in gate.calls] == [1, 5, 3, 9]


def test_requests_that_ask_for_different_work_are_not_mixed(gate):
    async def scenario(batcher, records):
        gate.open.clear()
        asked = [(None, Work.FLAG), (None, Work.FLAG), (4, Work.FLAG), (None, Work.FLAG), (4, Work.FLAG), (4, Work.MC)]
        tasks = [ask(batcher, rows(gate, 1), samples=samples, work=work) for samples, work in asked]
        await settle()
        gate.open.set()
        return await asyncio.gather(*tasks)

    answers = run(scenario, gate)
    assert gate.calls[1:] == [(2, None, Work.FLAG), (2, 4, Work.FLAG), (1, 4, Work.MC)]
    assert [answer.samples for answer in answers[2:]] == [4, gate.committee.num_samples, 4, 4]


def test_deterministic_requests_do_not_wait_behind_the_members(gate):
    async def scenario(batcher, records):
        held = threading.Event()
        predict = gate.predict

        def slow_for_members(x, *, samples=None, work=Work.FLAG):
            if work != Work.DETERMINISTIC:
                held.wait(10)
            return predict(x, samples=samples, work=work)

        gate.predict = slow_for_members
        slow = ask(batcher, rows(gate, 1))
        await settle()
        quick = await ask(batcher, rows(gate, 1), work=Work.DETERMINISTIC)
        assert not slow.done()
        held.set()
        await slow
        return quick

    assert run(scenario, gate).samples == 0


def test_a_bad_request_harms_none_of_its_batch(gate):
    good, bad = rows(gate, 2), np.full((1, *gate.input.shape), np.nan, np.float32)

    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, x) for x in (good, good, bad, good)]
        await settle()
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True), records

    answers, records = run(scenario, gate)
    assert isinstance(answers[2], InvalidInput)
    assert "input 0" in str(answers[2])  # its own first row, not the batch's third
    for index in (0, 1, 3):
        same(answers[index], gate.predictor.predict(good))
    assert records[1].failed == 1


def test_cancelled_and_expired_work_is_dropped_before_it_is_computed(gate):
    budget = Budget(1000, 10**9)

    async def scenario(batcher, records):
        gate.open.clear()
        first = ask(batcher, rows(gate, 1))
        left, late, stays = (
            ask(batcher, rows(gate, 7)),
            ask(batcher, rows(gate, 5), timeout=0.05),
            ask(batcher, rows(gate, 3)),
        )
        await settle()
        left.cancel()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
            await late
        gate.open.set()
        await asyncio.gather(first, stays)
        assert left.cancelled()

    run(scenario, gate, budget=budget)
    assert [count for count, _, _ in gate.calls] == [1, 3]
    assert (budget.rows, budget.bytes) == (0, 0)


def test_a_full_queue_refuses_and_says_when_to_come_again(gate):
    budget = Budget(max_rows=10, max_bytes=10**9)

    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 5)) for _ in range(2)]
        await settle()
        with pytest.raises(Overloaded, match="at most 10 rows") as refused:
            await batcher.submit(rows(gate, 1), samples=None, work=Work.FLAG, timeout=None)
        gate.open.set()
        await asyncio.gather(*tasks)
        await batcher.submit(rows(gate, 50), samples=None, work=Work.FLAG, timeout=None)  # alone, it may
        return refused.value.retry_after

    assert run(scenario, gate, budget=budget) >= 1
    assert (budget.rows, budget.bytes) == (0, 0)


def test_bytes_are_bounded_as_well(gate):
    one = rows(gate, 1)

    async def scenario(batcher, records):
        gate.open.clear()
        first = ask(batcher, one)
        await settle()
        with pytest.raises(Overloaded, match="bytes"):
            await batcher.submit(one, samples=None, work=Work.FLAG, timeout=None)
        gate.open.set()
        await first

    run(scenario, gate, budget=Budget(max_rows=100, max_bytes=int(one.nbytes * 1.5)))


def test_what_waits_is_answered_in_the_order_of_its_coming(gate):
    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 1))]
        await settle()
        # The second and third are passed over by the first batch, which is full before it comes to the last two.
        tasks += [ask(batcher, rows(gate, 1), samples=samples) for samples in (None, 4, 5, None, None, 4)]
        await settle()
        gate.open.set()
        await asyncio.gather(*tasks)

    run(scenario, gate, policy=Policy(max_rows=2))
    assert [(count, samples) for count, samples, _ in gate.calls[1:]] == [(2, None), (2, 4), (1, 5), (1, None)]


def test_the_time_to_come_again_is_that_of_the_rows_that_wait(gate):
    budget = Budget(max_rows=1000, max_bytes=10**9)

    async def scenario(batcher, records):
        for count in (5, 2):
            gate.open.clear()
            began = time.monotonic()
            task = ask(batcher, rows(gate, count))
            await asyncio.sleep(0.2)  # by so much a prediction becomes slow enough for whole seconds
            gate.open.set()
            await task
            assert 0.19 < records[-1].compute_seconds < time.monotonic() - began
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 1)), ask(batcher, rows(gate, 999))]
        await settle()
        with pytest.raises(Overloaded) as refused:
            await batcher.submit(rows(gate, 1), samples=None, work=Work.FLAG, timeout=None)
        gate.open.set()
        await asyncio.gather(*tasks)
        return refused.value.retry_after, *(record.compute_seconds / record.rows for record in records[:2])

    retry_after, first, second = run(scenario, gate, budget=budget)
    # An average in which the latest batch weighs a fifth, from nothing.
    assert retry_after == round(1000 * (0.8 * 0.2 * first + 0.2 * second)) > 10


@pytest.mark.parametrize(("seconds", "retry_after"), [(0.0, 1), (0.4, 1), (1.6, 2), (7.2, 7)])
def test_nobody_is_told_to_come_again_at_once(gate, seconds, retry_after):
    budget = Budget(max_rows=1, max_bytes=10**9)
    budget.take(rows(gate, 1), 0.0)
    with pytest.raises(Overloaded) as refused:
        budget.take(rows(gate, 1), seconds)
    assert refused.value.retry_after == retry_after
    assert budget.rows == 1


def test_under_overload_fewer_members_answer_if_the_policy_says_so(gate):
    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 1)), *(ask(batcher, rows(gate, 4)) for _ in range(3))]
        await settle()
        gate.open.set()
        return await asyncio.gather(*tasks)

    policy = Policy(max_rows=4, overload_samples=3)
    answers = run(scenario, gate, policy=policy, budget=Budget(max_rows=16, max_bytes=10**9))
    # 12, 8 and 4 of 16 rows are in the queue when each batch begins: half of them is no overload yet.
    assert [samples for _, samples, _ in gate.calls] == [None, 3, None, None]
    assert answers[1].flagged is None
    assert answers[1].reasons == ["not_calibrated_for_these_samples"] * 4
    assert answers[2].samples == gate.committee.num_samples


@pytest.mark.parametrize(
    ("samples", "work", "answering"),
    [
        (2, Work.FLAG, 2),  # never more than were asked for
        (5, Work.MC, 4),
        ("auto", Work.FLAG, "auto"),  # no more than it takes, already
        (None, Work.DETERMINISTIC, None),  # no members at all
    ],
)
def test_overload_takes_members_from_those_who_ask_for_more(gate, samples, work, answering):
    async def scenario(batcher, records):
        gate.open.clear()
        held = [ask(batcher, rows(gate, 1), work=work)]
        await settle()
        held += [ask(batcher, rows(gate, 7), samples=samples, work=work)]
        await settle()
        gate.open.set()
        await asyncio.gather(*held)

    run(scenario, gate, budget=Budget(10, 10**9), policy=Policy(64, overload_samples=4))
    assert gate.calls[1] == (7, answering, work)


def test_a_delay_gathers_a_batch_until_it_is_full(gate):
    async def scenario(batcher, records):
        await asyncio.gather(*(ask(batcher, rows(gate, 4)) for _ in range(2)))

    run(scenario, gate, policy=Policy(max_rows=8, delay=1000))
    assert [count for count, _, _ in gate.calls] == [8]


def test_a_delay_ends(gate):
    async def scenario(batcher, records):
        await asyncio.gather(ask(batcher, rows(gate, 1)), ask(batcher, rows(gate, 1)))
        return records[0]

    record = run(scenario, gate, policy=Policy(max_rows=8, delay=0.2))
    assert (record.rows, record.requests) == (2, 2)
    assert record.queue_seconds[0] > 0.19


def test_the_delay_of_a_batch_that_left_early_sends_no_other(gate):
    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 1)), ask(batcher, rows(gate, 7))]  # full: it does not wait for the delay
        await settle()
        tasks.append(ask(batcher, rows(gate, 1)))
        await asyncio.sleep(0.2)  # timers of one loop run in order, so the first delay is over
        tasks.append(ask(batcher, rows(gate, 1)))
        await settle()
        gate.open.set()
        await asyncio.gather(*tasks)

    run(scenario, gate, policy=Policy(max_rows=8, delay=0.1))
    assert [count for count, _, _ in gate.calls] == [8, 2]


def test_what_waited_its_delay_behind_a_batch_is_sent_when_that_ends(gate):
    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 8)), ask(batcher, rows(gate, 1))]
        await asyncio.sleep(0.3)
        gate.open.set()
        await tasks[0]
        await asyncio.sleep(0.1)  # less than another delay, so one that began again would still be running
        tasks.append(ask(batcher, rows(gate, 1)))
        await asyncio.gather(*tasks)

    run(scenario, gate, policy=Policy(max_rows=8, delay=0.2))
    assert [count for count, _, _ in gate.calls] == [8, 1, 1]


def test_whoever_counts_may_fail_and_the_queue_goes_on(gate):
    async def main():
        executor = Executor(threads=1, torch_threads=1)
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["exception"]))

        def count(record):
            raise OSError("no space left")

        batcher = Batcher(gate, executor, Budget(100, 10**9), Policy(8), count)
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 1)), ask(batcher, rows(gate, 2), timeout=30), ask(batcher, rows(gate, 8))]
        await settle()
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        await settle()
        executor.close()
        return answers, complaints

    answers, complaints = asyncio.run(main())
    assert [len(answer.label) for answer in answers] == [1, 2, 8]
    assert [str(complaint) for complaint in complaints] == ["no space left"] * 3


def test_work_that_the_end_of_the_service_overtakes_is_refused(gate):
    async def main():
        executor = Executor(threads=1, torch_threads=1)
        batcher = Batcher(gate, executor, Budget(100, 10**9), Policy(8), lambda record: None)
        gate.open.clear()
        running = ask(batcher, rows(gate, 1))
        waiting = ask(batcher, rows(gate, 1), work=Work.DETERMINISTIC)  # the other lane: in the pool's queue
        await settle()
        closing = asyncio.get_running_loop().run_in_executor(None, executor.close)
        await asyncio.sleep(0.05)
        gate.open.set()
        await closing
        return await asyncio.gather(running, waiting, return_exceptions=True)

    running, waiting = asyncio.run(main())
    assert isinstance(running, Prediction)
    assert isinstance(waiting, Stopping)


def test_many_requests_at_once_each_get_their_own_rows(gate):
    questions = [rows(gate, 1 + seed % 4, seed=seed) for seed in range(200)]

    async def scenario(batcher, records):
        return await asyncio.gather(*(ask(batcher, x) for x in questions)), records

    answers, records = run(scenario, gate)
    for x, answer in zip(questions, answers, strict=True):
        same(answer, gate.predictor.predict(x))
    assert sum(record.requests for record in records) == 200
    assert len(records) < 30


def test_requests_for_as_many_members_as_it_takes_are_predicted_together(gate):
    questions = [np.concatenate([rows(gate, 2, seed=seed), rows(gate, 1) * 0 + 8]) for seed in range(3)]

    async def scenario(batcher, records):
        gate.open.clear()
        asked = [None, "auto", None, "auto", "auto"]
        tasks = [ask(batcher, rows(gate, 1)), ask(batcher, questions[0], samples="auto")]
        await settle()
        tasks += [ask(batcher, rows(gate, 1)), *(ask(batcher, x, samples="auto") for x in questions[1:])]
        assert len(tasks) == len(asked)
        await settle()
        gate.open.set()
        return await asyncio.gather(*tasks), records

    answers, records = run(scenario, gate)
    assert gate.calls[1:] == [(9, "auto", Work.FLAG), (1, None, Work.FLAG)]
    early = [answers[1], *answers[3:]]
    for x, answer in zip(questions, early, strict=True):
        expected = gate.predictor.predict(x, samples="auto")
        np.testing.assert_array_equal(answer.samples, expected.samples)
        np.testing.assert_allclose(answer.mc_mean, expected.mc_mean, atol=1e-5)
        np.testing.assert_array_equal(answer.flagged, expected.flagged)
    # Who counts is told what was really computed.
    assert records[1].samples.tolist() == [count for answer in early for count in answer.samples]
    assert records[1].most_samples == max(records[1].samples)
    assert (records[2].samples, records[2].most_samples) == (16, 16)


def test_a_model_without_a_stopping_rule_refuses_each_such_request_and_no_other(predictor):
    gate = Gate(replace(predictor, stopping=None))

    async def scenario(batcher, records):
        gate.open.clear()
        tasks = [ask(batcher, rows(gate, 1)), *(ask(batcher, rows(gate, 1), samples="auto") for _ in range(2))]
        tasks.append(ask(batcher, rows(gate, 1)))
        await settle()
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True), records

    answers, records = run(scenario, gate)
    assert [type(answer) for answer in answers] == [Prediction, InvalidInput, InvalidInput, Prediction]
    assert [(record.failed, record.most_samples) for record in records] == [(0, 16), (2, 0), (0, 16)]

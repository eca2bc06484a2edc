"""Batching: what a full queue refuses, what overload costs, and how long the first of a batch waits for others."""

from __future__ import annotations

import asyncio
import time

import pytest

from dubio.models import Work
from dubio.serving.batching import Budget, Policy
from dubio.serving.errors import Overloaded
from tests.serving.gate import Gate, ask, rows, run, settle


@pytest.fixture
def gate(predictor):
    return Gate(predictor)


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


def test_the_time_to_come_again_is_that_of_the_rows_that_wait(gate):
    budget = Budget(max_rows=1000, max_bytes=10**9)

    async def scenario(batcher, records):
        for count in (5, 2):
            gate.open.clear()
            gate.reached.clear()
            began = time.monotonic()
            task = ask(batcher, rows(gate, count))
            await asyncio.to_thread(gate.reached.wait, 10)
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

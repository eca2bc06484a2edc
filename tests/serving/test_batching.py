"""Batching: who is predicted with whom, who is dropped, and that nobody gets another's rows."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from dubio.models import Prediction, Work
from dubio.models.errors import InvalidInput
from dubio.serving.batching import Batcher, Budget, Policy
from dubio.serving.errors import DeadlineExceeded, Stopping
from dubio.serving.executor import Executor
from tests.serving.gate import Gate, ask, rows, run, same, settle


@pytest.fixture
def gate(predictor):
    return Gate(predictor)


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
        await asyncio.wait([waiting], timeout=5)  # it is refused while the other runs
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

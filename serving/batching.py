"""Batching: requests that wait at the same time are predicted together.

Event-driven: a request that finds its lane idle is dispatched at once, and whatever queues up while a batch runs forms
the next one. Nothing polls. Everything here runs on the event loop but the prediction itself, which a thread or a
process computes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dubio.models import AUTO, Prediction, Samples, Work
from dubio.models.errors import InvalidInput
from dubio.serving.batch_prediction import Answers, join, predict, split
from dubio.serving.compute.remote_predictor import AnyPredictor, RemotePredictor
from dubio.serving.errors import ComputationLost, DeadlineExceeded, Overloaded, Stopping
from dubio.serving.executor import Executor

# What is sent to another process is copied; more than this would hold up the loop for more than a millisecond.
_MOST_BYTES_ON_LOOP = 1 << 20


@dataclass
class Budget:
    """What may wait in all queues together; shared by every batcher of the process.

    Attributes:
        max_rows: Rows that may wait.
        max_bytes: Bytes of inputs that may wait.
        rows: Rows that wait now.
        bytes: Bytes that wait now.
    """

    max_rows: int
    max_bytes: int
    rows: int = 0
    bytes: int = 0

    def take(self, inputs: NDArray[np.float32], seconds: float) -> None:
        """Let inputs wait.

        Args:
            inputs: Rows of a request.
            seconds: How long what waits already will probably take.

        Raises:
            Overloaded: The queues are full.
        """
        rows, size = self.rows + len(inputs), self.bytes + inputs.nbytes
        # A request that is larger than the whole budget may still run when nothing else waits.
        if self.rows and (rows > self.max_rows or size > self.max_bytes):
            raise Overloaded(
                f"Expected at most {self.max_rows} rows and {self.max_bytes} bytes to wait for a prediction, but "
                f"{self.rows} rows and {self.bytes} bytes do; try again in a moment.",
                retry_after=max(1, round(seconds)),
            )
        self.rows, self.bytes = rows, size

    def give_back(self, inputs: NDArray[np.float32]) -> None:
        """Make room: these inputs were computed or dropped."""
        self.rows -= len(inputs)
        self.bytes -= inputs.nbytes


@dataclass(frozen=True)
class Policy:
    """How to batch.

    Attributes:
        max_rows: Rows in one batch, unless a single request is larger.
        delay: Seconds that the first of a batch may wait for others although its lane is idle.
        overload_samples: How many members answer while more than half the budget waits; None for always all. Requests
            that ask for as many as it takes are cheap already, and keep their flags.
    """

    max_rows: int
    delay: float = 0.0
    overload_samples: int | None = None


@dataclass(frozen=True)
class BatchRecord:
    """What one batch was, for whoever counts.

    Attributes:
        rows: Rows in the batch.
        requests: Requests in the batch.
        samples: How many members answered each row; 0 for a deterministic batch. An array where the rows differ.
        queue_seconds: How long each request waited.
        compute_seconds: How long the prediction took.
        failed: How many of the requests it refused.
        contexts: The context of each request, in which its trace is the current one.
    """

    rows: int
    requests: int
    samples: int | NDArray[np.int64]
    queue_seconds: list[float]
    compute_seconds: float
    failed: int
    contexts: list[Context] = field(default_factory=list)

    @property
    def most_samples(self) -> int:
        """How many members answered the row that took the most."""
        return int(np.max(self.samples))


@dataclass(eq=False)
class Job:
    """One request that waits."""

    inputs: NDArray[np.float32]
    samples: Samples
    work: Work
    answer: asyncio.Future[Prediction]
    queued: float = field(default_factory=time.monotonic)
    context: Context = field(default_factory=copy_context)

    def alike(self, other: Job) -> bool:
        """Whether both ask for the same, so that one prediction can answer both."""
        return (self.samples, self.work) == (other.samples, other.work)


@dataclass
class Lane:
    """Jobs of one kind: deterministic ones never wait behind the members."""

    jobs: deque[Job] = field(default_factory=deque)
    batch: list[Job] = field(default_factory=list)  # of which a thread has taken hold, or will
    began: float | None = None  # when it did
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class Batcher:
    """The queue in front of one model version.

    Attributes:
        predictor: The model version.
        executor: Runs predictions.
        budget: What may wait, here and in other queues.
        policy: How to batch.
        listener: Told of every batch.
    """

    predictor: AnyPredictor
    executor: Executor
    budget: Budget
    policy: Policy
    listener: Callable[[BatchRecord], None]

    def __post_init__(self) -> None:
        self._lanes = {False: Lane(), True: Lane()}
        self._seconds_per_row = 0.0

    async def submit(
        self, inputs: NDArray[np.float32], *, samples: Samples, work: Work, timeout: float | None
    ) -> Prediction:
        """Predict, together with whatever else waits. Cancelling drops the work if it has not begun.

        Args:
            inputs: Raw rows, ``[B, *shape]``.
            samples: How many members, None for all, `auto` for as many as it takes.
            work: How much to compute.
            timeout: Seconds until the answer is of no use, None for never.

        Raises:
            Overloaded: The queues are full.
            DeadlineExceeded: The timeout passed.
            InvalidInput: The model refuses these rows.
            Stopping: The service ends before the prediction began.
        """
        self.budget.take(inputs, self.budget.rows * self._seconds_per_row)
        job = Job(inputs, samples, work, asyncio.get_running_loop().create_future())
        lane = self._lanes[work != Work.DETERMINISTIC]
        lane.jobs.append(job)
        if not lane.batch:
            self._arrange(lane)
        if timeout is None:
            return await job.answer
        try:
            async with asyncio.timeout(timeout):
                return await job.answer
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"Expected the answer within {timeout:g} s, but it was not ready; send fewer rows, ask fewer members, "
                "or allow more time."
            ) from error

    @property
    def busy_seconds(self) -> float:
        """How long the batch that began first has been computed so far."""
        now = time.monotonic()
        return max(now - (now if lane.began is None else lane.began) for lane in self._lanes.values())

    def _arrange(self, lane: Lane) -> None:
        """Dispatch now, or when the first job has waited for the policy's delay or enough others have come."""
        wait = self.policy.delay and lane.jobs[0].queued + self.policy.delay - time.monotonic()
        if wait > 0 and sum(len(job.inputs) for job in lane.jobs) < self.policy.max_rows:
            if lane.timer is None:
                lane.timer = asyncio.get_running_loop().call_later(wait, self._dispatch, lane)
            return
        self._dispatch(lane)

    def _dispatch(self, lane: Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        lane.batch = batch = self._next_batch(lane)
        if not batch:
            return
        samples, calls, rows = self._samples(batch[0]), self.executor.calls, [job.inputs for job in batch]
        large = sum(each.nbytes for each in rows) > _MOST_BYTES_ON_LOOP
        if not isinstance(self.predictor, RemotePredictor) or calls is None or large:
            self._submit(lane, samples)
            return

        def done(answer: Prediction | Exception) -> None:
            if isinstance(answer, Prediction):
                self._finish(lane, split(answer, rows))
            elif isinstance(answer, ComputationLost | Stopping) or (
                isinstance(answer, InvalidInput) and len(batch) == 1
            ):
                self._finish(lane, [answer] * len(batch))
            else:  # once more, and in parts if that helps
                self._submit(lane, samples)

        self.predictor.begin(calls, join(rows), samples, batch[0].work, begun=partial(_begin, lane), done=done)

    def _submit(self, lane: Lane, samples: Samples) -> None:
        """Have a thread predict."""
        self.executor.submit(partial(self._compute, lane, samples)).add_done_callback(partial(self._computed, lane))

    def _compute(self, lane: Lane, samples: Samples) -> Answers:
        _begin(lane)
        return predict(self.predictor, [job.inputs for job in lane.batch], samples, lane.batch[0].work)

    def _next_batch(self, lane: Lane) -> list[Job]:
        """The longest-waiting job and those behind it that ask for the same, as far as they fit."""
        batch: list[Job] = []
        rows = 0
        passed_over: list[Job] = []
        while lane.jobs and rows < self.policy.max_rows:
            job = lane.jobs.popleft()
            if job.answer.done():  # its caller left, or its time is up
                self.budget.give_back(job.inputs)
            elif not batch or (job.alike(batch[0]) and rows + len(job.inputs) <= self.policy.max_rows):
                batch.append(job)
                rows += len(job.inputs)
            else:
                passed_over.append(job)
        lane.jobs.extendleft(reversed(passed_over))
        return batch

    def _samples(self, first: Job) -> Samples:
        """How many members answer a batch: fewer than asked while the queues are long, if the policy says so."""
        fewer = self.policy.overload_samples
        if fewer is None or first.samples == AUTO or first.work == Work.DETERMINISTIC:
            return first.samples
        if 2 * self.budget.rows <= self.budget.max_rows:
            return first.samples
        return min(fewer, first.samples or self.predictor.committee.num_samples)

    def _computed(self, lane: Lane, done: asyncio.Future[Answers]) -> None:
        """A thread is done, or never began."""
        answers: Answers = [Stopping("The service is stopping; ask another one.")] * len(lane.batch)
        if not done.cancelled():
            error = done.exception()
            answers = [error] * len(lane.batch) if isinstance(error, Exception) else done.result()
        self._finish(lane, answers)

    def _finish(self, lane: Lane, answers: Answers) -> None:
        now = time.monotonic()
        batch, began = lane.batch, now if lane.began is None else lane.began
        lane.batch, lane.began = [], None
        seconds = now - began
        rows = sum(len(job.inputs) for job in batch)
        self._seconds_per_row = 0.8 * self._seconds_per_row + 0.2 * seconds / rows
        for job in batch:
            self.budget.give_back(job.inputs)
        for answer in answers:
            if isinstance(answer, ComputationLost):
                self.executor.failure = answer.why
        for job, answer in zip(batch, answers, strict=True):
            if job.answer.done():
                continue
            if isinstance(answer, Prediction):
                job.answer.set_result(answer)
            else:
                job.answer.set_exception(answer)
        if lane.jobs:
            self._arrange(lane)
        self.listener(
            BatchRecord(
                rows=rows,
                requests=len(batch),
                samples=_members(answers),
                queue_seconds=[began - job.queued for job in batch],
                compute_seconds=seconds,
                failed=sum(isinstance(answer, Exception) for answer in answers),
                contexts=[job.context for job in batch],
            )
        )


def _members(answers: Answers) -> int | NDArray[np.int64]:
    """How many members answered each row of a batch."""
    counts = [answer.samples for answer in answers if isinstance(answer, Prediction)]
    arrays = [samples for samples in counts if not isinstance(samples, int)]
    if arrays:
        return np.concatenate(arrays)
    return next((samples for samples in counts if isinstance(samples, int)), 0)


def _begin(lane: Lane) -> None:
    lane.began = time.monotonic()

"""A shadow: takes copies of answered requests, has its process answer them too, and compares."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubio.models import Prediction
from dubio.serving.errors import ShadowEnded, UnusableFolder
from dubio.serving.repository.registry import ServedModel
from dubio.serving.repository.source import ModelSource
from dubio.serving.shadow.comparison import Comparison, Pair, Rows
from dubio.serving.shadow.cpu_budget import CPUBudget
from dubio.serving.shadow.process import Answer, Ready, ShadowProcess
from dubio.serving.states import States
from dubio.serving.store.drawn import Drawn
from dubio.serving.telemetry.metrics import Metrics

_log = logging.getLogger("dubio")

_SECONDS = 1.0
_NEXT_TRY_SECONDS = 0.1
# What may wait for the shadow. A larger request may, alone.
_MOST_ROWS = 64
_MOST_BYTES = 64 * 2**20
_PATIENCE = 5  # times the seconds of a request: others go first
_MOST_KEPT = 10_000  # requests, while the folder cannot be written to
KeepLabels = Callable[[Pair, Drawn, Sequence[str], Sequence[str | None]], None]
"""Told what the version that answered and the shadow (None if it refused) said about all rows of a request."""

# Two versions may be normalised differently; all else decides which numbers an input is read as.
_OWN = frozenset({"mean", "std", "low", "high"})


class Standing(StrEnum):
    """How a shadow stands."""

    LOADING = "loading"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Terms:
    """What a shadow may do, and what is asked of it.

    Attributes:
        rate: Processor seconds a second.
        margin: How much worse it may be; see `Comparison`.
        epsilon: How likely a worse one may be taken for one that is not.
        load_seconds: By the clock.
        seconds: That it may take for a request, by the clock.
    """

    rate: float
    margin: float
    epsilon: float
    load_seconds: float
    seconds: float


@dataclass(frozen=True, eq=False)
class _Job:
    """A request that was answered."""

    inputs: NDArray[np.float32]
    labels: list[str]
    flagged: list[bool]
    seconds: float
    drawn: Drawn | None


class Shadow:
    """Runs in a thread and a process of its own, from its making until it is closed or fails.

    Args:
        live: The version that answers.
        source: What is loaded as its shadow.
        loader: How: see `Loader`.
        terms: What it may do.
        states: Where the comparison is kept.
        metrics: Count its rows.
        keep_labels: Told of requests that the store keeps rows of, if there is one.

    Attributes:
        stamp: Of its files.
        pair: Who is compared; None until the shadow is loaded.
        standing: How it stands.
        reason: Why it ended; empty until it does.
    """

    def __init__(
        self,
        live: ServedModel,
        source: ModelSource,
        loader: Mapping[str, Any],
        terms: Terms,
        states: States,
        metrics: Metrics,
        keep_labels: KeepLabels | None = None,
    ) -> None:
        self.live, self.source, self.stamp = live, source, source.stamp()
        self.standing, self.reason = Standing.LOADING, ""
        self._loader, self._terms, self._states, self._metrics = dict(loader), terms, states, metrics
        self._keep_labels = keep_labels
        self._jobs: deque[_Job] = deque()
        self._rows = self._bytes = 0  # of what waits
        queue = threading.Lock()
        self._new = threading.Condition(queue)
        self._end = threading.Condition(queue)  # whoever pauses is not woken by what is new
        self._stopping = False
        self.pair: Pair | None = None
        self._compared: list[Rows] = []
        self._lock = threading.Lock()
        self._failing = False
        self._process: ShadowProcess | None = None
        self._thread = threading.Thread(target=self._run, name="dubio-shadow", daemon=True)
        self._thread.start()

    def offer(
        self, inputs: NDArray[np.float32], prediction: Prediction, seconds: float, drawn: Drawn | None = None
    ) -> None:
        """Take a request that was answered; or skip it, if too much waits already."""
        if self.standing is not Standing.RUNNING:
            return
        rows, size = len(inputs), inputs.nbytes
        with self._new:
            if self.standing is not Standing.RUNNING:  # now nobody would take it
                return
            if self._rows and (self._rows + rows > _MOST_ROWS or self._bytes + size > _MOST_BYTES):
                self._metrics.count_shadow(*self.source.key, skipped=rows)
                return
            flags = prediction.flags
            flagged = [] if flags is None or flags.flagged is None else flags.flagged.tolist()
            classes = self.live.facts.classes
            labels = [classes[each] for each in prediction.label.tolist()]
            self._jobs.append(_Job(inputs, labels, flagged, seconds, drawn))
            self._rows += rows
            self._bytes += size
            self._new.notify()

    def compare(self) -> Comparison | None:
        """What is known so far; None until the shadow is loaded.

        Raises:
            UnusableFolder: It cannot be read.
        """
        if self.pair is None:
            return None
        self._keep()
        return self._states.read(self.pair)

    def close(self) -> None:
        """End it."""
        with self._new:
            self._stopping = True
            self._new.notify()
            self._end.notify()
        while self._thread.is_alive():  # it may be starting its process just now
            if self._process is not None:
                self._process.process.kill()
            self._thread.join(_NEXT_TRY_SECONDS)

    def _run(self) -> None:
        name, version = self.source.key
        try:
            self._serve()
        except ShadowEnded as error:
            self.reason = str(error)
        except Exception as error:  # whatever it is, what serves goes on
            _log.exception("A shadow failed.")
            self.reason = type(error).__name__
        finally:
            self._mark_ended()
            if self._process is not None:
                self._process.close()
            self._keep()
        if not self._stopping:
            _log.warning("The shadow of model %s, version %s, ended: %s.", name, version, self.reason.rstrip("."))

    def _serve(self) -> None:
        began = time.monotonic()
        self._process = process = ShadowProcess(
            {
                "name": self.source.name,
                "version": self.source.version,
                "paths": [os.path.abspath(path) for path in self.source.paths],
                "root": os.path.abspath(self.source.root or "."),
                "loader": self._loader,
            }
        )
        self.pair = pair = self._match(process.await_ready(self._terms.load_seconds))
        self.standing = Standing.RUNNING
        _log.info(
            "Version %s of model %s is a shadow of version %s, loaded in %.1f s.",
            self.source.version,
            self.source.name,
            self.live.version,
            time.monotonic() - began,
        )
        self._answer(process, pair)

    def _answer(self, process: ShadowProcess, pair: Pair) -> None:
        """Answer what comes, within the budget, and keep what is known once a second."""
        budget: CPUBudget | None = None
        spent, kept = 0.0, time.monotonic()
        while not self._stopping:
            if jobs := self._next():
                answer = self._ask(process, pair, jobs)
                if budget is None:  # what loading took, and the first request with it, is not on the budget
                    budget = CPUBudget(self._terms.rate, time.monotonic())
                    spent = answer.cpu_seconds
                budget.spend(answer.cpu_seconds - spent, time.monotonic())
                spent = answer.cpu_seconds
                self._pause(budget.wait(time.monotonic()))
            if time.monotonic() - kept >= _SECONDS:
                self._keep()
                kept = time.monotonic()

    def _ask(self, process: ShadowProcess, pair: Pair, jobs: Sequence[_Job]) -> Answer:
        """Have it answer requests together, or each by itself where it refuses one of them; the last answer."""
        answer = process.ask(np.concatenate([job.inputs for job in jobs]), _PATIENCE * self._terms.seconds)
        if answer.error is not None and len(jobs) > 1:
            for job in jobs:
                answer = self._ask(process, pair, [job])
            return answer
        first = 0
        for job in jobs:
            end = first + len(job.inputs)
            own = {"labels": answer.labels[first:end], "flagged": answer.flagged[first:end]}
            self._note(pair, job, answer.model_copy(update=own))
            first = end
        return answer

    def _note(self, pair: Pair, job: _Job, answer: Answer) -> None:
        # A row that the version which answers takes and this one refuses is changed, too.
        labels: Sequence[str | None] = answer.labels if answer.error is None else [None] * len(job.labels)
        if job.drawn is not None and self._keep_labels is not None:
            self._keep_labels(pair, job.drawn, job.labels, labels)
        disagree = [one != other for one, other in zip(job.labels, labels, strict=True)]
        self._metrics.count_shadow(*self.source.key, rows=len(disagree), disagreements=sum(disagree))
        with self._lock:
            self._compared.append(Rows(disagree, job.flagged, answer.flagged, job.seconds, answer.seconds))
            del self._compared[:-_MOST_KEPT]

    def _match(self, ready: Ready) -> Pair:
        """Who is compared.

        Raises:
            ShadowEnded: They do not take the same input.
        """
        ours, theirs = _reading(self.live.facts.input.model_dump(mode="json")), _reading(ready.input)
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise ShadowEnded(
                    f"its `input.{name}` is another one than that of version {self.live.version}, so it would read "
                    "inputs as other numbers"
                )
        live = (self.live.version, self.live.facts.fingerprint)
        shadow = (self.source.version, ready.fingerprint)
        return Pair(self.source.name, live, shadow, self._terms.margin, self._terms.epsilon)

    def _next(self) -> list[_Job]:
        """The requests that wait, whose rows cost less together; none where none comes, or the shadow is to end."""
        with self._new:
            if not self._jobs and not self._stopping:
                self._new.wait(_SECONDS)
            if self._stopping:
                return []
            jobs, self._jobs = list(self._jobs), deque()
            self._rows = self._bytes = 0
            return jobs

    def _mark_ended(self) -> None:
        with self._new:
            self.standing = Standing.ENDED
            skipped, self._jobs, self._rows, self._bytes = self._rows, deque(), 0, 0
        if skipped and not self._stopping:  # nobody counts for one that was closed
            self._metrics.count_shadow(*self.source.key, skipped=skipped)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._end:
            while not self._stopping and (left := until - time.monotonic()) > 0:
                self._end.wait(left)

    def _keep(self) -> None:
        """Keep what was compared; where that cannot be, it waits, and the log says so once."""
        with self._lock:
            if self.pair is None or not self._compared:
                return
            compared = self._compared
            try:
                self._states.change(self.pair, lambda known: reduce(Comparison.observe, compared, known))
            except UnusableFolder as error:
                if not self._failing:
                    _log.error("%s", error)
                self._failing = True
            else:
                self._failing, self._compared = False, []


def _reading(described: Mapping[str, Any]) -> dict[str, Any]:
    """What of an input spec decides which numbers an input is read as."""
    kept = {name: value for name, value in described.items() if name not in _OWN}
    if kept.get("columns"):
        kept["columns"] = [
            {
                name: value
                for name, value in column.items()
                if name not in _OWN and (name != "fill" or column.get("missing"))
            }
            for column in kept["columns"]
        ]
    return kept

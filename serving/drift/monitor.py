"""Watches what is served for drift, behind the answers: a request only leaves its flags and p-values here."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from functools import partial
from weakref import WeakKeyDictionary

from dubio.models import Prediction
from dubio.serving.drift.subject import Subject
from dubio.serving.drift.watch import Rows, Watch, WatchSlot
from dubio.serving.errors import UnusableFolder
from dubio.serving.repository.registry import ServedModel
from dubio.serving.states import States

_log = logging.getLogger("dubio")

MOST_WAITING = 10_000
"""Requests whose rows wait to be counted; only where the evidence cannot be kept so many come together."""
_SECONDS = 1.0


class DriftMonitor:
    """Feeds the rows of every version with a promise to its evidence, once a second. Thread-safe.

    Args:
        states: Where the evidence is kept.
        epsilon: How likely a false alarm may be, ever; see `Subject.false_alarm`.
    """

    def __init__(self, states: States, epsilon: float) -> None:
        self._states, self._epsilon = states, epsilon
        # A version that was swapped out goes with the last request that uses it.
        self._subjects: WeakKeyDictionary[ServedModel, Subject | None] = WeakKeyDictionary()
        self._waiting: deque[tuple[Subject, Rows]] = deque(maxlen=MOST_WAITING)
        self._lock = threading.Lock()
        self._failing = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to count what was left here."""
        self._thread = threading.Thread(target=self._run, name="dubio-drift", daemon=True)
        self._thread.start()

    def observe(self, model: ServedModel, prediction: Prediction) -> None:
        """Rows were answered; those without a promise are none of ours."""
        flags = prediction.flags
        if flags is None or flags.p_value is None or flags.flagged is None:
            return
        if (subject := self.subject(model)) is not None:
            self._waiting.append((subject, Rows(flags.p_value, flags.flagged)))

    def subject(self, model: ServedModel) -> Subject | None:
        """What is watched in a model; None where it makes no promise."""
        try:
            return self._subjects[model]
        except KeyError:
            subject = self._subjects[model] = Subject.of(model)
            return subject

    def flush(self) -> None:
        """Count what waits here; where the evidence cannot be kept it goes on waiting, and the log says so once."""
        with self._lock:
            groups: dict[Subject, list[Rows]] = {}
            while self._waiting:
                subject, rows = self._waiting.popleft()
                groups.setdefault(subject, []).append(rows)
            for subject, several in groups.items():
                try:
                    self._count(subject, several)
                except UnusableFolder as error:
                    self._waiting.extendleft((subject, rows) for rows in reversed(several))
                    if not self._failing:
                        _log.error("%s Up to %d requests wait to be counted.", error, MOST_WAITING)
                    self._failing = True
                else:
                    self._failing = False

    def _count(self, subject: Subject, several: list[Rows]) -> None:
        before, after = self._states.change(WatchSlot(subject, self._epsilon), partial(_observe, several))
        if before.alarm is None and after.alarm is not None:
            _log.warning(
                "Drift: the rows of model %s version %s are not like its calibration rows any more (e-value %.3g after "
                "%d rows, of which %d were flagged).",
                subject.model,
                subject.version,
                after.e_value,
                after.rows,
                after.flagged,
            )

    def read(self, subject: Subject) -> Watch:
        """The evidence, without what waits here or in other workers.

        Raises:
            UnusableFolder: It cannot be read.
        """
        return self._states.read(WatchSlot(subject, self._epsilon))

    def reset(self, subject: Subject) -> Watch:
        """Begin anew.

        Raises:
            UnusableFolder: It cannot be kept.
        """
        self.flush()
        slot = WatchSlot(subject, self._epsilon)
        before, after = self._states.change(slot, lambda _: slot.begin())
        _log.warning(
            "Drift of model %s version %s is watched anew by request of an administrator, after %d rows%s.",
            subject.model,
            subject.version,
            before.rows,
            "" if before.alarm is None else " and an alarm",
        )
        return after

    def close(self) -> None:
        """Count what waits, and stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._flush_safely()

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._flush_safely()

    def _flush_safely(self) -> None:
        try:
            self.flush()
        except Exception:  # whatever it is, requests are answered, and the next rows may be counted
            _log.exception("Cannot watch for drift; some rows are not counted.")


def _observe(several: list[Rows], watch: Watch) -> Watch:
    return watch.observe(several, time.time())

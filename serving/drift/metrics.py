"""Drift as Prometheus sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dubio.serving.drift.monitor import DriftMonitor
from dubio.serving.errors import UnusableFolder
from dubio.serving.repository.registry import ServedModel

_log = logging.getLogger("dubio")

E_VALUE = "dubio_drift_e_value"
ALARM = "dubio_drift_alarm"
_LABELS = ("model", "version")


class DriftCollector(Collector):
    """The evidence of every loaded version with a promise: that of the service, whichever worker is asked.

    Args:
        monitor: That watches.
        models: Gives those that are loaded.
    """

    def __init__(self, monitor: DriftMonitor, models: Callable[[], Iterable[ServedModel]]) -> None:
        self._monitor = monitor
        self._models = models
        self._told = False

    def collect(self) -> Iterable[Metric]:
        """Two gauges a version."""
        e_value = GaugeMetricFamily(E_VALUE, "Evidence that the rows drift; 1 says nothing.", labels=_LABELS)
        alarm = GaugeMetricFamily(ALARM, "Whether the alarm of drift was raised.", labels=_LABELS)
        for model in self._models():
            if (subject := self._monitor.subject(model)) is None:
                continue
            try:
                watch = self._monitor.read(subject)
            except UnusableFolder as error:  # other metrics are shown all the same
                if not self._told:
                    self._told = True
                    _log.error("%s", error)
                continue
            labels = (model.name, model.version)
            e_value.add_metric(labels, watch.e_value)
            alarm.add_metric(labels, float(watch.alarm is not None))
        return e_value, alarm

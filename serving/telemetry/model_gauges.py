"""What holds of each model when a scrape comes: what it promises, and whether it may be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dubio.serving.errors import NotReady
from dubio.serving.repository.registry import ServedModel
from dubio.serving.telemetry.gauges import Gauge

READY = Gauge("dubio_model_ready", "1 where a model may be asked, 0 where it should be but may not.")
PROMISE = Gauge("dubio_promised_flag_rate", "Share of familiar instances that a model flags at most.")

MODEL_GAUGES = (READY, PROMISE)
_LABELS = ("model", "version")


class ModelGauges(Collector):
    """Asks the models of this process; workers serve the same.

    Args:
        models: Gives those that are loaded.
        wanted: Gives name and version of those that are to be served.
        require_progress: Raises `NotReady` where a model takes too long, or cannot go on.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[ServedModel]],
        wanted: Callable[[], Iterable[tuple[str, str]]],
        require_progress: Callable[[ServedModel], None],
    ) -> None:
        self._models = models
        self._wanted = wanted
        self._require_progress = require_progress

    def collect(self) -> Iterable[Metric]:
        """A line a version; one that was unloaded by request has none."""
        ready = GaugeMetricFamily(READY.name, READY.help, labels=_LABELS)
        promise = GaugeMetricFamily(PROMISE.name, PROMISE.help, labels=_LABELS)
        served = {(model.name, model.version): model for model in self._models()}
        for labels in dict.fromkeys([*served, *self._wanted()]):
            ready.add_metric(labels, float(labels in served and self._goes_on(served[labels])))
        for labels, model in served.items():
            if model.facts.promise is not None:
                promise.add_metric(labels, model.facts.promise.alpha)
        return ready, promise

    def _goes_on(self, model: ServedModel) -> bool:
        try:
            self._require_progress(model)
        except NotReady:
            return False
        return True

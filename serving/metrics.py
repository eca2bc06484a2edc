"""What the service counts, in a registry of its own. Labels are bounded: only loaded models become one."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

from models import Prediction

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# In nats. A committee over C classes can disagree by ln C at most: 2.3 for ten classes.
_NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)


class Metrics:
    """Counters and histograms for Prometheus."""

    def __init__(self) -> None:
        """Metrics start at zero in a registry that nothing else writes to."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "dubio_requests", "HTTP requests answered.", ("route", "model", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "dubio_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("route", "model"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Counter("dubio_rows", "Instances predicted.", ("model",), registry=self.registry)
        self._flagged = Counter(
            "dubio_flagged",
            "Instances flagged as strangers, by reason.",
            ("model", "reason"),
            registry=self.registry,
        )
        self._epistemic = Histogram(
            "dubio_epistemic_nats",
            "Mutual information between answer and member, per instance.",
            ("model",),
            buckets=_NATS,
            registry=self.registry,
        )

    def count_request(self, *, route: str, model: str, status: int, seconds: float) -> None:
        """Count one answered request. `model` is a loaded model's name or empty."""
        self._requests.labels(route, model, str(status)).inc()
        self._seconds.labels(route, model).observe(seconds)

    def count_prediction(self, model: str, prediction: Prediction) -> None:
        """Count the rows of one prediction, how much the members disagreed, and who was flagged."""
        self._rows.labels(model).inc(len(prediction.label))
        epistemic = self._epistemic.labels(model)
        for nats in prediction.mutual_information.tolist():
            epistemic.observe(nats)
        if prediction.flagged is None:
            return
        for row in np.flatnonzero(prediction.flagged):
            self._flagged.labels(model, str(prediction.reasons[row])).inc()

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)

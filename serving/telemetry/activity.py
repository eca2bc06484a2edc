"""What one version of a model did since the service was started, by all workers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np

from dubio.serving.telemetry import definitions
from dubio.serving.telemetry.mmap_store import Blocks


@dataclass(frozen=True)
class Activity:
    """Numbers that only ever grow: two looks make a rate.

    Attributes:
        requests: Answered predict requests, by status.
        seconds: The same by the time that they took: one count for each of `bounds`, and one for what took longer.
        rows: Instances predicted.
        judged: Of these, with a p-value, so that they could be flagged.
        flagged: Of these, flagged, by reason.
    """

    requests: dict[str, int]
    seconds: list[int]
    rows: int
    judged: int
    flagged: dict[str, int]

    bounds = definitions.REQUEST_SECONDS.bounds

    @classmethod
    def of(cls, model: str, version: str, totals: Blocks, routes: Collection[str]) -> Self:
        """Read it from all that was counted.

        Args:
            model: Name of the model.
            version: Of the model.
            totals: As `Metrics.totals` gives them.
            routes: The patterns of those that predict.
        """
        requests, flagged = Counter[str](), Counter[str]()
        seconds = np.zeros(len(cls.bounds) + 1)
        for (metric, labels), numbers in totals.items():
            if metric == definitions.REQUESTS.name and labels[0] in routes and labels[1:3] == (model, version):
                requests[labels[3]] += int(numbers[0])
            elif metric == definitions.REQUEST_SECONDS.name and labels[0] in routes and labels[1:] == (model, version):
                seconds += numbers[:-1]
            elif metric == definitions.FLAGGED.name and labels[:2] == (model, version):
                flagged[labels[2]] += int(numbers[0])
        rows, p_values = (totals.get((family.name, (model, version))) for family in _ROWS)
        return cls(
            requests=dict(requests),
            seconds=[int(count) for count in seconds],
            rows=0 if rows is None else int(rows[0]),
            judged=0 if p_values is None else int(p_values[:-1].sum()),
            flagged=dict(flagged),
        )


_ROWS = (definitions.ROWS, definitions.P_VALUE)

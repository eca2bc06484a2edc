"""Series that are shown before anything was counted: a rate needs a first value, or it misses what comes first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from dubio.models.prediction import OUT_OF_RANGE
from dubio.serving.repository.registry import ServedModel
from dubio.serving.telemetry import definitions
from dubio.serving.telemetry.definitions import UNMATCHED, Family, ProtocolReason
from dubio.serving.telemetry.mmap_store import Labels
from dubio.uncertainty.detection.scores import UNCERTAIN, UNFAMILIAR

_NO_MODEL = ("", "")


@dataclass(frozen=True)
class RouteAnswers:
    """What a route may answer.

    Attributes:
        route: Its pattern.
        statuses: Of its answers.
        predicts: Whether it asks a model.
    """

    route: str
    statuses: Collection[str]
    predicts: bool


@dataclass(frozen=True)
class ExpectedSeries:
    """The series that there may be, with their labels, as far as they are known.

    A share of two of them, such as of flags among p-values, is right from the start only if both are there by then.

    Attributes:
        models: Gives those that are loaded.
        answers: Of the routes.
        reasons: Why a request gets an error.
        shadows: Gives name and version of those that run.
    """

    models: Callable[[], Iterable[ServedModel]]
    answers: Collection[RouteAnswers]
    reasons: Collection[str]
    shadows: Callable[[], Iterable[tuple[str, str]]] = tuple

    def __iter__(self) -> Iterator[tuple[Family, Labels]]:
        """Go through them; those of a model are there from when it is loaded."""
        for family in (definitions.LOST_LINES, definitions.STORE_WRITTEN, definitions.STORE_DROPPED):
            yield family, ()
        for refusal in ProtocolReason:
            yield definitions.REFUSED, (*_NO_MODEL, refusal)
        models = [(model.name, model.version) for model in self.models()]
        for labels in (_NO_MODEL, *models):
            for reason in self.reasons:
                yield definitions.REFUSED, (*labels, reason)
        for answers in (RouteAnswers(UNMATCHED, ["404"], predicts=False), *self.answers):
            for labels in (_NO_MODEL, *(models if answers.predicts else ())):
                for status in answers.statuses:
                    yield definitions.REQUESTS, (answers.route, *labels, status)
            for labels in models if answers.predicts else ():
                yield definitions.REQUEST_SECONDS, (answers.route, *labels)
        for labels in models:
            for family in definitions.OF_A_MODEL:
                yield family, labels
            for reason in (UNFAMILIAR, UNCERTAIN, OUT_OF_RANGE):
                yield definitions.FLAGGED, (*labels, reason)
        for labels in self.shadows():
            for family in (definitions.SHADOW_ROWS, definitions.SHADOW_DISAGREEMENTS, definitions.SHADOW_SKIPPED_ROWS):
                yield family, labels

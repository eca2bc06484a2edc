"""How good a model's answers were, by what reviewers and feedback say about those that are stored.

What is said about few of the rows tells of all of them only if it does not depend on whether the answer was right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from numpy.typing import NDArray

from dubio.serving.store.tables import IS_JUDGED, TRUTH, Kept, State, answers, signatures
from dubio.uncertainty.detection.interval import clopper_pearson

MOST_ROWS = 20_000
"""The newest that count, of a version."""
CONFIDENCE = 0.95
BINS = 15
_RESAMPLES = 200


@dataclass(frozen=True)
class Verdicts:
    """Stored rows of one version about which something was said.

    Attributes:
        correct: Whether the deterministic label was the true one; false where there is none.
        mc_correct: The same of the committee's label.
        confidence: Of the committee's label; of the deterministic one where no member was asked.
        flagged: Whether the row was flagged.
        ood: Whether it was not for the model, or of a class that it does not know.
        covered: Whether the label set held the true class; NaN where there is no set.
    """

    correct: NDArray[np.bool_]
    mc_correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    ood: NDArray[np.bool_]
    covered: NDArray[np.float64]


def measure(connection: sa.Connection, model: str, versions: Sequence[str]) -> list[dict[str, Any]]:
    """The quality of each version, as `dubio.serving.v1.feedback_schema.VersionQuality` has it."""
    return [{"version": version, **_measure(connection, model, version)} for version in versions]


def stored_versions(connection: sa.Connection, model: str) -> list[str]:
    """Versions of which something is stored, the newest answers first."""
    query = sa.select(answers.c.version).where(answers.c.model == model).group_by(answers.c.version)
    return list(connection.execute(query.order_by(sa.func.max(answers.c.id).desc())).scalars())


def _measure(connection: sa.Connection, model: str, version: str) -> dict[str, Any]:
    verdicts = _read(connection, model, version)
    familiar = ~verdicts.flagged
    told = familiar & ~verdicts.ood
    covered = verdicts.covered[told & ~np.isnan(verdicts.covered)]
    answered = {
        "flagged": share(verdicts.mc_correct[verdicts.flagged]),
        "not_flagged": share(verdicts.mc_correct[familiar]),
    }
    return {
        "rows": len(verdicts.flagged),
        "accuracy": {**answered, "all": _overall(verdicts, _flagged_rate(connection, model, version))},
        "deterministic_accuracy": {
            "flagged": share(verdicts.correct[verdicts.flagged]),
            "not_flagged": share(verdicts.correct[familiar]),
        },
        "calibration_error": calibration_error(verdicts.confidence[familiar], verdicts.mc_correct[familiar]),
        "label_set_coverage": share(covered.astype(np.bool_)),
        "flag_precision": share(verdicts.ood[verdicts.flagged] | ~verdicts.mc_correct[verdicts.flagged]),
        "ood_among_flagged": share(verdicts.ood[verdicts.flagged]),
    }


def share(truth: NDArray[np.bool_], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """A share, of how many rows, with its interval after Clopper and Pearson; null where there are no rows."""
    rows, count = len(truth), int(truth.sum())
    if not rows:
        return {"value": None, "low": None, "high": None, "rows": 0}
    low, high = clopper_pearson(count, rows, confidence)
    return {"value": count / rows, "low": low, "high": high, "rows": rows}


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> dict[str, Any]:
    """The expected calibration error over 15 bins of equal width, with its interval over resampled rows."""
    rows = len(correct)
    if not rows:
        return {"value": None, "low": None, "high": None, "rows": 0}
    draw = np.random.default_rng(0)
    resampled = []
    for _ in range(_RESAMPLES):
        chosen = draw.integers(0, rows, rows)
        resampled.append(_ece(confidence[chosen], correct[chosen]))
    value, tail = _ece(confidence, correct), (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]).tolist()
    return {"value": value, "low": min(low, value), "high": max(high, value), "rows": rows}


def _ece(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(correct))


def _overall(verdicts: Verdicts, flagged_rate: float | None) -> dict[str, Any]:
    """Accuracy over flagged and other rows together, as often as they occur.

    Both intervals hold with half of the error, so that what they imply holds with all of it.
    """
    half = 1 - (1 - CONFIDENCE) / 2
    flagged = share(verdicts.mc_correct[verdicts.flagged], half)
    others = share(verdicts.mc_correct[~verdicts.flagged], half)
    rows = len(verdicts.flagged)
    weights = [] if flagged_rate is None else [(flagged, flagged_rate), (others, 1 - flagged_rate)]
    used = [(each, weight) for each, weight in weights if weight > 0]
    if not used or any(each["value"] is None for each, _ in used):
        return {"value": None, "low": None, "high": None, "rows": rows}
    mean: Mapping[str, float] = {
        key: sum(each[key] * weight for each, weight in used) for key in ("value", "low", "high")
    }
    return {**mean, "rows": rows}


def _flagged_rate(connection: sa.Connection, model: str, version: str) -> float | None:
    """Share of flagged rows among all that were answered, by what was sampled of the others; None if nothing was."""
    here = (answers.c.model == model) & (answers.c.version == version)
    query = sa.select(answers.c.kept, sa.func.sum(1 / answers.c.share)).where(here).group_by(answers.c.kept)
    rows = {kept: float(total) for kept, total in connection.execute(query).all()}
    flagged, others = rows.get(Kept.FLAGGED, 0.0), rows.get(Kept.SAMPLED, 0.0)
    return flagged / (flagged + others) if others else None


def _read(connection: sa.Connection, model: str, version: str) -> Verdicts:
    is_other = answers.c.state == State.NOT_FOR_US.value
    truth = sa.case((is_other, sa.null()), else_=TRUTH)
    here = (answers.c.model == model) & (answers.c.version == version)
    query = (
        sa.select(
            truth.label("truth"),
            answers.c.label,
            answers.c.mc_label,
            answers.c.probability,
            answers.c.mc_probability,
            answers.c.flagged,
            answers.c.arrays,
            answers.c.signature,
        )
        .where(here, IS_JUDGED)
        .order_by(answers.c.id.desc())
        .limit(MOST_ROWS)
    )
    rows = connection.execute(query).mappings().all()
    known = _classes(connection, {row["signature"] for row in rows})
    return Verdicts(
        correct=np.array([row["label"] == row["truth"] for row in rows], np.bool_),
        mc_correct=np.array([(row["mc_label"] or row["label"]) == row["truth"] for row in rows], np.bool_),
        confidence=np.array(
            [row["probability"] if row["mc_probability"] is None else row["mc_probability"] for row in rows], np.float64
        ),
        flagged=np.array([bool(row["flagged"]) for row in rows], np.bool_),
        ood=np.array([row["truth"] not in known[row["signature"]] for row in rows], np.bool_),
        covered=np.array([_covered(row) for row in rows], np.float64),
    )


def _covered(row: sa.RowMapping) -> float:
    held = orjson.loads(row["arrays"])["label_set"]
    return float("nan") if held is None else float(row["truth"] in held)


def _classes(connection: sa.Connection, digests: set[str]) -> dict[str, frozenset[str]]:
    query = sa.select(signatures.c.digest, signatures.c.content).where(signatures.c.digest.in_(digests))
    return {digest: frozenset(orjson.loads(content)["classes"]) for digest, content in connection.execute(query).all()}

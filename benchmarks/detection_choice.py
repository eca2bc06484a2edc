"""The choice of the default composites, as docs/concepts.md lays it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection_figures import auroc, scoring_ms
from rich.progress import track

from dubio.uncertainty import Calibration
from dubio.uncertainty.detection.ecdf import composite
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.errors import UncertaintyError

LEAST_GAIN = 0.002
MOST_SCORES = 3
LARGEST_COST = 0.15
# The one is refused for many classes of many features, the other takes K values only, so that inputs tie.
UNSUITED = ("ddu", "variation_ratio")
BACKSTOPS = ("block_mahalanobis", "input_mahalanobis")


@dataclass(frozen=True)
class Candidate:
    """Ranks of every score of one trained network, so that any composite is a sum.

    Attributes:
        alpha: Promised.
        backstop: Of the default composite.
        strangers: Names of the pairs.
        ranks: By score, and by calibration, test or strangers.
        cost: Of each score, as a share of the MC answer's time.
        refused: Scores that could not be fitted.
    """

    alpha: float
    backstop: list[str]
    strangers: list[str]
    ranks: dict[str, dict[str, torch.Tensor]]
    cost: dict[str, float]
    refused: list[str]

    @classmethod
    def of(cls, trained: Any) -> Candidate:
        """Fit and rank every score."""
        rows = {"calibration": trained.splits.calibration, "test": trained.splits.test, **trained.strangers}
        ranks: dict[str, dict[str, torch.Tensor]] = {}
        cost = {}
        for name in SCORES:
            try:
                detector = trained.fit([name])
            except UncertaintyError:
                continue
            ranks[name] = {each: detector.rank(outputs)[0] for each, outputs in rows.items()}
            cost[name] = scoring_ms(detector, trained.splits.test) / trained.mc_ms
        backstop = [name for name in trained.default if name in BACKSTOPS]
        refused = [name for name in SCORES if name not in ranks]
        return cls(trained.task.alpha, backstop, list(trained.strangers), ranks, cost, refused)

    def merit(self, names: Sequence[str]) -> float:
        """The mean, over pairs, of (AUROC + share flagged) / 2."""

        def score(rows: str) -> torch.Tensor:
            return composite(torch.stack([self.ranks[name][rows] for name in (*self.backstop, *names)]))

        calibration = Calibration.fit(score("calibration"), self.alpha, 0.05)
        merits = []
        for name in self.strangers:
            strange_B = score(name)
            flagged = float((calibration.p_value(strange_B) <= calibration.level).double().mean())
            merits.append((auroc(score("test"), strange_B) + flagged) / 2)
        return float(np.mean(merits))


def choose(tasks: Sequence[Any], prepare: Callable[[Any, int], Any], folder: Callable[[Any, int], Path]) -> None:
    """Run the procedure and print each step of it.

    Args:
        tasks: The development sets.
        prepare: Trains a network of a set with a seed.
        folder: Where its ranks are kept.
    """
    found: dict[str, list[Candidate]] = {}
    for task in tasks:
        for seed in range(task.seeds):
            path = folder(task, seed) / "log_ranks.pt"
            if not path.is_file():
                torch.save(vars(Candidate.of(prepare(task, seed))), path)
            found.setdefault(task.kind, []).append(Candidate(**torch.load(path, weights_only=True)))
    for kind, candidates in found.items():
        print(f"\n## {kind}: {', '.join(task.name for task in tasks if task.kind == kind)}\n", flush=True)
        _choose(kind, candidates)


def _choose(kind: str, candidates: Sequence[Candidate]) -> None:
    no_candidates = {*BACKSTOPS, *UNSUITED, *([] if kind == "table" else ["input_class_mahalanobis"])}
    refused = {name for candidate in candidates for name in candidate.refused}
    names = [name for name in SCORES if name not in no_candidates | refused]
    print(f"refused: {sorted(refused - no_candidates)}")
    # Each pair counts alike.
    weights = [len(candidate.strangers) for candidate in candidates]

    def merit(chosen: Sequence[str]) -> float:
        return float(np.average([candidate.merit(chosen) for candidate in candidates], weights=weights))

    alone = {name: merit([name]) for name in names}
    for name in names:
        cost = np.mean([candidate.cost[name] for candidate in candidates])
        print(f"{name} with the backstop: {alone[name]:.4f}, cost {cost:.1%}")
    found = []
    for size in range(1, MOST_SCORES + 1):
        allowed = [each for each in combinations(names, size) if any(SCORES[name].asks_members for name in each)]
        found.append({each: merit(each) for each in track(allowed, f"Sets of {size}", transient=True)})
        ordered = sorted(found[-1], key=lambda each: found[-1][each], reverse=True)
        print(*(f"{', '.join(each)}: {found[-1][each]:.4f}" for each in ordered[:5]), sep="\n")
    enough = max(max(merits.values()) for merits in found) - LEAST_GAIN
    smallest = next(merits for merits in found if max(merits.values()) >= enough)
    close = [each for each, reached in smallest.items() if reached >= max(smallest.values()) - LEAST_GAIN]
    chosen = max(close, key=lambda each: np.mean([alone[name] for name in each]))
    costs = [sum(candidate.cost[name] for name in (*chosen, *candidate.backstop)) for candidate in candidates]
    print(f"composite of {', '.join(chosen)}, cost {[f'{cost:.1%}' for cost in costs]}, at most {LARGEST_COST:.0%}")
    before = ["mutual_information", "neighbours", "relative_mahalanobis"]
    print(f"for comparison, {before}: {merit(before):.4f}")

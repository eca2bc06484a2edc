"""The choice of the default composites, as docs/concepts.md lays it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detection_figures import auroc

from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.errors import UncertaintyError

LEAST_GAIN = 0.002
MOST_SCORES = 4
LARGEST_COST = 0.15
BACKSTOPS = ("block_mahalanobis", "input_mahalanobis")


class Candidate:
    """Ranks of every score of one trained network, so that any composite is a maximum."""

    def __init__(self, trained: Any) -> None:
        self.kind, self.alpha = trained.task.kind, trained.task.alpha
        self.backstop = [name for name in trained.default if name in BACKSTOPS]
        self.refused: set[str] = set()
        self.ranks: dict[str, dict[str, torch.Tensor]] = {}
        self.cost: dict[str, float] = {}
        rows = {"calibration": trained.splits.calibration, "test": trained.splits.test, **trained.strangers}
        from detection_figures import scoring_ms

        for name in SCORES:
            try:
                detector = trained.fit([name])
            except UncertaintyError:
                self.refused.add(name)
                continue
            self.ranks[name] = {each: detector.rank(outputs)[0] for each, outputs in rows.items()}
            self.cost[name] = scoring_ms(detector, trained.splits.test) / trained.mc_ms
        self.strangers = list(trained.strangers)

    def merit(self, names: Sequence[str]) -> float:
        """The mean, over pairs, of (AUROC + share flagged) / 2."""
        from dubio.uncertainty import Calibration

        def score(rows: str) -> torch.Tensor:
            return torch.stack([self.ranks[name][rows] for name in (*self.backstop, *names)]).amax(0)

        calibration = Calibration.fit(score("calibration"), self.alpha, 0.05)
        merits = []
        for name in self.strangers:
            strange_B = score(name)
            flagged = float((calibration.p_value(strange_B) <= calibration.level).double().mean())
            merits.append((auroc(score("test"), strange_B) + flagged) / 2)
        return float(np.mean(merits))


def choose(tasks: Sequence[Any], prepare: Callable[[Any, int], Any], seeds: int) -> None:
    """Run the procedure and print each step of it."""
    for kind in dict.fromkeys(task.kind for task in tasks):
        of_kind = [task for task in tasks if task.kind == kind]
        count = 1 if kind == "text" else seeds
        candidates = [Candidate(prepare(task, seed)) for task in of_kind for seed in range(count)]
        print(f"\n## {kind}: {', '.join(task.name for task in of_kind)}; {count} seeds\n", flush=True)
        names = [
            name
            for name in SCORES
            if name not in (*BACKSTOPS, *([] if kind == "table" else ["input_class_mahalanobis"]))
            and not any(name in candidate.refused for candidate in candidates)
        ]
        print(f"refused: {sorted(set(SCORES) - set(names) - set(BACKSTOPS))}")

        def merit(composite: Sequence[str], candidates: Sequence[Candidate] = candidates) -> float:
            # Each pair counts alike.
            weights = [len(candidate.strangers) for candidate in candidates]
            return float(np.average([candidate.merit(composite) for candidate in candidates], weights=weights))

        for name in names:
            costs = np.mean([candidate.cost[name] for candidate in candidates])
            print(f"{name} with the backstop: {merit([name]):.4f}, cost {costs:.1%}")
        composite: list[str] = []
        reached = 0.0
        while len(composite) < MOST_SCORES:
            allowed = [name for name in names if name not in composite and (composite or SCORES[name].asks_members)]
            gains = {name: merit([*composite, name]) for name in allowed}
            best = max(gains, key=lambda name: gains[name])
            if composite and gains[best] < reached + LEAST_GAIN:
                print(f"next would be {best}: {gains[best]:.4f}")
                break
            composite, reached = [*composite, best], gains[best]
            print(f"+ {best}: {reached:.4f}")
        costs = [sum(candidate.cost[name] for name in (*composite, *candidate.backstop)) for candidate in candidates]
        print(f"composite {composite}, cost by task {[f'{cost:.1%}' for cost in costs]}, at most {LARGEST_COST:.0%}")
        today = ["mutual_information", "neighbours", "relative_mahalanobis"]
        print(f"for comparison, {today}: {merit(today):.4f}", flush=True)

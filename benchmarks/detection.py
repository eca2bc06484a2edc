"""What is caught, and is the promise kept?

    python benchmarks/detection.py --only digits wine iris --seeds 5
    python benchmarks/detection.py --only Fashion-MNIST --quick --seeds 1
    python benchmarks/detection.py --development

Each network is trained once a seed and kept, with its figures, under `runs/detection`: what was stopped goes on where
it was. Rows of the tables are scores, columns are pairs of what was learned and what is strange to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detection_answers
import detection_choice
import detection_peers
import numpy as np
import torch
from detection_figures import DELTA, auroc, flags, pair, resplits, scoring_ms
from detection_networks import Trained, prepare
from detection_sets import TASKS, Sources, Task

from dubio.training.score_choice import DEFAULT_SCORES
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.errors import UncertaintyError

COMPOSITE = "**composite**"
PUBLISHED = (
    ("Fashion-MNIST -> MNIST, AUROC: network", ".843, five .861, Mahalanobis .942, DUQ .955", "van Amersfoort 2020"),
    ("Fashion-MNIST -> MNIST, AUROC: likelihood ratio", ".994", "Ren 2019, in van Amersfoort 2020"),
    ("CLINC150 -> out-of-scope, AUROC: BERT", ".942, with MC dropout .951, SNGP .969", "uncertainty-baselines"),
    ("CLINC150 -> out-of-scope, F1: BiLSTM", "max softmax 50.1, entropy 68.1, and MC dropout 72.0", "GloVe, T = 100"),
)


def measure(trained: Trained) -> dict[str, Any]:
    """The figures of every score alone and of the default composite, on every pair."""
    figures: dict[str, Any] = {"scores": {}, "refused": {}, "default": trained.default}
    figures["quality"] = detection_answers.quality(trained)
    splits = trained.splits
    for name in [COMPOSITE, *SCORES]:
        try:
            detector = trained.fit(trained.default if name == COMPOSITE else [name])
        except UncertaintyError as refused:
            figures["refused"][name] = str(refused)
            continue
        seen_B = detector.score(splits.test)
        figures["scores"][name] = {
            "ms": scoring_ms(detector, splits.test),
            "alarms": flags(detector, seen_B) / len(seen_B),
            "pairs": {each: pair(detector, seen_B, outputs) for each, outputs in trained.strangers.items()},
        }
        if name == COMPOSITE:
            scores = torch.cat([detector.score(splits.calibration), seen_B])
            rows = len(splits.calibration.deterministic.logits_BC)
            figures["promise"] = resplits(scores, rows, trained.task.alpha)
            figures["cost"] = figures["scores"][name]["ms"] / trained.mc_ms
            figures["acceptance"] = detection_answers.acceptance(trained, detector)
    seen, strange = splits.test.deterministic, {name: each.deterministic for name, each in trained.strangers.items()}
    figures["peers"] = {
        peer: {name: auroc(score(seen), score(each)) for name, each in strange.items()}
        for peer, score in detection_peers.scores().items()
    }
    return figures


def kept(task: Task, seed: int, sources: Sources) -> dict[str, Any]:
    """The figures of a seed, measured or as they were measured before."""
    folder = sources.folder(task) / str(seed)
    path, defaults = folder / "figures.json", {kind: list(names) for kind, names in DEFAULT_SCORES.items()}
    if path.is_file():
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Of the same scores and defaults, or else they are measured anew; the network stays.
        same = set(read["scores"]) | set(read["refused"]) == {COMPOSITE, *SCORES} and read.get("defaults") == defaults
        if same and "quality" in read:
            return read
    figures = {"defaults": defaults} | measure(prepare(task, seed, sources, folder))
    path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def show(task: Task, seeds: list[dict[str, Any]]) -> None:
    """Print the tables of one task."""
    first = seeds[0]
    print(f"\n### {task.name}\n")
    print(
        f"{len(seeds)} seeds; alpha {task.alpha}, delta {DELTA}; composite of {', '.join(first['default'])}, which "
        f"takes {np.mean([each['cost'] for each in seeds]):.1%} of the MC answer's time\n"
    )
    pairs = list(first["scores"][COMPOSITE]["pairs"])
    headings = [f"{name}: AUROC | flagged" for name in pairs]
    print("| score | " + " | ".join(headings) + " | false alarms | ms a row |")
    print("| --- |" + " --- |" * (2 * len(pairs) + 2))
    for name in [COMPOSITE, *SCORES]:
        rows = [each["scores"][name] for each in seeds if name in each["scores"]]
        if not rows:
            print(f"| {name} | refused: {first['refused'][name]} |" + " |" * (2 * len(pairs) + 1))
            continue
        cells = [
            f"{spread([row['pairs'][each]['auroc'] for row in rows])} | "
            f"{np.mean([row['pairs'][each]['flagged'] for row in rows]):.1%}"
            for each in pairs
        ]
        alarms, ms = (np.mean([row[key] for row in rows]) for key in ("alarms", "ms"))
        print(f"| {name} | " + " | ".join(cells) + f" | {alarms:.1%} | {ms:.3f} |")
    keys = ("ordinary flagged at 95% of strangers", "strangers passed at 95% of ordinary", "f1")
    print(f"\n| composite | {' | '.join(keys[:2])} | F1 of the flag | best alone |\n| --- | --- | --- | --- | --- |")
    for each in pairs:
        whole = [seed["scores"][COMPOSITE]["pairs"][each] for seed in seeds]
        alone = {
            name: np.mean([seed["scores"][name]["pairs"][each]["auroc"] for seed in seeds])
            for name in SCORES
            if all(name in seed["scores"] for seed in seeds)
        }
        best = max(alone, key=lambda name: alone[name])
        rates = " | ".join(f"{np.mean([row[key] for row in whole]):.1%}" for key in keys)
        print(f"| {each} | {rates} | {best} {alone[best]:.3f} |")
    for number, each in enumerate(seeds):
        promise = each["promise"]
        print(
            f"\nseed {number}: 400 resplits, false alarms {promise['mean']:.2%} on average; within alpha in "
            f"{promise['within']:.1%} of them, by the Beta-binomial law in {promise['law']:.1%} (p = "
            f"{promise['p-value']:.2f})"
        )
    print("\n".join(detection_answers.lines(seeds)))
    for peer, aurocs in first["peers"].items():
        print(f"\n{peer}: AUROC {aurocs}")


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[task.name for task in TASKS], help="by default all reported ones")
    parser.add_argument(
        "--development", action="store_true", help="choose the default composites, see docs/concepts.md"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer images and epochs of the large sets")
    parser.add_argument("--epochs", type=int, help="of each training, instead of the task's own")
    parser.add_argument("--strangers", type=int, help="of each kind, at most")
    parser.add_argument("--bfloat16", action="store_true", help="train in mixed precision")
    parser.add_argument("--cache", type=Path, default=Path("runs/detection"))
    parser.add_argument("--mnist", type=Path, default=Path("t10k-images-idx3-ubyte.gz"), help="MNIST's test images")
    parser.add_argument("--clinc150", type=Path, default=Path("data_full.json"), help="CLINC150's questions")
    arguments = parser.parse_args()
    sources = Sources(
        arguments.mnist,
        arguments.clinc150,
        arguments.cache,
        arguments.quick,
        arguments.epochs,
        arguments.strangers,
        arguments.bfloat16,
    )
    chosen = [task for task in TASKS if (task.name in arguments.only if arguments.only else not task.development)]
    if arguments.development:
        every = [task for task in TASKS if task.development and task.name in (arguments.only or [task.name])]

        def folder(task: Task, seed: int) -> Path:
            return arguments.cache / task.name.replace(" ", "_") / "development" / str(seed)

        detection_choice.choose(every, lambda task, seed: prepare(task, seed, sources, folder(task, seed)), folder)
        return
    for line in detection_peers.missing():
        print(line)
    for task in chosen:
        show(task, [kept(task, seed, sources) for seed in range(arguments.seeds)])
    print("\n| published | figure | source |\n| --- | --- | --- |")
    for published in PUBLISHED:
        print(f"| {' | '.join(published)} |")


if __name__ == "__main__":
    main()

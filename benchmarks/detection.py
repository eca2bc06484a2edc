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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import detection_choice
import detection_peers
import numpy as np
import torch
from detection_figures import DELTA, Splits, auroc, milliseconds, pair, resplits, scoring_ms
from detection_sets import TASKS, Sources, Task
from rich.progress import track
from torch import Tensor, nn

from dubio.models import NetworkSpec, Predictor, Temperature
from dubio.models.inputs import encoding
from dubio.models.registry import NETWORKS
from dubio.training import network_sizes, parameter_groups
from dubio.training.calibration import CalibrationSettings
from dubio.training.data.module import TensorDataModule
from dubio.training.score_choice import DEFAULT_SCORES, default_scores
from dubio.uncertainty import Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection import blocks, temperature
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.errors import UncertaintyError

BATCH = 250
COMPOSITE = "**composite**"
PUBLISHED = (
    ("Fashion-MNIST -> MNIST, AUROC: network", ".843, five .861, Mahalanobis .942, DUQ .955", "van Amersfoort 2020"),
    ("Fashion-MNIST -> MNIST, AUROC: likelihood ratio", ".994", "Ren 2019, in van Amersfoort 2020"),
    ("CLINC150 -> out-of-scope, AUROC: BERT", ".942, with MC dropout .951, SNGP .969", "uncertainty-baselines"),
    ("CLINC150 -> out-of-scope, F1: BiLSTM", "max softmax 50.1, entropy 68.1, and MC dropout 72.0", "GloVe, T = 100"),
)


@dataclass(frozen=True)
class Trained:
    """One network of a task, and all that scores may look at."""

    task: Task
    predictor: Predictor
    train: DeterministicPass
    labels_N: Tensor
    splits: Splits
    strangers: dict[str, Outputs]
    right: tuple[float, float]
    mc_ms: float

    @property
    def neighbour(self) -> int:
        return CalibrationSettings().neighbour(len(self.labels_N), len(self.predictor.classes))

    def fit(self, names: Sequence[str]) -> Detector:
        """A calibrated detector of these scores."""
        fitted = Detector.fit(self.train, self.labels_N, self.splits.select, names, self.neighbour)
        return fitted.calibrate(self.splits.calibration, self.task.alpha, DELTA)

    @property
    def default(self) -> tuple[str, ...]:
        return default_scores(self.predictor.input, self.predictor.tap.blocks)


def learn(network: nn.Module, data: TensorDataModule, task: Task, epochs: int, seed: int) -> None:
    """Cross-entropy with AdamW; up to the largest rate in a tenth of the steps, then down along half a cosine."""
    decayed = list(parameter_groups.weights(network))
    known = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=task.rate, weight_decay=task.decay)
    loader = data.train_dataloader()
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, total_steps=steps, pct_start=0.1)
    torch.manual_seed(seed)
    network.train()
    for _ in track(range(epochs), f"Training {task.name} {seed}", transient=True):
        for x, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), labels).backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)


def prepare(task: Task, seed: int, sources: Sources, folder: Path) -> Trained:
    """Train, or take what was trained before, and ask network and members about everything."""
    data, strange = task.data(seed, sources)
    class_path, given = (sources.quick and task.quick_network) or task.network
    network_class = NETWORKS[class_path]
    wanted = ("in_features", "in_channels", "image_size", "num_classes", "vocabulary", "padding")
    taken = [name for name in wanted if name in network_class.__init__.__code__.co_varnames and name not in given]
    sizes = {name: network_sizes.of(name, None, data) for name in taken}
    arguments = {**given, **{name: size for name, size in sizes.items() if size is not None}}
    torch.manual_seed(seed)
    network = network_class(**arguments)
    path = folder / "weights.pt"
    if path.is_file():
        network.load_state_dict(torch.load(path, weights_only=True))
        network.eval().requires_grad_(False)
    else:
        epochs = task.quick_epochs if sources.quick and task.quick_epochs else task.epochs
        learn(network, data, task, epochs, seed)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    spec = NetworkSpec(class_path=class_path, init_args=arguments)
    predictor = Predictor.build(network, spec, data.input, data.classes, task.members, measure_seconds=0.5)
    found = blocks.find(network, encoding.blank(data.input, **encoding.place(network)))
    predictor = predictor.listening(found)
    select_x, select_labels = data.raw("select")
    logits_KBC = torch.cat([predictor.member_logits(batch) for batch in select_x.split(BATCH)], dim=1)
    temperatures = Temperature(deterministic=1.0, mc=temperature.fit(logits_KBC, select_labels))
    predictor = replace(predictor, temperature=temperatures)

    def ask(x: Tensor) -> Outputs:
        return Outputs.cat([predictor.outputs(batch) for batch in x.split(BATCH)])

    train_x, labels_N = data.raw("train")
    train = DeterministicPass.cat([predictor.deterministic(batch) for batch in train_x.split(BATCH)])
    splits = Splits(ask(select_x), ask(data.raw("calibration")[0]), ask(data.raw("test")[0]))
    test_labels = data.raw("test")[1]
    right = (
        float((splits.test.deterministic.logits_BC.argmax(-1) == test_labels).double().mean()),
        float((splits.test.summary.mean_BC.argmax(-1) == test_labels).double().mean()),
    )
    few = data.raw("test")[0][:64]
    mc_ms = milliseconds(lambda: predictor.outputs(few).summary) / len(few)
    return Trained(
        task, predictor, train, labels_N, splits, {name: ask(x) for name, x in strange.items()}, right, mc_ms
    )


def measure(trained: Trained) -> dict[str, Any]:
    """The figures of every score alone and of the default composite, on every pair."""
    figures: dict[str, Any] = {"accuracy": trained.right, "scores": {}, "refused": {}, "default": trained.default}
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
            "alarms": float(detector.judge(splits.test).flagged_B.double().mean()),
            "pairs": {each: pair(detector, seen_B, outputs) for each, outputs in trained.strangers.items()},
        }
        if name == COMPOSITE:
            scores = torch.cat([detector.score(splits.calibration), seen_B])
            rows = len(splits.calibration.deterministic.logits_BC)
            figures["promise"] = resplits(scores, rows, trained.task.alpha)
            figures["cost"] = figures["scores"][name]["ms"] / trained.mc_ms
    seen, strange = splits.test.deterministic, {name: each.deterministic for name, each in trained.strangers.items()}
    figures["peers"] = {
        peer: {name: auroc(score(seen), score(each)) for name, each in strange.items()}
        for peer, score in detection_peers.scores().items()
    }
    return figures


def kept(task: Task, seed: int, sources: Sources) -> dict[str, Any]:
    """The figures of a seed, measured or as they were measured before."""
    folder = sources.cache / task.name.replace(" ", "_") / ("quick" if sources.quick else "full") / str(seed)
    path, defaults = folder / "figures.json", {kind: list(names) for kind, names in DEFAULT_SCORES.items()}
    if path.is_file():
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Of the same scores and defaults, or else they are measured anew; the network stays.
        if set(read["scores"]) | set(read["refused"]) == {COMPOSITE, *SCORES} and read.get("defaults") == defaults:
            return read
    figures = {"defaults": defaults} | measure(prepare(task, seed, sources, folder))
    path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def show(task: Task, seeds: list[dict[str, Any]]) -> None:
    """Print the tables of one task."""
    first = seeds[0]
    accuracy = np.array([each["accuracy"] for each in seeds]).mean(0)
    print(f"\n### {task.name}\n")
    print(
        f"{len(seeds)} seeds; accuracy {accuracy[0]:.2%} deterministic, {accuracy[1]:.2%} MC dropout; alpha "
        f"{task.alpha}, delta {DELTA}; composite of {', '.join(first['default'])}, which takes "
        f"{np.mean([each['cost'] for each in seeds]):.1%} of the MC answer's time\n"
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
    print("\n| composite | ordinary flagged at 95% of strangers | strangers passed at 95% of ordinary | best alone |")
    print("| --- | --- | --- | --- |")
    for each in pairs:
        whole = [seed["scores"][COMPOSITE]["pairs"][each] for seed in seeds]
        alone = {
            name: np.mean([seed["scores"][name]["pairs"][each]["auroc"] for seed in seeds])
            for name in SCORES
            if all(name in seed["scores"] for seed in seeds)
        }
        best = max(alone, key=lambda name: alone[name])
        keys = ("ordinary flagged at 95% of strangers", "strangers passed at 95% of ordinary")
        rates = " | ".join(f"{np.mean([row[key] for row in whole]):.1%}" for key in keys)
        print(f"| {each} | {rates} | {best} {alone[best]:.3f} |")
    for number, each in enumerate(seeds):
        promise = each["promise"]
        print(
            f"\nseed {number}: 400 resplits, false alarms {promise['mean']:.2%} on average; within alpha in "
            f"{promise['within']:.1%} of them, by the Beta-binomial law in {promise['law']:.1%} (p = "
            f"{promise['p-value']:.2f})"
        )
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
    parser.add_argument("--cache", type=Path, default=Path("runs/detection"))
    parser.add_argument("--mnist", type=Path, default=Path("t10k-images-idx3-ubyte.gz"), help="MNIST's test images")
    parser.add_argument("--clinc150", type=Path, default=Path("data_full.json"), help="CLINC150's questions")
    arguments = parser.parse_args()
    sources = Sources(arguments.mnist, arguments.clinc150, arguments.cache, arguments.quick)
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

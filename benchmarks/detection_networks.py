"""The networks of the detection benchmark: each is trained once, asked once about everything, and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detection_figures import DELTA, Splits, milliseconds
from detection_sets import Sources, Task
from rich.progress import track
from torch import Tensor, nn

from dubio.models import NetworkSpec, Predictor, Temperature
from dubio.models.inputs import encoding
from dubio.models.registry import NETWORKS
from dubio.training import network_sizes, parameter_groups, rate_tuning
from dubio.training.calibration import CalibrationSettings
from dubio.training.data.module import TensorDataModule
from dubio.training.score_choice import default_scores
from dubio.uncertainty import Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection import blocks, temperature

BATCH = 250


@dataclass(frozen=True)
class Trained:
    """One network of a task, and all that scores may look at."""

    task: Task
    predictor: Predictor
    train: DeterministicPass
    labels_N: Tensor
    splits: Splits
    strangers: dict[str, Outputs]
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


def learn(
    network: nn.Module, data: TensorDataModule, task: Task, epochs: int, seed: int, bfloat16: bool = False
) -> None:
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
    network.train().to(memory_format=torch.channels_last)  # a third faster
    for _ in track(range(epochs), f"Training {task.name} {seed}", transient=True):
        for x, labels in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = nn.functional.cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


def build(task: Task, data: TensorDataModule, seed: int, sources: Sources) -> tuple[nn.Module, NetworkSpec]:
    """The network of a task, with weights drawn by the seed."""
    class_path, given = (sources.quick and task.quick_network) or task.network
    network_class = NETWORKS[class_path]
    wanted = ("in_features", "in_channels", "image_size", "num_classes", "vocabulary", "padding")
    taken = [name for name in wanted if name in network_class.__init__.__code__.co_varnames and name not in given]
    sizes = {name: network_sizes.of(name, None, data) for name in taken}
    arguments = {**given, **{name: size for name, size in sizes.items() if size is not None}}
    torch.manual_seed(seed)
    return network_class(**arguments), NetworkSpec(class_path=class_path, init_args=arguments)


def prepare(task: Task, seed: int, sources: Sources, folder: Path) -> Trained:
    """Train and ask network and members about everything, or take what was trained and asked before."""
    data, strange = task.data(seed, sources)
    network, spec = build(task, data, seed, sources)
    weights, answers = folder / "weights.pt", folder / "answers.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if weights.is_file():
        network.load_state_dict(torch.load(weights, weights_only=True))
        network.eval().requires_grad_(False)
    else:
        began = time.perf_counter()
        learn(network, data, task, sources.epochs_of(task), seed, sources.bfloat16)
        torch.save(network.state_dict(), weights)
        print(f"{task.name} {seed}: trained in {time.perf_counter() - began:.0f} s", flush=True)
    # `answers.pt` is of this program alone, so that it may hold more than tensors.
    asked = torch.load(answers, weights_only=False) if answers.is_file() else _ask(network, spec, data, strange, task)
    if not answers.is_file():
        torch.save(asked, answers)
    predictor = _predictor(network, spec, data, task, asked["rates"])
    predictor = replace(predictor, temperature=Temperature(**asked["temperature"]))
    few = data.raw("test")[0][:64]
    mc_ms = milliseconds(lambda: predictor.outputs(few).summary) / len(few)
    labels = {name: data.raw(name)[1] for name in ("select", "calibration", "test")}
    splits = Splits(**asked["splits"], labels=labels)
    return Trained(task, predictor, asked["train"], data.raw("train")[1], splits, asked["strangers"], mc_ms)


def _predictor(
    network: nn.Module, spec: NetworkSpec, data: TensorDataModule, task: Task, rates: dict[str, float] | None
) -> Predictor:
    predictor = Predictor.build(network, spec, data.input, data.classes, task.members, rates=rates, measure_seconds=0.5)
    return predictor.listening(blocks.find(network, encoding.blank(data.input, **encoding.place(network))))


def _ask(
    network: nn.Module, spec: NetworkSpec, data: TensorDataModule, strange: Mapping[str, Tensor], task: Task
) -> dict[str, Any]:
    """What network and members say about all rows, with the rates and temperatures that `calibrate` would find."""
    began = time.perf_counter()
    trial = partial(_predictor, network, spec, data, task)
    predictor, rates = trial(None), None
    lowered = rate_tuning.lower(predictor, trial, *data.raw("validation"), BATCH)
    if lowered is not None:
        rates = lowered[0]
        predictor = trial(rates)
        print(f"{task.name}: rates times {lowered[1].factor:g}", flush=True)
    select_x, select_labels = data.raw("select")
    logits_KBC = torch.cat([predictor.member_logits(batch) for batch in select_x.split(BATCH)], dim=1)
    selected = torch.cat([predictor.deterministic(batch).logits_BC for batch in select_x.split(BATCH)])
    temperatures = {
        "deterministic": temperature.fit(selected.unsqueeze(0), select_labels),
        "mc": temperature.fit(logits_KBC, select_labels),
    }
    predictor = replace(predictor, temperature=Temperature(**temperatures))

    def ask(x: Tensor) -> Outputs:
        return Outputs.cat([predictor.outputs(batch) for batch in x.split(BATCH)])

    train = DeterministicPass.cat([predictor.deterministic(batch) for batch in data.raw("train")[0].split(BATCH)])
    splits = {name: ask(data.raw(name)[0]) for name in ("select", "calibration", "test")}
    strangers = {name: ask(x) for name, x in strange.items()}
    print(f"{task.name}: asked in {time.perf_counter() - began:.0f} s", flush=True)
    return {"rates": rates, "temperature": temperatures, "train": train, "splits": splits, "strangers": strangers}

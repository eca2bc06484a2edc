"""A report of a checkpoint: measured, drawn, and written into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dubio.models import Predictor
from dubio.models.loading import load
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.progress import progress
from dubio.training.report import answer_promises, content, measure, page, pictures, words
from dubio.training.report.acceptance_resplits import AcceptanceResplits
from dubio.training.report.answers import Answers, ask, fitted
from dubio.training.report.corruptions import SEVERITIES, corruptions
from dubio.training.report.displays import display
from dubio.training.report.out_of_distribution import ROWS, out_of_distribution
from dubio.training.report.resplits import Resplits, resplit
from dubio.training.splits.random_splits import SPLITS
from dubio.uncertainty.errors import UnsupportedNetwork

# Ways to run the members whose rounding does not depend on what was found to be the fastest; the first that goes.
STRATEGIES = ("vmap", "fold", "loop")


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        content: The numbers.
        pictures: PNG files by name, in the order of the page.
    """

    content: content.Report
    pictures: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Write the page, the numbers, their schema and the pictures; give the path of the page."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in self.pictures.items():
            (folder / f"{name}.png").write_bytes(png)
        numbers = self.content.model_dump(mode="json")
        for name, value in (("report.json", numbers), ("report.schema.json", content.Report.model_json_schema())):
            text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / name).write_text(f"{text}\n", encoding="utf-8")
        written = folder / "report.html"
        written.write_text(page.render(numbers, self.pictures), encoding="utf-8")
        return written


def reproducible(path: Path, trusted: list[str]) -> Predictor:
    """The predictor of a checkpoint, which runs its members in the same way each time.

    Raises:
        UnreadableCheckpoint: If it cannot be loaded.
    """
    predictor = load(path, trusted=trusted, measure_seconds=0)
    for strategy in STRATEGIES[:-1]:
        try:
            return replace(predictor, committee=predictor.committee.pinned(strategy))
        except UnsupportedNetwork:
            continue
    return replace(predictor, committee=predictor.committee.pinned(STRATEGIES[-1]))


def build(predictor: Predictor, data: TensorDataModule, path: Path, day: date, configuration: str = "none") -> Report:
    """Ask, measure and draw.

    Args:
        predictor: Of the checkpoint, calibrated.
        data: Follows the checkpoint, to test it.
        path: Of the checkpoint.
        day: That the report is of.
        configuration: Which says how the data are read.

    Raises:
        TrainingError: If there are no test or calibration rows.
    """
    _, calibration = fitted(predictor)
    splits = data.splits
    for name in ("test", "calibration"):
        if name not in splits or not len(splits[name].labels):
            raise TrainingError(
                f"Expected rows in the {name} split of {data.title} to report on, but there are none; give the source "
                "that the checkpoint was calibrated on."
            )
    x, labels_B = data.raw("test")
    held_out, held_out_labels = data.raw("calibration")
    chosen, chosen_labels = data.raw("select") if "select" in splits else (x[:0], labels_B[:0])
    others, kinds = out_of_distribution(data, x), corruptions(data.input)
    few = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:ROWS].sort().values
    rows = (
        len(x) + len(held_out) + len(chosen) + sum(map(len, others.values())) + len(kinds) * len(SEVERITIES) * len(few)
    )
    with progress("Reporting", rows) as batches:
        asked = partial(ask, predictor, batches=batches)
        known, calibrated = asked(x), asked(held_out)
        select = (asked(chosen), chosen_labels) if len(chosen) else None
        strange = {name: asked(each) for name, each in others.items()}
        corrupted = [
            measure.corrupted(name, severity, asked(corrupt(x[few], severity, _generator(severity))), labels_B[few])
            for name, corrupt in kinds.items()
            for severity in SEVERITIES
        ]
    drawn = resplit(
        torch.cat([calibrated.score_B, known.score_B]).numpy(), len(held_out), calibration.alpha, calibration.delta
    )
    answers = {name: measure.answer(name, known, labels_B, predictor.classes) for name in (DETERMINISTIC, MC)}
    promise = measure.promise(calibration, known, labels_B, predictor.classes, drawn)
    ours, test = (calibrated, held_out_labels), (known, labels_B)
    accepted = [
        answer_promises.acceptance(each, calibration, select, ours, test, len(predictor.classes))
        for each in (predictor.promises.acceptances if predictor.promises else ())
    ]
    sets, sets_drawn = (
        answer_promises.label_sets(predictor.promises.label_sets, ours, test, predictor.classes)
        if predictor.promises
        else (None, None)
    )
    told = [measure.out_of_distribution(name, known, each) for name, each in strange.items()]
    orders = {
        "most_uncertain": measure.top(known.summary.predictive_entropy_B),
        "most_unfamiliar": measure.top(known.score_B),
    }
    listed = {
        name: measure.examples(
            order_B,
            known,
            labels_B,
            predictor.classes,
            {row: display(x[row], data.input, index) for index, row in enumerate(order_B.tolist(), start=1)},
            data.load(),
        )
        for name, order_B in orders.items()
    }
    settled = measure.settling(known)
    drawings: dict[str, Callable[[], bytes]] = {
        "reliability": lambda: pictures.reliability(answers),
        "risk_coverage": lambda: pictures.risk_coverage(known, labels_B, [each for each, _ in accepted]),
        "scores": lambda: pictures.scores(known, strange, calibration.level),
        "roc": lambda: pictures.roc(known, strange),
        **_promised(accepted, sets, sets_drawn),
        "resplits": lambda: pictures.resplits(drawn, calibration.alpha),
        "settling": lambda: pictures.settling(settled),
        "corruptions": lambda: pictures.corruptions(corrupted, *_uncorrupted(known, labels_B, few)),
    }
    if data.input.kind == "image":
        drawings |= {name: partial(pictures.images, x[order_B], data.input) for name, order_B in orders.items()}
    return Report(
        content.Report(
            format_version=1,
            date=day.isoformat(),
            model=_model(predictor, path),
            data=_data(data, configuration),
            answers=answers,
            promise=promise,
            acceptances=[each for each, _ in accepted],
            label_sets=sets,
            out_of_distribution=told,
            settling=settled,
            corruptions=corrupted,
            **listed,
            not_promised=list(words.NOT_PROMISED),
            monitoring=words.monitoring(promise, told),
            new_version=words.requirements(answers, promise, [each for each, _ in accepted], sets, told),
            rules=list(words.RULES),
        ),
        {name: draw() for name, draw in drawings.items()},
    )


def _promised(
    accepted: Sequence[tuple[content.Acceptance, AcceptanceResplits | None]],
    sets: content.LabelSets | None,
    drawn: Resplits | None,
) -> dict[str, Callable[[], bytes]]:
    """Pictures of what is promised about answers, as far as it is."""
    found: dict[str, Callable[[], bytes]] = {}
    rules = [(each.risk, divided) for each, divided in accepted if divided is not None and divided.promised_R.any()]
    if rules:
        found["acceptance"] = lambda: pictures.acceptance(rules)
    if sets is not None:
        found["label_sets"] = lambda: pictures.label_sets(sets)
    if sets is not None and drawn is not None:
        found["label_set_resplits"] = lambda: pictures.resplits(drawn, 1 - sets.coverage, "rows missed")
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _uncorrupted(known: Answers, labels_B: Tensor, few: Tensor) -> tuple[float, float]:
    """Accuracy and share flagged of the rows that are damaged, before."""
    right_B = known.probs[MC].argmax(1) == labels_B
    return float(right_B[few].double().mean()), float(known.flagged_B[few].double().mean())


def _model(predictor: Predictor, path: Path) -> content.Model:
    detector, _ = fitted(predictor)
    provenance = predictor.provenance
    return content.Model(
        file=path.name,
        network=predictor.network_spec.class_path,
        parameters=sum(each.numel() for each in predictor.network.parameters()),
        input=predictor.input.kind,
        shape=list(predictor.input.shape),
        classes=list(predictor.classes),
        members=predictor.committee.num_samples,
        sites=[f"{site.name}: {site.kind}, rate {site.p:g}" for site in predictor.committee.sites],
        rates_factor=provenance.tuning.factor if provenance and provenance.tuning else 1.0,
        temperature=predictor.temperature.model_dump(),
        scores=[score.name for score in detector.scores],
        provenance=provenance.model_dump(mode="json") if provenance else {},
    )


def _data(data: TensorDataModule, configuration: str) -> content.Data:
    splits = []
    for name, examples in sorted(data.splits.items(), key=lambda each: SPLITS.index(each[0])):
        labels = torch.from_numpy(examples.labels)
        by_class = labels.bincount(minlength=len(data.classes)).tolist()
        splits.append(content.Split(name=name, rows=len(labels), by_class=by_class))
    return content.Data(title=data.title, configuration=configuration, splits=splits)

"""Pictures: the figures of a report, as PNG files whose bytes depend on the numbers alone."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.metrics import roc_curve
from torch import Tensor

from dubio.models import InputSpec
from dubio.training import quality
from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.report import content
from dubio.training.report.acceptance_resplits import AcceptanceResplits
from dubio.training.report.answers import Answers
from dubio.training.report.resplits import Resplits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {DETERMINISTIC: "C0", MC: "C1"}
PROMISED = {
    "all": "promised, over all classes",
    "class": "promised for each class",
    "predicted": "promised, by predicted class",
}
_COLOURS = 256
_COLUMNS = 6  # of a grid of images


def reliability(answers: Mapping[str, content.Answer]) -> bytes:
    """Accuracy against confidence, and how many rows each bin has."""
    figure = _figure(8, 3.4)
    for axes, (name, answer) in zip(figure.subplots(1, len(answers), sharey=True), answers.items(), strict=True):
        bins = [each for each in answer.reliability if each.rows]
        most = max(each.rows for each in bins)
        axes.bar(
            [each.low for each in bins],
            [each.rows / most for each in bins],
            [each.high - each.low for each in bins],
            align="edge",
            color="0.9",
            label=f"rows (most: {most})",
        )
        axes.plot([0, 1], [0, 1], color="0.5", linestyle=":")
        confidences, shares = [each.confidence for each in bins], [each.accuracy for each in bins]
        axes.plot(confidences, shares, color=COLOURS[name], marker="o", label="accuracy")
        axes.set(title=name, xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=8, loc="upper left")
    return _png(figure)


def scores(known: Answers, strange: Mapping[str, Answers], level: float) -> bytes:
    """How p-values are distributed, of test rows and of strangers, and what is flagged."""
    figure = _figure(8, 3.4)
    axes = figure.subplots()
    both = {"test rows": known, **strange}
    height = {name: -np.log10(each.p_value_B.numpy()) for name, each in both.items()}
    edges = np.linspace(0, max(float(each.max()) for each in height.values()) * 1.02 + 0.01, 41)
    for name, values_B in height.items():
        style: dict[str, Any] = (
            {"color": "0.8", "histtype": "stepfilled"} if name == "test rows" else {"histtype": "step"}
        )
        axes.hist(
            values_B, edges.tolist(), weights=np.full(len(values_B), 1 / len(values_B)), label=_plain(name), **style
        )
    axes.axvline(-np.log10(level), color="C3", linestyle="--", label="flagged from here")
    axes.set(xlabel="-log10 of the p-value: stranger to the right", ylabel="share of the rows", yscale="log")
    axes.legend(fontsize=8)
    return _png(figure)


def roc(known: Answers, strange: Mapping[str, Answers]) -> bytes:
    """Strangers that are caught against test rows that are flagged, for every threshold."""
    figure = _figure(4.5, 3.8)
    axes = figure.subplots()
    for name, others in strange.items():
        truth = np.r_[np.zeros(len(known.score_B)), np.ones(len(others.score_B))]
        alarms, caught, _ = roc_curve(truth, np.r_[known.score_B.numpy(), others.score_B.numpy()])
        axes.plot(alarms, caught, label=_plain(name))
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":")
    axes.set(xlabel="share of test rows flagged", ylabel="share of strangers caught")
    axes.legend(fontsize=8, loc="lower right")
    return _png(figure)


def risk_coverage(known: Answers, labels_B: Tensor, acceptances: Sequence[content.Acceptance] = ()) -> bytes:
    """The error rate among the most confident rows, and of those that are accepted with its interval and promise."""
    figure = _figure(5.5, 3.8)
    axes, width = figure.subplots(), 4.0  # so that an equal curve does not hide the first
    for name, probs_BC in known.probs.items():
        right_B = (probs_BC.argmax(1) == labels_B).numpy()
        risk_B = quality.risk_coverage(probs_BC.double().amax(1).numpy(), right_B)
        axes.plot(
            np.arange(1, len(risk_B) + 1) / len(risk_B), 100 * risk_B, color=COLOURS[name], label=name, linewidth=width
        )
        width = 1.5
    for index, each in enumerate(acceptances):
        if each.accepted is None or each.wrong is None:
            continue
        colour, wrong = f"C{2 + index % 8}", each.wrong
        around = [[100 * (wrong.rate - wrong.low)], [100 * (wrong.high - wrong.rate)]]
        label = f"accepted at risk {each.risk:.1%}"
        point = [each.accepted.rate], [100 * wrong.rate]
        axes.errorbar(*point, around, color=colour, marker="*", markersize=11, capsize=3, linestyle="", label=label)
        axes.axhline(100 * each.risk, color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel="coverage: share of the rows that are answered", ylabel="errors among them (%)")
    axes.legend(fontsize=8)
    return _png(figure)


def settling(settled: Sequence[content.Settled]) -> bytes:
    """How mean and standard deviation come to rest as members are asked."""
    figure = _figure(4.5, 3.4)
    axes = figure.subplots()
    few = settled[:-1]  # all members are what the others are held against
    for name, values in (("mean", [each.mean for each in few]), ("std", [each.std for each in few])):
        axes.plot([each.members for each in few], values, marker="o", label=name)
    axes.set(xlabel="members asked", ylabel="distance from all members", xscale="log")
    axes.set_xticks([each.members for each in few], [str(each.members) for each in few])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return _png(figure)


def acceptance(rules: Sequence[tuple[float, AcceptanceResplits]]) -> bytes:
    """Errors among accepted rows over divisions of the held-out rows, for each risk."""
    figure = _figure(8, 3.2)
    for axes, (risk, drawn) in zip(figure.subplots(1, len(rules), squeeze=False)[0], rules, strict=True):
        wrong_R = 100 * drawn.wrong_R[drawn.promised_R] / drawn.accepted_R[drawn.promised_R].clip(1)
        step = 100 / max(float(drawn.accepted_R[drawn.promised_R].mean()), 1.0)  # one row
        step *= math.ceil(max(float(wrong_R.max()), 100 * risk) * 1.1 / step / 40)
        edges = np.arange(-0.5, max(float(wrong_R.max()), 100 * risk) * 1.1 / step + 1) * step
        axes.hist(wrong_R, edges.tolist(), weights=np.full(len(wrong_R), 1 / len(wrong_R)), color="0.8")
        axes.axvline(100 * risk, color="C3", linestyle="--", label="promised at most")
        axes.axvline(float(wrong_R.mean()), color="C0", label="mean")
        axes.set(xlabel="errors among accepted measured rows (%)", ylabel="share of resplits")
        axes.legend(fontsize=8)
    return _png(figure)


def label_sets(sets: content.LabelSets) -> bytes:
    """How many classes sets have, and how often they contain the true one, class by class."""
    figure = _figure(8, 3.2)
    left, right = figure.subplots(1, 2)
    largest = max(index for index, rows in enumerate(sets.sizes, start=1) if rows)
    left.bar(range(1, largest + 1), sets.sizes[:largest], color="0.8")
    left.set(xlabel="classes in the set", ylabel="test rows", xlim=(0.3, max(largest, min(len(sets.sizes), 4)) + 0.7))
    left.xaxis.get_major_locator().set_params(integer=True)
    known = [(index, each) for index, each in enumerate(sets.by_class) if each is not None]
    rates = [100 * each.rate for _, each in known]
    around = [[100 * (each.rate - each.low) for _, each in known], [100 * (each.high - each.rate) for _, each in known]]
    right.errorbar([index for index, _ in known], rates, around, color="C0", marker="o", markersize=4, linestyle="")
    right.axhline(100 * sets.coverage, color="C3", linestyle="--", label=PROMISED[sets.by])
    right.set(xlabel="true class, by its number from 0", ylabel="covered (%)", ylim=(None, 101))
    right.set_xlim(-0.5, len(sets.by_class) - 0.5)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return _png(figure)


def resplits(drawn: Resplits, alpha: float, name: str = "false alarms") -> bytes:
    """False alarms over divisions of the held-out rows, and their law."""
    figure = _figure(8, 3.2)
    axes = figure.subplots()
    counts = drawn.false_alarms_R
    likely = np.flatnonzero(drawn.law_m > drawn.law_m.max() * 1e-4)
    first, last = min(int(counts.min()), int(likely[0])), max(int(counts.max()), int(likely[-1]))
    step = max(1, (last - first) // 40)
    edges = np.arange(first, last + step + 1, step) - 0.5
    axes.hist(counts, edges.tolist(), weights=np.full(len(counts), 1 / len(counts)), color="0.8", label="measured")
    law = np.append(drawn.law_m, np.zeros(step))
    sums = [law[int(low + 0.5) : int(low + 0.5) + step].sum() for low in edges[:-1]]
    axes.plot(edges[:-1] + step / 2, sums, color="C0", marker=".", label="Beta-binomial law")
    axes.axvline(alpha * drawn.measured, color="C3", linestyle="--", label="promised at most")
    axes.set(xlabel=f"{name} among {drawn.measured} rows", ylabel="share of resplits")
    axes.legend(fontsize=8)
    return _png(figure)


def corruptions(corrupted: Sequence[content.Corrupted], accuracy: float, flagged: float) -> bytes:
    """Accuracy and flags as the test rows are damaged more and more."""
    figure = _figure(8, 3.2)
    left, right = figure.subplots(1, 2)
    for name in dict.fromkeys(each.name for each in corrupted):
        mine = [each for each in corrupted if each.name == name]
        severities = [0, *(each.severity for each in mine)]
        left.plot(severities, [accuracy, *(each.accuracy[MC] for each in mine)], marker="o", label=name)
        right.plot(severities, [flagged, *(each.flagged.rate for each in mine)], marker="o", label=name)
    left.set(xlabel="severity", ylabel=f"accuracy, {MC}", ylim=(0, 1.02), xticks=[0, 1, 2, 3])
    right.set(xlabel="severity", ylabel="share flagged", ylim=(0, 1.02), xticks=[0, 1, 2, 3])
    left.legend(fontsize=8)
    return _png(figure)


def images(rows: Tensor, spec: InputSpec) -> bytes:
    """Raw images ``[B, C, H, W]``, numbered from 1; of more or fewer channels than a picture has, the first."""
    lines = -(-len(rows) // _COLUMNS)
    figure = _figure(1.2 * _COLUMNS, 1.4 * lines)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    for index, axes in enumerate(grid):
        axes.axis("off")
        if index < len(rows):
            pixels = ((rows[index].double() - spec.low) / ((spec.high - spec.low) or 1)).clamp(0, 1).numpy()
            shown: npt.NDArray[Any] = np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels[0]
            axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(str(index + 1), fontsize=9)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(name: str) -> str:
    """A name as it is: not as a formula, and not left out of the legend."""
    return name.replace("$", r"\$").lstrip("_")


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=100, metadata={"Software": None})
    # A palette: a drawing has few colours, and takes a third of the bytes so.
    small = io.BytesIO()
    drawn = Image.open(written).convert("RGB")
    drawn.quantize(_COLOURS, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()

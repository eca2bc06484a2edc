"""How good and how honest probabilities are: accuracy, likelihood, calibration, and what their order is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dubio.uncertainty.detection.interval import clopper_pearson

BINS = 15
RESAMPLES = 1000
_AT_A_TIME = 2**22  # numbers of resampled rows in memory

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """What the rows of a reliability diagram's bins say, and how often they are right.

    Attributes:
        low_b: Lower edges; a bin holds the confidences above it.
        high_b: Upper edges, which belong to the bin.
        rows_b: How many rows are in each.
        confidence_b: Their mean confidence; NaN without rows.
        accuracy_b: The share of them that is right; NaN without rows.
    """

    low_b: FloatArray
    high_b: FloatArray
    rows_b: FloatArray
    confidence_b: FloatArray
    accuracy_b: FloatArray

    @property
    def error(self) -> float:
        """The mean distance of confidence and accuracy, each bin counting as its rows do."""
        gap_b = np.abs(np.nan_to_num(self.accuracy_b - self.confidence_b))
        return float(gap_b @ self.rows_b / self.rows_b.sum())


@dataclass(frozen=True)
class Quality:
    """Figures of the probabilities that some rows were given.

    Attributes:
        accuracy: Share of right labels.
        nll: Mean negative log-likelihood in nats.
        brier: Mean squared distance of the probabilities from the truth, summed over the classes: from 0 to 2 (Brier
            1950).
        ece: Expected calibration error over 15 bins of equal width, closed on the right (Naeini 2015, Guo 2017).
        adaptive_ece: The same over 15 bins of equal numbers of rows (Nguyen and O'Connor 2015); equal confidences
            share a bin.
        aurc: Area under the risk-coverage curve: the error rate among the k most confident rows, averaged over k
            (Geifman 2019); rows of equal confidence count in a random order.
    """

    accuracy: float
    nll: float
    brier: float
    ece: float
    adaptive_ece: float
    aurc: float

    @staticmethod
    def of(probs_BC: Tensor, labels_B: Tensor) -> Quality:
        """Of probabilities and true classes; a probability that rounds to 0 counts as the smallest number."""
        answers = _Answers.of(probs_BC, labels_B)
        return Quality(**{name: float(measure(np.ones((1, len(labels_B))))[0]) for name, measure in answers.measures()})


def intervals(
    probs_BC: Tensor, labels_B: Tensor, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """An interval of each figure of `Quality`, over the draw of the rows.

    That of the accuracy is exact (Clopper and Pearson 1934). The others are basic bootstrap intervals, twice the figure
    less the quantiles of the resampled ones, cut at 0: a calibration error of few rows is too large, and that of
    resampled rows is too large once more, which this takes away and the quantiles themselves would double. The bins of
    equal numbers of rows stay where they are.

    Args:
        probs_BC: Probabilities.
        labels_B: True classes, at least one.
        confidence: How often such an interval is to hold the true figure.
        resamples: How often the rows are drawn anew.
        seed: Of the draws.

    Source: Davison and Hinkley 1997, section 5.2.
    """
    answers = _Answers.of(probs_BC, labels_B)
    rows, tail = len(labels_B), (1 - confidence) / 2
    found = {"accuracy": clopper_pearson(int(answers.right_B.sum()), rows, confidence)}
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[FloatArray]] = {}
    for some in _portions(resamples, max(1, _AT_A_TIME // rows)):
        counts_RB = generator.multinomial(rows, np.full(rows, 1 / rows), size=some).astype(np.float64)
        for name, measure in answers.measures():
            drawn.setdefault(name, []).append(measure(counts_RB))
    for name, figure in asdict(Quality.of(probs_BC, labels_B)).items():
        if name not in found:
            low, high = np.quantile(np.concatenate(drawn[name]), [tail, 1 - tail])
            found[name] = (max(0.0, 2 * figure - float(high)), max(0.0, 2 * figure - float(low)))
    return found


def reliability(probs_BC: Tensor, labels_B: Tensor) -> Bins:
    """The bins of a reliability diagram, of equal width."""
    answers = _Answers.of(probs_BC, labels_B)
    edges = answers.edges_b
    index_B = _bin(answers.confidence_B, edges)
    rows_b = np.bincount(index_B, minlength=len(edges) - 1).astype(np.float64)
    means = [
        np.divide(np.bincount(index_B, values_B, len(rows_b)), rows_b, np.full_like(rows_b, np.nan), where=rows_b > 0)
        for values_B in (answers.confidence_B, answers.right_B)
    ]
    return Bins(edges[:-1], edges[1:], rows_b, *means)


def risk_coverage(confidence_B: FloatArray, right_B: npt.NDArray[np.bool_]) -> FloatArray:
    """The error rate among the k most confident rows, for k = 1 to B, ``[B]``.

    Rows of equal confidence come in a random order: what counts is the mean over all orders.
    """
    order = np.argsort(-confidence_B, kind="stable")
    starts_G = _group_starts(confidence_B[order])
    sizes_G = np.diff(starts_G, append=len(order))
    wrong_B = np.repeat(np.add.reduceat(~right_B[order], starts_G, dtype=np.float64) / sizes_G, sizes_G)
    risk_B: FloatArray = wrong_B.cumsum() / np.arange(1, len(order) + 1)
    return risk_B


@dataclass(frozen=True)
class _Answers:
    """What decides about the figures: of each row how sure, how right, how likely and how far off."""

    confidence_B: FloatArray
    right_B: npt.NDArray[np.bool_]
    nll_B: FloatArray
    brier_B: FloatArray
    edges_b: FloatArray

    @classmethod
    def of(cls, probs_BC: Tensor, labels_B: Tensor) -> _Answers:
        # Rounding may put a mean beyond 1.
        probs = probs_BC.clamp(torch.finfo(probs_BC.dtype).tiny, 1.0).double().cpu().numpy()
        labels = labels_B.cpu().numpy()
        true_B = probs[np.arange(len(labels)), labels]
        brier_B = (probs**2).sum(1) - 2 * true_B + 1
        # Rounded as the confidences are: one that lies on an edge is in the bin below it.
        edges_b = torch.linspace(0, 1, BINS + 1, dtype=torch.float64).to(probs_BC.dtype).double().numpy()
        return cls(probs.max(1), probs.argmax(1) == labels, -np.log(true_B), brier_B, edges_b)

    def measures(self) -> Iterator[tuple[str, Callable[[FloatArray], FloatArray]]]:
        """Each figure by its name: of the rows, each taken so many times, ``[R, B]``, gives the figure ``[R]``."""
        yield "accuracy", _mean(self.right_B.astype(np.float64))
        yield "nll", _mean(self.nll_B)
        yield "brier", _mean(self.brier_B)
        yield "ece", self._calibration_error(self.edges_b)
        yield "adaptive_ece", self._calibration_error(self.edges_of_equal_mass())
        yield "aurc", self._area

    def edges_of_equal_mass(self) -> FloatArray:
        """Edges between which so many rows lie in each bin as ties allow; fewer bins where there are few values."""
        inner = np.quantile(self.confidence_B, np.arange(1, BINS) / BINS, method="inverted_cdf")
        return np.array([0.0, *np.unique(inner[inner < self.confidence_B.max()]), 1.0])

    def _calibration_error(self, edges: FloatArray) -> Callable[[FloatArray], FloatArray]:
        gap_Bb = np.zeros((len(self.confidence_B), len(edges) - 1))
        gap_Bb[np.arange(len(gap_Bb)), _bin(self.confidence_B, edges)] = self.right_B - self.confidence_B
        return lambda counts_RB: np.abs(counts_RB @ gap_Bb).sum(1) / counts_RB.sum(1)

    def _area(self, counts_RB: FloatArray) -> FloatArray:
        """Sum over k in closed form: within n ties, e of them wrong, the expected errors grow by e / n with each."""
        order = np.argsort(-self.confidence_B, kind="stable")
        starts_G = _group_starts(self.confidence_B[order])
        counts_RB = counts_RB[:, order]
        rows_RG = np.add.reduceat(counts_RB, starts_G, axis=1)
        wrong_RG = np.add.reduceat(counts_RB * ~self.right_B[order], starts_G, axis=1)
        before_RG, wrong_before_RG = rows_RG.cumsum(1) - rows_RG, wrong_RG.cumsum(1) - wrong_RG
        rate_RG = wrong_RG / np.maximum(rows_RG, 1)
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(counts_RB.sum(1).max()) + 1))])
        first_RG, last_RG = before_RG.astype(int), (before_RG + rows_RG).astype(int)
        steps_RG = harmonic[last_RG] - harmonic[first_RG]
        area_RG = rate_RG * rows_RG + (wrong_before_RG - rate_RG * before_RG) * steps_RG
        area_R: FloatArray = area_RG.sum(1) / counts_RB.sum(1)
        return area_R


def _mean(values_B: FloatArray) -> Callable[[FloatArray], FloatArray]:
    return lambda counts_RB: counts_RB @ values_B / counts_RB.sum(1)


def _bin(confidence_B: FloatArray, edges: FloatArray) -> npt.NDArray[np.int64]:
    """Index of the bin (low, high] of each; a confidence of 0 is in the first."""
    index_B: npt.NDArray[np.int64] = np.clip(np.searchsorted(edges, confidence_B, side="left") - 1, 0, len(edges) - 2)
    return index_B


def _group_starts(sorted_B: FloatArray) -> npt.NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], np.diff(sorted_B) != 0]))


def _portions(total: int, largest: int) -> Iterator[int]:
    while total > 0:
        yield min(total, largest)
        total -= largest

"""From trained weights to a predictor that can keep its promise."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from dubio.models import NetworkSpec, Predictor, Provenance, Temperature
from dubio.models.checkpoint import state_dict as weights
from dubio.models.checkpoint.explanation_record import ExplanationRecord
from dubio.training import answer_promises, example, explanations, promise, rate_tuning
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.progress import BATCH, progress
from dubio.training.score_choice import ScoreName, choose, may_be_fitted, with_bank
from dubio.uncertainty import AdaptiveSampling, Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection import temperature
from dubio.uncertainty.detection.adaptive import STAGES
from dubio.uncertainty.detection.label_sets import LabelSets
from dubio.uncertainty.detection.rounding import Rounding, distinct
from dubio.uncertainty.detection.serialization import MOST_RISKS
from dubio.uncertainty.precision import without_tf32

# Select rows that are evaluated once more in small batches, as requests come, and the sizes of those.
ROUNDED = 64
REQUESTS = (1, 16)
TRIAL_SECONDS = 0.2  # that finding the fastest way to sample takes, for members that answer but once
NEIGHBOUR = 50  # that the score `neighbours` measures to, where there are so many rows


@dataclass(frozen=True)
class CalibrationSettings:
    """What to promise, and with which committee.

    Args:
        alpha: Largest false-alarm rate: the share of inputs like the training data that are flagged.
        delta: How likely it may be, over the draw of the calibration rows, that the rate is larger than alpha.
        num_samples: Members of the committee. More members, less noise in mean and std, and more time a request.
        seed: Draws the members' dropout masks.
        scores: What makes an input strange; their ranks add up. By default of images expected_entropy,
            relative_mahalanobis and block_mahalanobis (input_mahalanobis if the network has no blocks); of tables and
            numbers predictive_entropy, unit_mahalanobis, input_class_mahalanobis and input_mahalanobis; of texts
            mutual_information, vim and fdbd. There are also predicted_std, variation_ratio, logit_disagreement,
            max_softmax, max_logit, energy, gen, neighbours, nnguide, mahalanobis, unit_relative_mahalanobis, ddu,
            core, react and feature_norm.
        k: Which nearest neighbour the scores `neighbours` and `nnguide` look at; by default the 50th, or with fewer
            training rows the one in the middle of a class of average size.
        bank: At most so many training rows stand in the checkpoint with their features, which `neighbours` and
            `nnguide` compare inputs with; they are drawn by a seed. Without these two in `scores` none are kept.
        examples: Bytes that thumbnails or texts of these rows may take in the checkpoint, which then shows them to
            whoever asks for an explanation; by default none is kept. Such rows are no secret any more.
        example: Whether a held-out row stands in the checkpoint to try the model with, which it shows to everybody; by
            default of public data sets alone. Else it is the middle of a class, if that looks familiar.
        mc_sites: Which dropout sites the committee samples, by module name, pattern (`head.*`) or kind; all by default.
        mc_rates: Rates of the committee's dropout by module name, pattern or kind; by default those of the training.
        tune_rates: Factors on all of these rates to try on the validation split; the likeliest is kept. By default,
            and if `mc_rates` is not given, those of the training are lowered until the members' mean is not worse than
            the deterministic prediction; `[1]` keeps them.
        stages: How many members to ask at first, and then, where a request says `samples: auto`; at last all of them.
        risk: Largest share of wrong answers among those that are accepted, with confidence 1 - delta; may be a list,
            of which each is promised for itself, and the first stands for all where there is room for one only. With
            `null` nothing is promised about accepted answers, and none is accepted or not.
        coverage: Smallest share of label sets that contain the true class.
        label_set: What decides which classes are in a label set: lac (smallest), aps (larger for harder inputs) or raps
            (the same with fewer unlikely classes).
        label_set_by: For whom the coverage is promised: all inputs together, those of each class, or those of each
            predicted class.
    """

    alpha: float = 0.05
    delta: float = 0.05
    num_samples: int = 64
    seed: int = 0
    scores: tuple[ScoreName, ...] | None = None
    k: int | None = None
    bank: int = 5000
    examples: int = 0
    example: bool | None = None
    mc_sites: tuple[str, ...] | None = None
    mc_rates: dict[str, float] | None = None
    tune_rates: tuple[float, ...] | None = None
    stages: tuple[int, ...] = STAGES
    risk: float | tuple[float, ...] | None = 0.02
    coverage: float = 0.95
    label_set: Literal["lac", "aps", "raps"] = "lac"
    label_set_by: Literal["all", "class", "predicted"] = "all"

    def __post_init__(self) -> None:
        rate_tuning.check(self.tune_rates or ())
        if self.scores is not None and (not self.scores or len(set(self.scores)) < len(self.scores)):
            raise TrainingError(
                f"Expected `calibration.scores` to be at least one name, and none twice, but got {list(self.scores)}."
            )
        least, banks = NEIGHBOUR if self.k is None else self.k, with_bank(self.scores or ())
        if banks and self.bank < least:
            raise TrainingError(
                f"Expected `calibration.bank` to be at least `calibration.k`, which is {least}, but got {self.bank}; "
                f"to keep no training row, leave {' and '.join(banks)} out of `calibration.scores`."
            )
        if self.examples < 0:
            raise TrainingError(f"Expected `calibration.examples` to be a number of bytes, but got {self.examples}.")
        if any(low >= high for low, high in pairwise((1, *self.stages))):
            raise TrainingError(
                f"Expected `calibration.stages` to be rising numbers of members, at least 2, but got "
                f"{list(self.stages)}."
            )

        if len(set(self.risks)) < len(self.risks) or len(self.risks) > MOST_RISKS:
            raise TrainingError(
                f"Expected `calibration.risk` to be a number in (0, 1), at most {MOST_RISKS} different ones, or null, "
                f"but got {list(self.risks)}."
            )
        for name, value in (("coverage", self.coverage), *(("risk", each) for each in self.risks)):
            if not 0 < value < 1:
                raise TrainingError(f"Expected `calibration.{name}` to be in (0, 1), but got {value}.")

    @property
    def risks(self) -> tuple[float, ...]:
        """All of them; none where no risk is promised."""
        if self.risk is None:
            return ()
        return (self.risk,) if isinstance(self.risk, int | float) else tuple(self.risk)

    def neighbour(self, rows: int, classes: int) -> int:
        """Which nearest neighbour is meant, of so many training rows of so many classes."""
        if self.k is not None:
            return self.k
        # The farthest rows are of other classes: the distance to them says nothing about strangers.
        return NEIGHBOUR if rows >= NEIGHBOUR else max(1, rows // (2 * classes))


@without_tf32()
def calibrate(
    network: nn.Module,
    network_spec: NetworkSpec,
    data: TensorDataModule,
    settings: CalibrationSettings,
    fitted: Detector | None = None,
    explaining: ExplanationRecord | None = None,
    measure_seconds: float = 2.0,
) -> Predictor:
    """Fits temperatures, ranks and adaptive sampling on select, feature scores on train, the levels on calibration.

    Args:
        network: Trained, in eval mode, on the CPU.
        network_spec: How to build it again.
        data: Gives the three splits, and describes input and classes.
        settings: What to promise, and with which committee.
        fitted: The checkpoint's detector, whose feature scores are kept where `data` has no training rows: those of
            another source than the fit's.
        explaining: What explains the flags of that detector.
        measure_seconds: What finding the fastest way to sample may take, see `Predictor.build`.

    Returns:
        A predictor that flags strangers.

    Raises:
        UncertaintyError: If the data cannot carry the promise, or the network cannot be sampled.
    """
    promise.require(data, settings.alpha, settings.delta)
    build = partial(
        Predictor.build,
        network,
        network_spec,
        data.input,
        data.classes,
        settings.num_samples,
        settings.seed,
        settings.mc_sites,
        measure_seconds=measure_seconds,
    )
    if settings.tune_rates and not len(data.splits["validation"].labels):
        raise TrainingError(
            "Expected rows in the validation split to tune `calibration.tune_rates` on, but there are none; leave "
            "it out."
        )
    names, blocks = choose(data.input, settings.scores, network)
    kept: tuple[str, ...] = names
    if not len(data.splits["train"].labels):  # its scores are those of the checkpoint
        kept = settings.scores or (tuple(score.name for score in fitted.scores) if fitted else ())
        blocks = fitted.blocks if fitted else ()
    explanations.require(data.input, kept, settings.examples)
    rates, tuned = settings.mc_rates, None
    if settings.tune_rates:
        rates, tuned = rate_tuning.tune(build, rates, settings.tune_rates, *data.raw("validation"), BATCH)
    predictor = build(rates)
    if settings.tune_rates is None and rates is None and len(data.splits["validation"].labels):
        trial = partial(build, measure_seconds=min(measure_seconds, TRIAL_SECONDS))
        lowered = rate_tuning.lower(predictor, trial, *data.raw("validation"), BATCH)
        if lowered is not None:
            rates, tuned = lowered
            predictor = build(rates)
    predictor = predictor.listening(blocks)
    train_x, train_labels = data.raw("train")
    select_x, select_labels = data.raw("select")
    calibration_x, calibration_labels = data.raw("calibration")

    with progress("Calibrating", len(train_x) + 2 * len(select_x) + len(calibration_x)) as batches:
        selected = DeterministicPass.cat([predictor.deterministic(batch) for batch in batches(select_x)])
        logits_KBC = torch.cat([predictor.member_logits(batch) for batch in batches(select_x)], dim=1)
        temperatures = Temperature(
            deterministic=temperature.fit(selected.logits_BC.unsqueeze(0), select_labels),
            mc=temperature.fit(logits_KBC, select_labels),
        )
        # From here on the members' probabilities are those that the service will see.
        predictor = replace(predictor, temperature=temperatures)
        select = Outputs(selected, (logits_KBC / temperatures.mc).softmax(-1))
        if len(train_x):
            train = DeterministicPass.cat([predictor.deterministic(batch) for batch in batches(train_x)])
            neighbour = settings.neighbour(len(train_x), len(data.classes))
            detector = Detector.fit(train, train_labels, select, names=names, k=neighbour, bank_size=settings.bank)
        else:
            detector = _refit(fitted, select, settings)
        bounds = {"alpha": settings.alpha, "delta": settings.delta}
        rounding = _rounding(predictor, detector, select, select_x)
        adaptive = AdaptiveSampling.fit(
            detector, select, len(calibration_x), **bounds, stages=settings.stages, rounding=rounding
        )
        outputs = Outputs.cat([predictor.outputs(batch) for batch in batches(calibration_x)])
        adaptive = adaptive.calibrate(detector, outputs, **bounds, rounding=rounding)
        detector = detector.calibrate(outputs, **bounds, rounding=rounding)
        promises = answer_promises.fit(
            predictor,
            detector,
            adaptive,
            (select, select_labels),
            (outputs, calibration_labels),
            rounding,
            settings.risks,
            LabelSets(settings.label_set, settings.label_set_by, settings.coverage),
        )
        record = explanations.record(
            detector,
            outputs,
            rounding,
            data.input,
            train_x,
            data.load().rows["train"],
            settings.bank,
            settings.examples,
            explaining,
        )

    provenance = Provenance(
        data=data.title,
        data_sha256=_sha256(calibration_x, calibration_labels),
        weights_sha256=weights.sha256(network.state_dict()),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        tuning=tuned,
    )
    calibrated = predictor.calibrated(temperatures, detector, provenance, adaptive, **promises, explaining=record)
    return example.keep(calibrated, data, data.public if settings.example is None else settings.example)


def _refit(fitted: Detector | None, select: Outputs, settings: CalibrationSettings) -> Detector:
    """The scores as they were fitted to the training rows, ranked among other select rows."""
    known = {} if fitted is None else {score.name: score for score in fitted.scores}
    names: tuple[str, ...] = settings.scores or tuple(known)
    for name in names:
        if name not in known:
            raise TrainingError(
                f"Expected the score {name!r} in the checkpoint, for this source has not the rows of the fit, but it "
                f"has {', '.join(known) or 'none'}; calibrate on the source of the fit first, or choose one of "
                "those with `calibration.scores`."
            )
    if not names:
        raise TrainingError(
            "Expected a calibrated checkpoint, for this source does not hold the rows of the fit, to which the scores "
            "are fitted; calibrate on the source of the fit first."
        )
    return Detector.ranked([known[name] for name in names], select)


def _rounding(predictor: Predictor, detector: Detector, select: Outputs, select_x: Tensor) -> Rounding:
    """How far the scores of rows in requests lie from those of the same rows in the batches here."""
    rows_R = distinct(select_x.flatten(1))[:ROUNDED]
    rounding = detector.least_rounding
    for size in REQUESTS:
        requests = [predictor.outputs(batch) for batch in select_x[rows_R].split(size)]
        rounding = rounding.measure(detector.scores, select.take(rows_R), requests)
    return rounding


def fewer_neighbours(data: TensorDataModule, settings: CalibrationSettings) -> str | None:
    """That the default of `calibration.k` is lowered to the training rows that there are; None if it is not."""
    rows, banks = len(data.load().labels("train")), with_bank(may_be_fitted(data.input, settings.scores))
    if settings.k is not None or not 0 < rows < NEIGHBOUR or not banks:
        return None
    return (
        f"there are {rows} training rows, fewer than {NEIGHBOUR}, so the score `{banks[0]}` takes "
        f"{settings.neighbour(rows, len(data.classes))} for `calibration.k`, and not {NEIGHBOUR}."
    )


def _sha256(x: Tensor, labels: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (x, labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("dubio", "pytorch-lightning"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions

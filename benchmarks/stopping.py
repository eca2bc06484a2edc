"""What does asking only as many members as it takes save, and what does it change?

    python benchmarks/stopping.py runs/digits_mlp/model.ckpt --data digits
    python benchmarks/stopping.py runs/fashion_mnist_convnet/model.ckpt --data fashion_mnist --rows 3000

Prints, for the test split and for sets of strangers, how many members `samples="auto"` asks on average, and how labels
and flags compare with those of all members; how often the procedure's own false-alarm rate stays within alpha when
calibration and test rows are shuffled and divided anew; and how long one prediction takes either way.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch
from rich.progress import track
from torch import Tensor

from dubio.models import AUTO, Predictor, load
from dubio.training import Digits, FashionMNIST
from dubio.training.data.module import TensorDataModule
from dubio.training.data.ood import inverted, photograph_patches, uniform_noise
from dubio.uncertainty import Calibration, Outputs
from dubio.uncertainty.detection.adaptive import recorded
from dubio.uncertainty.detection.ecdf import composite

DATA: dict[str, type[TensorDataModule]] = {"digits": Digits, "fashion_mnist": FashionMNIST}
STRANGERS = 300
RESPLITS = 200
BATCH = 250
BATCHES = (1, 8, 32)  # rows of a request that is timed
REPEATS = 15


def outputs(predictor: Predictor, x: Tensor, what: str) -> Outputs:
    """What all members say about many rows."""
    batches = track(x.split(BATCH), what, transient=True, disable=not sys.stdout.isatty())
    return Outputs.cat([predictor.outputs(batch) for batch in batches])


def compare(predictor: Predictor, name: str, seen: Outputs, labels_N: Tensor | None = None) -> None:
    """One line of the table: all members, and as many as it takes."""
    detector, stopping = predictor.detector, predictor.stopping
    assert detector is not None
    assert stopping is not None
    stopped = stopping.run(detector, seen.deterministic, recorded(seen.probs_KBC))
    label_N, early_N = seen.probs_KBC.mean(0).argmax(-1), stopped.summary.mean_BC.argmax(-1)
    flagged_N, early_flagged_N = detector.judge(seen).flagged_B, stopping.judge(detector, stopped).flagged_B
    right = "" if labels_N is None else f"{share(label_N == labels_N)}, {share(early_N == labels_N)}"
    print(
        f"| {name} | {float(stopped.samples_B.double().mean()):.1f} of {stopping.committee} "
        f"| {share(stopped.samples_B == stopped.samples_B.min())} at {int(stopped.samples_B.min())} | {right} "
        f"| {share(flagged_N)}, {share(early_flagged_N)} "
        f"| {share(label_N != early_N)} | {share(flagged_N != early_flagged_N)} |"
    )


def share(rows_N: Tensor) -> str:
    """Of the rows that are true."""
    return f"{float(rows_N.double().mean()):.2%}"


def resplits(predictor: Predictor, seen: list[Outputs]) -> None:
    """Realised false-alarm rates over fresh divisions of the calibration and test rows, by all members and by auto."""
    detector, stopping = predictor.detector, predictor.stopping
    assert detector is not None
    assert stopping is not None
    assert stopping.calibration is not None
    promise = stopping.calibration
    n = seen[0].probs_KBC.shape[1]
    scores = {
        "all members": torch.cat([detector.score(each) for each in seen]),
        AUTO: torch.cat(
            [composite(stopping.run(detector, each.deterministic, recorded(each.probs_KBC)).ranks_SB) for each in seen]
        ),
    }
    for name, scores_N in scores.items():
        generator, rates = torch.Generator().manual_seed(0), []
        for _ in range(RESPLITS):
            shuffled_N = scores_N[torch.randperm(len(scores_N), generator=generator)]
            fresh = Calibration.fit(shuffled_N[:n], promise.alpha, promise.delta)
            rates.append((fresh.p_value(shuffled_N[n:]) <= fresh.level).double().mean())
        rate_N = torch.stack(rates)
        print(
            f"{RESPLITS} resplits, {name}: false-alarm rate {float(rate_N.mean()):.2%} on average; within alpha in ",
            end="",
        )
        print(f"{share(rate_N <= promise.alpha)} of them (promised: {1 - promise.delta:.0%})")


def milliseconds(predictor: Predictor, x: Tensor) -> tuple[float, float]:
    """Median time of a prediction by all members, and by as many as it takes, each time about other rows."""
    times: tuple[list[float], list[float]] = ([], [])
    predictor.predict(x[0]), predictor.predict(x[0], samples=AUTO)
    for rows in x:
        for samples, spent in zip((None, AUTO), times, strict=True):
            began = time.perf_counter()
            predictor.predict(rows, samples=samples)
            spent.append(1e3 * (time.perf_counter() - began))
    return median(times[0]), median(times[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a calibrated model.ckpt")
    parser.add_argument("--data", choices=DATA, required=True, help="what it was trained on, with default splits")
    parser.add_argument("--rows", type=int, default=10_000, help="at most so many calibration and test rows")
    arguments = parser.parse_args()

    predictor, data = load(arguments.checkpoint), DATA[arguments.data]()
    if predictor.detector is None or predictor.stopping is None or predictor.stopping.calibration is None:
        parser.error(f"{arguments.checkpoint} has no stopping rule; run dubio-train calibrate")
    (calibrating, _), (x, labels_N) = (
        tuple(part[: arguments.rows] for part in data.raw(split)) for split in ("calibration", "test")
    )
    test = outputs(predictor, x, "Test rows")
    print("| rows | members asked | stopped at once | accuracy: all, auto | flagged: all, auto | other label |", end="")
    print(" other flag |\n|" + " --- |" * 7)
    compare(predictor, f"test ({len(x)})", test, labels_N)
    spec = predictor.input
    for name, rows in {
        "photograph patches": photograph_patches(spec, STRANGERS),
        "uniform noise": uniform_noise(spec, STRANGERS),
        "inverted": inverted(spec, x[:STRANGERS]),
    }.items():
        compare(predictor, name, outputs(predictor, rows, name))

    print()
    resplits(predictor, [outputs(predictor, calibrating, "Calibration rows"), test])
    torch.set_num_threads(1)  # threads that outnumber the free cores would be what is measured
    print("\n| batch | all members, ms | auto, ms | all over auto |\n|" + " --- |" * 4)
    for batch in BATCHES:
        whole = x[: min(REPEATS, len(x) // batch) * batch]
        full, early = milliseconds(predictor, whole.view(-1, batch, *spec.shape))
        print(f"| {batch} | {full:.2f} | {early:.2f} | {full / early:.1f}x |")


if __name__ == "__main__":
    main()

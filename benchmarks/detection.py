"""What does a calibrated model catch, and does it keep its promise?

    python benchmarks/detection.py runs/digits_mlp/model.ckpt --data digits
    python benchmarks/detection.py runs/fashion_mnist_convnet/model.ckpt --data fashion_mnist \\
        --mnist t10k-images-idx3-ubyte.gz

Prints accuracy; for each set of strangers the share that is flagged, and the AUROC of the composite score and of each
part alone; and how often the realised false-alarm rate stays within alpha when calibration and test rows are shuffled
and divided anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from sklearn.metrics import roc_auc_score
from torch import Tensor

from dubio.models import Predictor, load
from dubio.training import Digits, FashionMNIST
from dubio.training.data.module import TensorDataModule
from dubio.training.data.ood import inverted, photograph_patches, uniform_noise
from dubio.training.readers import idx
from dubio.uncertainty import Calibration, Detector, Outputs

DATA: dict[str, type[TensorDataModule]] = {"digits": Digits, "fashion_mnist": FashionMNIST}
STRANGERS = 1000
RESPLITS = 200
BATCH = 250


def strangers(predictor: Predictor, test: Tensor, mnist: Path | None) -> dict[str, Tensor]:
    """Raw inputs that should be flagged, by name."""
    spec = predictor.input
    middle = (spec.low + spec.high) / 2
    sets = {
        "photograph patches": photograph_patches(spec, STRANGERS),
        "uniform noise": uniform_noise(spec, STRANGERS),
        "inverted": inverted(spec, test[:STRANGERS]),
        "inputs x 100": test[:STRANGERS] * 100,
        "constant": torch.linspace(middle, spec.high, 100).view(-1, *[1] * len(spec.shape)).expand(-1, *spec.shape),
    }
    if mnist is not None:
        sets["MNIST"] = torch.from_numpy(idx.read(mnist, dimensions=3).astype(np.float32)).unsqueeze(1)
    return sets


def outputs(predictor: Predictor, x: Tensor) -> Outputs:
    """Outputs of many rows."""
    return Outputs.cat([predictor.outputs(batch) for batch in x.split(BATCH)])


def resplits(detector: Detector, calibration: Calibration, calibrating: Outputs, test: Outputs) -> np.ndarray:
    """Realised false-alarm rates of fresh divisions of the calibration and test rows."""
    scores = torch.cat([detector.score(calibrating), detector.score(test)])
    n, generator = len(calibration.scores_N), torch.Generator().manual_seed(0)
    rates = []
    for _ in range(RESPLITS):
        shuffled = scores[torch.randperm(len(scores), generator=generator)]
        fresh = Calibration.fit(shuffled[:n], calibration.alpha, calibration.delta)
        rates.append(float((fresh.p_value(shuffled[n:]) <= fresh.level).double().mean()))
    return np.array(rates)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a calibrated model.ckpt")
    parser.add_argument("--data", choices=DATA, required=True, help="what it was trained on, with default splits")
    parser.add_argument("--mnist", type=Path, help="IDX file of MNIST's test images, as another set of strangers")
    arguments = parser.parse_args()

    predictor, data = load(arguments.checkpoint), DATA[arguments.data]()
    detector = predictor.detector
    if detector is None or detector.calibration is None:
        parser.error(f"{arguments.checkpoint} is not calibrated")
    x, labels = data.raw("test")
    seen = outputs(predictor, x)
    label_B, mc_label_B = seen.deterministic.logits_BC.argmax(-1), seen.probs_KBC.mean(0).argmax(-1)
    flagged_B = detector.judge(seen).flagged_B
    print(f"test rows {len(x)}; accuracy {float((label_B == labels).double().mean()):.2%} deterministic, ", end="")
    print(f"{float((mc_label_B == labels).double().mean()):.2%} MC dropout; ", end="")
    print(
        f"flagged {int(flagged_B.sum())} ({float(flagged_B.double().mean()):.2%}) at alpha {detector.calibration.alpha}"
    )
    rates = resplits(detector, detector.calibration, outputs(predictor, data.raw("calibration")[0]), seen)
    within = float((rates <= detector.calibration.alpha).mean())
    print(f"{RESPLITS} resplits: false-alarm rate {rates.mean():.2%} on average, {rates.max():.2%} at most; ", end="")
    print(f"within alpha in {within:.1%} of them (promised: {1 - detector.calibration.delta:.0%})\n")

    header = ["strangers", "flagged", "AUROC", *(score.name for score in detector.scores)]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for name, rows in track(strangers(predictor, x, arguments.mnist).items(), "Measuring", transient=True):
        strange = outputs(predictor, rows)
        flagged = float(detector.judge(strange).flagged_B.double().mean())
        alone = [replace(detector, scores=(score,)) for score in detector.scores]
        aurocs = [auroc(variant.score(seen), variant.score(strange)) for variant in (detector, *alone)]
        print(f"| {name} | {flagged:.1%} | " + " | ".join(f"{value:.3f}" for value in aurocs) + " |")


def auroc(seen_B: Tensor, strange_B: Tensor) -> float:
    """Probability that a stranger scores higher than a test row."""
    truth = np.r_[np.zeros(len(seen_B)), np.ones(len(strange_B))]
    return float(roc_auc_score(truth, torch.cat([seen_B, strange_B]).numpy()))


if __name__ == "__main__":
    main()

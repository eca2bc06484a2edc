"""What is learned, and what is strange to it: the pairs of the detection benchmark.

The development pairs choose the default composite, see docs/concepts.md; the reported ones are not looked at for it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection_strangers import Held, Rows, clothes, columns, constant, glyphs, mnist, permuted, without
from sklearn import datasets
from torch import Tensor

from dubio.models.inputs import tabular
from dubio.training import CLINC150, Digits, FashionMNIST, Table
from dubio.training.data.module import TensorDataModule
from dubio.training.data.ood import inverted, photograph_patches, uniform_noise
from dubio.training.splits.dataset import Examples

ROOMY = {"train": 0.5, "validation": 0.06, "select": 0.14, "calibration": 0.18, "test": 0.12}
SMALL = {"train": 0.36, "validation": 0.05, "select": 0.14, "calibration": 0.3, "test": 0.15}
TEXT_CNN = ("dubio.models.TextCNN", {})


@dataclass(frozen=True)
class Task:
    """One in-distribution set with its network, and its strangers.

    Attributes:
        name: As in tables.
        kind: Of input: image, table or text.
        data: Of a seed, with the raw inputs that are strange to it, by name.
        network: Class path and arguments.
        epochs: Of the training.
        rate: Largest learning rate.
        decay: Weight decay.
        alpha: Promised false-alarm rate; delta is .05.
        members: Of the committee.
        quick_epochs: Of a quick training.
        quick_network: The same.
        development: Whether its pairs choose the default composite instead of being reported.
        seeds: Networks that are trained for that.
    """

    name: str
    kind: str
    data: Callable[[int, Sources], tuple[TensorDataModule, Mapping[str, Tensor]]]
    network: tuple[str, Mapping[str, Any]]
    epochs: int = 60
    rate: float = 0.003
    decay: float = 0.01
    alpha: float = 0.05
    members: int = 64
    quick_epochs: int | None = None
    quick_network: tuple[str, Mapping[str, Any]] | None = None
    development: bool = False
    seeds: int = 2


@dataclass(frozen=True)
class Sources:
    """Where the files are that no library bundles, and how much is used.

    Attributes:
        mnist: Images of MNIST's test split.
        clinc150: The questions.
        cache: Where networks and figures are kept.
        quick: Less of the large sets, and less training.
        epochs: Of each training, instead of the task's own.
        most_strangers: Of each kind at most, instead of 5000 (quick: 500).
        bfloat16: Whether networks are trained in mixed precision.
    """

    mnist: Path
    clinc150: Path
    cache: Path
    quick: bool = False
    epochs: int | None = None
    most_strangers: int | None = None
    bfloat16: bool = False

    @property
    def strangers(self) -> int:
        return self.most_strangers or (500 if self.quick else 5000)

    def epochs_of(self, task: Task) -> int:
        """How long a network of the task is trained."""
        return self.epochs or (self.quick and task.quick_epochs) or task.epochs

    def folder(self, task: Task) -> Path:
        """Where the seeds of a task are kept, by how much was used."""
        used = ["quick" if self.quick else "full"]
        used += [f"{self.epochs}_epochs"] if self.epochs else []
        used += [f"{self.most_strangers}_strangers"] if self.most_strangers else []
        return self.cache / task.name.replace(" ", "_") / "_".join(used)


def table(
    load: Callable[[], tuple[np.ndarray, np.ndarray]], held_out: int | None, **fractions: float
) -> Callable[[int, Sources], tuple[TensorDataModule, Mapping[str, Tensor]]]:
    """A table of numbers; of three classes or more one can be held out, which one depends on the seed."""

    def build(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
        x, labels = load()
        strangers: dict[str, Tensor] = {}
        if held_out is not None:
            away = (held_out + seed) % len(np.unique(labels))
            strangers["held-out class"] = torch.from_numpy(x[labels == away].astype(np.float32))
            x, labels = x[labels != away], labels[labels != away]
            labels = np.unique(labels, return_inverse=True)[1]
        data = Rows(x, labels, load.__name__, seed, **fractions)
        return data, strangers | columns(data, list(range(x.shape[1])), seed)

    return build


def wine() -> tuple[np.ndarray, np.ndarray]:
    return datasets.load_wine(return_X_y=True)


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    return datasets.load_breast_cancer(return_X_y=True)


def iris() -> tuple[np.ndarray, np.ndarray]:
    return datasets.load_iris(return_X_y=True)


def coarse_digits() -> tuple[np.ndarray, np.ndarray]:
    digits = datasets.load_digits()
    return digits.images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16), digits.target


def clusters() -> tuple[np.ndarray, np.ndarray]:
    return datasets.make_classification(
        1500, 12, n_informative=6, n_redundant=3, n_classes=4, n_clusters_per_class=2, class_sep=1.5, random_state=0
    )


def wide_clusters() -> tuple[np.ndarray, np.ndarray]:
    return datasets.make_classification(
        1500, 30, n_informative=10, n_redundant=5, n_classes=5, n_clusters_per_class=1, class_sep=2, random_state=1
    )


def mixed(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    """The wines with four columns of names instead of numbers."""
    bunch, words = datasets.load_wine(), np.array(["low", "middle", "high"])
    names = [name.replace("/", "_") for name in bunch.feature_names]
    cut = {names[column]: np.quantile(bunch.data[:, column], (1 / 3, 2 / 3)) for column in (1, 4, 7, 9)}
    rows = [
        {
            name: str(words[np.searchsorted(cut[name], value)]) if name in cut else float(value)
            for name, value in zip(names, row, strict=True)
        }
        for row in bunch.data
    ]
    away = seed % 3
    path = sources.cache / f"wine_with_names_without_{away}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, [*names, "wine"])
        writer.writeheader()
        for row, label in zip(rows, bunch.target, strict=True):
            if label != away:
                writer.writerow({**row, "wine": f"wine {label}"})
    data = Table(str(path), "wine", seed=seed, **SMALL)
    reader = data.input.reader
    assert isinstance(reader, tabular.Table)
    strange = reader.read([row for row, label in zip(rows, bunch.target, strict=True) if label == away])
    numeric = [reader.features.index(name) for name in names if name not in cut]
    return data, {"held-out class": torch.from_numpy(strange), **columns(data, numeric, seed)}


def fashion(seed: int, sources: Sources) -> FashionMNIST:
    data = FashionMNIST(validation=2500, select=2500, calibration=5000, batch_size=64, seed=seed)
    return fewer(data) if sources.quick else data


def fewer(data: FashionMNIST) -> Any:
    """A quarter of the training images, and fewer of the others."""
    dataset = data.load()
    sizes = {"train": 12000, "validation": 500, "select": 1000, "calibration": 2000, "test": 2000}
    splits = {
        name: Examples(each.x[: sizes[name]], each.labels[: sizes[name]]) for name, each in dataset.splits.items()
    }
    return Held(replace(dataset, splits=splits, parts=None), data.title, data.batch_size, data.seed)


def far_fashion(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    data, count = fashion(seed, sources), sources.strangers
    test = data.raw("test")[0]
    return data, {
        "MNIST": torch.from_numpy(mnist(sources.mnist)[0][:: 10000 // count]),
        "glyphs": glyphs(data.input, count, seed),
        "noise": uniform_noise(data.input, count // 5, seed),
        "times 100": test[: count // 5] * 100,
        "constant": constant(data.input),
    }


def fashion_for_development(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    data = FashionMNIST(validation=2500, select=2500, calibration=5000, batch_size=64, seed=seed)
    test = data.raw("test")[0][:500]
    pixels = torch.from_numpy(datasets.load_digits().images[:500].astype(np.float32)).unsqueeze(1) * (255 / 16)
    return data, {
        "enlarged digits": torch.nn.functional.interpolate(pixels, 28, mode="bilinear"),
        "photograph patches": photograph_patches(data.input, 500, seed),
        "pixels permuted": permuted(test, seed),
        "turned by a right angle": test.rot90(1, (2, 3)),
        "dim": test * 0.3,
        "inverted": inverted(data.input, test),
    }


def near_fashion(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    data, strange = without(fashion(seed, sources), {2 * seed % 10, (2 * seed + 1) % 10})
    return data, {"held-out classes": strange}


def patched_digits(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    data = Digits(seed=seed, train=0.6, validation=0.08, select=0.08, calibration=0.12, test=0.12)
    return data, {"photograph patches": photograph_patches(data.input, 1000, seed)}


def questions(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    data = CLINC150(path=str(sources.clinc150), seed=seed)
    return data, {"out-of-scope": data.out_of_distribution()["out-of-scope questions"].float()}


def fewer_intents(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    """Fifteen intents held out, and words of different questions thrown together."""
    generator = np.random.default_rng(seed)
    data, strange = without(
        CLINC150(path=str(sources.clinc150), seed=seed), set(generator.permutation(150)[:15].tolist())
    )
    test = data.raw("test")[0].numpy()
    words, lengths = test[test != 0], (test != 0).sum(1)  # 0 fills up
    thrown = np.zeros_like(test)
    for row, length in enumerate(lengths):
        thrown[row, :length] = generator.choice(words, length)
    return data, {"held-out intents": strange, "words thrown together": torch.from_numpy(thrown[:1500])}


def digits_without_two(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    whole = Digits(seed=seed, **ROOMY)
    data, strange = without(whole, {(3 * seed) % 10, (3 * seed + 4) % 10})
    test = data.raw("test")[0]
    coarse = torch.nn.functional.avg_pool2d(clothes(500)[:, :, 2:26, 2:26], 3) * (16 / 255)
    return data, {
        "held-out digits": strange,
        "coarse clothes": coarse,
        "pixels permuted": permuted(test, seed),
        "inverted": inverted(data.input, test),
    }


def mnist_without_two(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    x, labels = mnist(sources.mnist)
    whole = Rows(x, labels, "MNIST's test images", seed, **ROOMY)
    data, strange = without(whole, {(3 * seed + 1) % 10, (3 * seed + 6) % 10})
    test = data.raw("test")[0]
    return data, {
        "held-out digits": strange,
        "clothes": clothes(500),
        "pixels permuted": permuted(test, seed),
        "inverted": inverted(data.input, test),
        "dim": test * 0.3,
        "photograph patches": photograph_patches(data.input, 500, seed),
    }


MLP_DIGITS = ("dubio.models.MLP", {"in_features": 64, "widths": [512, 256, 128], "rates": [0.5, 0.4, 0.3]})
SMALL_MLP: Mapping[str, Any] = {"widths": [128, 64], "rates": [0.3, 0.3]}
FASHION_NET = {"widths": [32, 64, 128], "rates": [0.05, 0.1, 0.1], "dense": 256, "dense_rate": 0.4}
DIGITS_NET = {"image_size": 8, "widths": [32, 64], "rates": [0.1, 0.1], "dense": 128, "dense_rate": 0.4}
MNIST_NET = {"widths": [16, 32, 64], "rates": [0.05, 0.1, 0.1], "dense": 128, "dense_rate": 0.4, "depths": 1}
of_table: dict[str, Any] = {"kind": "table", "network": ("dubio.models.MLP", SMALL_MLP), "rate": 0.01}

TASKS: tuple[Task, ...] = (
    Task("digits", "image", patched_digits, MLP_DIGITS, epochs=100),
    Task("digits (ConvNet)", "image", patched_digits, ("dubio.models.ConvNet", DIGITS_NET), epochs=40),
    Task(
        "Fashion-MNIST",
        "image",
        far_fashion,
        ("dubio.models.ConvNet", FASHION_NET),
        epochs=8,
        members=32,
        quick_epochs=3,
        quick_network=("dubio.models.ConvNet", MNIST_NET),
    ),
    Task(
        "Fashion-MNIST without two classes",
        "image",
        near_fashion,
        ("dubio.models.ConvNet", FASHION_NET),
        epochs=8,
        members=32,
        quick_epochs=3,
        quick_network=("dubio.models.ConvNet", MNIST_NET),
    ),
    Task("CLINC150", "text", questions, TEXT_CNN, epochs=20, rate=0.002, decay=0.05, quick_epochs=10),
    Task("wine", data=table(wine, 0, **SMALL), alpha=0.1, **of_table),
    Task("breast cancer", data=table(breast_cancer, None, **SMALL), **of_table),
    Task("iris", data=table(iris, 0, **SMALL), alpha=0.15, **of_table),
    Task("wine with names", data=mixed, alpha=0.1, **of_table),
    Task("digits without two", "image", digits_without_two, MLP_DIGITS, epochs=30, development=True),
    Task(
        "digits without two (ConvNet)",
        "image",
        digits_without_two,
        ("dubio.models.ConvNet", DIGITS_NET),
        epochs=15,
        development=True,
    ),
    Task(
        "MNIST without two",
        "image",
        mnist_without_two,
        ("dubio.models.ConvNet", FASHION_NET),
        epochs=8,
        members=32,
        development=True,
        seeds=1,
    ),
    Task(
        "Fashion-MNIST for development",
        "image",
        fashion_for_development,
        ("dubio.models.ConvNet", FASHION_NET),
        epochs=4,
        members=32,
        development=True,
        seeds=1,
    ),
    Task("coarse digits", data=table(coarse_digits, 0, **ROOMY), development=True, **of_table),
    Task("clusters", data=table(clusters, 0, **ROOMY), development=True, **of_table),
    Task("wide clusters", data=table(wide_clusters, 0, **ROOMY), development=True, **of_table),
    Task(
        "CLINC150 without fifteen",
        "text",
        fewer_intents,
        ("dubio.models.TextCNN", {"features": 128, "width": 128}),
        epochs=6,
        rate=0.002,
        decay=0.05,
        development=True,
        seeds=1,
    ),
)

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
from PIL import Image, ImageDraw, ImageFont
from sklearn import datasets
from torch import Tensor

from dubio.models import InputSpec
from dubio.models.inputs import tabular
from dubio.training import CLINC150, Digits, FashionMNIST, Table
from dubio.training.data.module import FractionDataModule, TensorDataModule
from dubio.training.data.ood import inverted, photograph_patches, uniform_noise
from dubio.training.readers import idx
from dubio.training.splits.dataset import Dataset, Examples

ROOMY = {"train": 0.5, "validation": 0.06, "select": 0.14, "calibration": 0.18, "test": 0.12}
SMALL = {"train": 0.4, "validation": 0.05, "select": 0.15, "calibration": 0.25, "test": 0.15}
FONTS = Path("/usr/share/fonts/truetype")
TEXT_CNN = ("dubio.models.TextCNN", {})


@dataclass(frozen=True)
class Sources:
    """Where the files are that no library bundles, and how much of the large sets is used."""

    mnist: Path
    clinc150: Path
    cache: Path
    quick: bool = False

    @property
    def strangers(self) -> int:
        return 500 if self.quick else 5000


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
        development: Whether its pairs choose the default composite instead of being reported.
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
    development: bool = False


class Held(TensorDataModule):
    """A data set that was read already."""

    def __init__(self, dataset: Dataset, title: str, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.title, self._read = title, dataset

    def read(self) -> Dataset:
        return self._read


class Rows(FractionDataModule):
    """Rows of numbers or images from arrays."""

    def __init__(self, x: np.ndarray, labels: np.ndarray, title: str, seed: int, **fractions: float) -> None:
        super().__init__(seed=seed, **fractions)
        self.title = title
        self._examples = Examples(x.astype(np.float32), labels.astype(np.int64))

    def read(self) -> Dataset:
        classes = tuple(map(str, np.unique(self._examples.labels)))
        parts = self.divide(self._examples.labels, classes)
        return Dataset.of_numbers(self._examples.divide(parts), classes, parts=parts)


def without(data: TensorDataModule, held_out: set[int], batch_size: int = 64) -> tuple[Held, Tensor]:
    """The same data without some classes, and the test rows of those."""
    dataset = data.load()
    kept = [index for index in range(len(dataset.classes)) if index not in held_out]
    number = {old: new for new, old in enumerate(kept)}
    splits = {}
    for name, examples in dataset.splits.items():
        rows = np.isin(examples.labels, kept)
        splits[name] = Examples(examples.x[rows], np.array([number[label] for label in examples.labels[rows]]))
    classes = tuple(dataset.classes[index] for index in kept)
    strange = dataset.splits["test"].x[np.isin(dataset.splits["test"].labels, sorted(held_out))]
    if dataset.input.kind in ("image", "numbers"):
        rest = Dataset.of_numbers(splits, classes)
    else:
        rest = replace(dataset, splits=splits, classes=classes, parts=None)
    return Held(rest, f"{data.title} without {sorted(held_out)}", batch_size, data.seed), torch.from_numpy(
        strange.astype(np.float32)
    )


def glyphs(spec: InputSpec, count: int, seed: int = 0) -> Tensor:
    """White letters A to J on black, drawn from the fonts that are there, each of another size and at another place."""
    _, height, width = spec.shape
    generator = np.random.default_rng(seed)
    files = [None, *sorted(FONTS.rglob("*.ttf"))]
    images = []
    for _ in range(count):
        file, size = files[generator.integers(len(files))], int(generator.integers(height // 2, height))
        font = ImageFont.load_default(size) if file is None else ImageFont.truetype(str(file), size)
        image = Image.new("L", (width, height))
        place = tuple((np.array([width, height]) / 2 + generator.integers(-2, 3, 2)).tolist())
        ImageDraw.Draw(image).text(place, chr(65 + generator.integers(10)), fill=255, font=font, anchor="mm")
        images.append(np.asarray(image, dtype=np.float32) / 255)
    drawn = torch.from_numpy(np.stack(images)).unsqueeze(1)
    return spec.low + drawn * (spec.high - spec.low)


def constant(spec: InputSpec, count: int = 100) -> Tensor:
    """Even inputs, from the middle of the range to its end."""
    levels = torch.linspace((spec.low + spec.high) / 2, spec.high, count)
    return levels.view(-1, *[1] * len(spec.shape)).expand(-1, *spec.shape).contiguous()


def permuted(x: Tensor, seed: int = 0) -> Tensor:
    """The pixels of every input in one other order."""
    order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(seed))
    return x.flatten(1)[:, order].view_as(x)


def mnist(sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 10000 test images ``[N, 1, 28, 28]`` and their labels."""
    labels = sources.mnist.with_name(sources.mnist.name.replace("images-idx3", "labels-idx1"))
    return idx.read(sources.mnist, dimensions=3)[:, None].astype(np.float32), idx.read(labels, dimensions=1)


def columns(data: TensorDataModule, numeric: list[int], seed: int) -> dict[str, Tensor]:
    """Test rows whose numbers stand in each other's columns, and those of which one number lies five spreads off."""
    generator = torch.Generator().manual_seed(seed)
    x, train = data.raw("test")[0], data.raw("train")[0]
    turned = x.clone()
    turned[:, numeric] = x[:, numeric[1:] + numeric[:1]]
    shifted, one = x.clone(), torch.randint(len(numeric), (len(x),), generator=generator)
    chosen = torch.tensor(numeric)[one]
    sign = torch.randint(0, 2, (len(x),), generator=generator) * 2 - 1
    shifted[torch.arange(len(x)), chosen] += sign * 5 * train.std(0)[chosen].nan_to_num(1.0)
    return {"columns shuffled": turned, "columns shifted": shifted}


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
    """A quarter of the training images, half of the others."""
    dataset = data.load()
    sizes = {"train": 15000, "validation": 500, "select": 1500, "calibration": 2500, "test": 2500}
    splits = {
        name: Examples(each.x[: sizes[name]], each.labels[: sizes[name]]) for name, each in dataset.splits.items()
    }
    return Held(replace(dataset, splits=splits, parts=None), data.title, data.batch_size, data.seed)


def far_fashion(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    data, count = fashion(seed, sources), sources.strangers
    test = data.raw("test")[0]
    return data, {
        "MNIST": torch.from_numpy(mnist(sources)[0][:: 10000 // count]),
        "glyphs": glyphs(data.input, count, seed),
        "noise": uniform_noise(data.input, count // 5, seed),
        "times 100": test[: count // 5] * 100,
        "constant": constant(data.input),
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
    clothes = FashionMNIST(seed=seed).raw("test")[0][:1000, :, 2:26, 2:26]
    coarse = torch.nn.functional.avg_pool2d(clothes, 3) * (16 / 255)
    return data, {
        "held-out digits": strange,
        "coarse clothes": coarse,
        "pixels permuted": permuted(test, seed),
        "inverted": inverted(data.input, test),
    }


def mnist_without_two(seed: int, sources: Sources) -> tuple[TensorDataModule, Mapping[str, Tensor]]:
    x, labels = mnist(sources)
    whole = Rows(x, labels, "MNIST's test images", seed, **ROOMY)
    data, strange = without(whole, {(3 * seed + 1) % 10, (3 * seed + 6) % 10})
    test = data.raw("test")[0]
    clothes = FashionMNIST(seed=seed).raw("test")[0][:1000]
    return data, {
        "held-out digits": strange,
        "clothes": clothes,
        "pixels permuted": permuted(test, seed),
        "inverted": inverted(data.input, test),
        "dim": test * 0.3,
        "photograph patches": photograph_patches(data.input, 1000, seed),
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
    ),
    Task(
        "Fashion-MNIST without two classes",
        "image",
        near_fashion,
        ("dubio.models.ConvNet", FASHION_NET),
        epochs=8,
        members=32,
        quick_epochs=3,
    ),
    Task("CLINC150", "text", questions, TEXT_CNN, epochs=20, rate=0.002, decay=0.05, quick_epochs=10),
    Task("wine", data=table(wine, 0, **SMALL), alpha=0.1, **of_table),
    Task("breast cancer", data=table(breast_cancer, None, **SMALL), **of_table),
    Task("iris", data=table(iris, 0, **SMALL), alpha=0.15, **of_table),
    Task("wine with names", data=mixed, alpha=0.1, **of_table),
    Task("digits without two", "image", digits_without_two, MLP_DIGITS, epochs=60, development=True),
    Task(
        "digits without two (ConvNet)",
        "image",
        digits_without_two,
        ("dubio.models.ConvNet", DIGITS_NET),
        epochs=40,
        development=True,
    ),
    Task(
        "MNIST without two",
        "image",
        mnist_without_two,
        ("dubio.models.ConvNet", MNIST_NET),
        epochs=4,
        members=32,
        development=True,
    ),
    Task("coarse digits", data=table(coarse_digits, 0, **ROOMY), development=True, **of_table),
    Task("clusters", data=table(clusters, 0, **ROOMY), development=True, **of_table),
    Task("wide clusters", data=table(wide_clusters, 0, **ROOMY), development=True, **of_table),
    Task(
        "CLINC150 without fifteen",
        "text",
        fewer_intents,
        ("dubio.models.TextCNN", {"features": 128, "width": 128}),
        epochs=10,
        rate=0.002,
        decay=0.05,
        development=True,
    ),
)

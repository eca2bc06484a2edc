"""Strangers: what is shown to a network that has not learned it, and how parts of a set are held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dubio.models import InputSpec
from dubio.training import FashionMNIST
from dubio.training.data.module import FractionDataModule, TensorDataModule
from dubio.training.readers import idx
from dubio.training.splits.dataset import Dataset, Examples

FONTS = Path("/usr/share/fonts/truetype")


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


def mnist(images: Path) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 10000 test images ``[N, 1, 28, 28]`` and their labels."""
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    return idx.read(images, dimensions=3)[:, None].astype(np.float32), idx.read(labels, dimensions=1)


def clothes(count: int) -> Tensor:
    """Fashion-MNIST's first test images ``[N, 1, 28, 28]``."""
    folder = FashionMNIST.debian
    assert folder is not None
    return torch.from_numpy(
        idx.read(folder / "t10k-images-idx3-ubyte.gz", dimensions=3)[:count, None].astype(np.float32)
    )


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

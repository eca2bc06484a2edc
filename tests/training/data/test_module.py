from __future__ import annotations

import numpy as np
import pytest
import torch

from dubio.models.inputs import encoding
from dubio.training.data.module import BatchedTensorDataset, TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.splits.dataset import Dataset, Examples

NAMES = ("train", "validation", "select", "calibration", "test")


class Numbered(TensorDataModule):
    """Images whose first pixel is their row number; each split has another brightness."""

    title = "numbered"

    def __init__(self, num_train: int = 20, batch_size: int = 6, seed: int = 0, **settings) -> None:
        super().__init__(batch_size, seed, **settings)
        self.num_train = num_train
        self.reads = 0

    def read(self) -> Dataset:
        self.reads += 1
        generator = np.random.default_rng(0)
        splits = {}
        for brightness, name in enumerate(NAMES):
            rows = self.num_train if name == "train" else 8
            x = generator.integers(0, 100, (rows, 2, 3, 4)).astype(np.uint8) + np.uint8(20 * brightness)
            x[:, 0, 0, 0] = np.arange(rows)
            splits[name] = Examples(x, np.arange(rows) % 2)
        return Dataset.of_numbers(splits, ("even", "odd"))


def test_normalisation_is_that_of_the_training_rows_alone():
    data = Numbered()
    x, _ = data.raw("train")
    normalised = encoding.Normalisation.of(data.input)(x)
    assert torch.allclose(normalised.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(normalised.std(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-5)
    assert (data.input.low, data.input.high) == (float(x.min()), float(x.max()))
    assert data.raw("test")[0].max() > data.input.high
    brighter = next(iter(data.test_dataloader()))[0]
    assert brighter.mean() > 1


@pytest.mark.parametrize("name", NAMES)
def test_raw_rows_are_as_they_were_read(name: str):
    data = Numbered()
    x, labels = data.raw(name)
    assert (x.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(x.numpy(), data.splits[name].x)
    assert x[:, 0, 0, 0].tolist() == list(range(len(x)))


def rows_of(data: Numbered, batches: list) -> list[list[int]]:
    """Row numbers, recovered from the normalised first pixel."""
    mean, std = data.input.mean[0], data.input.std[0]
    return [(x[:, 0, 0, 0] * std + mean).round().int().tolist() for x, _ in batches]


def in_order(data: Numbered, loader) -> list[int]:
    return [row for batch in rows_of(data, list(loader)) for row in batch]


def test_training_shows_every_row_once_in_an_order_that_changes():
    data = Numbered()
    loader = data.train_dataloader()
    first, second = (in_order(data, loader) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    again = in_order(data, Numbered().train_dataloader())
    other = in_order(data, Numbered(seed=1).train_dataloader())
    assert again == first != other


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader", "predict_dataloader"])
def test_evaluation_shows_every_row_once_in_order_with_its_label(loader: str):
    data = Numbered()
    batches = list(getattr(data, loader)())
    assert rows_of(data, batches) == [[0, 1, 2, 3, 4, 5], [6, 7]]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1] * 4


@pytest.mark.parametrize(("num_train", "sizes"), [(20, [6, 6, 6, 2]), (19, [6, 6, 6]), (18, [6, 6, 6])])
def test_a_last_training_batch_of_one_row_is_left_out(num_train: int, sizes: list[int]):
    assert [len(x) for x, _ in Numbered(num_train).train_dataloader()] == sizes


def test_balanced_rows_are_drawn_from_all_classes_equally_often_and_the_same_ones_again():
    def drawn(**settings) -> torch.Tensor:
        data = Numbered(num_train=50, sampling="balanced", **settings)
        data.load().splits["train"].labels[:] = np.arange(50) < 45
        loader = data.train_dataloader()
        return torch.stack([torch.cat([labels for _, labels in loader]) for _ in range(40)])

    labels = drawn()
    assert labels.shape == (40, 50)
    # 2000 draws: the standard deviation of the share is 0.011.
    assert float(labels.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(labels[0], labels[1])
    assert torch.equal(labels, drawn())
    assert not torch.equal(labels, drawn(seed=1))


def test_a_batch_is_the_stack_of_its_rows():
    rows = BatchedTensorDataset(torch.randn(5, 2), torch.arange(5))
    x, labels = rows.__getitems__([3, 1])
    assert torch.equal(x, torch.stack([rows[3][0], rows[1][0]]))
    assert labels.tolist() == [3, 1]


def test_the_data_are_read_once():
    data = Numbered()
    for stage in ("fit", "test", None):
        data.setup(stage)
    data.raw("select")
    assert data.reads == 1


def test_a_batch_of_one_is_refused():
    with pytest.raises(TrainingError, match=r"`data\.init_args\.batch_size` to be at least 2 .* but got 1"):
        Numbered(batch_size=1)

from __future__ import annotations

import numpy as np
import pytest
import torch

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding

ROW = InputSpec(kind="numbers", shape=(2,), mean=(1.0, 10.0), std=(2.0, 5.0), low=0.0, high=20.0)
IMAGE = InputSpec(kind="image", shape=(2, 1, 3), mean=(1.0, 10.0), std=(2.0, 5.0), low=0.0, high=20.0)


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2], [3, 4]],
        [[1.0, 2], (3, 4.0)],
        np.array([[1, 2], [3, 4]], dtype=np.uint8),
        np.array([[1, 2], [3, 4]], dtype=np.float64)[::1],
        np.asfortranarray(np.array([[1, 2], [3, 4]], dtype=">f4")),
        torch.tensor([[1, 2], [3, 4]]),
        torch.tensor([[1.0, 3], [2, 4]], dtype=torch.float64, requires_grad=True).T,
    ],
    ids=["list", "mixed", "uint8", "float64", "big-endian", "integers", "gradient"],
)
def test_numbers_of_any_kind_become_float32(x: object):
    raw = encoding.check(ROW, x)
    assert raw.dtype == torch.float32
    assert not raw.requires_grad
    assert raw.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "x",
    [
        [],
        [[]],
        [1.0, 2.0],
        3.0,
        [[1.0, 2.0, 3.0]],
        [[[1.0, 2.0]]],
        np.zeros((0, 2)),
        torch.zeros(0, 2),
        torch.tensor(1.0),
    ],
)
def test_another_shape_is_refused_with_the_one_that_is_due(x: object):
    with pytest.raises(InvalidInput, match=r"shape \[B, 2\] with B >= 1"):
        encoding.check(ROW, x)


def test_ragged_rows_are_refused():
    with pytest.raises(InvalidInput, match="rows of equal length"):
        encoding.check(ROW, [[1.0, 2.0], [3.0]])


@pytest.mark.parametrize(
    "x",
    [
        "text",
        [["1", "2"]],
        [[None, 1.0]],
        None,
        {"a": 1},
        [[True, False]],
        [[1j, 2]],
        [[10**400, 1]],
        np.array([["2026-01-01", "2026-01-01"]], dtype="datetime64[D]"),
        object(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_not_a_real_number_is_refused(x: object):
    with pytest.raises(InvalidInput, match="Expected numbers"):
        encoding.check(ROW, x)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 2, dtype=torch.bool),
        torch.zeros(1, 2, dtype=torch.complex64),
        torch.zeros(1, 2).to_sparse(),
        torch.zeros(1, 2, device="meta"),
    ],
    ids=["bool", "complex", "sparse", "meta"],
)
def test_tensors_that_are_not_dense_and_real_are_refused(x: torch.Tensor):
    with pytest.raises(InvalidInput, match="dense tensor of real numbers"):
        encoding.check(ROW, x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_a_value_that_is_not_finite_in_float32_is_refused_by_its_row(value: float, kind: type):
    with pytest.raises(InvalidInput, match="input 2 has NaN, infinity or a number beyond float32"):
        encoding.check(ROW, kind([[0.0, 1.0], [2.0, 3.0], [4.0, value], [value, 5.0]]))


def test_a_callers_array_is_neither_shared_nor_changed():
    x = np.array([[1.0, 2.0]], dtype=np.float32)
    raw = encoding.check(ROW, x)
    x[0, 0] = 7.0
    assert raw.tolist() == [[1.0, 2.0]]


def test_normalising_subtracts_the_mean_and_divides_by_the_std_of_each_number():
    assert encoding.Normalisation.of(ROW)(torch.tensor([[5.0, 0.0]])).tolist() == [[2.0, -2.0]]


def test_normalising_an_image_goes_by_channels():
    raw = torch.tensor([[[[1.0, 3.0, 5.0]], [[10.0, 15.0, 20.0]]]])
    assert encoding.Normalisation.of(IMAGE)(raw).tolist() == [[[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]]]]


def test_outside_means_beyond_what_training_contained():
    raw = torch.tensor([[0.0, 20.0], [-0.1, 5.0], [5.0, 20.1], [10.0, 10.0]])
    assert encoding.outside(ROW, raw).tolist() == [False, True, True, False]


def _spec(shape: tuple[int, ...], low: float, high: float) -> InputSpec:
    kind = "image" if len(shape) == 3 else "numbers"
    return InputSpec(kind=kind, shape=shape, mean=(0,) * shape[0], std=(1,) * shape[0], low=low, high=high)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 16, 16), (5,), (1,)])
@pytest.mark.parametrize(("low", "high"), [(0, 16), (0, 255), (-1, 1), (0, 0)])
def test_an_example_is_an_input_within_the_range_of_training(shape: tuple[int, ...], low: float, high: float) -> None:
    spec = _spec(shape, low, high)
    instance = np.array(encoding.example(spec))
    raw = encoding.check(spec, instance.reshape(1, *shape))
    assert raw.min() >= low
    assert raw.max() <= high
    if high > low and len(shape) == 3:
        assert len(raw.unique()) > 1


def test_what_nobody_can_read_is_no_example() -> None:
    assert encoding.example(_spec((3, 224, 224), 0, 1)) is None

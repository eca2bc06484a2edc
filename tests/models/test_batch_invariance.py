from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubio.models import AUTO, InputSpec, NetworkSpec, Prediction, Predictor, Work
from dubio.models.batch_invariance import TRIED_ROWS, BatchSizes, largest_batch
from dubio.models.errors import BatchDependent
from dubio.models.inputs import encoding
from dubio.uncertainty import DeterministicPass

ROWS = 65


def bits(prediction: Prediction, row: int) -> list[bytes]:
    one = prediction.rows(row, row + 1)
    found = [one.probabilities.tobytes(), one.label.tobytes()]
    if one.monte_carlo is not None:
        found += [value.tobytes() for value in vars(one.monte_carlo).values()]
    if one.flags is not None:
        found += [np.asarray(one.p_value).tobytes(), np.asarray(one.flagged).tobytes(), repr(one.reasons).encode()]
    return found


def rounding(few: int, place: int | None = None) -> Callable[[Tensor], DeterministicPass]:
    """A network that rounds otherwise where rows are fewer than so many, or in one place of the batch."""

    def answer(x: Tensor) -> DeterministicPass:
        logits = x * 3
        if len(x) < few:
            logits = torch.nextafter(logits, torch.tensor(torch.inf))
        if place is not None and place < len(x):
            logits[place] = torch.nextafter(logits[place], torch.tensor(torch.inf))
        return DeterministicPass(x, logits, x if place is None else None)

    return answer


def test_sizes_are_those_that_agree() -> None:
    x = torch.randn(64, 5)
    assert BatchSizes.find(rounding(1), x, 60).rows == tuple(sorted(TRIED_ROWS))
    assert BatchSizes.find(rounding(3), x, 60).rows == tuple(sorted(size for size in TRIED_ROWS if size >= 3))
    assert BatchSizes.find(rounding(3), x[:12], 60).rows == (4, 8, 12)


def test_few_rows_are_not_filled_up_to_many() -> None:
    assert BatchSizes.find(rounding(16), torch.randn(64, 5), 60).rows == (1, 2, 4, 8, 12)


def test_where_the_place_matters_rows_are_answered_alone() -> None:
    x = torch.randn(64, 5)
    assert BatchSizes.find(rounding(1, place=2), x, 60).rows == (1,)


def test_without_time_few_sizes_are_tried() -> None:
    assert BatchSizes.find(rounding(1), torch.randn(64, 5), 0).rows == (1, 4, 8, 16)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 9, 16, 17, 50])
def test_batches_are_filled_up_and_divided(rows: int) -> None:
    x, asked = torch.randn(rows, 5), []

    def answer(part: Tensor) -> DeterministicPass:
        asked.append(len(part))
        return DeterministicPass(part, part * 3, part + 1)

    found = BatchSizes((4, 16)).run(answer, x)
    for values, due in zip(found.tensors(), (x, x * 3, x + 1), strict=True):
        assert torch.equal(values, due)
    assert rows == 0 or set(asked) <= {4, 16}
    assert sum(asked) < rows + 16


def test_deterministic_answers_are_those_of_a_filled_batch(trained: Predictor) -> None:
    predictor = trained.batch_invariant()
    assert predictor.sizes is not None
    x = encoding.noise(predictor.input, 3)
    size = next(size for size in predictor.sizes.rows if size >= 3)
    filled = predictor.encode(torch.cat([x, x[:1].expand(size - 3, *x.shape[1:])]))
    with torch.inference_mode():
        expected = predictor.network(filled)[:3]
    assert torch.equal(predictor.deterministic(x).logits_BC, expected)


def test_a_row_gets_the_same_bits_in_every_batch(trained: Predictor) -> None:
    predictor = trained.batch_invariant()
    x = encoding.noise(predictor.input, ROWS)
    expected = [bits(predictor.predict(row, work=Work.DETERMINISTIC), 0) for row in x.split(1)]
    for rows in range(1, ROWS + 1):
        prediction = predictor.predict(x[-rows:], work=Work.DETERMINISTIC)
        assert [bits(prediction, row) for row in range(rows)] == expected[-rows:], rows


@pytest.mark.parametrize("samples", [None, 5, AUTO])
def test_the_members_too_if_asked_for(trained: Predictor, samples: int | str | None) -> None:
    predictor = trained.batch_invariant(members=True)
    x = encoding.noise(predictor.input, ROWS)
    expected = [bits(predictor.predict(row, samples=samples), 0) for row in x.split(1)]
    for rows in [*range(1, 18), 31, 33, 64, 65]:
        prediction = predictor.predict(x[-rows:], samples=samples)
        assert [bits(prediction, row) for row in range(rows)] == expected[-rows:], rows


class Crowd(nn.Module):
    """Its members round otherwise where an input has company."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(nn.functional.dropout(x, 0.5, self.training))
        return logits * (1 + 1e-6 * min(len(x), 40))


def test_members_that_depend_on_the_batch_are_refused() -> None:
    inputs = InputSpec(kind="numbers", shape=(4,), mean=(0.0,) * 4, std=(1.0,) * 4, low=-1.0, high=1.0)
    spec = NetworkSpec(class_path="tests.Crowd", init_args={})
    predictor = Predictor.build(Crowd().eval(), spec, inputs, ("a", "b", "c"), num_samples=8, measure_seconds=0.1)
    assert largest_batch(predictor, encoding.noise(inputs, 64), 60) is None
    with pytest.raises(BatchDependent, match=r"tests\.Crowd"):
        predictor.batch_invariant(members=True)

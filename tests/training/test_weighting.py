"""Class weights, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from dubio.training import weighting
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SPLITS

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


class Rare(TensorDataModule):
    title = "rare"

    def read(self) -> Dataset:
        examples = Examples(np.arange(200, dtype=np.float32).reshape(100, 2), LABELS)
        return Dataset.of_numbers(dict.fromkeys(SPLITS, examples), ("no", "maybe", "1"))


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    for weights in weighting.of("balanced", Rare()):
        assert weights.tolist() == pytest.approx(expected.tolist())


def test_given_weights_keep_their_ratios_and_count_1_on_average():
    weights, validation = weighting.of({"maybe": 3.0, 1: 6.0}, Rare())  # YAML reads a bare 1 as a number
    assert (weights / weights[0]).tolist() == pytest.approx([1, 3, 6])
    assert float(weights[torch.from_numpy(LABELS)].mean()) == pytest.approx(1)
    assert torch.equal(weights, validation)


def test_by_default_nothing_is_weighted_and_balanced_rows_are_not_weighted_again():
    assert weighting.of(None, Rare()) == (None, None)
    training, validation = weighting.of(None, Rare(sampling="balanced"))
    assert training is None
    assert validation.tolist() == weighting.of("balanced", Rare())[1].tolist()
    with pytest.raises(TrainingError, match="but got both, which would balance the classes twice"):
        weighting.of("balanced", Rare(sampling="balanced"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"mabe": 2.0}, "but got 'mabe'; did you mean `maybe`?"),
        ({False: 2.0}, "but got False; put quotes around the names"),
        ({"maybe": 0.0}, "positive numbers, but that of 'maybe' is 0"),
        ({"maybe": float("nan")}, "positive numbers"),
        ({"maybe": float("inf")}, "positive numbers"),
    ],
)
def test_weights_that_make_no_sense_are_told(weights: dict[str, float], message: str):
    with pytest.raises(TrainingError, match=message.replace("?", r"\?")):
        weighting.of(weights, Rare())

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from dubio.training import Synthetic
from dubio.training.errors import TrainingError
from dubio.training.splits.random_splits import SPLITS


@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [
        ({"kind": "moons", "noise": 0.1}, 0.97),
        ({"kind": "rings", "noise": 0.05}, 0.97),
        ({"kind": "blobs", "features": 5, "num_classes": 4, "noise": 0.5}, 0.97),
        ({"kind": "hypercube", "features": 6, "num_classes": 4, "noise": 0.1}, 0.8),
    ],
)
def test_neighbours_tell_the_classes_apart(settings: dict[str, object], accuracy: float):
    data = Synthetic(rows=1000, **settings)
    train, test = data.splits["train"], data.splits["test"]
    assert data.classes == tuple(map(str, range(settings.get("num_classes", 2))))
    assert sum(len(data.splits[name].x) for name in SPLITS) == 1000
    peer = KNeighborsClassifier(10).fit(train.x, train.labels)
    assert peer.score(test.x, test.labels) >= accuracy


def test_rings_lie_at_their_radii():
    data = Synthetic(kind="rings", noise=0.0)
    radius = np.linalg.norm(data.splits["train"].x, axis=1)
    np.testing.assert_allclose(radius, np.where(data.splits["train"].labels == 1, 0.4, 1.0), atol=1e-6)


def test_a_seed_draws_the_same_rows():
    one, again, other = Synthetic(seed=1), Synthetic(seed=1), Synthetic(seed=2)
    assert np.array_equal(one.splits["train"].x, again.splits["train"].x)
    assert not np.array_equal(one.splits["train"].x, other.splits["train"].x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "moons", "features": 3}, "2 `features` and 2 `num_classes` for moons, but got 3 and 2"),
        ({"kind": "blobs", "num_classes": 1}, "at least 2 `num_classes`"),
        ({"noise": -1.0}, "no negative `noise`"),
        ({"kind": "hypercube", "features": 2, "num_classes": 4}, "at least 3 `features` for 4 classes"),
    ],
)
def test_what_cannot_be_made_is_told(settings: dict[str, object], message: str):
    with pytest.raises(TrainingError, match=message):
        Synthetic(**settings).setup()

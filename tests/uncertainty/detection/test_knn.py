"""The nearest-neighbour score against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection import knn
from dubio.uncertainty.detection.knn import NearestNeighbourGuidance, NearestNeighbours
from dubio.uncertainty.detection.measures import unit_norm
from dubio.uncertainty.errors import CalibrationSetTooSmall


def _fit(features_NF: Tensor, k: int, **options: int) -> NearestNeighbours:
    train = DeterministicPass(torch.zeros(len(features_NF), 1), torch.zeros(len(features_NF), 2), features_NF)
    return NearestNeighbours.fit(train, torch.zeros(len(features_NF), dtype=torch.int64), k, **options)


def _score(nearest: NearestNeighbours, features_BF: Tensor) -> Tensor:
    rows = len(features_BF)
    seen = DeterministicPass(torch.zeros(rows, 1), torch.zeros(rows, 2), features_BF)
    return nearest.score(Outputs(seen, torch.zeros(0, rows, 2)))


def _features(rows: int, width: int = 7, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 5, 50])
def test_distances_are_scikit_learns(k):
    train, asked = _features(300), 3 * _features(40, seed=1)
    oracle = NearestNeighbors(n_neighbors=k).fit(normalize(train.double().numpy()))
    due = oracle.kneighbors(normalize(asked.double().numpy()))[0][:, -1]
    np.testing.assert_allclose(_score(_fit(train, k), asked), due, rtol=1e-9)


def test_distance_to_itself_is_zero_and_to_its_opposite_two():
    train = _features(20)
    nearest = _fit(train, k=1)
    assert not _score(nearest, train).any()
    assert _score(_fit(train[:1], k=1), -train[:1]).tolist() == pytest.approx([2.0])


def test_length_does_not_matter_however_long():
    nearest = _fit(_features(100), k=5)
    asked = _features(10, seed=2)
    for factor in (1e-30, 1e-3, 1e3, 1e30, 1e37):
        torch.testing.assert_close(_score(nearest, asked * factor), _score(nearest, asked), rtol=1e-3, atol=1e-4)


def test_a_row_of_zeros_has_a_distance():
    nearest = _fit(torch.cat([_features(100), torch.zeros(1, 7)]), k=1)
    assert _score(nearest, torch.zeros(1, 7)).tolist() == [0.0]
    assert _score(_fit(_features(100), k=5), torch.zeros(1, 7)).tolist() == pytest.approx([1.0])  # as in scikit-learn


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_has_no_score_and_spoils_no_other(poison):
    nearest = _fit(_features(100), k=5)
    asked = _features(3, seed=1)
    clean = _score(nearest, asked)
    asked[1, 0] = poison
    scores = _score(nearest, asked)
    assert scores[1].isnan()
    torch.testing.assert_close(scores[[0, 2]], clean[[0, 2]])


def test_a_large_training_split_is_thinned_without_global_randomness():
    train = _features(500)
    before = torch.get_rng_state()
    nearest = _fit(train, k=5, bank_size=100)
    assert torch.equal(torch.get_rng_state(), before)
    rows = {tuple(row) for row in _fit(train, k=5).bank_NF.tolist()}
    kept = [tuple(row) for row in nearest.bank_NF.tolist()]
    assert len(kept) == len(set(kept)) == 100
    assert set(kept) < rows
    assert torch.equal(_fit(train, k=5, bank_size=100).bank_NF, nearest.bank_NF)
    assert not torch.equal(_fit(train, k=5, bank_size=100, seed=1).bank_NF, nearest.bank_NF)


def test_the_bank_is_never_thinned_below_k():
    assert len(_fit(_features(200), k=50, bank_size=10).bank_NF) == 50


@pytest.mark.parametrize("k", [0, -1, 11])
def test_a_k_that_the_training_split_cannot_serve_is_refused(k):
    with pytest.raises(CalibrationSetTooSmall, match=f"k = {k}.*got 10"):
        _fit(_features(10), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("centres", [1, 5])
def test_small_distances_between_far_features_are_kept(centres, spread, dtype):
    """Clouds that lie together far from 0, as the classes of a well-trained network do."""
    means = 3 * _features(centres, width=32, seed=9).to(dtype)
    clouds = [means.repeat(500, 1)[:500] + spread * _features(500, 32, seed).to(dtype) for seed in (1, 2)]
    train, asked = clouds
    oracle = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(normalize(train.double().numpy()))
    # scikit-learn finds the neighbours; their distances are by definition, for it expands the square.
    tenth = oracle.kneighbors(normalize(asked.double().numpy()))[1][:, -1]
    due = np.linalg.norm(normalize(asked.double().numpy()) - normalize(train.double().numpy())[tenth], axis=1)
    score = _score(_fit(train, k=10), asked)
    np.testing.assert_allclose(score, due, rtol=1e-6)
    assert len(score.unique()) == 500


def test_a_row_that_occurs_k_times_is_at_no_distance_at_all():
    train = _features(10).repeat(5, 1)
    assert not _score(_fit(train, k=5), train).any()
    assert bool((_score(_fit(train, k=6), train) > 0.1).all())


def _clouds(spread: float) -> Tensor:
    return 3 * _features(2, width=24, seed=4).repeat(150, 1) + spread * _features(300, 24, 5)


def _ties() -> Tensor:
    """Rows at a few distances only, each from many others: +-1 in two of 24 places."""
    rows = torch.zeros(300, 24)
    places = torch.randint(0, 6, (300, 2), generator=torch.Generator().manual_seed(6))
    return rows.scatter_add_(1, places, torch.ones(300, 2)) * torch.tensor([1.0, -1.0]).repeat(150).unsqueeze(1)


BANKS = {
    "random": _features(300, 24),
    "tied": _ties(),
    "copies": _features(6, 24).repeat(50, 1),
    "nearly copies": (1 + 1e-7 * _features(300, 24)) * _features(6, 24).repeat(50, 1),
    "clouds": _clouds(1e-3),
    "dense clouds": _clouds(1e-6),
    "one large place": _features(300, 24) * torch.logspace(0, 12, 24),
    "large and tiny rows": _features(300, 24) * torch.logspace(-30, 30, 300).unsqueeze(1),
    "tiny places": _features(300, 24) * torch.tensor([1.0, 1e-38]).repeat(12),
    "zeros": torch.cat([_features(100, 24), torch.zeros(200, 24)]),
}


@pytest.mark.parametrize("k", [1, 9, 50, 299, 300])
@pytest.mark.parametrize("kind", BANKS)
def test_no_rounding_hides_the_kth_neighbour(kind, k):
    bank = BANKS[kind]
    asked = torch.cat([bank[::30], bank[5:15] + 1e-3 * bank[25:35], _features(10, 24, 7), torch.zeros(1, 24)])
    nearest = _fit(bank, k)
    rows_BF = unit_norm(asked).numpy()
    due = np.sort(np.linalg.norm(rows_BF[:, None] - nearest.bank_NF.numpy(), axis=-1), axis=-1)[:, k - 1]
    np.testing.assert_allclose(_score(nearest, asked), due, rtol=1e-13, atol=0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", BANKS)
def test_the_distance_is_the_same_in_any_company_to_the_last_bit(kind, threads):
    bank = BANKS[kind]
    asked = torch.cat([bank[::30], _features(22, 24, 7), torch.zeros(1, 24)])
    nearest, before = _fit(bank, k=50), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = _score(nearest, asked)
        for size in (1, 2, 3, 5, 8, 17, 32):
            assert torch.equal(torch.cat([_score(nearest, part) for part in asked.split(size)]), together), size
    finally:
        torch.set_num_threads(before)


def test_many_candidates_are_looked_at_in_parts(monkeypatch):
    asked = _features(7, 24)
    due = [_score(_fit(BANKS[kind], k=9), asked) for kind in ("random", "copies")]
    monkeypatch.setattr(knn, "MAX_DIFFERENCES", 24 * 40)
    parts = [_score(_fit(BANKS[kind], k=9), asked) for kind in ("random", "copies")]
    assert all(map(torch.equal, parts, due))


@pytest.mark.parametrize("k", [1, 10, 300])
def test_guidance_is_the_papers(k):
    generator = torch.Generator().manual_seed(5)
    train_NF, asked_BF = _features(300), 3 * _features(40, seed=1)
    train_NC, asked_BC = (2 * torch.randn(rows, 4, generator=generator) for rows in (300, 40))
    train = DeterministicPass(torch.zeros(300, 1), train_NC, train_NF)
    asked = DeterministicPass(torch.zeros(40, 1), asked_BC, asked_BF)
    # As in the authors' code: the bank times its energies, the mean of the k largest products, times the energy.
    bank = normalize(train_NF.double().numpy()) * logsumexp(train_NC.double().numpy(), axis=-1)[:, None]
    products = np.sort(normalize(asked_BF.double().numpy()) @ bank.T, axis=-1)[:, ::-1][:, :k]
    due = -products.mean(-1) * logsumexp(asked_BC.double().numpy(), axis=-1)
    fitted = NearestNeighbourGuidance.fit(train, torch.zeros(300), k)
    np.testing.assert_allclose(fitted.score(Outputs(asked, torch.zeros(0, 40, 4))), due, rtol=1e-9)


def test_guidance_keeps_the_energies_of_the_rows_that_it_keeps():
    generator = torch.Generator().manual_seed(5)
    train = DeterministicPass(torch.zeros(300, 1), torch.randn(300, 4, generator=generator), _features(300))
    fitted = NearestNeighbourGuidance.fit(train, torch.zeros(300), 3, 20)
    energies_N = train.logits_BC.double().logsumexp(-1)
    whole = normalize(train.features().double().numpy()) * energies_N.numpy()[:, None]
    assert len(fitted.bank_NF) == 20
    assert all(np.isclose(whole, row, rtol=1e-12).all(-1).any() for row in fitted.bank_NF.numpy())


@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_nearest_rows_are_scikit_learns(count: int):
    train, asked = _features(200), 3 * _features(40, seed=1)
    oracle = NearestNeighbors(n_neighbors=min(count, 200)).fit(normalize(train.double().numpy()))
    due_distances, due_places = oracle.kneighbors(normalize(asked.double().numpy()))
    places, distances = _fit(train, k=3).nearest(asked, count)
    np.testing.assert_array_equal(places, due_places)
    np.testing.assert_allclose(distances, due_distances, rtol=1e-9)


def test_what_is_drawn_is_what_is_kept():
    train = _features(90)
    drawn = NearestNeighbours.draw(90, 3, 20)
    kept = normalize(train[drawn].double().numpy())
    np.testing.assert_allclose(_fit(train, k=3, bank_size=20).bank_NF, kept, rtol=1e-6)
    assert NearestNeighbours.draw(90, 3, 90).tolist() == list(range(90))

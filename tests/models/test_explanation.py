from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor

from dubio.models import Ensemble, Predictor, Work, load
from dubio.models.errors import InvalidInput, ModelError
from dubio.models.explanation import MOST_NEIGHBOURS, Explanation
from dubio.models.prediction import EXPLAINED_ROWS, Prediction
from tests.models.conftest import blobs
from tests.models.test_ensemble import sibling


def test_the_nearest_training_rows_are_scikit_learns(trained: Predictor, rows: Tensor):
    train = trained.deterministic(blobs(400, seed=1)[0]).features()
    oracle = NearestNeighbors(n_neighbors=MOST_NEIGHBOURS).fit(normalize(train.double().numpy()))
    features = trained.deterministic(rows).features()
    due_distances, due_places = oracle.kneighbors(normalize(features.double().numpy()))
    explanations = trained.explain(rows, trained.predict(rows)).explanations
    given = [[near.row for near in each.neighbours] for each in explanations]
    np.testing.assert_array_equal(given, due_places + 7)  # as the record numbers them
    distances = [[near.distance for near in each.neighbours] for each in explanations]
    np.testing.assert_allclose(distances, due_distances, atol=1e-6)


def test_thumbnails_are_those_of_the_rows_and_only_where_they_are_kept(trained: Predictor):
    x = blobs(400, seed=1)[0][[3, 333]]
    explained = trained.explain(x, trained.predict(x)).explanations
    first, second = (each.neighbours[0] for each in explained)
    assert (first.row, second.row) == (10, 340)  # each is nearest to itself
    assert first.distance == pytest.approx(0, abs=1e-6)
    shade = (x[0] - trained.input.low) / (trained.input.high - trained.input.low) * 255
    np.testing.assert_allclose(first.thumbnail_CHW, shade, atol=1)
    assert second.thumbnail_CHW is None
    assert trained.describe()["training_examples_kept"] == {"what": "thumbnails", "rows": 100, "bytes": 1600}


@pytest.mark.parametrize("samples", [None, "auto"])
def test_the_score_of_the_reason_has_the_smallest_p_value(trained: Predictor, samples: str | None):
    x = torch.cat([blobs(10, 5)[0], torch.full((1, *trained.input.shape), 400.0)])
    prediction = trained.predict(x, samples=samples)
    explanations = trained.explain(x, prediction).explanations
    names = [score.name for score in trained.detector.scores]
    assert all(list(each.scores) == names for each in explanations)
    assert all(0 < p_value <= 1 for each in explanations for p_value in each.scores.values())
    assert prediction.flagged[-1]
    assert explanations[-1].scores["input_mahalanobis"] == pytest.approx(1 / 151)


def test_explanations_do_not_depend_on_how_rows_are_divided(trained: Predictor):
    x = blobs(EXPLAINED_ROWS + 3, seed=6)[0]
    prediction = trained.predict(x)
    whole = trained.explain(x, prediction)
    parts = [
        trained.explain(x[part], prediction.rows(part.start, part.stop)) for part in (slice(0, 90), slice(90, 259))
    ]
    joined = Prediction.join(parts).explanations
    assert len(whole.explanations) == len(joined) == len(x)
    for one, other in zip(whole.explanations, joined, strict=True):
        assert one.scores == other.scores
        assert [near.row for near in one.neighbours] == [near.row for near in other.neighbours]
    assert whole.rows(2, 4).explanations == whole.explanations[2:4]


def test_without_a_verdict_there_is_nothing_to_explain(trained: Predictor, rows: Tensor):
    assert trained.explain(rows, trained.predict(rows, samples=4)).explanations == [Explanation()] * len(rows)
    with pytest.raises(ModelError, match="more `work`"):
        trained.explain(rows, trained.predict(rows, work=Work.MC))
    with pytest.raises(InvalidInput, match="the 10 inputs of the prediction, but got 9"):
        trained.explain(rows[:9], trained.predict(rows))


def test_a_checkpoint_that_keeps_nothing_explains_nothing_of_it(trained: Predictor, rows: Tensor):
    bare = replace(trained, explaining=None)
    assert bare.explain(rows, bare.predict(rows)).explanations == [Explanation()] * len(rows)
    assert bare.describe()["training_examples_kept"] is None


def test_a_file_keeps_what_explains(trained: Predictor, saved: Path, rows: Tensor):
    read = load(saved, strategy="chain")
    for name in ("ranks", "rows", "examples"):
        assert torch.equal(getattr(read.explaining, name), getattr(trained.explaining, name))
    due, given = (each.explain(rows, each.predict(rows)).explanations for each in (trained, read))
    assert [[near.row for near in each.neighbours] for each in given] == [
        [near.row for near in each.neighbours] for each in due
    ]


def test_of_an_ensemble_the_checkpoint_that_found_the_input_strangest_explains(trained: Predictor):
    ensemble = Ensemble.build([trained, sibling(trained, 1, 12), sibling(trained, 2, 8)])
    x = torch.cat([blobs(60, 7)[0], torch.full((1, *trained.input.shape), 400.0)])
    prediction = ensemble.predict(x)
    explanations = ensemble.explain(x, prediction).explanations
    alone = torch.stack([torch.from_numpy(each.predict(x).p_value) for each in ensemble.predictors])
    due = (alone / torch.tensor(ensemble.joint.levels)[:, None]).argmin(0) + 1
    assert [each.checkpoint for each in explanations] == due.tolist()
    assert len(set(due.tolist())) > 1
    rows = [each.neighbours is not None for each in explanations]
    assert rows == (due == 1).tolist()  # the others' checkpoints keep no rows
    own = trained.explain(x, trained.predict(x)).explanations
    mine = [row for row, checkpoint in enumerate(due.tolist()) if checkpoint == 1]
    assert all(explanations[row].scores == own[row].scores for row in mine)

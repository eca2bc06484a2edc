"""What every score keeps to: it points the same way, says what it looks at, and refuses or takes degenerate data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty import Detector, DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.registry import SCORES
from dubio.uncertainty.detection.scores import UNCERTAIN, UNFAMILIAR, move
from dubio.uncertainty.errors import UncertaintyError


@pytest.mark.parametrize("name", SCORES)
def test_a_score_asks_members_exactly_if_their_answers_change_it(trained, name):
    score = SCORES[name].fit(trained.train, trained.train_labels_N)
    select = trained.select
    with_others = Outputs(select.deterministic, select.probs_KBC.roll(1, 1))
    without_pass = Outputs(select.deterministic.map(torch.ones_like), select.probs_KBC)
    assert torch.equal(score.score(select), score.score(with_others)) == (not score.asks_members)
    assert torch.equal(score.score(select), score.score(without_pass)) == score.asks_members


def test_distances_say_unfamiliar_and_everything_else_uncertain():
    uncertain = {
        *(name for name, score in SCORES.items() if score.asks_members),
        *("max_softmax", "max_logit", "energy", "gen", "react", "fdbd"),
    }
    assert {name: score.reason for name, score in SCORES.items()} == {
        name: UNCERTAIN if name in uncertain else UNFAMILIAR for name in SCORES
    }


@pytest.mark.parametrize("name", SCORES)
def test_every_score_of_rows_between_the_classes_or_far_away_is_larger(trained, name):
    # Rows of the wrong scale for what looks at lengths, and rows between the classes for what looks at the answers.
    score = SCORES[name].fit(trained.train, trained.train_labels_N)
    generator = torch.Generator().manual_seed(0)
    ordinary = score.score(trained.held_out).double().mean()
    between = torch.full((500, 6), 0.3) + 0.1 * torch.randn(500, 6, generator=generator)
    far = torch.tensor([30.0, -30.0] * 3) + torch.randn(500, 6, generator=generator)
    strange = max(float(score.score(trained.outputs(x)).double().mean()) for x in (between, far))
    assert strange > float(ordinary)


@pytest.mark.parametrize("name", SCORES)
def test_a_row_scores_alike_in_every_batch(trained, name):
    score = SCORES[name].fit(trained.train, trained.train_labels_N)
    together_B = score.score(trained.select)
    alone_B = torch.cat([score.score(trained.select.take(slice(row, row + 1))) for row in range(50)])
    torch.testing.assert_close(alone_B, together_B[:50], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_moving_keeps_every_number(trained, name):
    score = SCORES[name].fit(trained.train, trained.train_labels_N)
    moved = move(score, torch.device("cpu"))
    assert type(moved) is type(score)
    assert torch.equal(moved.score(trained.select), score.score(trained.select))


def _degenerate(features_NF: Tensor) -> tuple[DeterministicPass, Outputs]:
    """A pass of a network whose head makes logits of given features, which stand for inputs and a block, too."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Identity(), nn.Linear(features_NF.shape[1], 3)).eval().requires_grad_(False)
    read = FeatureTap(network, features_NF[:1]).read(features_NF)
    seen = DeterministicPass(
        read.inputs_BF, read.logits_BC, read.features_BF, {Block("0", -1): features_NF}, read.layer
    )
    return seen, Outputs(seen, torch.stack([read.logits_BC, 2 * read.logits_BC]).softmax(-1))


GENERATOR = torch.Generator().manual_seed(1)
DEGENERATE = {
    "constant": torch.ones(40, 8),
    "zeros": torch.zeros(40, 8),
    "one axis varies": torch.cat([torch.randn(40, 1, generator=GENERATOR), torch.zeros(40, 7)], dim=1),
    "fewer rows than features": torch.randn(6, 8, generator=GENERATOR),
    "huge": 1e15 * torch.randn(40, 8, generator=GENERATOR),
    "tiny": 1e-15 * torch.randn(40, 8, generator=GENERATOR),
    "one feature": torch.randn(40, 1, generator=GENERATOR),
}


@pytest.mark.parametrize("features_NF", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("name", SCORES)
def test_degenerate_training_rows_are_refused_or_give_finite_scores(name, features_NF):
    seen, outputs = _degenerate(features_NF)
    labels_N = torch.arange(len(features_NF)) % 3
    try:
        score = SCORES[name].fit(seen, labels_N, 3)
    except UncertaintyError as refused:
        assert name in str(refused)  # noqa: PT017 - either outcome is right
        return
    assert bool(torch.isfinite(score.score(outputs)).all())


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.fits_classes])
@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 2, 2], []])
def test_a_class_of_one_row_is_refused_by_who_fits_classes(name, labels):
    seen, _ = _degenerate(torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(UncertaintyError, match=r"class 1 has 1|got none"):
        SCORES[name].fit(seen, torch.tensor(labels, dtype=torch.int64), 1)


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if not score.fits_classes])
def test_a_class_of_one_row_does_not_matter_to_the_others(name):
    seen, outputs = _degenerate(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))
    score = SCORES[name].fit(seen, torch.tensor([0, 0, 1, 2, 2, 2]), 1)
    assert bool(torch.isfinite(score.score(outputs)).all())


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["logits", "features", "outputs of the block 0"])
def test_training_rows_that_are_not_finite_are_refused_by_what_is_not(what, poison):
    seen, outputs = _degenerate(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)))
    block = Block("0", -1)
    parts = {"logits": seen.logits_BC, "features": seen.features(), "outputs of the block 0": seen.blocks[block]}
    parts[what] = parts[what].clone()
    parts[what][3, 1] = poison
    pooled = {block: parts["outputs of the block 0"]}
    spoiled = DeterministicPass(seen.inputs_BF, parts["logits"], parts["features"], pooled, seen.layer)
    with pytest.raises(UncertaintyError, match=f"Expected finite {what} of the training rows"):
        Detector.fit(spoiled, torch.arange(30) % 3, outputs, ("neighbours",), 5)

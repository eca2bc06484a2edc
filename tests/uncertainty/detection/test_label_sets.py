"""Label sets against formulas written out by hand, and their coverage against its exact law."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from dubio.uncertainty.detection.label_sets import GROUPS, PENALTIES, SCORES, UNBOUNDED, LabelSets, rows_for
from dubio.uncertainty.errors import NotFitted, UncertaintyError


def draw(rows: int, seed: int, classes: int = 5, decimals: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that are too sure of themselves, and classes drawn from milder ones."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 2, (rows, classes))
    mild = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (mild.cumsum(1) > chance.random((rows, 1))).argmax(1)
    sure = mild**2 / (mild**2).sum(1, keepdims=True)
    return torch.from_numpy(sure if decimals is None else sure.round(decimals)), torch.from_numpy(labels)


def by_hand(rule: LabelSets, probs: np.ndarray) -> list[float]:
    """The score of each class of one input, as the papers write it, without randomisation."""
    scores = []
    for own in probs:
        above = [other for other in probs if other > own]
        rank = 1 + len(above)
        scores.append(
            {
                "lac": 1 - own,  # Sadinle et al. 2019, section 2
                "aps": sum(above),  # Romano et al. 2020: in the set with threshold t exactly if the sum is below t
                "raps": sum(above) + rule.penalty * max(rank - rule.free_ranks, 0),  # Angelopoulos et al. 2021, (4)
            }[rule.score]
        )
    return scores


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_formulas_of_the_papers(score: str, decimals: int | None):
    mean_BC, _ = draw(200, 0, decimals=decimals)
    rule = LabelSets(score, "all", 0.9, *((0.1, 2) if score == "raps" else ()))
    expected = [by_hand(rule, row) for row in mean_BC.numpy()]
    np.testing.assert_allclose(rule.scores(mean_BC).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("by", GROUPS)
@pytest.mark.parametrize("score", SCORES)
def test_sets_are_those_of_a_plain_implementation(score: str, by: str):
    coverage, classes = 0.8, 5
    (select_NC, select_N), (mean_NC, labels_N) = draw(200, 1), draw(400, 2)
    rule = LabelSets.fit(select_NC, select_N, score, by, coverage).calibrate(mean_NC, labels_N)
    fresh_BC, _ = draw(200, 3)
    scores = np.array([by_hand(rule, row) for row in mean_NC.numpy()])[np.arange(400), labels_N.numpy()]
    group = {"all": np.zeros(400, int), "class": labels_N.numpy(), "predicted": mean_NC.numpy().argmax(1)}[by]
    quantiles = []
    for each in range(1 if by == "all" else classes):
        of_group = sorted(scores[group == each])
        quantiles.append(of_group[math.ceil((len(of_group) + 1) * coverage) - 1])
    for row, held in zip(fresh_BC.numpy(), rule(fresh_BC).numpy(), strict=True):
        top = row.argmax()
        expected = []
        for label, value in enumerate(by_hand(rule, row)):
            which = {"all": 0, "class": label, "predicted": top}[by]
            # Calibration allows for rounding, which no row here is so close to.
            expected.append(label == top or value <= quantiles[which] + 1e-3 * (score != "lac"))
        near = any(abs(value - q) < 2e-3 for value in by_hand(rule, row) for q in quantiles)
        assert near or held.tolist() == expected


@pytest.mark.parametrize(("rows", "coverage"), [(99, 0.95), (400, 0.95), (37, 0.9), (19, 0.95)])
def test_the_quantile_is_the_one_with_n_plus_one(rows: int, coverage: float):
    mean_NC, labels_N = draw(rows, 4)
    rule = LabelSets("lac", "all", coverage).calibrate(mean_NC, labels_N)
    scores = np.sort(1 - mean_NC.numpy()[np.arange(rows), labels_N.numpy()])
    assert rule.quantiles_G.tolist() == [scores[math.ceil((rows + 1) * coverage - 1e-9) - 1]]


def test_too_few_rows_put_every_class_into_the_set():
    mean_NC, labels_N = draw(18, 5)
    rule = LabelSets("lac", "all", 0.95).calibrate(mean_NC, labels_N)
    assert rule.quantiles_G.tolist() == [UNBOUNDED]
    assert rule.unbounded == [0]
    assert bool(rule(draw(50, 6)[0]).all())
    assert (rows_for(0.95), rows_for(0.9), rows_for(0.99), rows_for(0.5)) == (19, 9, 99, 1)


def test_a_class_with_too_few_rows_is_in_every_set_by_class():
    mean_NC, labels_N = draw(600, 7)
    few = torch.cat([(labels_N != 2).nonzero().flatten(), (labels_N == 2).nonzero().flatten()[:5]])
    rule = LabelSets("lac", "class", 0.95).calibrate(mean_NC[few], labels_N[few])
    assert rule.unbounded == [2]
    held = rule(draw(300, 8)[0])
    assert bool(held[:, 2].all())
    assert not bool(held[:, 0].all())


@pytest.mark.parametrize("decimals", [None, 2])
@pytest.mark.parametrize("by", GROUPS)
@pytest.mark.parametrize("score", SCORES)
def test_the_true_class_is_in_the_set_as_often_as_promised(score: str, by: str, decimals: int | None):
    """Over draws of the calibration rows and of an input together, of which every draw here has one."""
    coverage, rows, draws = 0.8, 60, 600
    select = draw(200, 9, decimals=decimals)
    fitted = LabelSets.fit(*select, score, by, coverage)
    mean_NC, labels_N = draw((rows + 1) * draws, 10, decimals=decimals)
    covered = 0
    for first in range(0, len(mean_NC), rows + 1):
        rule = fitted.calibrate(mean_NC[first : first + rows], labels_N[first : first + rows])
        covered += int(rule(mean_NC[first + rows : first + rows + 1])[0, labels_N[first + rows]])
    assert binom.cdf(covered, draws, coverage) > 0.01
    if decimals is None and by == "all" and score == "lac":
        assert binom.sf(covered - 1, draws, (1 + math.ceil((rows + 1) * coverage)) / (rows + 1)) > 1e-4


def test_the_coverage_of_one_calibration_follows_the_beta_law():
    """P(covered by the rule of these rows) is Beta(k, n + 1 - k) for scores without ties."""
    rows, coverage, draws = 100, 0.9, 300
    fresh_BC, fresh_B = draw(20_000, 11)
    bare = LabelSets("lac", "all", coverage)
    score_B = bare.scores(fresh_BC).gather(-1, fresh_B[:, None])[:, 0]
    mean_NC, labels_N = draw(rows * draws, 12)
    rates = []
    for first in range(0, rows * draws, rows):
        rule = bare.calibrate(mean_NC[first : first + rows], labels_N[first : first + rows])
        rates.append(float((score_B <= rule.quantiles_G).double().mean()))
    k = math.ceil((rows + 1) * coverage)
    mean, variance = k / (rows + 1), k * (rows + 1 - k) / ((rows + 1) ** 2 * (rows + 2))
    assert abs(np.mean(rates) - mean) < 4 * math.sqrt(variance / draws) + 0.003
    assert np.std(rates) == pytest.approx(math.sqrt(variance), rel=0.2)


@pytest.mark.parametrize("score", SCORES)
def test_no_set_is_empty_and_the_most_probable_class_is_in_it(score: str):
    mean_NC, _ = draw(200, 13)
    easy_N = mean_NC.argmax(-1)  # all right: the quantile is small
    rule = LabelSets.fit(mean_NC, easy_N, score, coverage=0.5).calibrate(mean_NC, easy_N)
    fresh_BC, _ = draw(500, 14)
    held = rule(fresh_BC)
    assert bool(held.gather(-1, fresh_BC.argmax(-1, keepdim=True)).all())
    assert bool((rule(mean_NC).sum(-1) >= 1).all())


def test_the_penalty_is_the_one_with_the_smallest_sets_on_select():
    mean_NC, labels_N = draw(300, 15, classes=20)
    rule = LabelSets.fit(mean_NC, labels_N, "raps", coverage=0.9)
    ranks = [1 + int((row > row[label]).sum()) for row, label in zip(mean_NC.numpy(), labels_N.numpy(), strict=True)]
    assert rule.free_ranks == sorted(ranks)[math.ceil(301 * 0.9) - 1]
    sizes = {
        penalty: float(replace(rule, penalty=penalty).calibrate(mean_NC, labels_N)(mean_NC).double().sum(-1).mean())
        for penalty in PENALTIES
    }
    assert sizes[rule.penalty] == min(sizes.values())
    assert LabelSets.fit(mean_NC, labels_N, "aps", coverage=0.9).penalty == 0


@pytest.mark.parametrize("score", SCORES)
def test_a_row_has_no_larger_score_in_another_evaluation_than_it_was_calibrated_with(score: str):
    mean_NC, labels_N = draw(300, 16)
    mean_NC[:100, 1] = mean_NC[:100, 0]  # ties, which rounding breaks
    rule = LabelSets(score, "all", 0.5, *((0.1, 1) if score == "raps" else ()))
    rounding = 1e-3
    shaken_NC = (
        mean_NC
        + rounding * torch.empty_like(mean_NC).uniform_(-1, 1, generator=torch.Generator().manual_seed(0)).sign()
    )
    limits = [
        float(rule.calibrate(mean_NC[i : i + 1], labels_N[i : i + 1], rounding=1.001 * rounding).quantiles_G)
        for i in range(300)
    ]
    again = rule.scores(shaken_NC).gather(-1, labels_N[:, None])[:, 0]
    assert bool((again <= torch.tensor(limits)).all())


def test_a_row_that_may_ask_other_members_counts_as_the_least_fitting():
    mean_NC, labels_N = draw(100, 17)
    sure_N = torch.arange(100) >= 10
    rule = LabelSets("lac", "all", 0.95).calibrate(mean_NC, labels_N, sure_N)
    assert rule.quantiles_G.tolist() == [UNBOUNDED]


def test_rows_whose_predicted_class_is_a_matter_of_rounding_cover_nothing_by_predicted_class():
    rounding, tied_NC = 1e-4, torch.tensor([[0.5, 0.5 - 1e-5, 1e-5]]).double().expand(60, -1)
    clear_NC = torch.tensor([[0.1, 0.2, 0.7]]).double().expand(60, -1)
    labels_N = torch.cat([torch.ones(60), torch.full((60,), 2)]).long()
    rule = LabelSets("lac", "predicted", 0.9).calibrate(torch.cat([tied_NC, clear_NC]), labels_N, rounding=rounding)
    # Shaken, the tied rows are of the second class as well as of the first.
    assert rule.quantiles_G.tolist()[:2] == [UNBOUNDED, UNBOUNDED]
    assert rule.quantiles_G[2] == pytest.approx(0.3 + rounding)
    sure_N = torch.arange(120) < 119
    unsure = LabelSets("lac", "predicted", 0.9).calibrate(torch.cat([clear_NC, clear_NC]), labels_N, sure_N, rounding)
    assert unsure.quantiles_G.tolist()[:2] == [UNBOUNDED, UNBOUNDED]


def test_only_calibrated_rules_give_sets():
    with pytest.raises(NotFitted, match="calibrate"):
        LabelSets("lac", "all", 0.9)(draw(2, 0)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"score": "lace"},
        {"by": "mood"},
        {"coverage": 0.0},
        {"coverage": 1.0},
        {"coverage": math.nan},
        {"penalty": -1.0},
        {"penalty": math.inf},
        {"penalty": math.nan},
        {"free_ranks": -1},
        {"free_ranks": 2**40},
        {"quantiles_G": torch.zeros(3)},
        {"quantiles_G": None},
        {"by": "class"},
    ],
)
def test_values_that_no_fit_gives_are_refused(changes: dict):
    sound = LabelSets("lac", "all", 0.9, quantiles_G=torch.zeros(1))
    sound.check(5)
    with pytest.raises(UncertaintyError):
        replace(sound, **changes).check(5)

"""Some sites only, and other rates than those of the training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dubio.uncertainty.dropout.sites import Site
from dubio.uncertainty.errors import UnsupportedSite
from dubio.uncertainty.execution import masks
from tests.quick import quick_committee


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh(), nn.AlphaDropout(0.3))
    return nn.Sequential(body, nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))).eval()


@pytest.mark.parametrize(
    ("sites", "names"),
    [
        (None, ["0.2", "0.5", "1.0"]),
        (["1.*"], ["1.0"]),
        (["0.*"], ["0.2", "0.5"]),
        (["dropout"], ["0.2", "1.0"]),
        (["alpha_dropout", "1.0"], ["0.5", "1.0"]),
    ],
)
def test_sites_are_chosen_by_name_pattern_or_kind(sites, names):
    committee = quick_committee(_network(), torch.randn(1, 6), num_samples=4, sites=sites)
    assert [site.name for site in committee.sites] == names
    assert list(committee.audit().plan.left_out) == [name for name in ("0.2", "0.5", "1.0") if name not in names]


def test_what_is_left_out_does_not_drop(keeps):
    network, x = _network(), torch.randn(20, 6)
    committee = quick_committee(network, x[:1], num_samples=5, sites=["1.0"])
    with torch.no_grad():
        h = network[0](x)
        expected = torch.stack([network[1][1](h * keep / 0.5) for keep in keeps(committee)[0]])
    for rows in (1, 3, 20):
        torch.testing.assert_close(committee(x[:rows]), expected[:, :rows], rtol=1e-5, atol=1e-5)


def test_rates_override_those_of_the_training(keeps):
    network, x = _network(), torch.randn(20, 6)
    committee = quick_committee(
        network, x[:1], num_samples=5, sites=["0.2", "1.0"], rates={"1.*": 0.25, "dropout": 0.6}
    )
    assert [site.p for site in committee.sites] == [0.6, 0.25]
    first, last = keeps(committee)
    with torch.no_grad():
        h = network[0][:2](x)
        expected = [network[1][1](network[0][3:](h * first[k] / 0.4) * last[k] / 0.75) for k in range(5)]
    for rows in (1, 3, 20):
        torch.testing.assert_close(committee(x[:rows]), torch.stack(expected)[:, :rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sites": ["head"]}, r"`sites`.*'head' matches none of: 0.2 \(dropout\), 0.5 \(alpha_dropout\), 1.0"),
        ({"sites": []}, "at least one"),
        ({"rates": {"2.*": 0.5}}, r"`rates`.*'2\.\*' matches none"),
        ({"rates": {"*": 0.0}}, r"in \(0, 1\].*leave a site out"),
        ({"rates": {"*": 1.5}}, r"in \(0, 1\]"),
        ({"rates": {"*": float("nan")}}, r"in \(0, 1\]"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(options, match):
    with pytest.raises(UnsupportedSite, match=match):
        quick_committee(_network(), torch.randn(1, 6), num_samples=4, **options)


def test_a_name_comes_before_the_kind_of_the_same_name():
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Linear(8, 3))
    network.add_module("dropout", nn.Dropout(0.2))
    network.add_module("last", nn.Linear(3, 3))
    example = torch.randn(1, 6)
    chosen = quick_committee(network.eval(), example, num_samples=4, sites=["dropout"])
    assert [site.name for site in chosen.sites] == ["dropout"]
    rated = quick_committee(network, example, num_samples=4, rates={"*": 0.4, "dropout": 0.3})
    assert [site.p for site in rated.sites] == [0.4, 0.3]


def test_fingerprints_tell_choices_apart():
    twins = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)).eval()
    example = torch.randn(1, 6)
    choices = [{}, {"sites": ["0"]}, {"sites": ["3"]}, {"rates": {"0": 0.3}}, {"rates": {"3": 0.3}}]
    prints = [quick_committee(twins, example, num_samples=4, **choice).fingerprint for choice in choices]
    assert len(set(prints)) == len(prints)


def test_names_do_not_change_the_fingerprint_of_a_whole_committee():
    # Checkpoints from before sites had names keep theirs.
    sites = [Site("dropout", 0.5, (8,)), Site("dropout", 0.5, (8,))]
    keeps = masks.draw(sites, 4, 0)
    named = [Site("dropout", 0.5, (8,), "one"), Site("dropout", 0.5, (8,), "two")]
    assert masks.fingerprint(sites, keeps) == masks.fingerprint(named, keeps)
    assert masks.fingerprint(named, keeps, named=True) != masks.fingerprint(named[::-1], keeps, named=True)

"""Thinned committees: the same members as with masks, as small networks, wherever that is possible."""

from __future__ import annotations

import pytest
import torch

from dubio.models import MLP
from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution import kernels, thinned
from dubio.uncertainty.execution.grouped import GroupedLinear
from dubio.uncertainty.execution.thinned import ThinnedChain, thin
from tests.uncertainty.chains import ALL_MEMBERS, NOT_THINNABLE, THINNABLE, Built, K, built


def _thin(case: Built, max_weights: int = 10**8, max_numbers: int = 2**24) -> ThinnedChain:
    with torch.inference_mode():
        return thin(case.prefix(), case.chain(), case.banks, max_weights, max_numbers)


@pytest.mark.parametrize("name", THINNABLE)
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_thinned_members_are_the_loop(name, rows):
    case = built(*THINNABLE[name])
    thinned, x = _thin(case), case.inputs(rows)
    with torch.inference_mode():
        kept = x.clone()
        torch.testing.assert_close(thinned(x, ALL_MEMBERS), case.loop(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, kept)


WHY = {
    "dropout at the end": "no layer follows site 1",
    "two sites in a row": "site 1 follows another",
    "single pixels dropped": "site 0 does not drop whole units",
}


@pytest.mark.parametrize("name", NOT_THINNABLE)
def test_a_site_where_units_cannot_be_left_out_is_not_thinned(name):
    with pytest.raises(StrategyNotApplicable, match=WHY.get(name, "what follows site 0 makes something of a dropped")):
        _thin(built(*NOT_THINNABLE[name]))


@pytest.mark.parametrize("name", ["mlp", "the network of the models"])
@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_chunks_and_parts_of_the_members_do_not_matter(name, block, monkeypatch):
    monkeypatch.setattr(thinned, "BLOCK", block)
    case = built(*THINNABLE[name])
    strategy, x = _thin(case, max_numbers=2000), case.inputs(9)
    with torch.inference_mode():
        expected = case.loop(x)
        for members in (ALL_MEMBERS, slice(0, 1), slice(2, 5), slice(K - 1, K)):
            torch.testing.assert_close(strategy(x, members), expected[members], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "padding, stride and dilation"])
def test_without_onednn_the_members_are_the_same(name, monkeypatch):
    monkeypatch.setattr("dubio.uncertainty.execution.kernels.has_onednn", lambda weight: False)
    case = built(*THINNABLE[name])
    thinned, x = _thin(case), case.inputs(9)
    with torch.inference_mode():
        torch.testing.assert_close(thinned(x, ALL_MEMBERS), case.loop(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("max_numbers", "sizes"), [(2**24, {4, 16}), (3000, {4})])
def test_rows_are_parted_and_padded_once_to_what_fits_every_grouped_layer(max_numbers, sizes, monkeypatch):
    monkeypatch.setattr(kernels, "speedup", lambda *_: 2.0)  # as if grouped were the fastest
    case = built(*THINNABLE["mlp"])
    strategy, threads = _thin(case, max_numbers=max_numbers), torch.get_num_threads()
    layers = [step for _, steps in strategy.blocks for step in steps if isinstance(step, GroupedLinear)]
    assert len(layers) > 1
    for layer, fitting in zip(layers, [(4, 6, 16), (4, 5, 16), *[(2, 4, 16)] * len(layers)], strict=False):
        layer.rows[threads] = fitting
    run, seen = GroupedLinear._run, set[int]()
    monkeypatch.setattr(GroupedLinear, "_run", lambda layer, x: seen.add(len(x)) or run(layer, x))

    def ask(rows: int) -> None:
        x = case.inputs(rows)
        with torch.inference_mode():
            torch.testing.assert_close(strategy(x, ALL_MEMBERS), case.loop(x), rtol=1e-5, atol=1e-5)

    for rows in (4, 15, 16, 20, 31, 40):
        ask(rows)
    assert seen == sizes
    ask(5)  # filled up to 8 it would be, which is more than an eighth
    assert {5, 6} <= seen


def test_where_no_number_of_rows_fits_every_layer_each_pads_for_itself(monkeypatch):
    monkeypatch.setattr(kernels, "speedup", lambda *_: 2.0)
    case = built(*THINNABLE["mlp"])
    strategy, threads, x = _thin(case), torch.get_num_threads(), case.inputs(9)
    layers = [step for _, steps in strategy.blocks for step in steps if isinstance(step, GroupedLinear)]
    for layer, fitting in zip(layers, [(4,), (6,), *[(4,)] * len(layers)], strict=False):
        layer.rows[threads] = fitting
    with torch.inference_mode():
        torch.testing.assert_close(strategy(x, ALL_MEMBERS), case.loop(x), rtol=1e-5, atol=1e-5)


def _kept(case: Built, site: int) -> list[int]:
    return [int((mask != 0).sum()) for mask in case.banks[site]]


def test_a_member_holds_only_what_it_keeps():
    case = built(lambda: MLP(in_features=12, widths=(40, 30), num_classes=4, rates=(0.5, 0.5)), (12,))
    thinned = _thin(case)
    first, second = _kept(case, 0), _kept(case, 1)
    assert thinned.num_weights == sum(i * o + o * 4 for i, o in zip(first, second, strict=True))


def test_a_dropped_channel_takes_its_columns_with_it():
    case = built(*THINNABLE["the network of the models"])
    thinned = _thin(case)
    first, second, dense = _kept(case, 0), _kept(case, 1), _kept(case, 2)
    # Two 3x3 convolutions, the first of which nothing stands behind; 2 x 2 pixels are left; a dense layer and the head.
    assert thinned.num_weights == sum(
        9 * i * 10 + 9 * 10 * o + 4 * o * d + d * 4 for i, o, d in zip(first, second, dense, strict=True)
    )


def test_too_many_weights_are_not_gathered():
    case = built(*THINNABLE["mlp"])
    thinned = _thin(case)
    assert _thin(case, max_weights=thinned.num_weights).num_weights == thinned.num_weights
    with pytest.raises(StrategyNotApplicable, match=f"{thinned.num_weights} numbers, more than the"):
        _thin(case, max_weights=thinned.num_weights - 1)


def test_the_network_is_not_written():
    case = built(*THINNABLE["padding, stride and dilation"])
    before = {name: tensor.clone() for name, tensor in case.network.state_dict().items()}
    thinned = _thin(case)
    with torch.inference_mode():
        thinned(case.inputs(5), ALL_MEMBERS)
    assert all(torch.equal(before[name], tensor) for name, tensor in case.network.state_dict().items())

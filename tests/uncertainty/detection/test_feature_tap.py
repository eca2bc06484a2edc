"""The tap changes nothing about a pass, and tells what the head and the blocks were given and gave."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty import Committee, FeatureTap
from dubio.uncertainty.detection import blocks
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.errors import UncertaintyError


def _tap(case) -> FeatureTap:
    return FeatureTap(case.network, case.inputs(1))


def test_a_pass_through_the_tap_is_bit_identical_to_a_plain_one(case):
    plain = {batch: case.network(case.inputs(batch)) for batch in (1, 3, 16)}
    tap = _tap(case)
    for batch, logits_BC in plain.items():
        assert torch.equal(tap(case.inputs(batch))[0], logits_BC)
        assert torch.equal(case.network(case.inputs(batch)), logits_BC)


def test_features_are_what_the_head_eats(case):
    logits_BC, features_BF = _tap(case)(case.inputs(5))
    assert torch.equal(features_BF, case.network[:-1](case.inputs(5)))
    assert torch.equal(case.network[-1](features_BF), logits_BC)


def test_the_head_is_found_by_its_output_not_by_its_place():
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.ModuleDict({"head": nn.Linear(4, 3)})
            self.hidden, self.unused = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out["head"](self.hidden(x))

    network = Crossed().eval()
    tap = FeatureTap(network, torch.randn(1, 6))
    assert tap.head == "out.head"
    x = torch.randn(2, 6)
    assert torch.equal(tap(x)[1], network.hidden(x))


def test_a_head_that_is_called_by_keyword_is_read():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.hidden(x))

    network = Named().eval()
    x = torch.randn(2, 6)
    assert torch.equal(FeatureTap(network, x)(x)[1], network.hidden(x))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5), nn.ReLU()),
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 3, 3), nn.Flatten()),
    ],
    ids=["activation last", "no linear layer"],
)
def test_a_network_without_a_head_has_no_features(network):
    tap = FeatureTap(network.eval(), torch.randn(1, 6))
    assert tap.head is None
    x = torch.randn(2, 6)
    logits_BC, features_BF = tap(x)
    assert features_BF is None
    assert torch.equal(logits_BC, network(x))


def test_looking_for_the_head_leaves_no_hook_but_one(case):
    tap = _tap(case)
    hooks = {name: len(module._forward_pre_hooks) for name, module in case.network.named_modules()}
    assert {name for name, count in hooks.items() if count} == {tap.head}
    assert not any(module._forward_hooks for module in case.network.modules())


def test_threads_hear_their_own_pass_only(build):
    case = build(0, True)
    tap = _tap(case)
    committee = Committee(case.network, case.inputs(1), num_samples=4)
    expected = {seed: case.network[:-1](case.inputs(2, seed)) for seed in range(4)}

    def listen(seed: int) -> bool:
        return all(torch.equal(tap(case.inputs(2, seed))[1], expected[seed]) for _ in range(150))

    def disturb() -> bool:
        for _ in range(150):
            committee(case.inputs(33))
            case.network(case.inputs(3))
        return True

    with ThreadPoolExecutor(5) as pool:
        listening = [pool.submit(listen, seed) for seed in range(4)]
        assert pool.submit(disturb).result()
        assert all(each.result() for each in listening)


def test_listening_ends_when_the_network_fails(build):
    tap = _tap(build(0, False))
    with pytest.raises(RuntimeError):
        tap(torch.randn(2, 99))
    assert tap(torch.randn(2, 6))[1].shape == (2, 12)


def test_two_taps_on_one_network_do_not_disturb_each_other(case):
    first, second = _tap(case), _tap(case)
    x = case.inputs(3)
    assert torch.equal(first(x)[1], second(x)[1])


def test_a_tapped_network_can_be_copied_and_saved(case):
    names = list(case.network.state_dict())
    tap = _tap(case)
    x = case.inputs(3)
    assert list(case.network.state_dict()) == names
    clone = copy.deepcopy(case.network)
    clone.load_state_dict(case.network.state_dict())
    assert torch.equal(clone(x), case.network(x))
    assert torch.equal(FeatureTap(clone, x)(x)[1], tap(x)[1])
    buffer = io.BytesIO()
    torch.save(case.network, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), case.network(x))


def test_taps_of_one_network_share_their_hook():
    network = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).eval()
    x = torch.randn(5, 6)
    taps = [FeatureTap(network, x) for _ in range(5)]
    assert len(network[1]._forward_pre_hooks) == 1
    for each in (*taps, FeatureTap(copy.deepcopy(network), x)):
        logits_BC, features_BF = each(x)
        assert torch.equal(logits_BC, network(x))
        assert torch.equal(features_BF, network[0](x))
    for tap in taps:
        assert len(tap._network[1]._forward_pre_hooks) == 1


CONVOLUTIONAL = [(2, False), (2, True), (1, True)]


@pytest.mark.parametrize("axes_and_norm", CONVOLUTIONAL)
def test_blocks_are_read_in_the_same_pass_bit_identically(build, axes_and_norm):
    case = build(*axes_and_norm)
    x = case.inputs(5)
    plain = case.network(x)
    tap = _tap(case).with_blocks(blocks.find(case.network, x))
    seen = tap.read(x)
    assert len(tap.blocks) == 2
    assert torch.equal(seen.logits_BC, plain)
    assert torch.equal(case.network(x), plain)
    assert torch.equal(seen.features(), case.network[:-1](x))
    for block, pooled_BF in seen.blocks.items():
        maps = case.network[: int(block.name) + 1](x).flatten(2)
        assert torch.equal(pooled_BF, torch.cat([maps.mean(-1), maps.amax(-1)], dim=-1))


def test_who_does_not_ask_gets_no_blocks_and_no_hooks(build):
    case = build(2, True)
    x = case.inputs(3)
    tap = _tap(case)
    assert tap.read(x).blocks == {}
    assert not any(module._forward_hooks for module in case.network.modules())
    asking = tap.with_blocks(blocks.find(case.network, x))
    assert tap.read(x).blocks == {}
    assert len(asking.read(x).blocks) == 2


def test_taps_share_the_hooks_of_their_blocks(build):
    case = build(2, False)
    x = case.inputs(3)
    found = blocks.find(case.network, x)
    first, last = found
    both, one = _tap(case).with_blocks(found), _tap(case).with_blocks([last])
    _tap(case).with_blocks(found)
    assert sum(len(module._forward_hooks) for module in case.network.modules()) == 2
    assert both.read(x).blocks.keys() == {first, last}
    assert one.read(x).blocks.keys() == {last}


def test_threads_hear_their_own_blocks_only(build):
    case = build(2, True)
    found = blocks.find(case.network, case.inputs(1))
    tap = _tap(case).with_blocks(found)
    committee = Committee(case.network, case.inputs(1), num_samples=4, measure_seconds=0.1)
    expected = {seed: tap.read(case.inputs(2, seed)).blocks for seed in range(4)}

    def listen(seed: int) -> bool:
        heard = (tap.read(case.inputs(2, seed)).blocks for _ in range(100))
        return all(torch.equal(each[block], expected[seed][block]) for each in heard for block in found)

    def disturb() -> bool:
        for _ in range(100):
            committee(case.inputs(9))
            case.network(case.inputs(3))
        return True

    with ThreadPoolExecutor(5) as pool:
        listening = [pool.submit(listen, seed) for seed in range(4)]
        assert pool.submit(disturb).result()
        assert all(each.result() for each in listening)


def test_a_network_with_tapped_blocks_can_be_copied_and_saved(build):
    case = build(2, True)
    x = case.inputs(3)
    found = blocks.find(case.network, x)
    seen = _tap(case).with_blocks(found).read(x)
    buffer = io.BytesIO()
    torch.save(case.network, buffer)
    buffer.seek(0)
    for clone in (copy.deepcopy(case.network), torch.load(buffer, weights_only=False)):
        again = FeatureTap(clone, x).with_blocks(found).read(x)
        assert all(torch.equal(again.blocks[block], seen.blocks[block]) for block in found)


@pytest.mark.parametrize("name", ["nowhere", "0.weight", "__class__", "0..", "a" * 1000])
def test_a_block_that_is_no_module_of_the_network_is_refused(build, name):
    case = build(2, True)
    with pytest.raises(UncertaintyError, match="in the network, which the scores listen to"):
        _tap(case).with_blocks([Block(name, 1)])

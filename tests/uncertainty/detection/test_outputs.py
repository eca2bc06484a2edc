"""Outputs of several batches is that of one."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty import Committee, DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.errors import NoFeatures


def _pass(rows: int, features: bool = True) -> DeterministicPass:
    return DeterministicPass(torch.randn(rows, 6), torch.randn(rows, 3), torch.randn(rows, 4) if features else None)


def _outputs(rows: int) -> Outputs:
    return Outputs(_pass(rows), torch.rand(5, rows, 3))


def test_batches_are_joined_in_their_order():
    parts = [_outputs(2), _outputs(0), _outputs(3)]
    whole = Outputs.cat(parts)
    assert whole.probs_KBC.shape == (5, 5, 3)
    row = 0
    for part in parts:
        rows = slice(row, row := row + len(part.deterministic.logits_BC))
        assert torch.equal(whole.probs_KBC[:, rows], part.probs_KBC)
        assert torch.equal(whole.deterministic.inputs_BF[rows], part.deterministic.inputs_BF)
        assert torch.equal(whole.deterministic.logits_BC[rows], part.deterministic.logits_BC)
        assert torch.equal(whole.deterministic.features()[rows], part.deterministic.features())


def test_some_rows_are_taken_in_the_order_asked_for():
    whole = _outputs(5)
    few = whole.take(torch.tensor([3, 0, 3]))
    for name, values in vars(few.deterministic).items():
        assert torch.equal(values, getattr(whole.deterministic, name)[[3, 0, 3]])
    assert torch.equal(few.probs_KBC, whole.probs_KBC[:, [3, 0, 3]])
    assert Outputs(_pass(5, features=False), whole.probs_KBC).take(torch.tensor([1])).deterministic.features_BF is None


def test_a_network_without_features_has_none_in_its_outputs():
    joined = DeterministicPass.cat([_pass(2, features=False), _pass(3, features=False)])
    assert joined.features_BF is None
    assert len(joined.logits_BC) == 5
    with pytest.raises(NoFeatures, match=r"nn\.Linear.*mutual_information"):
        joined.features()


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_see_single_precision_at_least(dtype):
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype).eval()
    x = torch.randn(5, 6).to(dtype)
    logits_BC, features_BF = FeatureTap(network, x)(x)
    seen = DeterministicPass(x, logits_BC, features_BF)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for given, held in zip((x, logits_BC, features_BF), vars(seen).values(), strict=True):
        assert given.dtype == dtype
        assert held.dtype == wide
        assert torch.equal(held, given.to(wide))


def test_tokens_become_numbers():
    assert DeterministicPass(torch.arange(6).view(2, 3), torch.zeros(2, 2), None).inputs_BF.dtype == torch.float32


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

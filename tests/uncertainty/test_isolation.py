"""MC prediction leaves everything else alone: the network, deterministic answers, global random state."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dubio.uncertainty import Committee

BATCHES = (1, 2, 3, 5, 16, 33)


def _snapshot(network: nn.Module) -> list[Any]:
    tensors = [*network.parameters(), *network.buffers()]
    return [
        *((id(tensor), tensor._version, tensor.numpy(force=True).tobytes()) for tensor in tensors),
        *((name, id(module), module.training, dict(module._forward_hooks)) for name, module in network.named_modules()),
    ]


def _random_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (the global state is what is being watched)
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


# 1. The network stays in eval mode for ever, and nothing is written.


def test_nothing_is_written_and_no_mode_is_switched(case):
    before = _snapshot(case.network)
    committee = case.committee()
    for batch in BATCHES:
        committee(case.inputs(batch))
        committee(case.inputs(batch), num_samples=3)
    assert _snapshot(case.network) == before


def test_the_input_is_not_written(drawn):
    case, committee = drawn
    for batch in BATCHES:
        x = case.inputs(batch)
        committee(x)
        assert torch.equal(x, case.inputs(batch))


# 2. Deterministic answers are bit-identical before, after and during MC prediction.


def test_deterministic_answers_are_bit_identical_before_and_after(case):
    plain = {batch: case.network(case.inputs(batch)) for batch in BATCHES}
    committee = case.committee()
    for batch in BATCHES:
        committee(case.inputs(batch))
        assert torch.equal(case.network(case.inputs(batch)), plain[batch])


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns a hundred times more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


def _predict_beside_mc(case: Any, predictions: int) -> None:
    """Deterministic predictions in this thread while two others ask the committee all the time."""
    plain = {batch: case.network(case.inputs(batch)) for batch in (1, 3, 16)}
    committee = case.committee()
    expected = {batch: committee(case.inputs(batch)) for batch in (1, 5, 33)}
    before, random_before = _snapshot(case.network), _random_states()
    stop, asked = threading.Event(), [0, 0]

    def ask(number: int) -> None:
        while not stop.is_set():
            batch = (1, 5, 33)[asked[number] % 3]
            if not torch.equal(committee(case.inputs(batch)), expected[batch]):
                raise AssertionError("an MC answer changed under load")
            asked[number] += 1

    differing = index = 0
    inputs = {batch: case.inputs(batch) for batch in plain}
    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(ask, number) for number in range(2)]
        try:
            # A busy machine may let one of them begin late.
            while (index < predictions or min(asked) <= 10) and not any(asker.done() for asker in askers):
                batch = (1, 3, 16)[index % 3]
                differing += not torch.equal(case.network(inputs[batch]), plain[batch])
                index += 1
        finally:
            stop.set()
        for asker in askers:
            asker.result()
    assert differing == 0
    assert _snapshot(case.network) == before
    assert _random_states() == random_before


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("axes", [0, 2])
def test_deterministic_answers_are_bit_identical_beside_mc_in_other_threads(build, axes):
    _predict_beside_mc(build(axes, True), predictions=2000)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty_threads")
def test_ten_thousand_deterministic_answers_are_bit_identical_beside_mc(case):
    _predict_beside_mc(case, predictions=10_000)


def _ask_from_eight_threads(build: Any, strategy: str, seconds: float) -> None:
    """Every thread asks for members and deterministic answers in turn; each must get the bits that one alone gets."""
    case = build(2, True)
    committee = case.committee(strategy=strategy)
    sizes = (1, 2, 5, 17)
    plain = {batch: case.network(case.inputs(batch)) for batch in sizes}
    expected = {batch: committee(case.inputs(batch)) for batch in sizes}
    before, random_before = _snapshot(case.network), _random_states()
    end = time.monotonic() + seconds

    def ask(number: int) -> int:
        asked = differing = 0
        while time.monotonic() < end or asked < 20:
            batch = sizes[(number + asked) % len(sizes)]
            differing += not torch.equal(committee(case.inputs(batch)), expected[batch])
            differing += not torch.equal(case.network(case.inputs(batch)), plain[batch])
            asked += 1
        return differing

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 0
    assert _snapshot(case.network) == before
    assert _random_states() == random_before


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("strategy", ["chain", "thinned", "vmap", "fold"])
def test_eight_threads_get_the_bits_of_one(build, strategy):
    _ask_from_eight_threads(build, strategy, seconds=0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("strategy", ["chain", "thinned", "vmap", "fold"])
def test_eight_threads_get_the_bits_of_one_for_a_minute(build, strategy):
    _ask_from_eight_threads(build, strategy, seconds=15)


@pytest.mark.usefixtures("hasty_threads")
def test_deterministic_answers_are_bit_identical_while_other_committees_are_drawn(build):
    served = build(0, True)
    x = served.inputs(4)
    plain = served.network(x)
    call, attribute = nn.Module.__call__, nn.Module.__getattr__
    with ThreadPoolExecutor(3) as pool:
        # One-dimensional convolutions are no layers of a chain, so that these committees are traced.
        drawing = [pool.submit(build(1, False).committee, strategy="traced") for _ in range(6)]
        differing = 0
        while not all(each.done() for each in drawing):
            differing += not torch.equal(served.network(x), plain)
        assert len({each.result().fingerprint for each in drawing}) == 1
    assert differing == 0
    # Tracing patches these for the whole process; overlapping traces would leave them patched for good.
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is attribute


@pytest.mark.usefixtures("hasty_threads")
def test_torchs_fused_transformer_answers_bit_identically_beside_mc():
    # Its kernel would be left, for other bits, if the members' mode were met in this thread.
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    network = nn.Sequential(encoder, nn.Flatten(), nn.Linear(40, 3)).eval()
    x = torch.randn(3, 5, 8)
    with torch.inference_mode():
        plain = network(x)
        committee = Committee(network, x[:1], num_samples=8)
        expected = committee(x)
        stop, asked = threading.Event(), list[int]()

        def ask() -> None:
            while not stop.is_set():
                if not torch.equal(committee(x, 3, 2), committee(x, 3, 2)) or not torch.equal(committee(x), expected):
                    raise AssertionError("an MC answer changed under load")
                asked.append(1)

        differing = answered = 0
        with ThreadPoolExecutor(1) as pool:
            asker = pool.submit(ask)
            try:
                while (answered < 1000 or not asked) and not asker.done():
                    differing += not torch.equal(network(x), plain)
                    answered += 1
            finally:
                stop.set()
            asker.result()
    assert differing == 0


# 3. No global random state is read or written.


def test_global_random_state_is_not_written(case):
    before = _random_states()
    committee = case.committee()
    for batch in BATCHES:
        committee(case.inputs(batch))
    assert _random_states() == before


def test_global_random_state_is_not_read(case):
    torch.manual_seed(1)
    first = case.committee(strategy="fold")
    torch.manual_seed(2)
    second = case.committee(strategy="fold")
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first(case.inputs(3)), second(case.inputs(3)))

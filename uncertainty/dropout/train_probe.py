"""The train probe: what a copy of the network would drop in training, where eval mode does not show it.

Attention that is written ``dropout_p=self.p if self.training else 0.0`` shows its rate only in train mode, and dropout
behind ``if self.training`` does not show at all. The copy shares the parameters and owns everything else.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.probe import SiteRecorder

# Stochastic depth skips blocks at random: so many passes are made to see each at least once.
_PASSES = 8


@dataclass(frozen=True)
class TrainProbe:
    """What train mode showed.

    Attributes:
        rates: Of each call, by name.
        kinds: Of each call, by name.
        unseen: Names of calls that eval mode does not make and the logits depend on.
        random: (module, function) of other randomness in train mode.
        failure: Why the probe failed, or None.
    """

    rates: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    random: tuple[tuple[str, str], ...] = ()
    failure: str | None = None


def probe_train_mode(network: nn.Module, x: Tensor, expected: dict[str, float]) -> TrainProbe:
    """Run a copy of the network in train mode, with dropout off.

    The global random state is left as it was.

    Args:
        network: In eval mode.
        x: A batch of at least two rows.
        expected: The calls that eval mode makes, with their rates.
    """
    state = random.getstate()
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            return _probe(network, x, expected)
    except Exception as error:  # a copy of the user's network may fail in any way; eval mode is what counts
        return TrainProbe(failure=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
    finally:
        random.setstate(state)


def _probe(network: nn.Module, x: Tensor, expected: dict[str, float]) -> TrainProbe:
    rates: dict[str, float] = {}
    kinds: dict[str, str] = {}
    noise: dict[tuple[str, str], None] = {}
    for _ in range(_PASSES):
        recorder, _ = _pass(network, x)
        for call in recorder.calls:
            rates[call.name] = max(call.p, rates.get(call.name, 0.0))
            kinds[call.name] = call.kind
        noise.update(dict.fromkeys(recorder.random))
        if expected.keys() <= rates.keys():
            break
    only_here = sorted(name for name, p in rates.items() if p > 0 and name not in expected)
    unseen = tuple(name for name in only_here if _matters(network, x, name))
    return TrainProbe(rates, kinds, unseen, tuple(noise))


def _matters(network: nn.Module, x: Tensor, name: str) -> bool:
    """Whether the logits depend on what the call returns. Auxiliary heads, for one, only help in training."""
    return any(bool(torch.isnan(_pass(network, x, name)[1]).any()) for _ in range(_PASSES))


def _pass(network: nn.Module, x: Tensor, poisoned: str | None = None) -> tuple[SiteRecorder, Tensor]:
    # Parameters are shared: they are large, and a pass does not write to them.
    clone = copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()}).train()
    recorder = SiteRecorder(clone, frozenset() if poisoned is None else frozenset({poisoned}))
    with recorder:
        output = clone(x.clone())
    return recorder, _logits(output)


def _logits(output: Any) -> Tensor:
    """The first tensor of whatever train mode returns: auxiliary outputs come after the logits."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output

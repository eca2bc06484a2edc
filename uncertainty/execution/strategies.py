"""Ways to run a committee's members: every one that gives what the plain loop over the members gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import SamplingPlan, noise_like
from dubio.uncertainty.errors import UncertaintyError
from dubio.uncertainty.execution import chain, fx_trace, kernels, masked, thinned
from dubio.uncertainty.execution.batched import Before, Folded, cached
from dubio.uncertainty.execution.tolerance import agree
from dubio.uncertainty.report import work_before_first_site

# Logits of the members in a slice for a batch of any size, [K, B, C].
Strategy = Callable[[Tensor, slice], Tensor]
# Traces exist for these batch sizes; a batch is padded to the next one. Beyond the last, arithmetic dominates.
TRACED_BATCHES = (1, 2, 4, 6, 8, 12, 16)
# Numbers in the members' largest activation up to which Python weighs enough to be traced away.
TRACED_NUMBERS = 2**20
# Several intermediate results live at a time; the budget is divided by this many copies of the largest.
LIVE_COPIES = 4
# Numbers in a member's largest activation for all rows from which fewer multiplications weigh more than the memory of
# the member's own weights.
THINNED_NUMBERS = 2**15
# Share of the work that is done before the first site, from which doing it once is worth more than faster kernels.
SHARED = 0.2
# Members that are enough to see whether a way treats them as the loop does.
FEW = 4


class Masked:
    """The network itself, run with masks.

    Args:
        run: of :mod:`dubio.uncertainty.execution.masked`.
        sampled: the network and its slots.
        banks: scaled masks, ``[K, *site.shape]`` a site.
        most: members times rows that are computed at a time.
        graphs: traces of all members by batch size, smallest first.
        shape: of one input that the traces take.
    """

    def __init__(
        self,
        run: Callable[..., Tensor],
        sampled: masked.Sampled,
        banks: Sequence[Tensor],
        most: int,
        graphs: Mapping[int, fx_trace.Graph],
        shape: torch.Size,
    ) -> None:
        self._run, self._sampled, self._banks, self._most = run, sampled, banks, most
        self._graphs, self._shape = graphs, shape

    def __call__(self, x: Tensor, which: slice) -> Tensor:
        """Logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""
        parts = [self._rows(rows, which) for rows in torch.split(x, self._most)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _rows(self, x: Tensor, which: slice) -> Tensor:
        bucket = next((batch for batch in self._graphs if batch >= len(x)), None)
        if bucket is not None and which.stop - which.start == len(self._banks[0]) and x.shape[1:] == self._shape:
            padded = x if len(x) == bucket else torch.cat([x, x[-1:].expand(bucket - len(x), *x.shape[1:])])
            return self._graphs[bucket](padded)[:, : len(x)]
        step = max(1, self._most // len(x))
        banks = [torch.split(bank[which], step) for bank in self._banks]
        return torch.cat([self._run(self._sampled, x, part) for part in zip(*banks, strict=True)])


class Shaped:
    """A way for inputs of one shape, and another for those that differ from it.

    Args:
        way: for inputs of the shape.
        other: for any input.
        shape: of one input.
    """

    def __init__(self, way: Strategy, other: Strategy, shape: torch.Size) -> None:
        self._way, self._other, self._shape = way, other, shape

    def __call__(self, x: Tensor, which: slice) -> Tensor:
        """Logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""
        return (self._way if x.shape[1:] == self._shape else self._other)(x, which)


@dataclass(frozen=True)
class Found:
    """The strategies that agree with the plain loop.

    Attributes:
        strategies: by name, the one to prefer first.
        thinned_from: batch size from which ``thinned`` is to be preferred.
    """

    strategies: dict[str, Strategy]
    thinned_from: int = 1


def find(
    network: nn.Module, found: SamplingPlan, banks: Sequence[Tensor], row: Tensor, budget: int, seconds: float
) -> Found:
    """Every way that gives what the plain loop gives on two rows, the one to prefer first.

    ``chain`` and ``thinned`` for a chain, see :mod:`dubio.uncertainty.execution.batched` and
    :mod:`dubio.uncertainty.execution.thinned`; otherwise ``traced`` or ``vmap``, and ``fold``, see
    :mod:`dubio.uncertainty.execution.masked`; always ``loop``.

    Args:
        network: in eval mode.
        found: its audit.
        banks: scaled masks, ``[K, *site.shape]`` a site.
        row: an input, ``[1, ...]``.
        budget: bytes that intermediate results may take, and the members' own weights again.
        seconds: what tracing may take, roughly.
    """
    sampled = masked.Sampled(network, found.slots, found.zeros)
    numbers = cached(budget // LIVE_COPIES // found.dtype.itemsize, row.device)
    most = max(1, numbers * found.dtype.itemsize // found.row_bytes)
    x = torch.cat([row, noise_like(row)])
    some = [bank[:FEW] for bank in banks]
    expected = masked.loop(sampled, x, some)

    def with_masks(run: Callable[..., Tensor], graphs: Mapping[int, fx_trace.Graph] | None = None) -> Masked:
        return Masked(run, sampled, banks, most, graphs or {}, row.shape[1:])

    # Where Python decides by values, members in one batch would decide for each other.
    runs = {"vmap": masked.vmap} if found.decides else {"vmap": masked.vmap, "fold": _fold}
    plain: dict[str, Strategy] = {
        name: with_masks(run) for name, run in runs.items() if _gives(run, sampled, x, some, expected)
    }
    plain["loop"] = with_masks(masked.loop)
    if found.decides:
        return Found(plain)
    chains = _chains(network, found, banks, x, budget, next(iter(plain.values())))
    if chains:
        return Found(chains.strategies | plain, chains.thinned_from)
    if "vmap" in plain:
        traced = min(budget // LIVE_COPIES, TRACED_NUMBERS * found.dtype.itemsize)
        graphs = _trace(sampled, banks, row, traced // found.row_bytes, seconds)
        if graphs:
            return Found({"traced": with_masks(masked.vmap, graphs)} | plain)
        if "fold" in plain and (work_before_first_site(network, row, found.slots, found.zeros) or 0) < SHARED:
            return Found({"fold": plain["fold"]} | plain)
    return Found(plain)


def _chains(
    network: nn.Module, found: SamplingPlan, banks: Sequence[Tensor], x: Tensor, budget: int, other: Strategy
) -> Found | None:
    """The strategies of a chain; None where the network is no chain or a way disagrees."""
    try:
        recorded = chain.record(network, x, found.slots, found.zeros)
        if recorded is None or _weights(recorded) * found.dtype.itemsize > budget:
            return None
        before = Before(recorded, network, found.slots, found.zeros)
        numbers = budget // (LIVE_COPIES * found.dtype.itemsize)
        strategies: dict[str, Strategy] = {"chain": Folded(before, recorded, banks, numbers)}
        fewer = thinned.thin(before, recorded, banks, budget // found.dtype.itemsize, numbers)
        if fewer is not None:
            strategies["thinned"] = fewer
        everybody = slice(0, len(banks[0]))
        expected = other(x, everybody)
        agreeing = {
            name: Shaped(way, other, x.shape[1:])
            for name, way in strategies.items()
            if agree(way(x, everybody), expected)
        }
    except Exception:  # the user's network fails in as many ways where it cannot be run like this
        return None
    if "chain" not in agreeing:
        return None
    return Found(dict(agreeing), -(-THINNED_NUMBERS // recorded.row_numel))


def _weights(recorded: chain.Chain) -> int:
    layers = [*(recorded.before or ()), *recorded.after]
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, chain.Linear | chain.Conv))


def _trace(
    sampled: masked.Sampled, banks: Sequence[Tensor], row: Tensor, most: int, seconds: float
) -> dict[int, fx_trace.Graph]:
    """Traces by batch size, smallest first; none where the network cannot be traced or a trace disagrees."""
    graphs: dict[int, fx_trace.Graph] = {}
    end = time.perf_counter() + seconds
    for batch in TRACED_BATCHES:
        if batch * len(banks[0]) > most or time.perf_counter() > end:
            break
        x = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
        try:
            graph = fx_trace.trace(sampled, x, banks)
        except Exception:  # tracing runs the user's network and fails in as many ways; vmap stays
            return {}
        if not agree(graph(x), masked.vmap(sampled, x, banks)):
            return {}
        graphs[batch] = graph
    return graphs


def _fold(network: nn.Module, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    with kernels.Fast():
        return masked.fold(network, x, banks)


def _gives(
    run: Callable[..., Tensor], sampled: masked.Sampled, x: Tensor, banks: Sequence[Tensor], expected: Tensor
) -> bool:
    try:
        return agree(run(sampled, x, banks), expected)
    except UncertaintyError:
        raise
    except Exception:  # the user's network fails in as many ways where it cannot be run like this
        return False

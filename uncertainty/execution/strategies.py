"""Strategies: every way to run a committee's members that gives what the plain loop over the members gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import SamplingPlan, noise_like
from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution import chain, fx_trace, kernels, masked, steps, thinned
from dubio.uncertainty.execution.batched import BatchedChain, cached, prefix
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from dubio.uncertainty.execution.flops import work_before_first_site
from dubio.uncertainty.execution.packed import PackedSteps
from dubio.uncertainty.execution.timing import TimeBudget
from dubio.uncertainty.execution.tolerance import require_agreement

# Traces exist for these batch sizes; a batch is padded to the next one. Beyond the last, arithmetic dominates.
TRACED_BATCHES = (1, 2, 4, 6, 8, 12, 16)
# Numbers in the members' largest activation up to which Python weighs enough to be traced away.
TRACED_NUMBERS = 2**20
# Bytes that intermediate results may take, and that the members' own weights may take beside them.
BUDGET = 2**28
# Share of a GPU's memory for intermediate results: less work at a time leaves it waiting for Python.
GPU_SHARE = 16
# Several intermediate results live at a time; the budget is divided by this many copies of the largest.
LIVE_COPIES = 4
# Share of the work that is done before the first site, from which doing it once is worth more than faster kernels.
SHARED = 0.2
# Members that are enough to see whether a strategy treats them as the loop does.
FEW = 4
VALUE_DEPENDENT = "the network reads values out of its tensors, so that one member's may decide for all"

# Of `dubio.uncertainty.execution.masked`: from a plan, inputs and masks to logits.
Run = Callable[[SamplingPlan, Tensor, Sequence[Tensor]], Tensor]


class MaskedNetwork:
    """The network itself, run with masks.

    Args:
        run: Of `dubio.uncertainty.execution.masked`.
        plan: Of the network.
        banks: Scaled masks, ``[K, *site.shape]`` a site.
        max_rows: Members times rows that are computed at a time.
        shape: Of one input that the traces take.
        traces: Of all members by batch size, smallest first.
    """

    def __init__(
        self,
        run: Run,
        plan: SamplingPlan,
        banks: Sequence[Tensor],
        max_rows: int,
        shape: torch.Size,
        traces: Mapping[int, fx_trace.Graph] | None = None,
    ) -> None:
        self._run, self._plan, self._banks = run, plan, banks
        self._max_rows, self._shape, self._traces = max_rows, shape, traces or {}

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        parts = [self._chunk(rows, members) for rows in torch.split(x, self._max_rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _chunk(self, x: Tensor, members: slice) -> Tensor:
        batch = next((batch for batch in self._traces if batch >= len(x)), None)
        if batch is not None and members.stop - members.start == len(self._banks[0]) and x.shape[1:] == self._shape:
            padded = x if len(x) == batch else torch.cat([x, x[-1:].expand(batch - len(x), *x.shape[1:])])
            return self._traces[batch](padded)[:, : len(x)]
        step = max(1, self._max_rows // len(x))
        banks = [torch.split(bank[members], step) for bank in self._banks]
        return torch.cat([self._run(self._plan, x, part) for part in zip(*banks, strict=True)])


def default_budget(device: torch.device) -> int:
    """Bytes that a committee's intermediate results take where nobody says otherwise."""
    if device.type != "cuda":
        return BUDGET
    return max(BUDGET, torch.cuda.get_device_properties(device).total_memory // GPU_SHARE)


def build(
    plan: SamplingPlan,
    banks: Sequence[Tensor],
    row: Tensor,
    budget: int,
    time: TimeBudget,
    fallbacks: Fallbacks,
) -> dict[str, Strategy]:
    """Build every strategy that gives what the plain loop gives on two rows, the one to prefer first.

    ``chain`` and ``thinned`` for a chain, see `dubio.uncertainty.execution.batched` and
    `dubio.uncertainty.execution.thinned`; ``packed`` for convolutions over the steps of a sequence, see
    `dubio.uncertainty.execution.packed`; otherwise ``traced``; always ``vmap`` and ``fold``, see
    `dubio.uncertainty.execution.masked`, and ``loop``.

    Args:
        plan: Of the network.
        banks: Scaled masks, ``[K, *site.shape]`` a site.
        row: An input, ``[1, ...]``.
        budget: Bytes that intermediate results may take, and the members' own weights again (of these at most 256 MiB).
        time: Of which tracing, or finding the kernels of a chain, may take half.
        fallbacks: Are told why each other strategy was dropped.
    """
    numbers = cached(budget // LIVE_COPIES // plan.dtype.itemsize, row.device)
    max_rows = max(1, numbers * plan.dtype.itemsize // plan.row_bytes)
    x = torch.cat([row, noise_like(row)])
    few = [bank[:FEW] for bank in banks]
    expected = masked.loop(plan, x, few)
    strategies: dict[str, Strategy] = {}
    runs: dict[str, Run] = {"vmap": _vmap, "fold": _fold}
    for name, run in runs.items():
        with fallbacks.attempt(name):
            require_agreement(run(plan, x, few), expected)
            strategies[name] = MaskedNetwork(run, plan, banks, max_rows, row.shape[1:])
    strategies["loop"] = MaskedNetwork(masked.loop, plan, banks, max_rows, row.shape[1:])
    if plan.value_dependent:
        for name in ("chain", "thinned", "packed", "traced"):
            fallbacks.drop(name, VALUE_DEPENDENT)
        return strategies
    if row.device.type == "cpu" and (reason := kernels.missing_onednn(banks[0])):
        fallbacks.drop("oneDNN kernels", reason)
    chained = _chains(plan, banks, x, budget, time, next(iter(strategies.values())), fallbacks)
    if chained:
        fallbacks.drop("packed", "the network is a chain")
        fallbacks.drop("traced", "the network is a chain, which runs without Python's overhead already")
        return chained | strategies
    preferred: dict[str, Strategy] = {}
    with fallbacks.attempt("packed"):
        numbers = budget // (LIVE_COPIES * plan.dtype.itemsize)
        packed = _packed(plan, banks, x, numbers, next(iter(strategies.values())))
        require_agreement(packed(x, slice(0, FEW)), expected)
        preferred = {"packed": packed}
    with fallbacks.attempt("traced"):
        if "vmap" not in strategies:
            raise StrategyNotApplicable("what is traced is vmap, which was dropped")
        numbers = min(budget // LIVE_COPIES, TRACED_NUMBERS * plan.dtype.itemsize)
        with time:
            traces = _trace(plan, banks, row, numbers // plan.row_bytes, time.left / 2)
        traced = MaskedNetwork(_vmap, plan, banks, max_rows, row.shape[1:], traces)
        return preferred | {"traced": traced} | strategies
    if {"vmap", "fold"} <= strategies.keys() and (work_before_first_site(plan, row) or 0) < SHARED:
        return preferred | {"fold": strategies["fold"]} | strategies
    return preferred | strategies


def _chains(
    plan: SamplingPlan,
    banks: Sequence[Tensor],
    x: Tensor,
    budget: int,
    time: TimeBudget,
    other: Strategy,
    fallbacks: Fallbacks,
) -> dict[str, Strategy] | None:
    """Build the strategies of a chain; None where the network is no chain or runs otherwise as one."""
    members, weights_budget = slice(0, len(banks[0])), min(budget, BUDGET)
    numbers = budget // (LIVE_COPIES * plan.dtype.itemsize)
    with fallbacks.attempt("chain"):
        recorded = chain.record(plan, x)
        if recorded.num_weights * plan.dtype.itemsize > weights_budget:
            raise StrategyNotApplicable(f"its weights take more than the budget of {weights_budget} bytes")
        with time:
            end = perf_counter() + time.left / 4  # a third of what is then left makes half of it all
            shared = prefix(recorded, plan, end)
            batched = BatchedChain(shared, recorded, banks, numbers, end)
        expected = other(x, members)
        require_agreement(batched(x, members), expected)
        strategies: dict[str, Strategy] = {"chain": _for_shape(x.shape[1:], batched, other)}
        with fallbacks.attempt("thinned"):
            max_weights = weights_budget // plan.dtype.itemsize
            with time:
                thin = thinned.thin(shared, recorded, banks, max_weights, numbers, time.left / 3)
            require_agreement(thin(x, members), expected)
            strategies["thinned"] = _for_shape(x.shape[1:], thin, other)
        return strategies
    fallbacks.drop("thinned", "what is thinned is a chain, which was dropped")
    return None


def _packed(plan: SamplingPlan, banks: Sequence[Tensor], x: Tensor, numbers: int, other: Strategy) -> PackedSteps:
    if x.is_cuda:
        raise StrategyNotApplicable("how many steps there are would have to come from the GPU first")
    return PackedSteps(plan, steps.record(plan, x), banks, x.shape[1:], numbers, other)


def _for_shape(shape: torch.Size, strategy: Strategy, other: Strategy) -> Strategy:
    """Run inputs of one shape by a strategy, and those that differ from it by another."""
    return lambda x, members: (strategy if x.shape[1:] == shape else other)(x, members)


def _trace(
    plan: SamplingPlan, banks: Sequence[Tensor], row: Tensor, max_rows: int, seconds: float
) -> dict[int, fx_trace.Graph]:
    """Trace by batch size, smallest first, as long as there is time.

    Raises:
        StrategyNotApplicable: The arithmetic of a single row outweighs what a trace saves, or there is no time.
        Exception: Whatever the network raises that cannot be traced.
    """
    traces: dict[int, fx_trace.Graph] = {}
    if len(banks[0]) > max_rows:
        raise StrategyNotApplicable("the members' arithmetic for one row outweighs what a trace saves")
    end, last = perf_counter() + seconds, 0.0
    for batch in TRACED_BATCHES:
        start = perf_counter()
        if batch * len(banks[0]) > max_rows or start + last > end:
            break
        x = torch.cat([row, noise_like(row.expand(batch - 1, *row.shape[1:]))])
        trace = fx_trace.trace(plan, x, banks)
        require_agreement(trace(x), masked.vmap(plan, x, banks))
        traces[batch] = trace
        last = perf_counter() - start
    if not traces:
        raise StrategyNotApplicable(f"no time was left of {seconds:g} seconds")
    return traces


def _vmap(plan: SamplingPlan, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    try:
        return masked.vmap(plan, x, banks)
    except RuntimeError as error:
        if plan.value_dependent:
            raise StrategyNotApplicable(VALUE_DEPENDENT) from error
        if "Batching rule not implemented" in str(error):
            raise StrategyNotApplicable(f"torch.vmap has no such operation: {str(error).split('.')[0]}") from error
        raise


def _fold(plan: SamplingPlan, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    if plan.value_dependent:
        raise StrategyNotApplicable(VALUE_DEPENDENT)
    with kernels.OneDNNLinear():
        return masked.fold(plan, x, banks)

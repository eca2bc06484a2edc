"""Steps: a network that drops from the steps of a sequence, convolves them, and pools over all positions.

A mask on what a convolution reads leaves nothing to share but the input itself. Still, the result at a position is the
sum of one linear map of each step in the window, and a pool over all positions does not ask where a position lies.
`dubio.uncertainty.execution.packed` runs what is recorded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.dropout.function_mode import ALPHA, Call, DropoutMode
from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution.chain import FLATTEN, MEANS, POINTWISE, RELU, Function, Layer, Recorder

# Multiplying by what all members share commutes with a member's mask.
PRODUCTS: set[Callable[..., Any]] = {
    torch.mul,
    Tensor.mul,
    Tensor.mul_,
    Tensor.__mul__,
    Tensor.__rmul__,
    Tensor.__imul__,
}
PERMUTATIONS: set[Callable[..., Any]] = {
    *(torch.transpose, Tensor.transpose, torch.permute, Tensor.permute, torch.movedim, Tensor.movedim),
    *(torch.swapaxes, Tensor.swapaxes, torch.swapdims, Tensor.swapdims),
    Tensor.mT.__get__,  # type: ignore[attr-defined]
}
COPIES: set[Callable[..., Any]] = {Tensor.contiguous, Tensor.clone, torch.clone}
LARGEST: set[Callable[..., Any]] = {torch.amax, Tensor.amax, torch.max, Tensor.max}
# To one number or more; whether it is the largest.
ADAPTIVE: dict[Callable[..., Any], bool] = {F.adaptive_max_pool1d: True, torch.adaptive_avg_pool1d: False}
SQUEEZE: set[Callable[..., Any]] = {torch.squeeze, Tensor.squeeze, *FLATTEN}
CONCATENATE: set[Callable[..., Any]] = {torch.cat, torch.concat, torch.concatenate, torch.hstack}
MAPS: set[Callable[..., Any]] = {F.conv1d, torch.conv1d, F.linear}

# Axes of an activation: rows, steps, numbers; their lengths where it is tried what a function makes of them.
LENGTHS = (2, 3, 5)
ORDER = (0, 1, 2)


@dataclass(frozen=True)
class Branch:
    """A convolution over the steps, functions of each number, and a pool over all positions.

    Attributes:
        weights: ``[O, F]`` for each step of the window.
        bias: ``[O]``.
        stride: Steps from one position to the next.
        padding: Absent steps before the first and behind the last one.
        dilation: Steps from one of the window to the next.
        functions: Of each number alone.
        largest: Whether the pool is the largest number; otherwise the mean.
    """

    weights: tuple[Tensor, ...]
    bias: Tensor | None
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    functions: tuple[Callable[[Tensor], Tensor], ...] = ()
    largest: bool = True

    def positions(self, length: int) -> int:
        """Give how many positions a sequence of so many steps has."""
        return (length + sum(self.padding) - self.dilation * (len(self.weights) - 1) - 1) // self.stride + 1


@dataclass(frozen=True)
class Steps:
    """A network as masks on steps, branches that read them, and a chain that reads all branches.

    Attributes:
        sites: Numbers of the sites that drop from the steps, each with the axes of its activation.
        maps: How many convolutions and linear layers are met up to the first branch, which is the last of them.
        numbers_last: Whether that one gets ``[B, L, F]``, as a linear layer does, and not ``[B, F, L]``.
        shape: Of the steps of one row, ``[L, F]``.
        branches: In the order in which what they pool is put together.
        layers: What follows.
    """

    sites: tuple[tuple[int, tuple[int, ...]], ...]
    maps: int
    numbers_last: bool
    shape: tuple[int, int]
    branches: tuple[Branch, ...]
    layers: tuple[Layer, ...]


def record(plan: SamplingPlan, x: Tensor) -> Steps:
    """Follow one pass of at least two rows ``[B, ...]``; for another batch size the result is the same.

    Raises:
        StrategyNotApplicable: The network is another one.
    """
    recorder = _Recorder(plan, x)
    with recorder:
        logits = plan.network(x)
    if recorder.branches is None or recorder.inputs is None:
        raise StrategyNotApplicable("the network does not pool over all positions of what convolutions make of steps")
    if logits is not recorder.last or logits.ndim != 2:
        recorder.stop("the logits are not what the last layer gives")
    if recorder.obstacle is not None:
        raise StrategyNotApplicable(f"what follows the pools is no chain of layers: {recorder.obstacle}")
    return replace(recorder.inputs, branches=recorder.branches, layers=tuple(recorder.layers))


class StepsInput(DropoutMode):
    """Runs a network up to its first branch, which drops nothing: the steps as all members share them."""

    def __init__(self, plan: SamplingPlan, steps: Steps) -> None:
        super().__init__(plan.zero_rates)
        self._network, self._left, self._numbers_last = plan.network, steps.maps, steps.numbers_last

    def drop(self, call: Call) -> Tensor:
        return call.x

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in MAPS:
            self._left -= 1
            if not self._left:
                raise _Reached(_first(args, kwargs))
        return func(*args, **kwargs)

    def steps(self, x: Tensor) -> Tensor:
        """Give the steps ``[B, L, F]`` of inputs ``[B, ...]``."""
        try:
            with self:
                self._network(x)
        except _Reached as reached:
            steps: Tensor = reached.args[0]
            return steps if self._numbers_last else steps.transpose(1, 2)
        raise RuntimeError("Expected to meet a convolution, as when the network was recorded, but met none.")


class _Reached(Exception):
    """Carries the steps."""


@dataclass(frozen=True)
class _Tracked:
    """What a tensor is.

    Attributes:
        tensor: Itself, held so that no other takes its place in memory.
        axes: Which of rows, steps and numbers each axis is.
        sites: That were applied to steps.
        branch: Where it is no longer steps.
        pooled: Whether it has no positions any more.
    """

    tensor: Tensor
    axes: tuple[int, ...]
    sites: tuple[tuple[int, tuple[int, ...]], ...] = ()
    branch: Branch | None = None
    pooled: bool = False


class _Recorder(Recorder):
    """Follows steps through masks, branches and pools, and then a chain.

    Attributes:
        inputs: What is known of the steps once a branch reads them.
        branches: Once they are put together.
    """

    def __init__(self, plan: SamplingPlan, x: Tensor) -> None:
        super().__init__(plan, x)
        self.inputs: Steps | None = None
        self.branches: tuple[Branch, ...] | None = None
        self._tracked: dict[int, _Tracked] = {}
        self._maps = 0
        self._steps: Tensor | None = None  # as the first branch reads them

    def drop(self, call: Call) -> Tensor:
        if self.branches is not None:
            return super().drop(call)
        known = self._tracked.get(id(call.x))
        if known is not None and known.pooled:
            self._chain_follows((known,))
            return super().drop(call)
        planned = next(self._planned)
        if planned.site is None:
            return call.x
        suits = call.x.ndim == 3 and planned.merged_axis is None and planned.site.axis == 0 and call.steps is None
        if not suits or call.kind in ALPHA or (known is not None and known.branch is not None):
            raise StrategyNotApplicable(f"the site {planned.site} does not multiply the steps of a sequence")
        if known is None and self._num_sites:
            raise StrategyNotApplicable(f"the site {planned.site} drops from something else than the sites before it")
        known = known or _Tracked(call.x, ORDER)
        dropped = call.x[...]  # another tensor than what was not dropped from
        sites = (*known.sites, (self._num_sites, known.axes))
        self._num_sites += 1
        return self._track(replace(known, tensor=dropped, sites=sites))

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.branches is not None:
            return super().other(func, args, kwargs)
        self._maps += func in MAPS
        met = [self._tracked[id(each)] for each in _tensors((*args, *kwargs.values())) if id(each) in self._tracked]
        if met and all(each.pooled and each.tensor.ndim == 2 for each in met):
            self._chain_follows(met)
            if func in CONCATENATE:
                output = func(*args, **kwargs)
                if len(met) < len(args[0]) or output.shape[0] != met[0].tensor.shape[0]:
                    raise StrategyNotApplicable("something else is put together with what is pooled")
                self.last = output
                return output
            if len(met) > 1:
                raise StrategyNotApplicable(f"{_name(func)} reads several pools")
            return super().other(func, args, kwargs)
        output = func(*args, **kwargs)
        if met:
            first = output[0] if isinstance(output, tuple) and output and isinstance(output[0], Tensor) else output
            if isinstance(first, Tensor):
                tracked = self._follow(func, args, kwargs, met, first)
                if tracked is None:
                    raise StrategyNotApplicable(
                        f"{_name(func)} of steps is neither a convolution nor a pool over all of them"
                    )
                self._track(tracked)
        return output

    def _follow(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        met: Sequence[_Tracked],
        output: Tensor,
    ) -> _Tracked | None:
        known = met[0]
        if len(met) > 1:
            return None
        if known.pooled:
            same = func in SQUEEZE and output.shape == (
                known.tensor.shape[0],
                known.tensor.numel() // known.tensor.shape[0],
            )
            return replace(known, tensor=output) if same else None
        if func in PRODUCTS and known.branch is None:
            return replace(known, tensor=output) if output.shape == known.tensor.shape else None
        if not args or args[0] is not known.tensor:
            return None
        if func in COPIES:
            return replace(known, tensor=output)
        if func in PERMUTATIONS:
            axes = tuple(LENGTHS.index(length) for length in func(_small(known), *args[1:], **kwargs).shape)
            return replace(known, tensor=output, axes=axes) if axes[0] == 0 else None
        if func in MAPS and known.branch is None:
            return self._branch(func, args, kwargs, known, output)
        if known.branch is None:
            return None
        if func in RELU | POINTWISE:
            layer = self._layer(func, args, kwargs, output)
            if not isinstance(layer, Function):
                return None
            branch = replace(known.branch, functions=(*known.branch.functions, layer.call))
            return replace(known, tensor=output, branch=branch)
        largest = _pool(func, args, kwargs, known)
        if largest is None:
            return None
        return replace(known, tensor=output, branch=replace(known.branch, largest=largest), pooled=True)

    def _branch(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], known: _Tracked, output: Tensor
    ) -> _Tracked | None:
        numbers_last = func is F.linear
        axes = ORDER if numbers_last else (0, 2, 1)
        # Only now it is known which axis holds the steps.
        named = dict(zip(known.axes, axes, strict=True))
        sites = tuple((site, tuple(named[axis] for axis in own)) for site, own in known.sites)
        branch = _linear(*args[1:], **kwargs) if numbers_last else _conv1d(*args[1:], **kwargs)
        if branch is None:
            return None
        steps_BLF = known.tensor if numbers_last else known.tensor.transpose(1, 2)
        if self.inputs is None or self._steps is None:
            self._steps = steps_BLF
            shape = (steps_BLF.shape[1], steps_BLF.shape[2])
            self.inputs = Steps(sites, self._maps, numbers_last, shape, (), ())
        elif self.inputs.sites != sites or not torch.equal(self._steps, steps_BLF):
            raise StrategyNotApplicable("the convolutions do not all read the same")
        return _Tracked(output, axes, branch=branch)

    def _chain_follows(self, pools: Sequence[_Tracked]) -> None:
        self.branches = tuple(each.branch for each in pools if each.branch is not None)
        self.last, self.layers = pools[0].tensor, []

    def _track(self, tracked: _Tracked) -> Tensor:
        self._tracked[id(tracked.tensor)] = tracked
        return tracked.tensor


def _linear(weight: Tensor, bias: Tensor | None = None) -> Branch | None:
    return Branch((weight.detach(),), None if bias is None else bias.detach())


def _conv1d(
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Branch | None:
    if groups != 1:
        return None
    stride, dilation = _one(stride), _one(dilation)
    if isinstance(padding, str):
        total = dilation * (weight.shape[2] - 1) if padding == "same" else 0
        both = (total // 2, total - total // 2)
    else:
        both = (_one(padding), _one(padding))
    weights = tuple(each.contiguous() for each in weight.detach().unbind(2))
    return Branch(weights, None if bias is None else bias.detach(), stride, both, dilation)


def _pool(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], known: _Tracked) -> bool | None:
    """Say whether it is the largest number or the mean over all positions; None where it is neither."""
    if (func in LARGEST or func in MEANS) and not _tensors((*args[1:], *kwargs.values())):
        pooled = func(_small(known), *args[1:], **kwargs)
        pooled = pooled[0] if isinstance(pooled, tuple) else pooled
        over_steps = [length for length in pooled.shape if length != 1] == [LENGTHS[0], LENGTHS[2]]
        return func in LARGEST if over_steps else None
    if func in ADAPTIVE and known.axes == (0, 2, 1):
        return ADAPTIVE[func] if _one(args[1] if len(args) > 1 else kwargs["output_size"]) == 1 else None
    if func is F.max_pool1d and known.axes == (0, 2, 1):
        bound = dict(zip(("kernel_size", "stride", "padding"), args[1:], strict=False)) | kwargs
        whole = _one(bound["kernel_size"]) == known.tensor.shape[2] and not _one(bound.get("padding", 0))
        return True if whole and _one(bound.get("dilation", 1)) == 1 else None
    return None


def _small(known: _Tracked) -> Tensor:
    """A tensor whose axes can be told by their lengths."""
    return known.tensor.new_zeros([LENGTHS[axis] for axis in known.axes])


def _one(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["input"]


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [tensor for each in values for tensor in _tensors(each)] if isinstance(values, tuple | list) else []


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", str(func))

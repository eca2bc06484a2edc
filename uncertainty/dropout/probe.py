"""The recorder: what one pass through a network would drop, while nothing is dropped."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dubio.uncertainty.dropout.function_mode import Call, DropoutMode

# Randomness that is no dropout call: noise, stochastic depth, hand-written masks.
_RANDOM: set[Callable[..., Any]] = {
    *(torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_, torch.rand, torch.rand_like, Tensor.uniform_, torch.randn),
    *(torch.randn_like, torch.normal, Tensor.normal_, torch.randperm, torch.randint, torch.multinomial),
    torch.native_dropout,
}
# Ways out of torch, by which a pass may decide for the whole batch.
VALUE_EXITS: set[Callable[..., Any]] = {
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__array__, Tensor.__dlpack__),
    *(Tensor.item, Tensor.tolist, Tensor.numpy),
}


class SiteRecorder(DropoutMode):
    """Records every dropout call of one pass; dropout itself stays off.

    Args:
        network: Whose modules give the calls their names.
        poisoned: Names of calls whose result is replaced by NaN, to see whether the output depends on it.

    Attributes:
        calls: The calls, in order, each named after the module that made it; its second one ends in ``#2``.
        largest_output: Bytes of the largest result of any function.
        value_dependent: Whether values left torch, so that Python may have decided by them.
        random: Other random functions that were called, with their modules' names.
        compiled: Kind and rate of dropout that compiled code calls by itself, by the name of the module that ran; see
            `CompiledDropout`.
    """

    def __init__(self, network: nn.Module, poisoned: frozenset[str] = frozenset()) -> None:
        super().__init__(zero_rates=True)
        self.calls: list[Call] = []
        self.largest_output = 0
        self.value_dependent = False
        self.random: list[tuple[str, str]] = []
        self.compiled: dict[str, tuple[str, float]] = {}
        self._names = {id(module): name or type(network).__name__ for name, module in network.named_modules()}
        self._poisoned = poisoned
        self._counts: Counter[str] = Counter()

    @property
    def mask_numel(self) -> int:
        """Numbers in all masks for the rows of the pass."""
        return sum(call.mask_numel for call in self.calls if call.p > 0)

    def drop(self, call: Call) -> Tensor:
        name = self.where() + call.name
        self._counts[name] += 1
        if self._counts[name] > 1:
            name = f"{name}#{self._counts[name]}"
        self._measure(call.x)
        self.calls.append(replace(call, name=name))
        return torch.full_like(call.x, torch.nan) if name in self._poisoned else call.x

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _RANDOM and kwargs.get("generator") is None:
            self.random.append((self.where(), func.__name__))
        self.value_dependent |= func in VALUE_EXITS
        output = func(*args, **kwargs)
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, Tensor):
                self._measure(tensor)
        return output

    def _measure(self, tensor: Tensor) -> None:
        self.largest_output = max(self.largest_output, tensor.numel() * tensor.element_size())

    def where(self) -> str:
        """The name of the innermost module of the network that is running."""
        frame = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._names:
                return self._names[id(owner)]
            frame = frame.f_back  # type: ignore[assignment]
        return "?"


class CompiledDropout(TorchDispatchMode):
    """Tells a recorder of dropout that it cannot meet: what torch.jit compiled calls no Python function.

    The recorder lets none that it meets through, so whatever drops out and comes this far was called by compiled code.
    To be entered in inference mode, where torch takes no operation apart before it comes here.

    Args:
        recorder: Of the same pass.
    """

    def __init__(self, recorder: SiteRecorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            bound = {each.name: each.default_value for each in func._schema.arguments}
            bound.update(zip(bound, args, strict=False))
            bound.update(kwargs or {})
            # An LSTM drops out between its layers.
            rates = [bound[name] for name in ("p", "dropout", "dropout_p") if isinstance(bound.get(name), float)]
            if any(rates) and bound.get("num_layers", 2) > 1:
                self._recorder.compiled[self._recorder.where()] = (func._schema.name.removeprefix("aten::"), rates[0])
        return func(*args, **(kwargs or {}))

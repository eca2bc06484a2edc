"""Work: how much of a pass comes before the first site, which is what members can share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.dropout.function_mode import Call, DropoutMode


def work_before_first_site(network: nn.Module, plan: SamplingPlan, x: Tensor) -> float | None:
    """Give the share of a pass's counted operations that come before the first site that is sampled.

    Args:
        network: In eval mode.
        plan: Of its audit.
        x: A batch, ``[B, ...]``.

    Returns:
        Between 0 and 1; None where nothing could be counted.
    """
    counter = _FlopCounter()
    watch = _FirstSiteWatch(plan, counter)
    with torch.inference_mode(), counter, watch:
        network(x.clone())
    return watch.before / counter.flops if counter.flops else None


class _FlopCounter(TorchDispatchMode):
    """Counts operations by torch's own formulas. Its FlopCounterMode hooks every module of the process meanwhile."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=output))
        return output


class _FirstSiteWatch(DropoutMode):
    """Notes what was counted when the first sampled site was met."""

    def __init__(self, plan: SamplingPlan, counter: _FlopCounter) -> None:
        super().__init__(plan.zero_rates)
        self._planned = iter(plan.calls)
        self._counter = counter
        self._met = False
        self.before = 0

    def drop(self, call: Call) -> Tensor:
        if next(self._planned).site is not None and not self._met:
            self._met, self.before = True, self._counter.flops
        return call.x

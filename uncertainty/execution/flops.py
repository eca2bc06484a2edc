"""Work: how much of a pass comes before the first site, which is what members can share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.dropout.probe import SiteRecorder
from dubio.uncertainty.execution.chain import FirstSite


def work_before_first_site(plan: SamplingPlan, x: Tensor) -> float | None:
    """Give the share of a pass's counted operations that come before the first site that is sampled.

    It is between 0 and 1 for a batch ``[B, ...]``; None where nothing could be counted.
    """
    with torch.inference_mode():
        # The recorder drops nothing, but keeps torch from fused kernels, whose operations are not counted.
        with _FlopCounter() as whole, SiteRecorder(plan.network):
            plan.network(x.clone())
        with _FlopCounter() as before:
            FirstSite(plan).activation(x.clone())
    return before.flops / whole.flops if whole.flops else None


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

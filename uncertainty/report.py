"""The report: what a committee samples, and how, as a table for people and as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dubio.uncertainty.dropout.function_mode import Call, DropoutMode
from dubio.uncertainty.dropout.sites import PlannedCall


@dataclass(frozen=True)
class Report:
    """What an audit found and what came of it.

    Attributes:
        slots: the calls at which a mask is applied, in order.
        num_samples: K.
        strategy: how the members are run.
        before_first_site: share of a pass's multiplications (of matrix products and convolutions) that come before the
            first site; vmap and thinning do them once for all members. None where nothing could be counted.
        mask_bytes: memory of all members' masks.
        left_out: sites that are not sampled because they were not chosen.
        notes: what else a user should know.
    """

    slots: tuple[PlannedCall, ...]
    num_samples: int
    strategy: str
    before_first_site: float | None
    mask_bytes: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        rows = [("site", "kind", "p", "trained p", "mask", "drops from")]
        for slot in self.slots:
            if slot.site:
                source = "weight or constant" if slot.site.axis is None and not slot.packed else "activation"
                # A rate of 0 in the call: only train mode showed it.
                trained = f"{slot.p:g}" if slot.p else "in train mode"
                shape = " x ".join(map(str, slot.site.shape)) or "1"
                rows.append((slot.site.name, slot.kind, f"{slot.site.p:g}", trained, shape, source))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        share = "unknown" if self.before_first_site is None else f"{self.before_first_site:.1%}"
        lines += [
            "",
            f"members                {self.num_samples}, strategy: {self.strategy}",
            f"work before first site {share} of a pass",
            f"masks                  {self.mask_bytes / 2**20:.1f} MiB",
            *(f"left out               {name}" for name in self.left_out),
            *(f"note                   {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def work_before_first_site(network: nn.Module, x: Tensor, slots: Sequence[PlannedCall], zeros: bool) -> float | None:
    """Share of a pass's counted operations that come before the first site that is sampled.

    Args:
        network: in eval mode.
        x: a batch.
        slots: as audited.
        zeros: as audited.
    """
    counter = _Counter()
    watch = _Watch(slots, zeros, counter)
    with torch.inference_mode(), counter, watch:
        network(x.clone())
    return watch.before / counter.flops if counter.flops else None


class _Counter(TorchDispatchMode):
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


class _Watch(DropoutMode):
    """Notes what was counted when the first sampled site was met."""

    def __init__(self, slots: Sequence[PlannedCall], zeros: bool, counter: _Counter) -> None:
        super().__init__(zeros)
        self._sampled = iter([slot.site is not None for slot in slots])
        self._counter = counter
        self._met = False
        self.before = 0

    def drop(self, call: Call) -> Tensor:
        if next(self._sampled) and not self._met:
            self._met = True
            self.before = self._counter.flops
        return call.x

"""The report: what a committee samples, and how, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.execution.autotune import Autotuner
from dubio.uncertainty.execution.choice import FEW
from dubio.uncertainty.execution.fallback import Dropped


@dataclass(frozen=True)
class Report:
    """What an audit found and what came of it.

    Attributes:
        plan: Of the network.
        num_samples: K.
        autotuner: Knows the strategies that give what the plain loop gives, what was measured, and what was chosen.
        dropped: Those that are not used, and why.
        before_first_site: Share of a pass's multiplications (of matrix products and convolutions) that come before the
            first site; vmap and thinning do them once for all members. None where nothing could be counted.
        mask_bytes: Memory of all members' masks.
    """

    plan: SamplingPlan
    num_samples: int
    autotuner: Autotuner
    dropped: tuple[Dropped, ...]
    before_first_site: float | None
    mask_bytes: int

    def __str__(self) -> str:
        sites = [("site", "kind", "p", "trained p", "mask", "drops from")]
        for call in self.plan.sampled:
            if call.site:
                source = "weight or constant" if call.site.axis is None and not call.packed else "activation"
                # A rate of 0 in the call: only train mode showed it.
                trained = f"{call.p:g}" if call.p else "in train mode"
                shape = " x ".join(map(str, call.site.shape)) or "1"
                sites.append((call.site.name, call.kind, f"{call.site.p:g}", trained, shape, source))
        strategies = [("strategy", "state", "why")]
        for name in self.autotuner.agreeing:
            state = "in use" if name in self.autotuner.strategies else "agrees"
            strategies.append((name, state, "gives what the plain loop gives"))
        strategies += [(each.name, "failed" if each.failed else "not applicable", each.reason) for each in self.dropped]
        share = "unknown" if self.before_first_site is None else f"{self.before_first_site:.1%}"
        return "\n".join(
            [
                *_table(sites),
                "",
                *_table(strategies),
                "",
                *self._measured(),
                f"members                {self.num_samples}, strategy: {self.autotuner}",
                f"work before first site {share} of a pass",
                f"masks                  {self.mask_bytes / 2**20:.1f} MiB",
                *(f"left out               {name}" for name in self.plan.left_out),
                *(f"note                   {note}" for note in self.plan.notes),
            ]
        )

    def _measured(self) -> list[str]:
        """What was measured, by the size of the batch."""
        if not self.autotuner.measured:
            return []
        rows = [("rows", "strategy", "milliseconds", "why")]
        for each in self.autotuner.measured:
            times = ", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in each.seconds.items())
            rows.append((str(each.rows), each.name, times or "-", each.reason))
        for size, seconds in self.autotuner.few.items():
            times = ", ".join(f"{name} {1e3 * each:.2f}" for name, each in seconds.items())
            rows.append((str(size), self.autotuner.choice.strategy(size, FEW), times, f"{FEW} members"))
        return [*_table(rows), ""]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align the columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

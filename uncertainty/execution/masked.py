"""Members: thinned networks, run without switching any mode.

While a member runs, a dropout call multiplies by the member's mask instead of doing nothing. That is local to the
thread, so eval-mode predictions in other threads, and the network itself, never notice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.dropout.function_mode import Call, DropoutMode
from dubio.uncertainty.errors import UnsupportedNetwork


class Masking(DropoutMode):
    """Applies a member's masks at the dropout sites of one pass.

    Args:
        plan: Says where masks go.
        masks: One scaled mask a site, in call order, each of the site's shape.
        batch: Rows of the pass, without members.
        num_members: How many members are folded into the batch, if so.
        overwrite: Whether a call that works in place does.
    """

    def __init__(
        self,
        plan: SamplingPlan,
        masks: Sequence[Tensor],
        batch: int,
        num_members: int | None = None,
        overwrite: bool = True,
    ) -> None:
        super().__init__(plan.zero_rates)
        self._planned = plan.calls
        self._masks = iter(masks)
        self._batch = batch
        self._num_members = num_members
        self._overwrite = overwrite
        self._met = 0

    def drop(self, call: Call) -> Tensor:
        if self._met == len(self._planned):
            raise self._differs("one more")
        planned = self._planned[self._met]
        if (planned.kind, planned.p) != (call.kind, call.p):
            raise UnsupportedNetwork(
                f"Expected dropout site {self._met} to be {planned.kind} with p={planned.p:g}, as when the network was "
                f"audited, but met {call.kind} with p={call.p:g}; the sites must not depend on the input."
            )
        self._met += 1
        if planned.site is None:
            return call.x
        dropped = planned.apply(call, next(self._masks), self._batch, self._num_members)
        # Whoever holds the input sees what was dropped from it, as in training.
        return call.x.copy_(dropped) if planned.inplace and self._overwrite else dropped

    def finish(self) -> None:
        """Refuse a pass that met fewer calls than were planned.

        Raises:
            UnsupportedNetwork: The sites depend on the input.
        """
        if self._met != len(self._planned):
            raise self._differs(str(self._met))

    def _differs(self, met: str) -> UnsupportedNetwork:
        return UnsupportedNetwork(
            f"Expected {len(self._planned)} dropout sites, as when the network was audited, but met {met}; "
            "the sites must not depend on the input."
        )


def run(plan: SamplingPlan, x: Tensor, masks: Sequence[Tensor], overwrite: bool = True) -> Tensor:
    """Run one member over ``[B, ...]``, which is left alone, for logits ``[B, C]``.

    Args:
        plan: Of the network.
        x: Inputs.
        masks: One a site.
        overwrite: Whether a dropout call that works in place does, within the pass.

    Raises:
        UnsupportedNetwork: The pass met other sites than the audit.
    """
    return _pass(plan, x, Masking(plan, masks, len(x), overwrite=overwrite), overwrite)


def loop(plan: SamplingPlan, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Run one member after the other: the reference that every faster strategy is held against.

    With scaled masks ``[K, *site.shape]`` a site it gives logits ``[K, B, C]`` for inputs ``[B, ...]``.
    """
    return torch.stack([run(plan, x, masks) for masks in zip(*banks, strict=True)])


def vmap(plan: SamplingPlan, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Run all members at once; arguments and result as those of `loop`.

    Only the masks carry the K axis, so everything before the first site is computed once for the batch.
    """

    def member(*masks: Tensor) -> Tensor:
        # What all members share cannot be overwritten with what differs between them.
        return run(plan, x, masks, overwrite=False)

    logits_KBC: Tensor = torch.vmap(member)(*banks)
    return logits_KBC


def fold(plan: SamplingPlan, x: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Run all members as one batch of K times B rows: for what vmap cannot do, such as an LSTM.

    Arguments and result as those of `loop`.

    Raises:
        StrategyNotApplicable: A site does not let members be told apart within the batch.
    """
    num_samples = len(banks[0])
    repeated = x.repeat(num_samples, *[1] * (x.ndim - 1))
    logits = _pass(plan, repeated, Masking(plan, banks, len(x), num_samples), True)
    return logits.view(num_samples, len(x), -1)


def _pass(plan: SamplingPlan, x: Tensor, masking: Masking, overwrite: bool) -> Tensor:
    if overwrite and any(call.inplace and call.site for call in plan.calls):
        x = x.clone()  # the caller's; the first site may be on the input itself
    with masking:
        logits: Tensor = plan.network(x)
    masking.finish()
    return logits

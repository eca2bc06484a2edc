"""Thinned committees: a member as the small network that it is.

Multiplying by a mask computes a unit and throws it away. Where a site sits between two linear or convolution layers,
the kept rows and columns of each weight are gathered once per member instead, so that the dropped units are never
computed: at p = .5 a hidden-to-hidden layer needs a quarter of the arithmetic.

Members of linear layers alone run side by side, in blocks: they keep different numbers of units (Bernoulli), so the
matrices of a block are padded with zeros to its largest. Members with convolutions run one after the other, each in its
exact size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.batched import Before
from dubio.uncertainty.execution.chain import Chain, Conv, Function, Linear, Mask
from dubio.uncertainty.execution.kernels import Kernel

# Members in a block: many, for the fewest calls; but the more, the more zeros, and the larger what caches must hold.
BLOCK = 64


@dataclass(frozen=True)
class Choice:
    """A site behind an activation that is computed whole, from which a member takes the units that it keeps."""

    site: int


@dataclass(frozen=True)
class Cut:
    """A layer of the chain, and the sites that thin it.

    Attributes:
        layer: of the chain, or a choice between two.
        incoming: site that the layer's input comes from.
        columns: how many columns each of its channels became.
        outgoing: site that the layer's output goes to.
    """

    layer: Linear | Conv | Function | Choice
    incoming: int | None = None
    columns: int = 1
    outgoing: int | None = None


def cuts(chain: Chain) -> list[Cut] | None:
    """How the sites thin the layers; None where one stands where units cannot be left out."""
    found: list[Cut] = []
    pending: int | None = None  # site whose dropped units the next layer does not get
    producer: int | None = None  # layer whose output is still its own units
    columns = 1
    for layer in chain.after:
        if isinstance(layer, Mask):
            if not layer.channels or pending is not None:
                return None
            if producer is None:
                found.append(Cut(Choice(layer.site)))
            else:
                found[producer] = replace(found[producer], outgoing=layer.site)
            pending, producer, columns = layer.site, None, 1
        elif isinstance(layer, Function):
            if pending is not None and not layer.homogeneous and layer.columns is None:
                return None
            columns *= layer.columns or 1
            if not layer.separate:
                producer = None
            found.append(Cut(layer))
        else:
            found.append(Cut(layer, pending, columns if pending is not None else 1))
            pending, producer, columns = None, len(found) - 1, 1
    return None if pending is not None else found


class Thinned:
    """Members as small networks. Immutable, so thread-safe.

    Attributes:
        blocks: networks from the first site's activation to logits ``[rows, members, C]``, and their members' count.
        num_weights: numbers in all members' weights.
    """

    def __init__(
        self, before: Before, blocks: Sequence[tuple[int, Sequence[Kernel]]], max_rows: int, num_weights: int
    ) -> None:
        self._before = before
        self.blocks = tuple(blocks)
        self._max_rows = max_rows
        self.num_weights = num_weights

    def __call__(self, x: Tensor, which: slice) -> Tensor:
        """Logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""
        if len(x) <= self._max_rows:
            return self._rows(x, which)
        return torch.cat([self._rows(rows, which) for rows in torch.split(x, self._max_rows)], dim=1)

    def _rows(self, x: Tensor, which: slice) -> Tensor:
        activation = self._before(x)
        outputs, first = [], 0
        for count, steps in self.blocks:
            # A block is computed as a whole.
            if first < which.stop and first + count > which.start:
                hidden = activation
                for step in steps:
                    hidden = step(hidden)
                wanted = slice(max(0, which.start - first), min(count, which.stop - first))
                outputs.append(hidden.view(len(x), count, -1)[:, wanted].transpose(0, 1))
            first += count
        return torch.cat(outputs)


def thin(before: Before, chain: Chain, banks: Sequence[Tensor], max_weights: int, max_numbers: int) -> Thinned | None:
    """Thin every member of a chain.

    Args:
        before: gives the first site's activation.
        chain: as recorded.
        banks: scaled masks, ``[K, *site.shape]`` a site.
        max_weights: how many numbers the members' weights may hold together.
        max_numbers: how many numbers an activation may hold.

    Returns:
        None where that would be more, or where a site stands where units cannot be left out.
    """
    found = cuts(chain)
    if found is None:
        return None
    flat_KN = [bank.flatten(1) for bank in banks]
    num_weights = sum(_size(cut, flat_KN) for cut in found)
    if num_weights > max_weights:
        return None
    num_members = len(flat_KN[0])
    if _side_by_side(chain, found):
        num_blocks = -(-num_members // BLOCK)
        chunks = zip(*(torch.tensor_split(bank, num_blocks) for bank in flat_KN), strict=True)
        blocks = [(len(masks[0]), _block(found, masks)) for masks in chunks]
        together = max(count for count, _ in blocks)
    else:
        blocks = [(1, _member(found, [bank[k] for bank in flat_KN])) for k in range(num_members)]
        together = 1
    return Thinned(before, blocks, max(1, max_numbers // (together * chain.row_numel)), num_weights)


def _size(cut: Cut, flat_KN: Sequence[Tensor]) -> int:
    """Numbers in all members' weights of a layer."""
    if isinstance(cut.layer, Function | Choice):
        return 0
    weight = cut.layer.weight
    ones_K = torch.ones(len(flat_KN[0]), dtype=torch.int64, device=weight.device)
    outgoing_K = ones_K * len(weight) if cut.outgoing is None else (flat_KN[cut.outgoing] != 0).sum(1)
    incoming_K = ones_K * weight.shape[1] if cut.incoming is None else (flat_KN[cut.incoming] != 0).sum(1) * cut.columns
    return int((outgoing_K * incoming_K).sum()) * weight[0, 0].numel()


def _side_by_side(chain: Chain, found: Sequence[Cut]) -> bool:
    """Whether all members' layers can be run as one: linear layers, and functions that know nothing of the axes."""
    return chain.after[0] == Mask(0, True) and all(
        (isinstance(cut.layer, Choice) and index == 0)
        or isinstance(cut.layer, Linear)
        or (isinstance(cut.layer, Function) and cut.layer.separate and cut.columns == 1)
        for index, cut in enumerate(found)
    )


def _member(found: Sequence[Cut], masks: Sequence[Tensor]) -> list[Kernel]:
    """One member in its exact size."""
    steps: list[Kernel] = []
    for cut in found:
        if isinstance(cut.layer, Choice):
            steps.append(partial(_choose, _kept(masks[cut.layer.site])))
            continue
        if isinstance(cut.layer, Function):
            steps.append(cut.layer.call)
            continue
        weight, bias_O = cut.layer.weight, cut.layer.bias
        if cut.outgoing is not None:
            kept_O = _kept(masks[cut.outgoing])
            weight, bias_O = weight[kept_O], None if bias_O is None else bias_O[kept_O]
        if cut.incoming is not None:
            kept_I = _kept(masks[cut.incoming])
            factor_I = masks[cut.incoming][kept_I].repeat_interleave(cut.columns)
            column_I = (kept_I.unsqueeze(1) * cut.columns + torch.arange(cut.columns, device=kept_I.device)).flatten()
            weight = weight[:, column_I] * factor_I.view(-1, *[1] * (weight.ndim - 2))
        steps.append(kernels.prepared(replace(cut.layer, weight=weight, bias=bias_O)))
    return steps


def _kept(mask_N: Tensor) -> Tensor:
    """Indices of the kept units; of the first one, which counts zero times, where a member keeps none."""
    kept = mask_N.nonzero().flatten()
    return kept if len(kept) else kept.new_zeros(1)


def _choose(kept: Tensor, x: Tensor) -> Tensor:
    if x.ndim == 2:
        return x.index_select(1, kept)
    # Channels last in memory, as the convolutions want them.
    return x.permute(0, 2, 3, 1).index_select(3, kept).permute(0, 3, 1, 2)


def _block(found: Sequence[Cut], masks: Sequence[Tensor]) -> list[Kernel]:
    """Some members side by side, padded to the largest: from ``[rows, N]`` to ``[rows, members, C]``."""
    steps: list[Kernel] = []
    kept_KM = [_kept_by_all(mask_KN) for mask_KN in masks]
    for cut in found:
        if isinstance(cut.layer, Choice):
            steps.append(partial(_choose_for_all, kept_KM[cut.layer.site]))
        elif isinstance(cut.layer, Function):
            steps.append(cut.layer.call)
        elif isinstance(cut.layer, Linear):
            weight_OI = cut.layer.weight
            bias_O = weight_OI.new_zeros(len(weight_OI)) if cut.layer.bias is None else cut.layer.bias
            weight_KOI, bias_KO = weight_OI.expand(len(masks[0]), -1, -1), bias_O.expand(len(masks[0]), -1)
            if cut.outgoing is not None:
                outgoing_KO = kept_KM[cut.outgoing]
                weight_KOI, bias_KO = weight_OI[outgoing_KO], bias_O[outgoing_KO]
            if cut.incoming is not None:
                kept_KI = kept_KM[cut.incoming]
                factor_KI = masks[cut.incoming].gather(1, kept_KI)  # 0 where padded
                index_KOI = kept_KI.unsqueeze(1).expand(-1, weight_KOI.shape[1], -1)
                weight_KOI = weight_KOI.gather(2, index_KOI) * factor_KI.unsqueeze(1)
            steps.append(kernels.members_linear(weight_KOI.contiguous(), bias_KO.contiguous(), cut.layer.relu))
    return steps


def _kept_by_all(mask_KN: Tensor) -> Tensor:
    """Indices of each member's kept units ``[K, M]``, padded with dropped ones to the largest count."""
    most = max(1, int((mask_KN != 0).sum(1).max()))
    # A stable sort brings the kept units to the front, in their order.
    return (mask_KN == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :most].contiguous()


def _choose_for_all(kept_KM: Tensor, x: Tensor) -> Tensor:
    return x.index_select(1, kept_KM.flatten()).view(len(x), *kept_KM.shape)

"""Thinned committees: a member as the small network that it is.

Multiplying by a mask computes a unit and throws it away. Where a site sits between two linear or convolution layers,
the kept rows and columns of each weight are gathered once per member instead, so that the dropped units are never
computed: at p = .5 a hidden-to-hidden layer needs a quarter of the arithmetic.

Members of linear layers alone run side by side, in blocks: they keep different numbers of units (Bernoulli), so the
matrices of a block are padded with zeros to its largest. Members with convolutions run one after the other, each in its
exact size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.chain import Chain, Function, Layer, Linear, Mask
from dubio.uncertainty.execution.grouped import GroupedLinear, in_parts, split
from dubio.uncertainty.execution.kernels import Kernel

# Members in a block: many, for the fewest calls; but the more, the more zeros, and the larger what caches must hold.
BLOCK = 64
# So many times as many rows may be computed as there are, for all layers to run at the same numbers.
MOST_FILLED = 9 / 8


@dataclass(frozen=True)
class ThinLayer:
    """A layer of the chain, and the sites that thin it.

    Attributes:
        layer: Of the chain; a site only behind an activation that is computed whole, from which a member then takes
            the units that it keeps.
        input_site: Site that the layer's input comes from.
        columns: How many columns each of its channels became.
        output_site: Site that the layer's output goes to.
    """

    layer: Layer
    input_site: int | None = None
    columns: int = 1
    output_site: int | None = None


def plan_layers(chain: Chain) -> list[ThinLayer]:
    """Find how the sites thin the layers.

    Raises:
        StrategyNotApplicable: A site stands where units cannot be left out.
    """
    layers: list[ThinLayer] = []
    pending: int | None = None  # site whose dropped units the next layer does not get
    producer: int | None = None  # layer whose output is still its own units
    columns = 1
    for layer in chain.layers:
        if isinstance(layer, Mask):
            if not layer.channels or pending is not None:
                where = "does not drop whole units" if not layer.channels else "follows another without a layer between"
                raise StrategyNotApplicable(f"site {layer.site} {where}, so its units cannot be left out")
            if producer is None:
                layers.append(ThinLayer(layer))
            else:
                layers[producer] = replace(layers[producer], output_site=layer.site)
            pending, producer, columns = layer.site, None, 1
        elif isinstance(layer, Function):
            if pending is not None and not layer.homogeneous and layer.columns is None:
                raise StrategyNotApplicable(f"what follows site {pending} makes something of a dropped unit")
            columns *= layer.columns or 1
            if not layer.separate:
                producer = None
            layers.append(ThinLayer(layer))
        else:
            layers.append(ThinLayer(layer, pending, columns if pending is not None else 1))
            pending, producer, columns = None, len(layers) - 1, 1
    if pending is not None:
        raise StrategyNotApplicable(f"no layer follows site {pending}, so its units cannot be left out")
    return layers


class ThinnedChain:
    """Members as small networks. Thread-safe.

    Attributes:
        blocks: Networks from the first site's activation to logits ``[rows, members, C]``, and their members' count.
        num_weights: Numbers in all members' weights.
    """

    def __init__(
        self, prefix: Kernel, blocks: Sequence[tuple[int, Sequence[Kernel]]], max_rows: int, num_weights: int
    ) -> None:
        self._prefix = prefix
        self.blocks = tuple(blocks)
        self._grouped = [step for _, steps in self.blocks for step in steps if isinstance(step, GroupedLinear)]
        self._common = dict[int, tuple[int, ...]]()  # by torch's number of threads
        self._max_rows = max_rows
        self.num_weights = num_weights

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        # All layers run at the same numbers of rows: so rows are parted and padded once, where they are smallest.
        return in_parts(lambda rows: self._chunk(rows, members), x, self._parts(len(x)), rows_axis=1)

    def _parts(self, rows: int) -> list[int]:
        """Numbers of rows for at least so many altogether, at which every grouped layer runs, if any do."""
        threads = torch.get_num_threads()
        common = self._common.get(threads)
        if common is None:
            fitting = [set(layer.fitting) for layer in self._grouped]
            shared = set.intersection(*fitting) if fitting else set()
            common = self._common[threads] = tuple(sorted(size for size in shared if size <= self._max_rows))
        sizes = split(rows, common) if common else []
        # Few numbers of rows may suit all: where that would fill up more, each layer knows better ones for itself.
        if sizes and sum(sizes) <= MOST_FILLED * rows:
            return sizes
        return [min(self._max_rows, rows - first) for first in range(0, rows, self._max_rows)]

    def _chunk(self, x: Tensor, members: slice) -> Tensor:
        activation = self._prefix(x)
        outputs, first = [], 0
        for count, steps in self.blocks:
            # A block is computed as a whole.
            if first < members.stop and first + count > members.start:
                hidden = activation
                for step in steps:
                    hidden = step(hidden)
                wanted = slice(max(0, members.start - first), min(count, members.stop - first))
                outputs.append(hidden.view(len(x), count, -1)[:, wanted].transpose(0, 1))
            first += count
        return torch.cat(outputs)


def thin(
    prefix: Kernel,
    chain: Chain,
    banks: Sequence[Tensor],
    max_weights: int,
    max_numbers: int,
    seconds: float = math.inf,
) -> ThinnedChain:
    """Thin every member of a chain.

    Args:
        prefix: Gives the first site's activation.
        chain: As recorded.
        banks: Scaled masks, ``[K, *site.shape]`` a site.
        max_weights: How many numbers the members' weights may hold together.
        max_numbers: How many numbers an activation may hold.
        seconds: What finding the fastest kernels may take, roughly.

    Raises:
        StrategyNotApplicable: That would be more, or a site stands where units cannot be left out.
    """
    end = time.perf_counter() + seconds
    layers = plan_layers(chain)
    flat_KN = [bank.flatten(1) for bank in banks]
    num_weights = sum(_num_weights(layer, flat_KN) for layer in layers)
    if num_weights > max_weights:
        raise StrategyNotApplicable(
            f"the members' own weights would hold {num_weights} numbers, more than the {max_weights} of the budget"
        )
    # Behind the first site: linear layers, and functions that know nothing of the axes.
    side_by_side = all(
        isinstance(each.layer, Linear) or (isinstance(each.layer, Function) and each.layer.separate)
        for each in layers[1:]
    )
    num_members = len(flat_KN[0])
    num_blocks = -(-num_members // BLOCK) if side_by_side else num_members
    chunks = zip(*(torch.tensor_split(bank, num_blocks) for bank in flat_KN), strict=True)
    blocks: list[tuple[int, Sequence[Kernel]]] = []
    grouped: dict[int, bool] = {}
    for index, masks in enumerate(chunks):
        # Time that one block does not need is left to the others.
        share = (end - time.perf_counter()) / (num_blocks - index)
        blocks.append((len(masks[0]), _network(layers, masks, not side_by_side, share, grouped)))
    largest = max(count for count, _ in blocks)
    return ThinnedChain(prefix, blocks, max(1, max_numbers // (largest * chain.row_numel)), num_weights)


def _num_weights(each: ThinLayer, flat_KN: Sequence[Tensor]) -> int:
    """Count the numbers in all members' weights of a layer."""
    if isinstance(each.layer, Function | Mask):
        return 0
    weight = each.layer.weight
    ones_K = torch.ones(len(flat_KN[0]), dtype=torch.int64, device=weight.device)
    out_K, in_K = ones_K * len(weight), ones_K * weight.shape[1]
    if each.output_site is not None:
        out_K = (flat_KN[each.output_site] != 0).sum(1)
    if each.input_site is not None:
        in_K = (flat_KN[each.input_site] != 0).sum(1) * each.columns
    return int((out_K * in_K).sum()) * weight[0, 0].numel()


def _network(
    layers: Sequence[ThinLayer], masks: Sequence[Tensor], alone: bool, seconds: float, grouped: dict[int, bool]
) -> list[Kernel]:
    """Some members as one network.

    Args:
        layers: Of the chain.
        masks: Flat scaled masks of the members, ``[K, N]`` a site.
        alone: Whether it is for one member in its exact size, from ``[rows, N, ...]`` to ``[rows, C]``; otherwise
            they run side by side, padded to the largest, from ``[rows, N]`` to ``[rows, K, C]``.
        seconds: What finding the fastest kernels may take, roughly.
        grouped: By number of the layer, whether a grouped convolution is the fastest; told to the next call.
    """
    end = time.perf_counter() + seconds
    steps: list[Kernel] = []
    kept_KM = [_kept_indices(mask_KN) for mask_KN in masks]
    for each in layers:
        if isinstance(each.layer, Mask):
            steps.append(partial(_gather if alone else _gather_all, kept_KM[each.layer.site]))
            continue
        if isinstance(each.layer, Function):
            steps.append(each.layer.call)
            continue
        weight, bias_O = each.layer.weight, each.layer.bias
        bias_O = weight.new_zeros(len(weight)) if bias_O is None else bias_O
        weight_KOI, bias_KO = weight.expand(len(masks[0]), *weight.shape), bias_O.expand(len(masks[0]), -1)
        if each.output_site is not None:
            output_KO = kept_KM[each.output_site]
            weight_KOI, bias_KO = weight[output_KO], bias_O[output_KO]
        if each.input_site is not None:
            kept_KI = kept_KM[each.input_site]
            factor_KI = masks[each.input_site].gather(1, kept_KI).repeat_interleave(each.columns, 1)  # 0 where padded
            columns = torch.arange(each.columns, device=weight.device)
            column_KI = (kept_KI.unsqueeze(2) * each.columns + columns).flatten(1)
            axes = (len(masks[0]), 1, -1, *[1] * (weight.ndim - 2))
            weight_KOI = weight_KOI.take_along_dim(column_KI.view(axes), 2) * factor_KI.view(axes)
        if alone:
            bias = None if each.layer.bias is None else bias_KO[0]
            steps.append(kernels.prepare(replace(each.layer, weight=weight_KOI[0], bias=bias)))
        else:
            wanted = grouped.get(len(steps))
            kernel = kernels.members_linear(weight_KOI.contiguous(), bias_KO.contiguous(), each.layer.relu, end, wanted)
            if time.perf_counter() <= end:  # otherwise it was not found out
                grouped[len(steps)] = isinstance(kernel, GroupedLinear)
            steps.append(kernel)
    return steps


def _kept_indices(mask_KN: Tensor) -> Tensor:
    """Indices of each member's kept units ``[K, M]``, padded with dropped ones to the largest count."""
    most = max(1, int((mask_KN != 0).sum(1).max()))
    # A stable sort brings the kept units to the front, in their order.
    return (mask_KN == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :most].contiguous()


def _gather(kept_1M: Tensor, x: Tensor) -> Tensor:
    if x.ndim == 2:
        return x.index_select(1, kept_1M[0])
    # Channels last in memory, as the convolutions want them.
    return x.permute(0, 2, 3, 1).index_select(3, kept_1M[0]).permute(0, 3, 1, 2)


def _gather_all(kept_KM: Tensor, x: Tensor) -> Tensor:
    return x.index_select(1, kept_KM.flatten()).view(len(x), *kept_KM.shape)

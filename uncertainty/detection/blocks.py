"""Blocks: the parts of a network between input and features whose outputs have positions, pixels or steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dubio.uncertainty.detection.measures import single
from dubio.uncertainty.errors import UncertaintyError

# Of more blocks so many are taken, the first, the last and evenly between.
MOST_BLOCKS = 8
# Mean and maximum of so many channels have a covariance of 2048^2 numbers, 16 MiB; wider blocks are left out.
MAX_CHANNELS = 1024
# Torch runs these by one kernel as long as nothing listens inside, and by others if something does.
OPAQUE = (nn.TransformerEncoderLayer, nn.MultiheadAttention)


@dataclass(frozen=True)
class Block:
    """A module to listen to.

    Attributes:
        name: Its dotted name in the network.
        axis: Of the channels in its output: 1, or -1 for the last one.
    """

    name: str
    axis: int

    def __post_init__(self) -> None:
        """Refuse an axis that is none of channels."""
        if self.axis not in (1, -1):
            raise UncertaintyError(f"Expected `axis` of the block {self.name!r} to be 1 or -1, but got {self.axis}.")

    def pool(self, output: Any) -> Tensor:
        """Mean and maximum over the positions, ``[B, 2 C]`` in single precision at least."""
        maps_BCP = single(_tensor(output)).movedim(self.axis, 1).flatten(2)
        return torch.cat([maps_BCP.mean(-1), maps_BCP.amax(-1)], dim=-1)


def find(network: nn.Module, example_input: Tensor) -> tuple[Block, ...]:
    """The blocks of a network, from its input on; none where no output has positions.

    Modules are taken in the order in which they run. One whose output has no positions is looked into, and so are
    containers (`nn.Sequential`, `nn.ModuleList`) of modules that hold others. Each of the rest that holds a matrix or
    kernel of weights begins a block; normalisations, activations, pools and dropout that follow belong to it. A network
    that is a single block so far is looked into once more.

    Args:
        network: In eval mode.
        example_input: ``[B, ...]``.
    """
    ran = _Run.of(network, example_input)
    names = list(ran.units(""))
    blocks = ran.group(names)
    weighted = [name for name in names if ran.weighs(name)]
    if len(weighted) == 1 and isinstance(ran.modules[weighted[0]], nn.Sequential):
        names = [each for name in names for each in (ran.children(name) if name in weighted else [name])]
        blocks = ran.group([name for name in names if ran.has_positions(name)])
    found = [block for block in blocks if ran.outputs[block.name].shape[block.axis] <= MAX_CHANNELS]
    steps = (len(found) - 1) / (MOST_BLOCKS - 1)
    return tuple(found) if steps <= 1 else tuple(found[round(steps * index)] for index in range(MOST_BLOCKS))


@dataclass
class _Run:
    """What the modules of a network gave in one pass, in the order in which they began."""

    modules: dict[str, nn.Module]
    began: list[str] = field(default_factory=list)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, network: nn.Module, example_input: Tensor) -> _Run:
        ran = cls(dict(network.named_modules()))
        handles = []
        for name, module in ran.modules.items():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: ran.began.append(name)))
            handles.append(module.register_forward_hook(lambda *given, name=name: ran._keep(name, given[-1])))
        try:
            with torch.inference_mode():
                # Two rows show which axis is theirs.
                network(example_input[:1].expand(2, *example_input.shape[1:]))
        finally:
            for handle in handles:
                handle.remove()
        return ran

    def _keep(self, name: str, output: Any) -> None:
        tensor = _tensor(output)
        if tensor is not None:
            self.outputs[name] = tensor

    def has_positions(self, name: str) -> bool:
        output = self.outputs.get(name)
        if output is None or output.ndim < 3 or len(output) != 2 or not output.is_floating_point():
            return False
        return math.prod(output.shape[2:]) > 1 and math.prod(output.shape[1:-1]) > 1

    def weighs(self, name: str) -> bool:
        return any(parameter.ndim > 1 for parameter in self.modules[name].parameters())

    def children(self, name: str) -> list[str]:
        """The modules just below, in the order in which they ran; for one that did not run itself, those below it."""
        below = [f"{name}.{child}".lstrip(".") for child, _ in self.modules[name].named_children()]
        ran = [each for child in below for each in ([child] if child in self.began else self.children(child))]
        return sorted(ran, key=self.began.index)

    def units(self, name: str) -> Iterator[str]:
        """The modules with positions that are not looked into any further."""
        children = self.children(name)
        if not self.has_positions(name) or self._contains(name, children):
            for child in children:
                yield from self.units(child)
        elif not isinstance(self.modules[name], OPAQUE):
            yield name

    def _contains(self, name: str, children: Sequence[str]) -> bool:
        """Whether a module is a container of modules that hold others."""
        inner = self.modules[name]
        if not isinstance(inner, nn.Sequential) and not any(
            isinstance(each, nn.ModuleList) for each in inner.children()
        ):
            return False
        return any(
            len(list(self.modules[child].children())) > 0
            and self.weighs(child)
            and self.has_positions(child)
            and not isinstance(self.modules[child], OPAQUE)
            for child in children
        )

    def group(self, names: Sequence[str]) -> list[Block]:
        """One block for each module with weights, at the last module before the next one."""
        groups: list[list[str]] = []
        for name in names:
            if self.weighs(name):
                groups.append([name])
            elif groups:
                groups[-1].append(name)
        return [Block(group[-1], self._axis(group)) for group in groups]

    def _axis(self, group: Sequence[str]) -> int:
        """Of the channels: the one that is as long as a convolution of the block is wide, or else the last."""
        widths = {
            module.out_channels
            for name in group
            for module in self.modules[name].modules()
            if isinstance(module, _ConvNd)
        }
        return 1 if self.outputs[group[-1]].shape[1] in widths else -1


def _tensor(output: Any) -> Any:
    """An output, or the first tensor of several."""
    if isinstance(output, (tuple, list)):
        return next((each for each in output if isinstance(each, Tensor)), None)
    return output if isinstance(output, Tensor) else None

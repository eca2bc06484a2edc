"""The feature tap: reads what goes into the head, and what blocks give, in one pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.detection.outputs import DeterministicPass
from dubio.uncertainty.errors import UncertaintyError


@dataclass
class _Heard:
    """What one pass gave."""

    wanted: dict[nn.Module, Block]
    features: Tensor | None = None
    blocks: dict[Block, Tensor] = field(default_factory=dict)


# Set only while a tap listens, and per thread: the hooks do nothing for anybody else's pass.
_listening: ContextVar[_Heard | None] = ContextVar("_listening", default=None)


class FeatureTap:
    """Reads the input of the head, the linear layer whose output is the network's, and the outputs of blocks.

    The head gets one forward pre-hook, and each block one forward hook, which all taps of the network share; a pass
    through a tap is bit-identical to a plain one.

    Args:
        network: In eval mode, ``[B, ...]`` to logits ``[B, C]``.
        example_input: ``[B, ...]``, used to find the head.

    Attributes:
        head: Dotted name of the head, or None where the network has none.
        blocks: What it listens to beside the head.
    """

    def __init__(self, network: nn.Module, example_input: Tensor) -> None:
        self._network = network
        self.head = _find_head(network, example_input)
        self._layer = None if self.head is None else network.get_submodule(self.head)
        self.blocks: tuple[Block, ...] = ()
        self._wanted: dict[nn.Module, Block] = {}
        if self._layer is not None and _listen not in self._layer._forward_pre_hooks.values():
            self._layer.register_forward_pre_hook(_listen, with_kwargs=True)

    def with_blocks(self, blocks: Sequence[Block]) -> FeatureTap:
        """A tap on the same network that listens to blocks, too.

        Raises:
            UncertaintyError: If the network has no module of such a name.
        """
        tap = copy.copy(self)
        tap.blocks, tap._wanted = tuple(blocks), {}
        for block in blocks:
            try:
                module = self._network.get_submodule(block.name)
            except AttributeError as error:
                raise UncertaintyError(
                    f"Expected a module {block.name[:80]!r} in the network, which the scores listen to, but there is "
                    "none; calibrate again."
                ) from error
            tap._wanted[module] = block
            if _listen_to_block not in module._forward_hooks.values():
                module.register_forward_hook(_listen_to_block)
        return tap

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Deterministic logits ``[B, C]`` and features ``[B, F]`` (None without a head)."""
        logits_BC, heard = self._hear(x, {})
        return logits_BC, heard.features

    def read(self, x: Tensor) -> DeterministicPass:
        """Everything that scores may look at in one pass over ``[B, ...]``."""
        logits_BC, heard = self._hear(x, self._wanted)
        layer = self._layer if isinstance(self._layer, nn.Linear) else None
        return DeterministicPass(x.flatten(1), logits_BC, heard.features, heard.blocks, layer)

    def _hear(self, x: Tensor, wanted: dict[nn.Module, Block]) -> tuple[Tensor, _Heard]:
        # In a new thread torch tells the matrix library how many threads to use only once an operation asks for the
        # number, and with another number products round differently: the thread's first answer would be another one.
        torch.get_num_threads()
        heard = _Heard(wanted)
        token = _listening.set(heard)
        try:
            logits_BC = self._network(x)
        finally:
            _listening.reset(token)
        return logits_BC, heard


def _listen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    heard = _listening.get()
    if heard is not None:
        heard.features = args[0] if args else kwargs["input"]


def _listen_to_block(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    heard = _listening.get()
    if heard is not None and module in heard.wanted:
        block = heard.wanted[module]
        heard.blocks[block] = block.pool(output)


def _find_head(network: nn.Module, example_input: Tensor) -> str | None:
    outputs: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(lambda _module, _args, output, name=name: outputs.__setitem__(name, output))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.inference_mode():
            logits = network(example_input[:1])
    finally:
        for handle in handles:
            handle.remove()
    return next((name for name, output in outputs.items() if output is logits), None)

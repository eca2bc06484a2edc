"""Outputs: everything about a batch that a score may look at."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dubio.uncertainty.detection.measures import Summary, single, summarise
from dubio.uncertainty.errors import NoFeatures


@dataclass(frozen=True)
class DeterministicPass:
    """One eval-mode pass, in single precision at least.

    Attributes:
        inputs_BF: What the network ate, flattened.
        logits_BC: Deterministic logits.
        features_BF: Penultimate features; None where the network offers none.
    """

    inputs_BF: Tensor
    logits_BC: Tensor
    features_BF: Tensor | None

    def __post_init__(self) -> None:
        """Widen what a network in half precision gave, and the tokens that a text is."""
        for name, value in vars(self).items():
            if value is not None:
                object.__setattr__(self, name, single(value))

    def features(self) -> Tensor:
        """The penultimate features.

        Raises:
            NoFeatures: If the network offers none.
        """
        if self.features_BF is None:
            raise NoFeatures(
                "Expected a network whose output is that of an nn.Linear, whose input then serves as features, but "
                "this one has none; calibrate with scores that need no features, such as mutual_information."
            )
        return self.features_BF

    @staticmethod
    def cat(parts: Sequence[DeterministicPass]) -> DeterministicPass:
        """One pass out of those of several batches, in their order."""
        features = [part.features_BF for part in parts if part.features_BF is not None]
        return DeterministicPass(
            inputs_BF=torch.cat([part.inputs_BF for part in parts]),
            logits_BC=torch.cat([part.logits_BC for part in parts]),
            features_BF=torch.cat(features) if features else None,
        )


@dataclass(frozen=True)
class Outputs:
    """One batch as the predictor saw it.

    Attributes:
        deterministic: The eval-mode pass.
        probs_KBC: The members' probabilities.
    """

    deterministic: DeterministicPass
    probs_KBC: Tensor

    @cached_property
    def summary(self) -> Summary:
        """What the members say, in a few measures."""
        return summarise(self.probs_KBC)

    def take(self, rows_R: Tensor) -> Outputs:
        """The outputs of some rows, by index."""
        seen = self.deterministic
        features_RF = None if seen.features_BF is None else seen.features_BF[rows_R]
        few = DeterministicPass(seen.inputs_BF[rows_R], seen.logits_BC[rows_R], features_RF)
        return Outputs(few, self.probs_KBC[:, rows_R])

    @staticmethod
    def cat(parts: Sequence[Outputs]) -> Outputs:
        """One outputs out of those of several batches, in their order."""
        return Outputs(
            deterministic=DeterministicPass.cat([part.deterministic for part in parts]),
            probs_KBC=torch.cat([part.probs_KBC for part in parts], dim=1),
        )


# Set only while a tap listens, and per thread: the hook does nothing for anybody else's pass.
_listening: ContextVar[list[Tensor] | None] = ContextVar("_listening", default=None)


class FeatureTap:
    """Reads the input of the head, the linear layer whose output is the network's.

    The head gets one forward pre-hook, which all taps of the network share; a pass through a tap is bit-identical to a
    plain one.

    Args:
        network: In eval mode, ``[B, ...]`` to logits ``[B, C]``.
        example_input: ``[B, ...]``, used to find the head.

    Attributes:
        head: Dotted name of the head, or None where the network has none.
    """

    def __init__(self, network: nn.Module, example_input: Tensor) -> None:
        self._network = network
        self.head = _find_head(network, example_input)
        if self.head is not None:
            head = network.get_submodule(self.head)
            if _listen not in head._forward_pre_hooks.values():
                head.register_forward_pre_hook(_listen, with_kwargs=True)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Deterministic logits ``[B, C]`` and features ``[B, F]`` (None without a head)."""
        # In a new thread torch tells the matrix library how many threads to use only once an operation asks for the
        # number, and with another number products round differently: the thread's first answer would be another one.
        torch.get_num_threads()
        heard: list[Tensor] = []
        token = _listening.set(heard)
        try:
            logits_BC = self._network(x)
        finally:
            _listening.reset(token)
        return logits_BC, (heard[-1] if heard else None)


def _listen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    heard = _listening.get()
    if heard is not None:
        heard.append(args[0] if args else kwargs["input"])


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

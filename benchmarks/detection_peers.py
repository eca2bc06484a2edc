"""Peers: the same scores by other libraries, where they are installed, as a check of ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from torch import Tensor

from dubio.uncertainty import DeterministicPass

PEERS = {"pytorch_ood": "pytorch-ood", "torch_uncertainty": "torch-uncertainty", "mapie": "MAPIE"}


def scores() -> dict[str, Callable[[DeterministicPass], Tensor]]:
    """Scores of a deterministic pass by what other libraries make of its logits."""
    try:
        detector = importlib.import_module("pytorch_ood.detector")
    except ImportError:
        return {}
    return {
        "pytorch-ood MaxSoftmax": lambda seen: detector.MaxSoftmax.score(seen.logits_BC),
        "pytorch-ood EnergyBased": lambda seen: detector.EnergyBased.score(seen.logits_BC),
    }


def missing() -> Iterator[str]:
    """What cannot be checked, and why."""
    for module, name in PEERS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield f"{name} is left out: {error}"

"""Weights of a network that was trained elsewhere, as a predictor that promises nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from dubio.models import registry
from dubio.models.checkpoint import file, state_dict
from dubio.models.checkpoint.schema import KEY
from dubio.models.errors import ModelError, UnreadableCheckpoint
from dubio.models.inputs.spec import InputSpec
from dubio.models.predictor import Predictor
from dubio.models.spec import NetworkSpec

Network = NetworkSpec | Callable[[], nn.Module]
"""How a network is built: a spec of a class of the registry or of a trusted module, or what gives one when called."""


def predictor(
    path: str | Path,
    device: torch.device,
    network: Network,
    input_spec: InputSpec | None,
    classes: Sequence[str] | None,
    num_samples: int,
    seed: int,
    trusted: Sequence[str],
    strategy: str | None,
    measure_seconds: float,
) -> Predictor:
    """A predictor with the weights of a file, which gives both answers and no flag.

    Args:
        path: Of a state dict that `torch.save` wrote, also nested, or of a file of safetensors.
        device: Where it is to run.
        network: How it is built.
        input_spec: What one input is.
        classes: Names, in the order of the logits.
        num_samples: Members of the committee.
        seed: Of their masks.
        trusted: Module prefixes whose classes a spec may name.
        strategy: How members are run.
        measure_seconds: What finding the fastest way may take.

    Raises:
        ModelError: If something is not said, or the network cannot be built.
        UnreadableCheckpoint: If the file cannot be read, holds other weights, or is calibrated already.
    """
    if input_spec is None or classes is None:
        missing = " and ".join(
            name for name, given in {"input": input_spec, "classes": classes}.items() if given is None
        )
        raise ModelError(f"Expected `network` together with `input` and `classes`, but {missing} is not given; say it.")
    content = file.read_content(path)
    if KEY in content:
        raise UnreadableCheckpoint(
            path, "is calibrated and says itself which network it has; load it without `network`."
        )
    if isinstance(network, NetworkSpec):
        # The weights are looked for by the names of the network, which are told by one without values.
        spec, outline = network, registry.unweighted(network, trusted)
        built = registry.build(spec, state_dict.find(path, content, outline), trusted)
    else:
        built = network()
        if not isinstance(built, nn.Module):
            raise ModelError(f"Expected `network` to give a torch.nn.Module, but got {type(built).__name__}.")
        built.load_state_dict(state_dict.find(path, content, built))
        spec = NetworkSpec(class_path=registry.class_path(type(built)), init_args={})
    return Predictor.build(
        built.eval().requires_grad_(False).to(device),
        spec,
        input_spec,
        tuple(classes),
        num_samples,
        seed,
        strategy=strategy,
        measure_seconds=measure_seconds,
    )

"""The closed registry: the only classes that a checkpoint may name, unless the operator trusts more."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dubio.models.budget import Budget
from dubio.models.errors import ModelError
from dubio.models.networks.convnet import ConvNet
from dubio.models.networks.dropconnect import DropConnectMLP
from dubio.models.networks.mlp import MLP
from dubio.models.networks.recurrent import RecurrentNet
from dubio.models.networks.resnet import ResNet
from dubio.models.networks.text_cnn import TextCNN
from dubio.models.networks.timm_net import TimmNet
from dubio.models.networks.transformer import TransformerNet
from dubio.models.networks.transformers_net import TransformersNet
from dubio.models.spec import NetworkSpec

PRECISIONS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
NETWORKS: dict[str, type[nn.Module]] = {
    f"dubio.models.{network.__name__}": network
    for network in (
        MLP,
        ConvNet,
        ResNet,
        RecurrentNet,
        TransformerNet,
        DropConnectMLP,
        TextCNN,
        TimmNet,
        TransformersNet,
    )
}

MAX_TENSORS = 2**13  # of a network; the largest of timm have some thousands
MAX_OPERATIONS = 64  # that build a network, for each of its tensors; they take about five
MAX_EXTRA = 2**28  # bytes of what a network computes when it is built, such as positions: a file does not hold them


def class_path(network_class: type[nn.Module]) -> str:
    """The name under which a checkpoint may refer to a class: the registry's, or its import path."""
    names = {known: name for name, known in NETWORKS.items()}
    return names.get(network_class, f"{network_class.__module__}.{network_class.__qualname__}")


def outline(spec: NetworkSpec, weights: Mapping[str, Tensor], trusted: Sequence[str] = ()) -> nn.Module:
    """Build the network of a spec on the meta device, where it takes no memory.

    Its tensors are held against the weights: a spec cannot make the process allocate more than the file holds.

    Args:
        spec: Validated.
        weights: Parameters and buffers by name, without a prefix.
        trusted: Module prefixes, such as ``acme.networks``, whose classes may be imported beside the registry's.

    Returns:
        The network in eval mode, without values.

    Raises:
        ModelError: If the class is unknown, its arguments are wrong, or the weights do not fit.
    """
    network_class = _resolve(spec.class_path, trusted)
    network = _on_meta(spec, trusted, _bounded(network_class, weights))
    _set_precision(network, weights)
    _check_tensors(network, weights)
    extra = {name: buffer for name, buffer in network.named_buffers() if name not in weights}
    size = sum(buffer.numel() * buffer.element_size() for buffer in extra.values())
    if network_class in NETWORKS.values() and size > MAX_EXTRA:
        raise ModelError(
            f"{list(extra)[:3]} would take {size} bytes that the file does not hold; at most {MAX_EXTRA} are allowed."
        )
    return network.eval()


def unweighted(spec: NetworkSpec, trusted: Sequence[str] = ()) -> nn.Module:
    """The network of a spec that its user wrote, on the meta device: which names and shapes its weights have.

    Args:
        spec: Validated; nothing bounds how large the network is.
        trusted: As for `outline`.

    Raises:
        ModelError: If the class is unknown or its arguments are wrong.
    """
    return _on_meta(spec, trusted, nullcontext())


def _on_meta(spec: NetworkSpec, trusted: Sequence[str], bounds: AbstractContextManager[object]) -> nn.Module:
    network_class = _resolve(spec.class_path, trusted)
    try:
        _check_arguments(network_class, spec)
        with torch.device("meta"), bounds:
            return network_class(**spec.init_args)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"`network.init_args` do not build {spec.class_path}: {error}") from error


def _bounded(network_class: type[nn.Module], weights: Mapping[str, Tensor]) -> AbstractContextManager[object]:
    """Ends the building of a network that becomes larger than the file: a few bytes say that it has 10^8 layers.

    Raises:
        ModelError: If there are too many weights to begin with.
    """
    if network_class not in NETWORKS.values():
        return nullcontext()  # code that the operator trusts sets its own bounds
    if len(weights) > MAX_TENSORS:
        raise ModelError(f"the weights are {len(weights)} tensors; at most {MAX_TENSORS} are allowed.")
    step = f"building {class_path(network_class)} with these arguments, which need more weights than the file has,"
    return Budget(step, MAX_OPERATIONS * (len(weights) + 16), sys.maxsize)


def build(spec: NetworkSpec, weights: Mapping[str, Tensor], trusted: Sequence[str] = ()) -> nn.Module:
    """Build the network of a spec with its weights, in eval mode and without gradients; the rest as for `outline`."""
    outline(spec, weights, trusted)
    # Layers draw initial weights, which are then replaced: the caller's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]):
        network = _resolve(spec.class_path, trusted)(**spec.init_args)
    _set_precision(network, weights)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _resolve(path: str, trusted: Sequence[str]) -> type[nn.Module]:
    if path in NETWORKS:
        return NETWORKS[path]
    module, _, name = path.rpartition(".")
    if not any(module == prefix or module.startswith(prefix + ".") for prefix in trusted):
        if f"dubio.{path}" in NETWORKS:
            raise ModelError(
                f"`network.class_path` is {path!r}, which is 'dubio.{path}' now; write the file anew with "
                "`dubio-train calibrate --ckpt_path`."
            )
        raise ModelError(
            f"`network.class_path` is {path!r}, which is neither in the registry {sorted(NETWORKS)} nor in a trusted "
            f"module {list(trusted)}; nothing was imported. If you know where the file comes from, trust the module: "
            f"`--trusted {module}` (in Python `trusted=[{module!r}]`)."
        )
    try:
        named = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ModelError(f"`network.class_path` is {path!r}, whose module cannot be imported: {error}") from error
    if not (isinstance(named, type) and issubclass(named, nn.Module)):
        raise ModelError(f"`network.class_path` is {path!r}, which is not a torch.nn.Module class.")
    return named


def _check_arguments(network_class: type[nn.Module], spec: NetworkSpec) -> None:
    parameters: Mapping[str, Any] = inspect.signature(network_class).parameters
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if open_ended else sorted(set(spec.init_args) - set(parameters))
    if unknown:
        raise ModelError(
            f"`network.init_args` has the unknown keys {unknown}; {spec.class_path} takes {list(parameters)}."
        )


def _set_precision(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let the network compute in the precision that it was trained in, where that is one for all weights."""
    precisions = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(precisions) == 1 and precisions <= PRECISIONS:
        network.to(dtype=precisions.pop())


def _check_tensors(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    expected = {name: _say(tensor) for name, tensor in network.state_dict().items()}
    given = {name: _say(tensor) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise ModelError(
                f"the weights do not fit the network: {name[:200]!r} should be {expected.get(name, 'absent')}, but the "
                f"file has {given.get(name, 'none')}."
            )


def _say(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"

"""Traced committees: the vmapped members as one flat list of tensor operations.

At small batches Python (module calls, the function mode, vmap's bookkeeping) costs more than the arithmetic. A trace
removes it. A trace is exact for the batch size it was taken at and for no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor, fx, nn, ops
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.overrides import TorchFunctionMode

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.dropout.probe import VALUE_EXITS
from dubio.uncertainty.execution import masked

Graph = Callable[[Tensor], Tensor]
aten = ops.aten

# Operations whose result is new memory that nobody else holds, so that what follows may overwrite it.
_FRESH = {aten.addmm.default, aten.mm.default, aten.mul.Tensor, aten.add.Tensor, aten.convolution.default}
_VIEWS = {aten.view.default, aten._unsafe_view.default}
# torch.fx patches nn.Module for the whole process while it traces; overlapping traces would leave it patched for good.
_one_at_a_time = threading.Lock()


class _Sealed(TorchFunctionMode):
    """Lets no value leave torch: a trace would not see it, and freeze that of the traced batch."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in VALUE_EXITS:
            raise RuntimeError(f"{func.__name__} takes values out of torch, so a trace would freeze them.")
        return func(*args, **(kwargs or {}))


def trace(plan: SamplingPlan, x: Tensor, banks: Sequence[Tensor]) -> Graph:
    """Trace all members over a batch of exactly ``x``'s shape.

    Args:
        plan: Of the network.
        x: ``[B, ...]``.
        banks: Scaled masks, ``[K, *site.shape]`` a site.

    Returns:
        A function from ``[B, ...]`` to logits ``[K, B, C]``; it shares the network's parameters.

    Raises:
        Exception: Whatever the network raises that cannot be traced (say, a branch on a tensor's value).
    """
    # What torch traces with lives on in reference cycles: through these it holds the network, until they are emptied.
    traced = [partial(masked.vmap, plan, banks=banks)]
    tracers: list[Any] = []

    def members(x: Tensor) -> Tensor:
        mode = get_proxy_mode()
        tracers.extend([mode.tracer] if mode is not None else [])
        return traced[0](x)

    try:
        with _one_at_a_time, _Sealed():
            module = make_fx(members)(x)
    finally:
        traced.clear()
        for tracer in tracers:
            _empty(tracer.root)
            vars(tracer).clear()
            # Another thread may be within a call of a module that it began while all calls went through the tracer.
            tracer._autowrap_function_ids = set()
    constants = _precompute_constants(module)
    _fuse_bias(module.graph, constants)
    _reuse_memory(module.graph, constants)
    module.graph.eliminate_dead_code()
    module.recompile()
    return _without_graph(module, constants)


def _without_graph(module: fx.GraphModule, constants: dict[fx.Node, Tensor]) -> Graph:
    """The generated code with the tensors that it reads, and nothing else.

    The nodes of a graph refer to each other, and with the tensors that they hold they would live on until the garbage
    collector comes, or for ever where it was told to leave alone what there was (`gc.freeze`).
    """
    read = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    tensors = SimpleNamespace(**{name: getattr(module, name) for name in read})
    code = type(module).forward
    constants.clear()
    for node in module.graph.nodes:
        node.meta.clear()
    _empty(module)
    return partial(code, tensors)


def _empty(module: nn.Module) -> None:
    """Let go of all that a module holds, which then is one no more."""
    for held in (module._parameters, module._buffers, module._modules, vars(module)):
        held.clear()


def _precompute_constants(module: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Evaluate once what depends on parameters and masks alone (transposed weights, reshaped masks)."""
    constants: dict[fx.Node, Tensor] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            constants[node] = getattr(module, node.target)
        elif _is_call(node) and node.all_input_nodes and all(source in constants for source in node.all_input_nodes):
            args = fx.node.map_arg(node.args, constants.__getitem__)
            value = node.target(*args, **fx.node.map_arg(node.kwargs, constants.__getitem__))
            if isinstance(value, Tensor):
                name = f"constant_{len(constants)}"
                module.register_buffer(name, value)
                with module.graph.inserting_before(node):
                    constant = module.graph.get_attr(name)
                constants[node] = constants[constant] = value
                node.replace_all_uses_with(constant)
    return constants


def _fuse_bias(graph: fx.Graph, constants: dict[fx.Node, Tensor]) -> None:
    """Give a matrix product its bias at once: vmap writes mm, reshape, add where addmm, reshape does."""
    for node in list(graph.nodes):
        if not _is_call(node, aten.add.Tensor) or node.kwargs:
            continue
        bias, shaped = node.args
        if bias not in constants or not _is_call(shaped, *_VIEWS) or len(shaped.users) > 1:
            continue
        product = shaped.args[0]
        if not _is_call(product, aten.mm.default) or len(product.users) > 1:
            continue
        width = product.meta["val"].shape[1]
        if constants[bias].numel() != width or shaped.meta["val"].shape[-1] != width:
            continue
        with graph.inserting_before(node):
            flat = graph.call_function(aten.view.default, (bias, [width]))
            fused = graph.call_function(aten.addmm.default, (flat, *product.args))
            reshaped = graph.call_function(aten.view.default, (fused, shaped.args[1]))
        fused.meta, reshaped.meta = product.meta, shaped.meta
        node.replace_all_uses_with(reshaped)


def _reuse_memory(graph: fx.Graph, constants: dict[fx.Node, Tensor]) -> None:
    """Let ReLU and masks overwrite what they alone read: fresh memory is dearer than the arithmetic."""
    graph.eliminate_dead_code()
    in_place = {aten.relu.default: aten.relu_.default, aten.mul.Tensor: aten.mul_.Tensor}
    for node in list(graph.nodes):
        if not _is_call(node, *in_place):
            continue
        source = node.args[0]
        if _owned(source, constants) and source.meta["val"].shape == node.meta["val"].shape:
            node.target = in_place[node.target]


def _owned(node: Any, constants: dict[fx.Node, Tensor]) -> bool:
    """Whether the node's memory is fresh and nothing but its one user reads it."""
    while isinstance(node, fx.Node) and node not in constants and len(node.users) == 1:
        if _is_call(node, *_FRESH, aten.relu_.default, aten.mul_.Tensor):
            return True
        if not _is_call(node, *_VIEWS):
            return False
        node = node.args[0]
    return False


def _is_call(node: Any, *targets: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and (not targets or node.target in targets)

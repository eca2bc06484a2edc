"""Attention with its dropout in the open: torch's own runs inside one kernel, where no mask can be set."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.uncertainty.errors import UnsupportedSite


def attend(
    drop: Callable[[Tensor, float], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The same as ``F.scaled_dot_product_attention``, with ``drop`` between softmax and values, as torch documents it.

    Args:
        drop: Gives what takes the place of the attention weights, from these and the rate.
        query: This and what follows as torch declares it.
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    allowed = None
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        allowed = attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    weights = scores.softmax(-1)
    if attn_mask is not None:
        # A query that may look at nothing gets zeros from torch, not the NaN of an empty softmax.
        weights = weights.masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0.0)
    return drop(weights.to(value.dtype), dropout_p) @ value


@functools.cache
def _without_dispatch(function: Callable[..., Any]) -> FunctionType:
    """Copy torch's multi-head attention without the question at its beginning that hides its body from modes.

    Raises:
        UnsupportedSite: It is no longer the function that this was written for.
    """
    code = function.__code__ if isinstance(function, FunctionType) else None
    arguments = code.co_varnames[: code.co_argcount] if code else ()
    if not code or not {"dropout_p", "training"} <= {*arguments} or "has_torch_function" not in code.co_names:
        raise UnsupportedSite(
            "Expected torch.nn.functional.multi_head_attention_forward to take `dropout_p` and `training`, and to ask "
            f"has_torch_function first, but that of torch {torch.__version__} does not, so attention's dropout cannot "
            "be sampled; install a version of torch that this package was tested with."
        )
    names = {**vars(F), "has_torch_function": lambda tensors: False}
    body = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


def named(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arguments of a call of ``F.multi_head_attention_forward``, ``dropout_p`` and ``training`` among them.

    Raises:
        UnsupportedSite: Torch has changed the function.
    """
    code = _without_dispatch(function).__code__
    return {"training": True, **dict(zip(code.co_varnames, args, strict=False)), **kwargs}


def forward(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Run torch's multi-head attention as in training, and such that an active mode meets the calls inside it."""
    return _without_dispatch(function)(**{**arguments, "training": True})

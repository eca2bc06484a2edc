"""Attention with its dropout in the open: torch's own runs inside one kernel, where no mask can be set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Positions of the arguments of F.multi_head_attention_forward.
_DROPOUT_P, _TRAINING = 10, 13


@dataclass(frozen=True)
class Query:
    """The arguments of ``F.scaled_dot_product_attention``."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    p: float
    is_causal: bool
    scale: float | None
    grouped: bool

    @staticmethod
    def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Query:
        """Bind the arguments as torch declares them."""
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
        bound: dict[str, Any] = {
            "attn_mask": None,
            "dropout_p": 0.0,
            "is_causal": False,
            "scale": None,
            "enable_gqa": False,
        }
        bound.update(zip(names, args, strict=False))
        bound.update(kwargs)
        return Query(
            bound["query"],
            bound["key"],
            bound["value"],
            bound["attn_mask"],
            float(bound["dropout_p"]),
            bool(bound["is_causal"]),
            bound["scale"],
            bool(bound["enable_gqa"]),
        )

    def answer(self, drop: Callable[[Tensor], Tensor]) -> Tensor:
        """The attended values, with ``drop`` between softmax and values, as torch documents it."""
        k, v = self.k, self.v
        if self.grouped:
            groups = self.q.shape[-3] // k.shape[-3]
            k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
        scale = 1 / math.sqrt(self.q.shape[-1]) if self.scale is None else self.scale
        scores = (self.q * scale) @ k.transpose(-2, -1)
        allowed = None
        if self.is_causal:
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        elif self.mask is not None and self.mask.dtype == torch.bool:
            allowed = self.mask
        elif self.mask is not None:
            scores = scores + self.mask
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        weights = scores.softmax(-1)
        if self.mask is not None:
            # A query that may look at nothing gets zeros from torch, not the NaN of an empty softmax.
            weights = weights.masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0.0)
        return drop(weights.to(v.dtype)) @ v


def rate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """The dropout rate in a call of ``F.multi_head_attention_forward``."""
    return float(args[_DROPOUT_P] if len(args) > _DROPOUT_P else kwargs.get("dropout_p", 0.0))


def training(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether such a call would drop out by itself."""
    return bool(args[_TRAINING] if len(args) > _TRAINING else kwargs.get("training", True))


def forward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Torch's multi-head attention as in training, and such that an active mode meets the calls inside it."""
    if len(args) > _TRAINING:
        return _body(*args[:_TRAINING], True, *args[_TRAINING + 1 :], **kwargs)
    return _body(*args, **{**kwargs, "training": True})


def _visible(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function of torch without the question at its beginning that hides its body from modes."""
    if not isinstance(function, FunctionType) or "has_torch_function" not in function.__code__.co_names:
        raise ImportError(
            f"torch {torch.__version__} no longer has the {function!r} that this package was written for."
        )
    names = {**vars(F), "has_torch_function": lambda tensors: False}
    body = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


_body = _visible(F.multi_head_attention_forward)

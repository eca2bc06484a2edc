"""Mask banks: the frozen Bernoulli draws that make a committee."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from dubio.uncertainty.dropout.function_mode import ALPHA
from dubio.uncertainty.dropout.sites import Site, alpha_scale


def draw(sites: Sequence[Site], num_samples: int, seed: int) -> list[Tensor]:
    """Draw which units each member keeps.

    The draws come from an explicit generator on the CPU, whatever device serves: the same seed gives the same
    committee everywhere, and the global random state is neither read nor written.

    Returns:
        One boolean tensor a site, ``[K, *site.shape]``, true with probability 1 - p.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    # rand is uniform on [0, 1): >= p keeps exactly 1 - p of it, everything at p = 0 and nothing at p = 1.
    return [torch.rand((num_samples, *site.shape), generator=generator) >= site.p for site in sites]


def scale(keep: Tensor, p: float, dtype: torch.dtype, device: torch.device, kind: str = "dropout") -> Tensor:
    """Turn kept units into factors, 0 where dropped: 1/(1-p) where kept (Srivastava 2014).

    Alpha dropout has a factor of its own (Klambauer 2017); the rest of it is in
    `dubio.uncertainty.dropout.sites.PlannedCall.apply`.
    """
    inverted = 1.0 / (1.0 - p) if p < 1 else 0.0  # p = 1 keeps nothing: zeros, never 0 * inf
    factor = alpha_scale(p) if kind in ALPHA else inverted
    return (keep.to(torch.float64) * factor).to(device=device, dtype=dtype)


def fingerprint(sites: Sequence[Site], keeps: Sequence[Tensor], named: bool = False) -> str:
    """SHA-256 over the sites and every member's mask: two committees agree if and only if these do.

    Args:
        named: Whether the names count: where only some sites were chosen, two alike ones are still different.
    """
    digest = hashlib.sha256()
    for site, keep in zip(sites, keeps, strict=True):
        name = f"{site.name} " if named else ""
        digest.update(f"{name}{site.kind} {site.p!r} {tuple(keep.shape)};".encode())
        digest.update(keep.to(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

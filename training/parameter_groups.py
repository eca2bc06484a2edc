"""The weights of units, told from all other parameters."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

# Rows of a table are looked up, not summed, and a normalisation scales one number at a time: neither has units.
EXCLUDED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


def weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """The trained matrices and kernels whose first axis counts units and whose others count what enters a unit.

    Biases, normalisations and embeddings are left out, and what a module names in `no_weight_decay()`, as those of
    timm do for positions and tokens.
    """
    excluded = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if callable(named := getattr(module, "no_weight_decay", None))
        for name in named()
    }
    for prefix, module in network.named_modules():
        if isinstance(module, EXCLUDED):
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad and parameter.ndim >= 2 and name not in excluded:
                yield parameter

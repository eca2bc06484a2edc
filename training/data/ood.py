"""Strangers: inputs that look like no training data, to see what the detector catches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dubio.models import InputSpec
from dubio.models.inputs import encoding


def photograph_patches(spec: InputSpec, count: int, seed: int = 0) -> Tensor:
    """Square patches of the two natural photographs that scikit-learn bundles, in grey and in the model's range.

    Args:
        spec: Describes the inputs of an image model; patches are averaged down to its height and width.
        count: How many.
        seed: Chooses photograph, place and size of each patch.

    Returns:
        Raw inputs `[count, *spec.shape]`.
    """
    from sklearn.datasets import load_sample_images

    channels, height, width = spec.shape
    generator = np.random.default_rng(seed)
    photographs = [photograph.mean(-1) / 255 for photograph in load_sample_images().images]
    patches = []
    for _ in range(count):
        photograph = photographs[generator.integers(len(photographs))]
        zoom = int(generator.integers(2, min(photograph.shape) // max(height, width) + 1))
        top = int(generator.integers(photograph.shape[0] - zoom * height + 1))
        left = int(generator.integers(photograph.shape[1] - zoom * width + 1))
        patch = photograph[top : top + zoom * height, left : left + zoom * width]
        patches.append(patch.reshape(height, zoom, width, zoom).mean((1, 3)))
    grey = torch.from_numpy(np.stack(patches)).float().unsqueeze(1).expand(-1, channels, -1, -1)
    return spec.low + grey * (spec.high - spec.low)


def uniform_noise(spec: InputSpec, count: int, seed: int = 0) -> Tensor:
    """Independent numbers, uniform over the range of the training data, `[count, *spec.shape]`."""
    return encoding.noise(spec, count, seed)


def inverted(spec: InputSpec, x: Tensor) -> Tensor:
    """Negatives of raw inputs: light where they are dark, within the same range."""
    return spec.low + spec.high - x

"""Rules that the arguments of every network obey."""

from __future__ import annotations

from collections.abc import Sequence


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Refuse a size below 1, or an empty list of sizes.

    Raises:
        ValueError: Names the argument, its value and the rule.
    """
    for name, size in sizes.items():
        values = [size] if isinstance(size, int) else list(size)
        if not values or any(value < 1 for value in values):
            raise ValueError(f"Expected `{name}` to be at least one positive integer, but got {values}.")


def check_rates(layers: int = 1, **rates: float | Sequence[float]) -> None:
    """Refuse rates outside [0, 1], or not one a layer.

    Raises:
        ValueError: Names the argument, its value and the rule.
    """
    for name, rate in rates.items():
        values = [rate] if isinstance(rate, int | float) else list(rate)
        if len(values) != layers:
            raise ValueError(f"Expected `{name}` to have one rate for each of {layers} layers, but got {values}.")
        if any(not 0 <= value <= 1 for value in values):
            raise ValueError(f"Expected `{name}` to be numbers in [0, 1], but got {values}.")

"""Rules that the arguments of every network obey."""

from __future__ import annotations

from collections.abc import Sequence


def check_sizes(**sizes: Sequence[int]) -> None:
    """Refuse an empty list of sizes, or a size below 1.

    Raises:
        ValueError: Names the argument, its value and the rule.
    """
    for name, values in sizes.items():
        if not values or any(value < 1 for value in values):
            raise ValueError(f"Expected `{name}` to be at least one positive integer, but got {list(values)}.")


def check_rates(rates: Sequence[float], layers: int, name: str = "rates") -> None:
    """Refuse rates outside [0, 1], or not one a layer.

    Raises:
        ValueError: Names the argument, its value and the rule.
    """
    if len(rates) != layers:
        raise ValueError(f"Expected `{name}` to have one rate for each of {layers} layers, but got {list(rates)}.")
    if any(not 0 <= rate <= 1 for rate in rates):
        raise ValueError(f"Expected `{name}` to be numbers in [0, 1], but got {list(rates)}.")

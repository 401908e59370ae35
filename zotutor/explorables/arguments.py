"""Checks of arguments that several explorables share."""

from __future__ import annotations

from collections.abc import Sequence

from zotutor.checks import check_integer


def check_seed(seed: int) -> int:
    """A seed that JavaScript can hold."""
    return check_integer("seed", seed, low=0, high=1 << 53)


def check_names(names: Sequence[str], *, count: int) -> list[str]:
    """``count`` different names of inputs, which a list of choices can show."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names: given {names!r}, expected a list of strings; give one per input")
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"names: given {list(names)}, expected {count} different ones; give one per input"
        )
    return list(names)

"""Statistics of measured numbers: means with standard errors, a power law, a correlation.

All are computed in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["correlation", "mean_with_error", "power", "rms", "rms_with_error"]

Numbers = Tensor | np.ndarray | Sequence[float]


def _double(name: str, values: Numbers, *, least: int) -> Tensor:
    found = torch.as_tensor(values, dtype=torch.float64).detach().flatten()
    if len(found) < least:
        raise ValueError(f"{name}: given {len(found)} numbers, expected at least {least}")
    return found


def rms(values: Numbers) -> float:
    """The root mean square, sqrt(mean of squares).

    Raises:
        ValueError: for no numbers.

    Example:
        >>> rms([1.0, -7.0])
        5.0
    """
    return _double("values", values, least=1).square().mean().sqrt().item()


def rms_with_error(values: Numbers) -> tuple[float, float]:
    """The root mean square, and its standard error to first order.

    Raises:
        ValueError: for fewer than two numbers.
    """
    squares = _double("values", values, least=2).square()
    root = squares.mean().sqrt()
    return root.item(), (squares.std() / math.sqrt(len(squares)) / (2 * root)).item()


def mean_with_error(values: Numbers) -> tuple[float, float]:
    """The mean and its standard error.

    Raises:
        ValueError: for fewer than two numbers.
    """
    found = _double("values", values, least=2)
    return found.mean().item(), (found.std() / math.sqrt(len(found))).item()


def power(x: Numbers, y: Numbers) -> float:
    """The exponent s of the power law y = c x^s, by least squares on logarithms.

    Args:
        x: at least two positive numbers, not all equal.
        y: as many positive numbers.

    Raises:
        ValueError: the numbers are fewer, not positive, or of unequal length.

    Example:
        >>> round(power([1.0, 10.0, 100.0], [3.0, 0.3, 0.03]), 9)
        -1.0
    """
    logs = []
    for name, values in (("x", x), ("y", y)):
        found = _double(name, values, least=2)
        if not bool((found > 0).all()):
            raise ValueError(f"{name}: given {found.tolist()}, expected positive numbers")
        logs.append(found.log())
    if len(logs[0]) != len(logs[1]):
        raise ValueError(f"y: given {len(logs[1])} numbers, expected {len(logs[0])}, one per x")
    u, v = (log - log.mean() for log in logs)
    if not float(u @ u) > 0:
        raise ValueError("x: given equal numbers, expected at least two different ones")
    return (u @ v / (u @ u)).item()


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two tensors of one shape, over all their entries.

    Raises:
        ValueError: the shapes differ, or there are fewer than two entries.
    """
    if a.shape != b.shape:
        raise ValueError(f"b: given shape {tuple(b.shape)}, expected {tuple(a.shape)}, that of a")
    first, second = (_double(name, t, least=2) for name, t in (("a", a), ("b", b)))
    return torch.corrcoef(torch.stack([first, second]))[0, 1].item()

"""Explorables of *A gradient from two function values*."""

from __future__ import annotations

import math

from torch import Tensor

from zotutor.checks import check_floats

from .arguments import check_seed
from .page import Explorable, Table, rounded

LARGEST = 1024
"""Entries of the gradient that the page holds."""


def estimator_error(gradient: Tensor, *, seed: int) -> Explorable:
    """The relative error of an estimated gradient, against d, P and the family of directions.

        E |g_hat - g|^2 / |g|^2 = (d + kappa - 2) / P

    The page trains the d parameters whose gradients are the largest, draws sixteen estimates for
    each choice, with the directions that the package draws for these seeds, and compares their root
    mean square error with the law.

    Args:
        gradient: g (d,), of a loss at some parameters; a power of two of its entries is used, at
            most 1024.
        seed: of the directions, 0 <= seed < 2^53, the integers that JavaScript has.

    Raises:
        TypeError, ValueError: for a gradient that is not a vector of finite numbers, not all 0.

    Example:
        >>> import torch
        >>> estimator_error(torch.randn(5000, generator=torch.Generator().manual_seed(0)), seed=0)
        <explorable gradients_from_values.estimator_error>
    """
    check_floats("gradient", gradient, dims=[1], expected="(d,)", fix="flatten it")
    check_seed(seed)
    if not bool(gradient.any()):
        raise ValueError("gradient: all entries are 0; give that of a model not yet at a minimum")
    g = gradient.detach().double()
    g = g[g.abs().argsort(descending=True, stable=True)]
    g = g[: min(LARGEST, 1 << (len(g).bit_length() - 1))]
    counts = (1, 4, 16, 64)
    rows = [
        [f"{d:,}", *(f"{math.sqrt((d - 1) / P):.2f}" for P in counts)]
        for d in (4, 64, 1024)
        if d <= len(g)
    ]
    return Explorable(
        "gradients_from_values",
        "estimator_error",
        "The error of an estimated gradient",
        {"gradient": rounded(g / g.norm()), "seed": seed},
        Table(
            "Relative error of the estimate for random signs, √((d − 1) / P)",
            ["d", *(f"P = {P}" for P in counts)],
            rows,
        ),
    )

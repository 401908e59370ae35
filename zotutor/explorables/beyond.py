"""Explorables of *Beyond*."""

from __future__ import annotations

from torch import Tensor

import zotutor.directions as families
from zotutor.checks import check_floats
from zotutor.laws import kernel_error_law

from .arguments import check_seed
from .page import Explorable, Table, rounded


def structured(b: Tensor, g: Tensor, *, where: str, seed: int) -> Explorable:
    """A sparse or low-rank direction as a matrix, and what its structure does to the variance.

    For one weight matrix, with b the gradient of an observed log-probability and g that of the
    loss, the page draws (b . u)(u . g) for two thousand directions of the family chosen and
    compares its variance, over that of Gaussian directions, with the exact law.

    Args:
        b: (m, n), about 16 by 16; one row of B in the shape of the matrix.
        g: (m, n), the gradient of the loss there.
        where: the name of the matrix.
        seed: of the directions, 0 <= seed < 2^53.

    Raises:
        TypeError, ValueError: for two that are not matrices of the same shape, or are all 0.

    Example:
        >>> import torch
        >>> structured(torch.eye(4), torch.ones(4, 4), where="a layer", seed=0)
        <explorable beyond.structured>
    """
    for name, value in (("b", b), ("g", g)):
        check_floats(name, value, dims=[2], expected="(m, n)", fix="reshape it")
        if not bool(value.any()):
            raise ValueError(f"{name}: all entries are 0; choose a part of the matrix that matters")
    if b.shape != g.shape:
        raise ValueError(f"b, g: given shapes {tuple(b.shape)} and {tuple(g.shape)}, expected one")
    M, N = (value.double() / value.double().norm() for value in (b, g))

    def law(family: families.Directions) -> float:
        shapes = [tuple(M.shape)]
        return kernel_error_law(M.view(1, -1), N.view(1, -1), P=1, directions=family, shapes=shapes)

    gaussian = law(families.Gaussian())
    shown = [
        families.Rademacher(), families.Sparse(0.5), families.Sparse(0.1), families.Sparse(0.02),
        families.LowRank(1), families.LowRank(2), families.LowRank(4),
    ]  # fmt: skip
    return Explorable(
        "beyond",
        "structured",
        "Structured directions",
        {"M": rounded(M), "N": rounded(N), "seed": check_seed(seed), "where": where},
        Table(
            f"Variance over that of Gaussian directions, by the law, in {where}",
            ["directions", "variance"],
            [[f"{family}", f"{law(family) / gaussian:.2f}"] for family in shown],
        ),
    )

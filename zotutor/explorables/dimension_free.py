"""Explorables of *Dimension-free*."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from zotutor.checks import check_floats

from .arguments import check_seed
from .page import Explorable, Table, rounded


def gram_sweep(sweeps: Mapping[str, tuple[str, Mapping[int, Tensor]]], *, seed: int) -> Explorable:
    """The error of K_U along a sweep over networks, drawn in the page from Gram matrices alone.

    For Gaussian directions K_U depends on a network through the inner products of its 2 V rows and
    nothing else (thm-gram). The page holds a root of that Gram matrix for each network, draws K_U
    sixty-four times, and compares its error with the law sqrt((1/a + 1) / P).

    Args:
        sweeps: for each, by name, the symbol that varies ("d" or "V"), and a Gram matrix (2 V, 2 V)
            of the rows of J_o and J_u for each value of it, in ascending order.
        seed: of the draws, 0 <= seed < 2^53.

    Raises:
        TypeError, ValueError: for a Gram matrix that is not square with an even side, or not
            positive semi-definite, or if the page would be larger than 200 kB.

    Example:
        >>> gram_sweep({"wider": ("d", {10: torch.eye(4) + 1, 20: torch.eye(4) + 0.5})}, seed=0)
        <explorable dimension_free.gram_sweep>
    """
    data, rows = [], []
    for name, (symbol, grams) in sweeps.items():
        roots = [_root(f"sweeps[{name!r}][{value}]", gram) for value, gram in grams.items()]
        packed = [
            [row[: i + 1] for i, row in enumerate(rounded(root, 6))] for root in roots
        ]  # the upper triangle is 0
        data.append({"name": name, "symbol": symbol, "values": list(grams), "roots": packed})
        for value, root in zip(grams, roots, strict=True):
            V = len(root) // 2
            K, norms = root[:V] @ root[V:].T, root.square().sum(1).unflatten(0, (2, V)).sum(1)
            a = float(K.square().sum() / norms.prod())
            rows.append([name, f"{symbol} = {value:,}", f"{math.sqrt((1 / a + 1) / 8):.2f}"])
    return Explorable(
        "dimension_free",
        "gram_sweep",
        "Sweeps, drawn from inner products",
        {"sweeps": data, "seed": check_seed(seed)},
        Table("Relative error of the kernel at P = 8, by the law", ["sweep", "at", "error"], rows),
    )


def _root(name: str, gram: Tensor) -> Tensor:
    """L, lower triangular, with L L^T the Gram matrix over its largest entry, (2 V, 2 V)."""
    check_floats(name, gram, dims=[2], expected="(2 V, 2 V)", fix="stack J_o and J_u")
    if gram.shape[0] != gram.shape[1] or len(gram) % 2:
        raise ValueError(
            f"{name}: given shape {tuple(gram.shape)}, expected (2 V, 2 V); multiply "
            "torch.cat([J_o, J_u]) by its transpose"
        )
    scaled = gram.double() / gram.double().diagonal().max()
    # a Gram matrix in float32 is positive semi-definite up to its rounding only
    safe = scaled + 1e-6 * torch.eye(len(gram), dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(safe)
    if int(failed):
        raise ValueError(
            f"{name}: not positive semi-definite, as a matrix of inner products is; multiply "
            "torch.cat([J_o, J_u]) by its transpose"
        )
    return root

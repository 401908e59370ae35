"""Measurements of *The Johnson-Lindenstrauss lemma*."""

from __future__ import annotations

import torch
from torch import Tensor

from zotutor.directions import Directions
from zotutor.parameters import ParametersLike

__all__ = ["inner_product_errors"]


def inner_product_errors(
    rows: Tensor, params: ParametersLike, *, directions: Directions, P: int, trials: int, seed: int
) -> Tensor:
    """Errors of all inner products of n vectors under many independent random projections.

    Args:
        rows: the vectors (n, d).
        params: a model or its parameters, d of them.
        directions: the family.
        P: directions per projection.
        trials: projections, a multiple of 20, which are drawn in 20 pieces to bound the memory.
        seed: of the directions.

    Returns:
        |(U^T a) . (U^T b) - a . b| of all pairs of rows, (trials, n, n).

    Raises:
        ValueError: trials times P is not a multiple of 20.
    """
    if trials * P % 20:
        raise ValueError(f"trials: given {trials} at P = {P}, expected trials * P to divide by 20")
    parts = []  # the vectors' components along directions, (n, trials P / 20) each
    for step in range(20):
        u = directions.dense(params, P=trials * P // 20, seed=seed, step=step)
        parts.append(rows @ u.to(rows.dtype))
    drawn = torch.cat(parts, 1).view(len(rows), trials, P).transpose(0, 1)  # (trials, n, P)
    return (drawn @ drawn.mT / P - rows @ rows.T).abs()

"""Measurements of *Kernel fidelity*."""

from __future__ import annotations

import torch
from torch import Tensor

from zotutor.directions import Directions
from zotutor.parameters import ParametersLike

__all__ = ["squared_errors"]


def squared_errors(
    J_o: Tensor,
    J_u: Tensor,
    params: ParametersLike,
    *,
    directions: Directions,
    draws: int,
    seed: int,
) -> Tensor:
    """norm(K_U - K)_F^2 of one pair at P = 1, for many draws; no K_U is formed.

    ::

        |J_o u|^2 |J_u u|^2 - 2 u^T J_o^T K J_u u + norm(K)_F^2

    Args:
        J_o: (V, d).
        J_u: (V', d).
        params: a model or its parameters, d of them.
        directions: the family.
        draws: how many, a multiple of 250.
        seed: of the directions.

    Returns:
        (draws,).

    Raises:
        ValueError: draws is not a multiple of 250.
    """
    if draws % 250 or draws < 1:
        raise ValueError(f"draws: given {draws}, expected a multiple of 250, as in draws=1000")
    K, found = J_o @ J_u.mT, []
    for step in range(draws // 250):
        u = directions.dense(params, P=250, seed=seed, step=step).to(J_o.dtype)
        left, right = J_o @ u, J_u @ u  # (V, 250), (V', 250)
        cross = (left * (K @ right)).sum(0)
        norms = left.square().sum(0) * right.square().sum(0)
        found.append(norms - 2 * cross + K.square().sum())
    return torch.cat(found)

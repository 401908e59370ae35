"""Explorables of *ZO-SGD*."""

from __future__ import annotations

from .arguments import check_seed
from .page import Explorable, Table


def quadratic(*, seed: int) -> Explorable:
    """ZO-SGD on a quadratic of 256 parameters: P, the decay of the curvatures, the learning rate.

    The page takes 150 steps of three runs with random signs, those of the seeds ``seed``,
    ``seed`` + 1 and ``seed`` + 2, and computes their expected loss from the exact recursion for
    E[theta_k^2] and the loss of gradient descent. The learning rate is a multiple of the safe one,
    P / ((P + 1) lambda + tr H); beyond about twice that, runs diverge.

    Args:
        seed: 0 <= seed < 2^53 - 2.

    Raises:
        TypeError, ValueError: for another seed.

    Example:
        >>> quadratic(seed=0)
        <explorable zo_sgd.quadratic>
    """
    check_seed(seed)
    check_seed(seed + 2)
    rows = []
    for decay in (0.0, 0.5, 1.0, 2.0):
        trace = sum((k + 1) ** -decay for k in range(256))
        slowdowns = (f"{1 + (1 + trace) / P:.1f}" for P in (1, 4, 16))
        rows.append([f"{decay}", f"{trace:.1f}", *slowdowns])
    return Explorable(
        "zo_sgd",
        "quadratic",
        "ZO-SGD on a quadratic",
        {"seeds": [seed, seed + 1, seed + 2]},
        Table(
            "Slowdown against gradient descent, 1 + (1 + intrinsic dimension) / P",
            ["decay of the curvatures", "intrinsic dimension", "P = 1", "P = 4", "P = 16"],
            rows,
        ),
    )

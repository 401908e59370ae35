"""Johnson-Lindenstrauss: how far K_U can be from K, with a stated probability, for any model.

The bounds hold for every model, and depend on it through V and the norms of its Jacobians only.
For the error itself, see :mod:`zotutor.laws`.
"""

from __future__ import annotations

import math

from torch import Tensor

from .checks import check_integer, check_real
from .deprecation import keyword_only
from .directions import Directions, Gaussian, Rademacher, Sphere, Uniform, check_family
from .laws import check_representable, check_rows


def _check_probability(name: str, value: float) -> float:
    value = check_real(name, value, low=0.0, open_low=True)
    if value >= 1.0:
        raise ValueError(f"{name}: given {value}, expected below 1; it is a probability of failure")
    return value


def _union_factor(directions: Directions) -> float:
    """The k in P(one inner product fails) <= 2 k exp(-P rate(epsilon))."""
    # k = 1: thm-jl-pair. k = 2: thm-jl-signs, by polarization, so two norms for each inner product
    if isinstance(directions, Gaussian):
        return 1.0
    if isinstance(directions, (Rademacher, Uniform, Sphere)):
        return 2.0
    raise ValueError(
        f"directions: given {directions}, expected Gaussian, Rademacher, Uniform or Sphere, whose "
        "tails are at most a normal's; for others no dimension-free bound holds: use "
        "kernel_error_law"
    )


def jl_rate(epsilon: float) -> float:
    """The exponent of the tail, [epsilon - ln(1 + epsilon)] / 2, about epsilon^2 / 4.

    The book writes psi(gamma), since epsilon is the finite-difference step there.

    Args:
        epsilon: relative error, above -1.

    Raises:
        TypeError, ValueError: for anything but a number above -1.

    Example:
        >>> round(jl_rate(0.1) / 0.1**2, 3)
        0.234
    """
    epsilon = check_real("epsilon", epsilon, low=-1.0, open_low=True)
    if abs(epsilon) < 1e-4:  # where the difference cancels: its series, to 1e-13 of itself
        return epsilon**2 * (1 / 4 - epsilon * (1 / 6 - epsilon * (1 / 8 - epsilon / 10)))
    return (epsilon - math.log1p(epsilon)) / 2.0


@keyword_only
def jl_min_perturbations(
    n: int, epsilon: float, *, delta: float, directions: Directions | None = None
) -> int:
    """How many perturbations preserve all inner products of n vectors (Johnson, Lindenstrauss).

    With

        P >= (2 ln n + ln(k / delta)) / (c epsilon^2),
        c = [epsilon - ln(1 + epsilon)] / (2 epsilon^2),

    with probability at least 1 - delta |(U^T a) . (U^T b) - a . b| <= epsilon |a| |b| for every
    pair a, b of two different ones of the n vectors. c tends to 1/4 as epsilon tends to 0. k = 1
    for Gaussian (the paper's form); k = 2 for Rademacher, Uniform and Sphere, whose proof bounds
    the norms of a + b and a - b. The number of parameters d does not appear.

    scikit-learn's ``johnson_lindenstrauss_min_dim`` answers another question: how many are enough
    to preserve squared distances with a probability of at least 1/n, by its proof.

    Args:
        n: number of vectors, at least 2; 2 V for the rows of one kernel block.
        epsilon: allowed error relative to |a| |b|, above 0.
        delta: probability of failure, in (0, 1).
        directions: Gaussian, Rademacher, Uniform or Sphere; Rademacher by default.

    Returns:
        The smallest such P.

    Raises:
        TypeError, ValueError: for arguments out of range, and for Sparse and LowRank, which have
            heavier tails than a normal.

    References:
        Johnson and Lindenstrauss (1984); Achlioptas (2003); Li, Ying, Liu and Yang (2026).

    Example:
        >>> jl_min_perturbations(20, 0.1, delta=0.01, directions=Gaussian())
        4519
    """
    check_integer("n", n, low=2)
    epsilon = check_real("epsilon", epsilon, low=0.0, open_low=True)
    delta = _check_probability("delta", delta)
    factor = _union_factor(check_family(directions))
    if epsilon < 1e-100:
        raise ValueError(f"epsilon: given {epsilon}, expected at least 1e-100; give a larger error")
    needed = 2 * math.log(n) + math.log(factor) - math.log(delta)
    return math.ceil(needed / jl_rate(epsilon))


@keyword_only
def jl_epsilon(P: int, n: int, *, delta: float, directions: Directions | None = None) -> float:
    """The error that P perturbations guarantee: the inverse of :func:`jl_min_perturbations`.

    Args:
        P: number of perturbations, at least 1.
        n: number of vectors, at least 2.
        delta: probability of failure, in (0, 1).
        directions: Gaussian, Rademacher, Uniform or Sphere; Rademacher by default.

    Returns:
        epsilon, such that all inner products of n vectors are preserved to epsilon |a| |b| with
        probability at least 1 - delta. Above 1 it still holds, but says little.

    Raises:
        TypeError, ValueError: as :func:`jl_min_perturbations`.

    Example:
        >>> round(jl_epsilon(4519, 20, delta=0.01, directions=Gaussian()), 4)
        0.1
    """
    check_integer("P", P, low=1, high=1 << 63)
    check_integer("n", n, low=2)
    delta = _check_probability("delta", delta)
    factor = _union_factor(check_family(directions))
    needed = (2 * math.log(n) + math.log(factor) - math.log(delta)) / P
    low, high = 0.0, 1.0  # bisection: epsilon - ln(1 + epsilon) has no elementary inverse
    while jl_rate(high) < needed:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if jl_rate(middle) >= needed else (middle, high)
    return high


def kernel_error_bound(
    J_o: Tensor, J_u: Tensor, *, P: int, delta: float, directions: Directions | None = None
) -> float:
    """The paper's bound on the squared error of K_U, which holds with probability 1 - delta.

        norm(K_U - K)_F^2 <= epsilon_JL^2 (V/2) [norm(J_o)_F^2 + norm(J_u)_F^2]^2,

    with epsilon_JL = :func:`jl_epsilon` of Gaussian directions for the n = 2 V rows of J_o and J_u.
    The block involves V^2 pairs of rows, about half of all pairs, so that the Gaussian ln(1/delta)
    is enough for every family. As a guarantee it is many times larger than the actual error: see
    :func:`~zotutor.kernel_error_law`. Proved as thm-kernel-bound in the chapter on kernel fidelity.

    Args:
        J_o: Jacobian (V, d) of the observed input.
        J_u: Jacobian (V, d) of the updated-on input.
        P: number of perturbations.
        delta: probability of failure, in (0, 1).
        directions: Gaussian, Rademacher, Uniform or Sphere; Rademacher by default.

    Returns:
        The bound on the squared Frobenius norm.

    Raises:
        TypeError, ValueError: for arguments out of range, or numbers that are not finite.

    Example:
        >>> import torch
        >>> kernel_error_bound(torch.eye(2), torch.eye(2), P=10**6, delta=0.01) < 0.01
        True
    """
    check_rows(J_o, J_u)
    V = max(J_o.shape[0], J_u.shape[0])
    _union_factor(check_family(directions))  # refuses families without a bound
    # V V' pairs of rows, each failing with at most 4 exp(-P rate) for every family that is not
    # refused: at most n^2 exp(-P rate) in all, which is the condition for Gaussian directions
    epsilon = jl_epsilon(P, J_o.shape[0] + J_u.shape[0], delta=delta, directions=Gaussian())
    norms = float(J_o.double().square().sum() + J_u.double().square().sum())
    return check_representable("J_o, J_u", epsilon**2 * V / 2 * norms * norms)

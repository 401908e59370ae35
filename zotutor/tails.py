"""The error of one zeroth-order step with high probability, and not only in the mean square.

For Gaussian directions its whole distribution is known (thm-step-distribution): a chi-squared
factor along g, and a normal vector orthogonal to it. Their tails give a bound with explicit
constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_floats, check_integer, check_real


def change_error_draws(B: Tensor, g: Tensor, *, P: int, draws: int, seed: int) -> Tensor:
    """Draws of |B (g_hat - g)| / |B g| for Gaussian directions, without a model or a direction.

    With c = chi^2_P / P, a standard normal w, independent, and B' = B (I - g g^T / |g|^2),

        B g_hat = c B g + |g| sqrt(c / P) B' w     in distribution:

    along g the P squares (u_p . g)^2 add up to |g|^2 P c, and the parts of the directions
    orthogonal to g are normal and independent of these squares. B' w is drawn from its m x m
    covariance.

    Args:
        B: derivatives of the observed quantities, (m, d): log-probabilities, or the identity.
        g: gradient, (d,).
        P: number of perturbations, at least 1.
        draws: how many, at least 1.
        seed: of the draws.

    Returns:
        (draws,), float64; its mean square tends to (1/a' + 1) / P.

    Raises:
        TypeError, ValueError: for arguments out of range, or shapes that do not fit, or B g = 0.

    Use :func:`change_error_bound` for a formula, :func:`~zotutor.dynamics_error_law` for the mean
    square.

    Example:
        >>> B, g = torch.eye(2), torch.tensor([1.0, 0.0])
        >>> errors = change_error_draws(B, g, P=1, draws=100_000, seed=0)
        >>> 2.8 < errors.square().mean().item() < 3.2  # 1/a' = 2
        True
    """
    B, g, along = _checked(B, g)
    check_integer("P", P, low=1)
    check_integer("draws", draws, low=1)
    check_integer("seed", seed, low=0)
    generator = torch.Generator().manual_seed(seed)
    across = B @ B.T - torch.outer(along, along) / g.square().sum()  # of B' w, (m, m)
    size, basis = torch.linalg.eigh(across)
    # a root of the covariance; Cholesky would fail, since B' may have a rank below m
    root = basis * size.clamp_min(0).sqrt()  # (m, m)
    normal = torch.randn(draws, P + len(B), generator=generator, dtype=torch.float64)
    c = normal[:, :P].square().mean(1, keepdim=True)  # (draws, 1)
    rest = g.norm() * (c / P).sqrt() * (normal[:, P:] @ root.T)  # (draws, m)
    return ((c - 1) * along + rest).norm(dim=1) / along.norm()


def change_error_bound(B: Tensor, g: Tensor, *, P: int, delta: float) -> float:
    """A bound on |B (g_hat - g)| / |B g| that holds with probability at least 1 - delta.

    For Gaussian directions, with x = ln(3 / delta), c_- and c_+ the quantiles delta/3 and
    1 - delta/3 of chi^2_P / P, S = B' B'^T and B' = B (I - g g^T / |g|^2),

        max(c_+ - 1, 1 - c_-) + sqrt(c_+ / P) w |g| / |B g|,
        w^2 = tr(S) + 2 sqrt(x tr(S^2)) + 2 x norm(S)_2.

    It is the Gaussian case of the inequality of Hanson and Wright, with constants, for the part
    across g of :func:`change_error_draws`, and exact quantiles for the part along g. Neither d nor,
    for one log-probability, V appears. At P = 1 it is a few times the true quantile.

    Args:
        B: derivatives of the observed quantities, (m, d).
        g: gradient, (d,).
        P: number of perturbations, at least 1.
        delta: probability of failure, in (0, 1).

    Returns:
        The bound.

    Raises:
        TypeError, ValueError: for arguments out of range, or shapes that do not fit, or B g = 0.

    References:
        Hanson and Wright (1971); Laurent and Massart (2000), Lemma 1, for the constants.

    Example:
        >>> g = torch.tensor([1.0, 0.0])
        >>> round(change_error_bound(torch.eye(2), g, P=10_000, delta=0.05), 3)
        0.067
    """
    B, g, along = _checked(B, g)
    check_integer("P", P, low=1)
    delta = check_real("delta", delta, low=0.0, open_low=True)
    if delta >= 1.0:
        raise ValueError(f"delta: given {delta}, expected below 1; it is a probability of failure")
    x, low, high = math.log(3.0 / delta), *(_chi_square(P, q) for q in (delta / 3, 1 - delta / 3))
    across = B @ B.T - torch.outer(along, along) / g.square().sum()  # S, (m, m)
    # delta/3 for each of: c above c_+, c below c_-, |B' w| above its bound
    width = across.trace() + 2 * math.sqrt(x) * across.norm()  # tr(S^2) = norm(S)_F^2
    width = (width + 2 * x * torch.linalg.matrix_norm(across, 2)).sqrt()
    sideways = math.sqrt(high / P) * float(width * g.norm() / along.norm())
    return max(high - 1.0, 1.0 - low) + sideways


def _chi_square(P: int, probability: float) -> float:
    """The quantile of chi^2_P / P, by bisection: torch has no inverse of `gammainc`."""
    half = torch.tensor(P / 2, dtype=torch.float64)
    low, high = 0.0, 1.0
    while torch.special.gammainc(half, half * high) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        below = bool(torch.special.gammainc(half, half * middle) < probability)
        low, high = (middle, high) if below else (low, middle)
    return high


def _checked(B: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """B, g and B g, in float64."""
    check_floats("B", B, dims=(2,), expected="(m, d)")
    check_floats("g", g, dims=(1,), expected="(d,)")
    if B.shape[1] != g.numel():
        raise ValueError(
            f"B, g: given shapes {tuple(B.shape)} and {tuple(g.shape)}, expected (m, d) and (d,)"
        )
    B, g = B.double(), g.double()
    along = B @ g
    if not along.norm() > 0.0:
        raise ValueError(
            "B, g: B g is 0, so that an error relative to it means nothing; look at something "
            "that the step changes"
        )
    return B, g, along

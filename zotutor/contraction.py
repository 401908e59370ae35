"""The T P law for runs long enough that the gradient changes: exact for a quadratic loss.

Descent contracts errors: one made early is reduced by the steps after it. The gradient shrinks, and
with it the errors made late. But the total change shrinks as well, so the frozen law (thm-tp-law)
can be too large (equal curvatures) or too small (a steep gradient, noise in flat directions).
(thm-contraction)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_floats, check_integer, check_real
from .directions import INDEPENDENT, Directions, check_family
from .laws import pair_terms


def contracted_constant(
    B: Tensor,
    g: Tensor,
    *,
    H: Tensor,
    distance: float,
    steps: int,
    directions: Directions | None = None,
) -> float:
    """C of |deviation| / |total change| = C / sqrt(T P), for a quadratic loss with Hessian H.

    With F = I - lr H, lr = distance / T and g_t = F^t g,

        C^2 = T sum_t v(B F^(T-1-t), g_t) / |sum_t B g_t|^2,

    where v(B, g) = norm(B)_F^2 |g|^2 + |B g|^2 + (kappa - 3) sum_k (sum_i B[i,k]^2) g[k]^2. As the
    distance goes to 0 it becomes the constant of the frozen law. It gives the mean square to first
    order in 1/(T P): it leaves out the noise that the run's own deviation adds, relative to the
    rest about distance^2 tr(H^2) / (2 T P) or less, which :func:`quadratic_deviation` includes.

    Args:
        B: derivative of the observed quantities, (m, d), constant along the run.
        g: gradient at the start, (d,).
        H: Hessian of the loss, symmetric, (d, d).
        distance: lr times T, above 0.
        steps: T, at least 1.
        directions: family of u with independent entries, or Sphere; Rademacher by default.

    Returns:
        C, computed in float64.

    Raises:
        TypeError, ValueError: for arguments out of range, or shapes that do not fit.

    For a run so short that g barely changes use the constant of :func:`~zotutor.trajectory`.

    Example:
        >>> from zotutor import Gaussian
        >>> one = torch.ones(1, 1)
        >>> c = [
        ...     contracted_constant(
        ...         one, one[0], H=one, distance=h, steps=500, directions=Gaussian()
        ...     )
        ...     for h in (1e-6, 1.0)
        ... ]
        >>> round(c[1] / c[0], 2)
        0.58
    """
    family = check_family(directions)
    B, g, H = _checked(B, g, H)
    lr = check_real("distance", distance, low=0.0, open_low=True) / check_integer(
        "steps", steps, low=1
    )
    # F^t g and B F^t, without forming the d x d matrix F
    gradients, observed = [g], [B]
    for _ in range(steps - 1):
        gradients.append(gradients[-1] - lr * H @ gradients[-1])
        observed.append(observed[-1] - lr * observed[-1] @ H)
    noise = sum(
        sum(pair_terms(observed[steps - 1 - t], gradients[t][None], directions=family))
        for t in range(steps)
    )
    total = _moved(B @ torch.stack(gradients).sum(0)) ** 2
    return math.sqrt(steps * noise / total)


def quadratic_deviation(
    B: Tensor,
    g: Tensor,
    *,
    H: Tensor,
    lr: float,
    steps: int,
    P: int,
    directions: Directions | None = None,
) -> float:
    """The exact root mean square of |deviation| / |total change| on a quadratic loss.

    Let C be the covariance of the parameters along a ZO run, F = I - lr H, M = E[g_t g_t^T] and
    N(M) = tr(M) I + M + (kappa - 3) diag(M), for directions with independent entries. Each step
    maps

        C <- F C F + (lr^2 / P) N(M),   M = H C H + (mean gradient)(mean gradient)^T.

    Nothing is approximated; d x d matrices are formed.

    Args:
        B: derivative of the observed quantities, (m, d).
        g: gradient at the start, (d,).
        H: Hessian of the loss, symmetric, (d, d).
        lr: learning rate eta, above 0.
        steps: T, at least 1.
        P: number of perturbations, at least 1.
        directions: Gaussian, Rademacher, Uniform or Sparse; Rademacher by default.

    Returns:
        sqrt(tr(B C B^T)) / |B (theta_T - theta_0)|, computed in float64.

    Raises:
        TypeError, ValueError: for arguments out of range, or shapes that do not fit.

    Example:
        >>> from zotutor import Gaussian
        >>> one = torch.ones(1, 1)
        >>> quadratic_deviation(one, one[0], H=one, lr=0.5, steps=1, P=2, directions=Gaussian())
        1.0
    """
    family = check_family(directions)
    if not isinstance(family, INDEPENDENT):
        raise ValueError(
            f"directions: given {family}, expected independent entries (Gaussian, Rademacher, "
            "Uniform or Sparse); for others use contracted_constant, or draw runs"
        )
    B, g, H = _checked(B, g, H)
    lr = check_real("lr", lr, low=0.0, open_low=True)
    check_integer("steps", steps, low=1)
    check_integer("P", P, low=1)
    covariance, total = torch.zeros_like(H), torch.zeros_like(g)
    for _ in range(steps):
        M = H @ covariance @ H + torch.outer(g, g)  # (d, d)
        noise = M + (family.kurtosis - 3.0) * torch.diag(M.diagonal())
        noise.diagonal().add_(M.trace())
        FC = covariance - lr * H @ covariance  # F C, not symmetric; F C F is
        covariance = FC - lr * FC @ H + lr**2 / P * noise
        total += g
        g = g - lr * H @ g
    spread = (B @ covariance * B).sum().item()  # tr(B C B^T)
    return math.sqrt(spread) / (lr * _moved(B @ total))


def _moved(change: Tensor) -> float:
    """The length of descent's total change, a divisor; raises if it is 0 or not finite."""
    length = change.norm().item()
    if not 0.0 < length < math.inf:
        raise ValueError(
            f"B, g: descent changes B theta by {length:g} times the learning rate, so that a "
            "relative deviation means nothing; look at something that it changes, with a stable "
            "learning rate"
        )
    return length


def _checked(B: Tensor, g: Tensor, H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three in float64."""
    check_floats("B", B, dims=(2,), expected="(m, d)")
    check_floats("g", g, dims=(1,), expected="(d,)")
    check_floats("H", H, dims=(2,), expected="(d, d)")
    d = g.numel()
    if H.shape != (d, d) or B.shape[1] != d:
        raise ValueError(
            f"B, g, H: given shapes {tuple(B.shape)}, {tuple(g.shape)} and {tuple(H.shape)}, "
            "expected (m, d), (d,) and (d, d)"
        )
    return B.double(), g.double(), H.double()

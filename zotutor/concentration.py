"""How far K_U is from K: the Johnson-Lindenstrauss bounds, and the exact laws.

A bound holds with stated probability and names no property of the model but V. A law is an
equality for the mean square, and says what the error really depends on. Every law here is a sum
over pairs of rows of one function, :func:`pair_variance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_integer, check_real
from .directions import (
    Directions,
    Gaussian,
    LowRank,
    Rademacher,
    Sparse,
    Sphere,
    check_family,
    matrix_shape,
)

Shapes = Sequence[Sequence[int]]
"""The shapes of the trainable parameters, in order; only LowRank needs them."""


class Moments(NamedTuple):
    """Second moments of an estimate g_hat, see :func:`estimator_moments`."""

    squared_norm: float
    curvature: float


def _check_probability(name: str, value: float) -> float:
    value = check_real(name, value, low=0.0, open_low=True)
    if value >= 1.0:
        raise ValueError(f"{name}: given {value}, expected below 1; it is a probability of failure")
    return value


def _union_factor(directions: Directions) -> float:
    """The k in P(one inner product fails) <= 2 k exp(-P rate(epsilon))."""
    if isinstance(directions, Gaussian):
        return 1.0
    if isinstance(directions, (Rademacher, Sphere)):
        return 2.0
    raise ValueError(
        f"directions: given {directions}, expected Gaussian, Rademacher or Sphere, whose tails are "
        "at most a normal's; for others no dimension-free bound holds: use kernel_error_law"
    )


def jl_rate(epsilon: float) -> float:
    """The exponent of the tail: [epsilon - ln(1 + epsilon)] / 2, about epsilon^2 / 4.

    >>> round(jl_rate(0.1) / 0.1**2, 3)
    0.234
    """
    return (epsilon - math.log1p(epsilon)) / 2.0


def jl_min_perturbations(
    n: int, epsilon: float, delta: float, directions: Directions | None = None
) -> int:
    """How many perturbations keep all inner products of n vectors, by Johnson and Lindenstrauss.

    With P >= (2 ln n + ln(k / delta)) / (c epsilon^2), c = [epsilon - ln(1 + epsilon)] /
    (2 epsilon^2), which tends to 1/4 as epsilon tends to 0, with probability at least 1 - delta
    |(U^T a) . (U^T b) - a . b| <= epsilon |a| |b| for every pair a, b of the n vectors. k = 1 for
    Gaussian (the paper's form); k = 2 for Rademacher and Sphere, whose proof goes through the
    norms of a + b and a - b. The number of parameters d does not appear.

    scikit-learn's ``johnson_lindenstrauss_min_dim`` answers another question: how many are enough
    for squared distances to be kept with a probability that the proof puts at 1/n at least.

    Args:
        n: number of vectors, at least 2; 2 V for the rows of one kernel block.
        epsilon: allowed error relative to |a| |b|, above 0.
        delta: probability of failure, in (0, 1).
        directions: Gaussian, Rademacher or Sphere; Rademacher by default.

    Returns:
        The smallest such P.

    Raises:
        TypeError, ValueError: for arguments out of range, and for Sparse and LowRank, which have
            heavier tails than a normal.

    References:
        Johnson and Lindenstrauss (1984); Achlioptas (2003); Li, Ying, Liu and Yang (2026).

    Example:
        >>> jl_min_perturbations(20, 0.1, 0.01, Gaussian())
        4519
    """
    check_integer("n", n, low=2)
    epsilon = check_real("epsilon", epsilon, low=0.0, open_low=True)
    delta = _check_probability("delta", delta)
    factor = _union_factor(check_family(directions))
    return math.ceil((2 * math.log(n) + math.log(factor / delta)) / jl_rate(epsilon))


def jl_epsilon(P: int, n: int, delta: float, directions: Directions | None = None) -> float:
    """The error that P perturbations guarantee: the inverse of :func:`jl_min_perturbations`.

    Args, Raises: as there; P at least 1.

    Returns:
        epsilon, such that all inner products of n vectors are kept to epsilon |a| |b| with
        probability at least 1 - delta. It can be above 1: true, and of little use.

    Example:
        >>> round(jl_epsilon(4519, 20, 0.01, Gaussian()), 4)
        0.1
    """
    check_integer("P", P, low=1)
    check_integer("n", n, low=2)
    delta = _check_probability("delta", delta)
    factor = _union_factor(check_family(directions))
    needed = (2 * math.log(n) + math.log(factor / delta)) / P
    low, high = 0.0, 1.0
    while jl_rate(high) < needed:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if jl_rate(middle) >= needed else (middle, high)
    return high


def kernel_error_bound(
    J_o: Tensor, J_u: Tensor, *, P: int, delta: float, directions: Directions | None = None
) -> float:
    """The paper's bound on norm(K_U - K)_F^2, which holds with probability at least 1 - delta.

    epsilon_JL^2 (V/2) [norm(J_o)_F^2 + norm(J_u)_F^2]^2, with epsilon_JL for the n = 2 V rows. It
    is a guarantee, and many times larger than the error: see :func:`kernel_error_law`.

    Args:
        J_o: Jacobian (V, d) of the observed input.
        J_u: Jacobian (V, d) of the updated-on input.
        P: number of perturbations.
        delta: probability of failure, in (0, 1).
        directions: Gaussian, Rademacher or Sphere; Rademacher by default.

    Returns:
        The bound on the squared Frobenius norm.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Example:
        >>> kernel_error_bound(torch.eye(2), torch.eye(2), P=10**6, delta=0.01) < 0.01
        True
    """
    _check_rows(J_o, J_u)
    V = max(J_o.shape[0], J_u.shape[0])
    epsilon = jl_epsilon(P, J_o.shape[0] + J_u.shape[0], delta, directions)
    norms = float(J_o.double().square().sum() + J_u.double().square().sum())
    return epsilon**2 * V / 2 * norms**2


def _check_rows(J_o: Tensor, J_u: Tensor) -> None:
    if J_o.dim() != 2 or J_u.dim() != 2 or J_o.shape[1] != J_u.shape[1]:
        raise ValueError(
            f"J_o, J_u: given shapes {tuple(J_o.shape)} and {tuple(J_u.shape)}, expected (V, d) "
            "for both with the same d; flatten a batch (N, V, d) with .flatten(0, 1)"
        )


def pair_variance(
    J_o: Tensor, J_u: Tensor, *, directions: Directions, shapes: Shapes | None = None
) -> float:
    """sum_ij Var[(u . a_i)(u . b_j)] over the rows a_i of J_o and b_j of J_u, for one direction u.

    Independent entries: |a|^2 |b|^2 + (a . b)^2 + (kappa - 3) sum_k a_k^2 b_k^2.
    Sphere: d/(d+2) [|a|^2 |b|^2 + 2 (a . b)^2] - (a . b)^2.
    LowRank(r): the Gaussian law plus, for each matrix-shaped parameter with parts M of a and N of
    b, (2/r) [|M N^T|_F^2 + tr((M^T N)^2) + |M^T N|_F^2].

    Args:
        J_o: rows (V, d); any number of rows, a batch flattened as well.
        J_u: rows (V', d).
        directions: family of u.
        shapes: shapes of the trainable parameters, in order; for LowRank only.

    Returns:
        The sum, computed in float64; divide by P for the error of K_U.

    Raises:
        ValueError: for shapes that do not fit, or LowRank without ``shapes``.

    Example:
        >>> e = torch.eye(2)
        >>> pair_variance(e, e, directions=Gaussian()), pair_variance(e, e, directions=Rademacher())
        (6.0, 2.0)
    """
    return sum(pair_terms(J_o, J_u, directions=directions, shapes=shapes))


class PairTerms(NamedTuple):
    """The terms of :func:`pair_variance`, which is their sum.

    ``norms`` = norm(J_o)_F^2 norm(J_u)_F^2, ``aligned`` = norm(J_o J_u^T)_F^2, and ``excess``, what
    the family adds to the Gaussian law.
    """

    norms: float
    aligned: float
    excess: float


def pair_terms(
    J_o: Tensor, J_u: Tensor, *, directions: Directions, shapes: Shapes | None = None
) -> PairTerms:
    """The terms of :func:`pair_variance`; arguments and errors as there.

    Example:
        >>> pair_terms(torch.eye(2), torch.eye(2), directions=Rademacher())
        PairTerms(norms=4.0, aligned=2.0, excess=-4.0)
    """
    _check_rows(J_o, J_u)
    directions = check_family(directions)
    rows, columns = J_o.double(), J_u.double()
    norms = float(rows.square().sum() * columns.square().sum())
    aligned = float((rows @ columns.T).square().sum())
    if isinstance(directions, Sphere):
        excess = -(2 * norms + 4 * aligned) / (rows.shape[1] + 2)
    elif isinstance(directions, LowRank):
        parts = _matrix_parts(rows, columns, shapes)
        excess = sum(_factored_excess(M, N) for M, N in parts) / directions.rank
    else:
        overlap = float(rows.square().sum(0) @ columns.square().sum(0))
        excess = (directions.kurtosis - 3.0) * overlap
    return PairTerms(norms, aligned, excess)


def _matrix_parts(
    rows: Tensor, columns: Tensor, shapes: Shapes | None
) -> list[tuple[Tensor, Tensor]]:
    """The rows' and columns' parts (V, m, n) that belong to matrix-shaped parameters."""
    parts, offset = [], 0
    for shape in _checked_shapes(shapes, rows.shape[1]):
        size, matrix = math.prod(shape), matrix_shape(shape)
        if matrix is not None:
            cut = slice(offset, offset + size)
            parts.append((rows[:, cut].unflatten(1, matrix), columns[:, cut].unflatten(1, matrix)))
        offset += size
    return parts


def _factored_excess(M: Tensor, N: Tensor) -> float:
    """2 sum_ij [|M_i N_j^T|^2 + tr((M_i^T N_j)^2) + |M_i^T N_j|^2] for (V, m, n) and (V', m, n).

    The sum is the same for the transposed matrices, so that nothing larger than the smaller of
    m x m and n x n is formed: at a vocabulary, m x m would be out of reach.
    """
    if M.shape[-1] > M.shape[-2]:
        M, N = M.mT, N.mT
    right = (torch.einsum("iab,iac->bc", M, M) * torch.einsum("iab,iac->bc", N, N)).sum()
    others = torch.zeros((), dtype=M.dtype, device=M.device)
    for N_j in N:
        product = M.mT @ N_j  # (V, n, n)
        others += (product * product.mT).sum() + product.square().sum()
    return 2.0 * float(right + others)


def kernel_error_law(
    J_o: Tensor,
    J_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    shapes: Shapes | None = None,
) -> float:
    """The exact E norm(K_U - K)_F^2, an equality where the paper has a bound.

    For independent entries of kurtosis kappa

        [norm(J_o)_F^2 norm(J_u)_F^2 + norm(K)_F^2
         + (kappa - 3) sum_k (sum_i J_o[i,k]^2)(sum_j J_u[j,k]^2)] / P;

    for Sphere and LowRank see :func:`pair_variance`, of which this is the sum over P. No d, no V:
    only norms and how well they align.

    Args:
        J_o: Jacobian (V, d); for a set of inputs flatten (N, V, d) with ``.flatten(0, 1)``.
        J_u: Jacobian (V', d).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        shapes: shapes of the trainable parameters; for LowRank only.

    Returns:
        The mean square error, summed over the entries of the block.

    Raises:
        TypeError, ValueError: for P < 1 or shapes that do not fit.

    For a model whose Jacobian is too large use :func:`~zotutor.planning.estimate_kernel_error`.

    Example:
        >>> kernel_error_law(torch.eye(2), torch.eye(2), P=6, directions=Gaussian())
        1.0
    """
    check_integer("P", P, low=1)
    family = check_family(directions)
    return pair_variance(J_o, J_u, directions=family, shapes=shapes) / P


def dynamics_error_law(
    A: Tensor,
    J_o: Tensor,
    g: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    lr: float,
    shapes: Shapes | None = None,
) -> float:
    """The exact E |Delta_ZO - Delta_FO|^2 of the predicted change of log pi(. | x_o) in one step.

    With B = A J_o: lr^2 [norm(B)_F^2 |g|^2 + |B g|^2 + (kappa - 3) sum_k (sum_i B[i,k]^2) g[k]^2]
    / P for independent entries. It is the kernel's law for the rows of B and the one row g.

    Args:
        A: d log pi / dz, (V, V), or any matrix with V columns: one row of it gives the law for one
            observed log-probability, from which V has dropped out.
        J_o: Jacobian (V, d) of the observed input.
        g: gradient of the loss in flat parameters, J_u^T G, (d,).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        lr: learning rate eta.
        shapes: shapes of the trainable parameters; for LowRank only.

    Returns:
        The mean square error, summed over the V log-probabilities.

    Raises:
        TypeError, ValueError: for P < 1 or shapes that do not fit.

    Example:
        >>> g = torch.tensor([1.0, 0.0])
        >>> dynamics_error_law(torch.eye(2), torch.eye(2), g, P=3, directions=Gaussian(), lr=1.0)
        1.0
    """
    if g.dim() != 1:
        raise ValueError(f"g: given shape {tuple(g.shape)}, expected (d,), the flat gradient")
    law = kernel_error_law(A @ J_o, g[None], P=P, directions=directions, shapes=shapes)
    return check_real("lr", lr, low=0.0) ** 2 * law


def estimator_moments(
    g: Tensor,
    H: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    shapes: Shapes | None = None,
) -> Moments:
    """E|g_hat|^2 and E[g_hat^T H g_hat] of the estimate g_hat = U U^T g: the loss's own view.

    For independent entries |g|^2 (1 + (d + kappa - 2)/P), and
    (1 + 1/P) g^T H g + tr(H) |g|^2 / P + (kappa - 3) sum_k H_kk g_k^2 / P. Here is where d is: in
    the length of the step, and in tr(H), which limits the learning rate.

    Args:
        g: gradient, (d,).
        H: symmetric matrix, (d, d), such as the Hessian.
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        shapes: shapes of the trainable parameters; for LowRank only.

    Returns:
        Named tuple (squared_norm, curvature).

    Raises:
        TypeError, ValueError: for P < 1 or shapes that do not fit.

    For a model whose Hessian is too large use :func:`~zotutor.planning.estimate_moments`.

    Example:
        >>> estimator_moments(torch.ones(3), torch.eye(3), P=1)
        Moments(squared_norm=9.0, curvature=9.0)
    """
    check_integer("P", P, low=1)
    if g.dim() != 1 or H.shape != (g.numel(), g.numel()):
        raise ValueError(
            f"g, H: given shapes {tuple(g.shape)} and {tuple(H.shape)}, expected (d,) and (d, d)"
        )
    family = check_family(directions)
    g, H = g.double(), H.double()
    eye = torch.eye(g.numel(), dtype=g.dtype, device=g.device)
    return Moments(*(mean_of_draws(_form(g, M, family, shapes), family, P) for M in (eye, H)))


class Form(NamedTuple):
    """What E[(u . g)^2 u^T H u] depends on, see :func:`form_law`."""

    d: int
    trace: float
    along: float
    squared: float
    fourth: float
    factored: float


def form_law(form: Form, family: Directions) -> float:
    """E[(u . g)^2 u^T H u] for one direction: tr(H) |g|^2 + 2 g^T H g, and what the family adds.

    ``trace`` = tr(H), ``along`` = g^T H g, ``squared`` = |g|^2, ``fourth`` = sum_k H_kk g_k^2 (for
    independent entries), ``factored`` = the sum that LowRank(r) adds, times r / 2: for each matrix
    parameter, N being its part of g, sum H[ij,kl] times
    ([i=k] (N^T N)[j,l] + [j=l] (N N^T)[i,k] + N[i,l] N[k,j]).
    """
    gaussian = form.trace * form.squared + 2 * form.along
    if isinstance(family, Sphere):
        return form.d / (form.d + 2) * gaussian
    if isinstance(family, LowRank):
        return gaussian + 2.0 * form.factored / family.rank
    return gaussian + (family.kurtosis - 3.0) * form.fourth


def mean_of_draws(form: Form, family: Directions, P: int) -> float:
    """E[g_hat^T H g_hat] for the mean over P directions."""
    return form_law(form, family) / P + (1 - 1 / P) * form.along


def _form(g: Tensor, H: Tensor, family: Directions, shapes: Shapes | None) -> Form:
    factored, offset = 0.0, 0
    for shape in _checked_shapes(shapes, g.numel()) if isinstance(family, LowRank) else ():
        size, matrix = math.prod(shape), matrix_shape(shape)
        if matrix is not None:
            cut = slice(offset, offset + size)
            N, block = g[cut].view(matrix), H[cut, cut].view(*matrix, *matrix)
            factored += float(
                torch.einsum("ijil,mj,ml->", block, N, N)
                + torch.einsum("ijkj,in,kn->", block, N, N)
                + torch.einsum("ijkl,il,kj->", block, N, N)
            )
        offset += size
    fourth = float(H.diagonal() @ g.square())
    return Form(g.numel(), float(H.trace()), float(g @ H @ g), float(g @ g), fourth, factored)


def _checked_shapes(shapes: Shapes | None, d: int) -> Shapes:
    if shapes is None or sum(math.prod(shape) for shape in shapes) != d:
        raise ValueError(
            f"shapes: given {shapes}, expected those of {d} parameters for LowRank; give "
            "[p.shape for p in model.parameters() if p.requires_grad]"
        )
    return shapes


def perturbations_needed(
    error: float,
    *,
    alignment: float,
    directions: Directions | None = None,
    overlap: float = 0.0,
) -> int:
    """How many perturbations give a relative error: P = (1/a + 1 + (kappa - 3) o/a) / error^2.

    The relative error is sqrt(E norm(K_U - K)_F^2) / norm(K)_F, and a the alignment, norm(K)_F^2 /
    (norm(J_o)_F^2 norm(J_u)_F^2). The same rule with a' = |B g|^2 / (norm(B)_F^2 |g|^2) answers
    for the learning dynamics.

    Args:
        error: relative error asked for, above 0.
        alignment: a in (0, 1]; see :func:`~zotutor.alignment`.
        directions: family of u; Rademacher by default. For LowRank, whose law needs more than a,
            use :func:`~zotutor.planning.plan`.
        overlap: o = sum_k s_o[k] s_u[k] / (norm(J_o)_F^2 norm(J_u)_F^2) with s[k] the squared norm
            of column k, in [0, 1]. It is about 1/d for spread-out Jacobians; 0 leaves it out.

    Returns:
        P, at least 1.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Example:
        >>> perturbations_needed(0.5, alignment=0.034, directions=Gaussian())
        122
    """
    error = check_real("error", error, low=0.0, open_low=True)
    alignment = check_real("alignment", alignment, low=0.0, open_low=True)
    overlap = check_real("overlap", overlap, low=0.0)
    if alignment > 1.0 + 1e-6 or overlap > 1.0 + 1e-6:
        raise ValueError(f"alignment, overlap: given {alignment} and {overlap}, expected at most 1")
    family = check_family(directions)
    if not isinstance(family, (Gaussian, Rademacher, Sparse, Sphere)):
        raise ValueError(
            f"directions: given {family}, whose law needs more than the alignment; use plan"
        )
    excess = (family.kurtosis - 3.0) * overlap / alignment
    return max(1, math.ceil((1 / alignment + 1 + excess) / error**2 - 1e-9))

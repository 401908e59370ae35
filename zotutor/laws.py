"""The exact laws: what the mean square error of K_U, of a step and of an estimate depends on.

Each is an equality for a mean square, where :mod:`zotutor.bounds` has an inequality that holds with
a stated probability. All of them are sums of one function over pairs of rows,
:func:`pair_variance`. Proofs are in the book, under the labels (thm-...) given here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_floats, check_integer, check_real
from .directions import INDEPENDENT, Directions, LowRank, Sphere, check_family
from .parameters import matrix_shape

Shapes = Sequence[Sequence[int]]
"""The shapes of the trainable parameters, in order; only LowRank needs them."""

_COLUMNS = 1 << 20
"""Entries converted to float64 at a time: the copy stays in the cache."""


class Moments(NamedTuple):
    """Second moments of an estimate g_hat, see :func:`estimator_moments`."""

    squared_norm: float
    curvature: float


def check_rows(J_o: Tensor, J_u: Tensor) -> None:
    """Refuse what cannot be the Jacobians (V, d) and (V', d) of one model."""
    for name, J in (("J_o", J_o), ("J_u", J_u)):
        check_floats(
            name,
            J,
            dims=(2,),
            expected="(V, d)",
            fix="flatten a batch (N, V, d) with .flatten(0, 1)",
        )
    if J_o.shape[1] != J_u.shape[1]:
        raise ValueError(
            f"J_o, J_u: given shapes {tuple(J_o.shape)} and {tuple(J_u.shape)}, expected (V, d) "
            "for both with the same d; take both Jacobians of one model"
        )


def check_representable(name: str, value: float) -> float:
    """``value`` itself, or a ValueError if it exceeds float64."""
    if not math.isfinite(value):
        raise ValueError(
            f"{name}: the result exceeds float64, expected one below 1.8e308; divide what was "
            "given by its largest number, and scale the result back"
        )
    return value


def pair_variance(
    J_o: Tensor, J_u: Tensor, *, directions: Directions, shapes: Shapes | None = None
) -> float:
    """The variance of one direction's inner products, over all pairs of rows.

        sum_ij Var[(u . a_i)(u . b_j)]

    for the rows a_i of J_o and b_j of J_u. Each pair (a, b) contributes, for independent entries,

        |a|^2 |b|^2 + (a . b)^2 + (kappa - 3) sum_k a_k^2 b_k^2,

    on the sphere

        d/(d + 2) [|a|^2 |b|^2 + 2 (a . b)^2] - (a . b)^2,

    and for LowRank(r) the Gaussian term and, for each matrix-shaped parameter with parts M of a and
    N of b,

        (2/r) [norm(M N^T)_F^2 + tr((M^T N)^2) + norm(M^T N)_F^2].

    Args:
        J_o: rows a_i, (V, d), as many as you like; flatten the Jacobians of a batch.
        J_u: rows b_j, (V', d).
        directions: family of u.
        shapes: shapes of the trainable parameters, in order; for LowRank only.

    Returns:
        The sum, computed in float64; divide by P for the error of K_U.

    Raises:
        TypeError, ValueError: for shapes that do not fit, numbers that are not finite, or LowRank
            without ``shapes``.

    Example:
        >>> from zotutor import Gaussian, Rademacher
        >>> e = torch.eye(2)
        >>> pair_variance(e, e, directions=Gaussian()), pair_variance(e, e, directions=Rademacher())
        (6.0, 2.0)
    """
    return sum(pair_terms(J_o, J_u, directions=directions, shapes=shapes))


class PairTerms(NamedTuple):
    """The terms of :func:`pair_variance`, which is their sum.

    ``norms`` is the product of the squared norms of J_o and J_u, ``aligned`` the squared norm of
    J_o J_u^T, and ``excess`` what the family adds to the Gaussian law.
    """

    norms: float
    aligned: float
    excess: float


def pair_terms(
    J_o: Tensor, J_u: Tensor, *, directions: Directions, shapes: Shapes | None = None
) -> PairTerms:
    """The terms of :func:`pair_variance`; arguments and errors as there.

    Example:
        >>> from zotutor import Rademacher
        >>> pair_terms(torch.eye(2), torch.eye(2), directions=Rademacher())
        PairTerms(norms=4.0, aligned=2.0, excess=-4.0)
    """
    check_rows(J_o, J_u)
    return sum_pairs(J_o, J_u, check_family(directions), shapes)


def sum_pairs(
    rows: Tensor, columns: Tensor, directions: Directions, shapes: Shapes | None
) -> PairTerms:
    """:func:`pair_terms` of checked arguments; makes no copy of their size.

    thm-exact-law, thm-low-rank. The sum over pairs needs no loop over pairs: sum_ij |a_i|^2 |b_j|^2
    factors, sum_ij (a_i . b_j)^2 is norm(K)_F^2, and the overlap is an inner product over k.
    """
    left = right = overlap = 0.0
    K = torch.zeros(len(rows), len(columns), dtype=torch.float64, device=rows.device)
    for a, b in _pieces(rows, columns):
        a2, b2 = a.square(), b.square()  # (V, columns), (V', columns)
        left, right = left + float(a2.sum()), right + float(b2.sum())
        overlap += float(a2.sum(0) @ b2.sum(0))
        K += a @ b.T  # (V, V')
    norms, aligned = left * right, float(K.square().sum())
    if isinstance(directions, Sphere):  # its law minus the Gaussian one, norms + aligned
        excess = -(2 * norms + 4 * aligned) / (rows.shape[1] + 2)
    elif isinstance(directions, LowRank):
        parts = _matrix_parts(rows, columns, shapes)
        excess = sum(_factored_excess(M, N) for M, N in parts) / directions.rank
    else:
        excess = (directions.kurtosis - 3.0) * overlap
    for value in (norms, aligned, excess):
        check_representable("J_o, J_u", value)
    return PairTerms(norms, aligned, excess)


def _pieces(rows: Tensor, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both in float64, a block of the d columns at a time."""
    width = max(1, _COLUMNS // (len(rows) + len(columns)))
    for a, b in zip(rows.split(width, 1), columns.split(width, 1), strict=True):
        yield a.detach().double(), b.detach().double()


def _matrix_parts(
    rows: Tensor, columns: Tensor, shapes: Shapes | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each matrix-shaped parameter, its parts M (V, m, n) and N (V', m, n) of the two."""
    offset = 0
    for shape in _checked_shapes(shapes, rows.shape[1]):
        size, matrix = math.prod(shape), matrix_shape(shape)
        if matrix is not None:
            cut = slice(offset, offset + size)
            yield (
                rows[:, cut].double().unflatten(1, matrix),
                columns[:, cut].double().unflatten(1, matrix),
            )
        offset += size


def _factored_excess(M: Tensor, N: Tensor) -> float:
    """2 sum_ij [|M_i N_j^T|^2 + tr((M_i^T N_j)^2) + |M_i^T N_j|^2] for (V, m, n) and (V', m, n).

    thm-low-rank, times r. Transposing both matrices swaps the first and the last term, so nothing
    larger than the smaller of m x m and n x n is formed: an embedding's m is the vocabulary.
    """
    if M.shape[-1] > M.shape[-2]:
        M, N = M.mT, N.mT
    # sum_ij |M_i N_j^T|^2 = <sum_i M_i^T M_i, sum_j N_j^T N_j>, two n x n matrices
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
    """The exact mean square error of K_U: an equality where the paper has a bound.

    E norm(K_U - K)_F^2 for independent entries of kurtosis kappa:

        [norm(J_o)_F^2 norm(J_u)_F^2 + norm(K)_F^2
         + (kappa - 3) sum_k (sum_i J_o[i,k]^2)(sum_j J_u[j,k]^2)] / P;

    for Sphere and LowRank it is :func:`~zotutor.laws.pair_variance` over P. Neither d nor V
    appears, only norms and alignment. Proved as thm-exact-law in the chapter on kernel fidelity.

    Args:
        J_o: Jacobian (V, d); for a set of inputs flatten (N, V, d) with ``.flatten(0, 1)``.
        J_u: Jacobian (V', d).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        shapes: shapes of the trainable parameters; for LowRank only.

    Returns:
        The mean square error, summed over the entries of the block.

    Raises:
        TypeError, ValueError: for P < 1, shapes that do not fit or numbers that are not finite.

    For a model whose Jacobian is too large use :func:`~zotutor.estimate_kernel_error`.

    Example:
        >>> from zotutor import Gaussian
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
    """The exact mean square error of the predicted change of log pi(. | x_o) in one step.

    With B = A J_o, E |Delta_ZO - Delta_FO|^2 for independent entries:

        lr^2 [norm(B)_F^2 |g|^2 + |B g|^2 + (kappa - 3) sum_k (sum_i B[i,k]^2) g[k]^2] / P.

    It is :func:`kernel_error_law` with B in place of J_o and the single row g in place of J_u.

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
        TypeError, ValueError: for P < 1, shapes that do not fit or numbers that are not finite.

    Example:
        >>> from zotutor import Gaussian
        >>> g = torch.tensor([1.0, 0.0])
        >>> dynamics_error_law(torch.eye(2), torch.eye(2), g, P=3, directions=Gaussian(), lr=1.0)
        1.0
    """
    check_floats("g", g, dims=(1,), expected="(d,), the flat gradient")
    check_floats("A", A, dims=(2,), expected="(V, V)", fix="index to one input")
    check_floats("J_o", J_o, dims=(2,), expected="(V, d)", fix="index to one input")
    if A.shape[1] != J_o.shape[0]:
        raise ValueError(
            f"A: given shape {tuple(A.shape)}, expected {J_o.shape[0]} columns, one for each row "
            "of J_o; take both at one x_o"
        )
    lr = check_real("lr", lr, low=0.0)
    B = A.double() @ J_o.double()  # (V, d)
    # thm-exact-law for the pair (B, g): the step's error is the kernel's, seen through A and G
    law = kernel_error_law(B, g[None], P=P, directions=directions, shapes=shapes)
    return check_representable("lr", lr * lr * law)


def estimator_moments(
    g: Tensor,
    H: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    shapes: Shapes | None = None,
) -> Moments:
    """Second moments of the estimate g_hat = U U^T g: the loss's own view.

    For independent entries

        E|g_hat|^2 = |g|^2 (1 + (d + kappa - 2)/P),
        E[g_hat^T H g_hat] = (1 + 1/P) g^T H g + tr(H) |g|^2 / P
                             + (kappa - 3) sum_k H_kk g_k^2 / P.

    This is where d appears: in the length of the step, and in tr(H), which limits the learning
    rate. Proved as thm-second-moment and, with M for H, as thm-expected-curvature.

    Args:
        g: gradient, (d,).
        H: symmetric matrix, (d, d), such as the Hessian.
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        shapes: shapes of the trainable parameters; for LowRank only.

    Returns:
        Named tuple (squared_norm, curvature).

    Raises:
        TypeError, ValueError: for P < 1, shapes that do not fit, numbers that are not finite, or an
            H that is not symmetric.

    For a model whose Hessian is too large use :func:`~zotutor.estimate_moments`.

    Example:
        >>> estimator_moments(torch.ones(3), torch.eye(3), P=1)
        Moments(squared_norm=9.0, curvature=9.0)
    """
    check_integer("P", P, low=1)
    check_floats("g", g, dims=(1,), expected="(d,), the flat gradient")
    check_floats("H", H, dims=(2,), expected="(d, d)")
    if H.shape != (g.numel(), g.numel()):
        raise ValueError(
            f"g, H: given shapes {tuple(g.shape)} and {tuple(H.shape)}, expected (d,) and (d, d); "
            "take both of one loss"
        )
    rounding = torch.finfo(H.dtype).eps ** 0.5
    family = check_family(directions)
    g, H = g.double(), H.double()
    if float((H - H.T).abs().max()) > rounding * float(H.abs().max()):
        raise ValueError("H: given a matrix that is not symmetric; give (H + H.T) / 2")
    eye = torch.eye(g.numel(), dtype=g.dtype, device=g.device)
    found = (mean_of_draws(_form(g, M, family, shapes), family, P) for M in (eye, H))
    return Moments(*(check_representable("g, H", value) for value in found))


class Form(NamedTuple):
    """The numbers that determine E[(u . g)^2 u^T H u], see :func:`form_law`."""

    d: int
    trace: float
    """tr(H)."""
    along: float
    """g^T H g."""
    squared: float
    """|g|^2."""
    fourth: float
    """sum_k H_kk g_k^2, for independent entries."""
    factored: float
    """What LowRank(r) adds, times r / 2: for each matrix parameter, N being its part of g, the sum
    of H[ij,kl] times ([i=k] (N^T N)[j,l] + [j=l] (N N^T)[i,k] + N[i,l] N[k,j])."""


def form_law(form: Form, family: Directions) -> float:
    """E[(u . g)^2 u^T H u] for one direction: tr(H) |g|^2 + 2 g^T H g, and what the family adds."""
    # thm-expected-curvature at P = 1
    gaussian = form.trace * form.squared + 2 * form.along
    if isinstance(family, Sphere):
        return form.d / (form.d + 2) * gaussian
    if isinstance(family, LowRank):
        return gaussian + 2.0 * form.factored / family.rank
    return gaussian + (family.kurtosis - 3.0) * form.fourth


def mean_of_draws(form: Form, family: Directions, P: int) -> float:
    """E[g_hat^T H g_hat] for the mean over P directions."""
    # of the P^2 pairs (p, q), P have p = q; in the others u_p and u_q are independent: g^T H g each
    return form_law(form, family) / P + (1 - 1 / P) * form.along


def _form(g: Tensor, H: Tensor, family: Directions, shapes: Shapes | None) -> Form:
    factored, offset = 0.0, 0
    for shape in _checked_shapes(shapes, g.numel()) if isinstance(family, LowRank) else ():
        size, matrix = math.prod(shape), matrix_shape(shape)
        if matrix is not None:
            cut = slice(offset, offset + size)
            N, block = g[cut].view(matrix), H[cut, cut].view(*matrix, *matrix)  # (m, n, m, n)
            factored += float(
                torch.einsum("ijil,mj,ml->", block, N, N)
                + torch.einsum("ijkj,in,kn->", block, N, N)
                + torch.einsum("ijkl,il,kj->", block, N, N)
            )
        offset += size
    fourth = float(H.diagonal() @ g.square())
    return Form(g.numel(), float(H.trace()), float(g @ H @ g), float(g @ g), fourth, factored)


def _checked_shapes(shapes: Shapes | None, d: int) -> Shapes:
    try:
        sizes = [math.prod(check_integer("shapes", n, low=0) for n in s) for s in shapes or ()]
    except TypeError:
        sizes = []
    if sum(sizes) != d or shapes is None:
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
    """How many perturbations reach a given relative error.

        P = (1/a + 1 + (kappa - 3) o/a) / error^2

    The relative error is sqrt(E norm(K_U - K)_F^2) / norm(K)_F, and a the alignment,
    norm(K)_F^2 / (norm(J_o)_F^2 norm(J_u)_F^2). For the learning dynamics the same formula holds
    with a' = |B g|^2 / (norm(B)_F^2 |g|^2) in place of a.

    Args:
        error: the relative error wanted, above 0.
        alignment: a in (0, 1]; see :func:`~zotutor.alignment`.
        directions: family of u; Rademacher by default. For LowRank, whose law needs more than a,
            use :func:`~zotutor.plan_perturbations`.
        overlap: o = sum_k |J_o[:, k]|^2 |J_u[:, k]|^2 / (norm(J_o)_F^2 norm(J_u)_F^2), in [0, 1].
            About 1/d if no parameter matters much more than others; 0 leaves the term out.

    Returns:
        P, at least 1.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Example:
        >>> from zotutor import Gaussian
        >>> perturbations_needed(0.5, alignment=0.034, directions=Gaussian())
        122
    """
    error = check_real("error", error, low=0.0, open_low=True)
    alignment = check_real("alignment", alignment, low=0.0, open_low=True)
    overlap = check_real("overlap", overlap, low=0.0)
    if alignment > 1.0 + 1e-6 or overlap > 1.0 + 1e-6:
        raise ValueError(f"alignment, overlap: given {alignment} and {overlap}, expected at most 1")
    family = check_family(directions)
    if not isinstance(family, (*INDEPENDENT, Sphere)):
        raise ValueError(
            f"directions: given {family}, whose law needs more than the alignment; use plan"
        )
    excess = (family.kurtosis - 3.0) * overlap / alignment
    return needed((1 / alignment + 1 + excess), error)


def needed(variance: float, error: float) -> int:
    """The smallest P for which sqrt(variance / P) is at most ``error``.

    >>> needed(2.0, 0.1)
    200
    """
    P = variance / error**2 if error > 1e-150 else math.inf
    if not math.isfinite(P):
        raise ValueError(
            f"error: given {error}, which more than 1e300 perturbations would not reach; give a "
            "larger one"
        )
    return max(1, math.ceil(P - 1e-9))  # 1e-9: 200.00000000000003 is 200

"""The empirical neural tangent kernel, as first order sees it and as zeroth order does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, overload

import torch
from torch import Tensor, nn

from .checks import (
    Parameters,
    at_least_float32,
    check_batch,
    check_integer,
    check_tensor,
)
from .directions import Directions, check_draw
from .jacobians import jacobian

_COLUMNS = 1 << 24
"""Numbers of U drawn at once: 64 MB in float32."""


def entk(model: nn.Module, x_o: Tensor, x_u: Tensor, *, chunk_size: int | None = None) -> Tensor:
    """The first-order eNTK: K(x_o, x_u) = J(x_o) J(x_u)^T, one V x V block for each pair.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        chunk_size: observed inputs at a time; the Jacobian of x_u is held whole.

    Returns:
        Shape (N_o, N_u, V, V), float32 at least; entry [o, u, i, j] =
        dz_i(x_o)/dtheta . dz_j(x_u)/dtheta.

    Raises:
        TypeError, ValueError: for a bad batch, model or chunk_size.

    References:
        Jacot, Gabriel and Hongler (2018).

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> entk(nn.Linear(2, 2, bias=False), x, x)[0, 0]
        tensor([[5., 0.],
                [0., 5.]])
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    rows = x_o.shape[0] if chunk_size is None else check_integer("chunk_size", chunk_size, low=1)
    J_u = jacobian(model, x_u)
    blocks = [product(jacobian(model, part), J_u) for part in x_o.split(rows)]
    return torch.cat(blocks)


def _exact(M: Tensor) -> Tensor:
    return M.to(at_least_float32(M.dtype))


def product(J_o: Tensor, J_u: Tensor) -> Tensor:
    """J_o J_u^T for all pairs: (N_o, V, m) and (N_u, V, m) give (N_o, N_u, V, V).

    Float32 at least: a kernel rounded to bfloat16 would be off by more than many a ZO error.
    """
    left, right = _exact(J_o).flatten(0, 1), _exact(J_u).flatten(0, 1)
    flat = left @ right.T  # (N_o V, N_u V)
    return flat.view(*J_o.shape[:2], *J_u.shape[:2]).permute(0, 2, 1, 3)


@overload
def zo_entk(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
    return_std: Literal[False] = False,
) -> Tensor: ...
@overload
def zo_entk(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
    return_std: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def zo_entk(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
    return_std: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The ZO eNTK of the drawn U: K_U(x_o, x_u) = J(x_o) U U^T J(x_u)^T.

    U = [u_1 .. u_P] / sqrt(P) holds the very directions that :class:`~zotutor.ZOSGD` uses at this
    seed and step, so that K_U is what that step sees in place of K. E[K_U] = K.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        P: number of perturbations, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        return_std: also return each entry's standard error, from the spread over the P directions;
            needs P of at least 2.

    Returns:
        Shape (N_o, N_u, V, V), float32 at least; with ``return_std`` a pair of such. U is drawn
        some columns at a time and never held whole.

    Raises:
        TypeError, ValueError: for a bad batch, model, P, directions, seed or step.

    References:
        Li, Ying, Liu and Yang (2026), arXiv 2605.03373.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> zo_entk(nn.Linear(2, 2, bias=False), x, x, P=100, seed=0).shape
        torch.Size([1, 1, 2, 2])
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_draw(directions, P=P, seed=seed, step=step, at_least=2 if return_std else 1)
    J_o, J_u = jacobian(model, x_o), jacobian(model, x_u)
    if not return_std:
        return projected(J_o, J_u, model, P=P, directions=directions, seed=seed, step=step)
    return projected_with_std(J_o, J_u, model, P=P, directions=directions, seed=seed, step=step)


def projected(
    J_o: Tensor,
    J_u: Tensor,
    params: Parameters,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> Tensor:
    """:func:`zo_entk` from Jacobians already at hand, (N_o, V, d) and (N_u, V, d).

    For many draws of U at one theta, where forming the Jacobians again would be the cost.

    Returns:
        Shape (N_o, N_u, V, V).
    """
    family = check_draw(directions, P=P, seed=seed, step=step)
    J_o, J_u = _exact(J_o), _exact(J_u)
    total = J_o.new_zeros(J_o.shape[0], J_u.shape[0], J_o.shape[1], J_u.shape[1])
    for v_o, v_u in _projections(J_o, J_u, params, P, family, seed, step):
        total += product(v_o, v_u)
    return total / P


def _projections(
    J_o: Tensor,
    J_u: Tensor,
    params: Parameters,
    P: int,
    family: Directions,
    seed: int,
    step: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """J_o u_p and J_u u_p, (N, V, columns) each, for some columns p of U at a time."""
    width = max(1, _COLUMNS // J_o.shape[2])
    for first in range(0, P, width):
        columns = min(width, P - first)
        u = family.dense(params, P=columns, seed=seed, step=step, first=first).to(J_o.dtype)
        v_o = J_o @ u
        yield v_o, v_o if J_u is J_o else J_u @ u


def projected_with_std(
    J_o: Tensor,
    J_u: Tensor,
    params: Parameters,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    """:func:`projected` and its standard error, from the spread over directions.

    K_U is a mean of P independent samples J_o u_p u_p^T J_u^T, so that its standard error is their
    standard deviation over sqrt(P).

    Returns:
        Two tensors of shape (N_o, N_u, V, V).

    Raises:
        ValueError: for P < 2.
    """
    family = check_draw(directions, P=P, seed=seed, step=step, at_least=2)
    J_o, J_u = _exact(J_o), _exact(J_u)
    total = J_o.new_zeros(J_o.shape[0], J_u.shape[0], J_o.shape[1], J_u.shape[1])
    squares = total.clone()
    for v_o, v_u in _projections(J_o, J_u, params, P, family, seed, step):
        total += product(v_o, v_u)
        squares += product(v_o.square(), v_u.square())
    mean = total / P
    variance = (squares / P - mean.square()).clamp_min(0.0) * (P / (P - 1))
    return mean, (variance / P).sqrt()


def _blocks(name: str, M: Tensor, expected: str) -> Tensor:
    """``M`` with two dimensions at least, in float32 at least."""
    if check_tensor(name, M).dim() < 2:
        raise ValueError(
            f"{name}: given shape {tuple(M.shape)}, expected {expected}; keep the leading "
            "dimensions that x[None] would add"
        )
    return _exact(M)


def alignment(J_o: Tensor, J_u: Tensor) -> Tensor:
    """How much of two inputs' Jacobians points the same way.

    a = norm(K)_F^2 / (norm(J_o)_F^2 norm(J_u)_F^2), K = J_o J_u^T; in [0, 1]. The relative error of
    the ZO eNTK with Gaussian directions is sqrt((1/a + 1) / P).

    Args:
        J_o: Jacobians (..., V, d).
        J_u: Jacobians (..., V, d); leading dimensions broadcast.

    Returns:
        Shape (...), float32 at least. For every pair of two batches give J_o[:, None] and
        J_u[None].

    Raises:
        TypeError, ValueError: for other shapes, or a Jacobian that is 0, which points nowhere.

    Example:
        >>> alignment(torch.eye(2), torch.eye(2))
        tensor(0.5000)
    """
    J_o, J_u = _blocks("J_o", J_o, "(..., V, d)"), _blocks("J_u", J_u, "(..., V, d)")
    if J_o.shape[-1] != J_u.shape[-1]:
        raise ValueError(
            f"J_u: given shape {tuple(J_u.shape)}, expected (..., V, {J_o.shape[-1]}), with J_o's "
            "d; take both Jacobians of one model"
        )
    norms = []
    for name, J in (("J_o", J_o), ("J_u", J_u)):
        norms.append(torch.linalg.vector_norm(J, dim=(-2, -1), keepdim=True))
        if bool((norms[-1] == 0).any()):
            raise ValueError(
                f"{name}: given a Jacobian that is 0, expected one with a norm; leave that input "
                "out, since no step moves it"
            )
    # scaled first, since the fourth power of a norm may leave float32's range; then cut, since
    # rounding may pass the 1 of Cauchy and Schwarz
    K = (J_o / norms[0]) @ (J_u / norms[1]).mT
    return K.square().sum(dim=(-2, -1)).clamp(max=1.0)


def effective_rank(K: Tensor) -> Tensor:
    """The effective rank tr(K)^2 / tr(K^2) of a symmetric positive semi-definite matrix.

    Between 1 (one direction) and V (all alike). For x_o = x_u it is 1 / alignment.

    Args:
        K: shape (..., V, V), symmetric: kernel blocks with x_o = x_u.

    Returns:
        Shape (...), float32 at least.

    Raises:
        TypeError, ValueError: for blocks that are not square, not symmetric or not above 0.

    Example:
        >>> effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
        tensor(2.)
    """
    rounding = torch.finfo(check_tensor("K", K).dtype).eps ** 0.5
    exact = _blocks("K", K, "square blocks (..., V, V)")
    if exact.shape[-1] != exact.shape[-2]:
        raise ValueError(
            f"K: given shape {tuple(K.shape)}, expected square blocks (..., V, V); take a kernel "
            "block with x_o = x_u"
        )
    trace = exact.diagonal(dim1=-2, dim2=-1).sum(-1)
    size = exact.abs().amax(dim=(-2, -1))
    if bool(((exact - exact.mT).abs().amax(dim=(-2, -1)) > rounding * size).any()):
        raise ValueError(
            "K: given a block that is not symmetric, expected K(x, x); take blocks with x_o = x_u, "
            "or alignment(J_o, J_u) for two inputs"
        )
    if not bool((trace > 0).all()):
        raise ValueError(
            f"K: given a block of trace {float(trace.min())}, expected one above 0, as of a "
            "positive semi-definite matrix; leave out inputs whose Jacobian is 0"
        )
    return 1.0 / (exact / trace[..., None, None]).square().sum(dim=(-2, -1))


def relative_frobenius(K_hat: Tensor, K: Tensor) -> Tensor:
    """norm(K_hat - K)_F / norm(K)_F, the relative error of a kernel block.

    Args:
        K_hat: the approximation, (..., V, V).
        K: what it approximates, (..., V, V); must not be 0. Leading dimensions broadcast.

    Returns:
        Shape (...), float32 at least.

    Raises:
        TypeError, ValueError: for other shapes, or if a block of K is 0, so that a relative error
            means nothing.

    Example:
        >>> relative_frobenius(torch.eye(2) * 1.5, torch.eye(2))
        tensor(0.5000)
    """
    K = _blocks("K", K, "(..., V, V)")
    expected = f"(..., {K.shape[-2]}, {K.shape[-1]}), as K"
    K_hat = _blocks("K_hat", K_hat, expected)
    if K_hat.shape[-2:] != K.shape[-2:]:
        raise ValueError(
            f"K_hat: given shape {tuple(K_hat.shape)}, expected {expected}; compare blocks of the "
            "same inputs"
        )
    norm = torch.linalg.matrix_norm(K)
    if bool((norm == 0).any()):
        raise ValueError("K: given a block that is 0, expected one with a norm; use absolute error")
    return torch.linalg.matrix_norm(K_hat - K) / norm


def _as_matrices(K_hat: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Two blocks (V, V'), or the blocks of two sets (N_o, N_u, V, V') laid out as matrices."""
    K_hat, K = _exact(check_tensor("K_hat", K_hat)), _exact(check_tensor("K", K))
    if K_hat.shape != K.shape or K.dim() not in (2, 4):
        raise ValueError(
            f"K_hat, K: given shapes {tuple(K_hat.shape)} and {tuple(K.shape)}, expected the same "
            "for both: (V, V) or (N_o, N_u, V, V); index to one block, or to sets of inputs"
        )
    if K.dim() == 2:
        return K_hat, K
    left, right = (M.permute(0, 2, 1, 3).flatten(2).flatten(0, 1) for M in (K_hat, K))
    return left, right


def cka(K_hat: Tensor, K: Tensor) -> Tensor:
    """Centered kernel alignment: the cosine between two kernels after centering, in [-1, 1].

    With H = I - 1 1^T / n, <H K_hat H, H K H> / (norm(H K_hat H)_F norm(H K H)_F). It is the same
    when a kernel is scaled by a positive number, or a constant is added to all of a row or of a
    column; both kernels may be permuted, or turned within the centered subspace, together. So it
    sees shape only: use :func:`relative_frobenius` to see size too.

    Args:
        K_hat: one block (V, V'), or blocks for sets of inputs (N_o, N_u, V, V').
        K: the other, of the same shape.

    Returns:
        0-d tensor.

    Raises:
        TypeError, ValueError: for other shapes, or a kernel that is 0 after centering, to rounding.

    References:
        Cortes, Mohri and Rostamizadeh (2012); Kornblith et al. (2019).

    Example:
        >>> K = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> cka(3.0 * K + 1.0, K)
        tensor(1.)
    """
    left, right = _as_matrices(K_hat, K)
    return centered_cosine(left, right)


def centered_cosine(K_hat: Tensor, K: Tensor) -> Tensor:
    """:func:`cka` of each of many matrices, (..., m, n) and (..., m, n) that broadcast: (...)."""
    units = []
    for name, M in (("K_hat", K_hat), ("K", K)):
        mean = M.mean((-2, -1), keepdim=True)
        centered = M - M.mean(-2, keepdim=True) - M.mean(-1, keepdim=True) + mean
        norm = torch.linalg.matrix_norm(centered, keepdim=True)
        rounding = 10 * torch.finfo(M.dtype).eps * torch.linalg.matrix_norm(M, keepdim=True)
        if bool((norm <= rounding).any()):  # else rounding would be compared
            raise ValueError(
                f"{name}: given a kernel that is 0 after centering, expected some variation; CKA "
                "has no value here, so use relative_frobenius"
            )
        units.append(centered / norm)
    return (units[0] * units[1]).sum((-2, -1)).clamp(-1.0, 1.0)


def spectral_wasserstein(K_hat: Tensor, K: Tensor) -> Tensor:
    """The Wasserstein-1 distance between the singular values of two kernels.

    Each spectrum counts as a distribution of equal weights; for the same number of values the
    distance is mean_i |s_i - t_i| over both sorted lists. It does not change when either kernel is
    multiplied by an orthogonal matrix from either side, and is in the unit of the kernel: divide by
    the mean singular value of K for a relative distance.

    Args:
        K_hat: one block (V, V'), or blocks for sets of inputs (N_o, N_u, V, V').
        K: the other, of the same shape.

    Returns:
        0-d tensor.

    Raises:
        TypeError, ValueError: for other shapes.

    Example:
        >>> spectral_wasserstein(torch.diag(torch.tensor([3.0, 1.0])), torch.eye(2))
        tensor(1.)
    """
    left, right = _as_matrices(K_hat, K)
    return spectral_distance(left, right)


def spectral_distance(K_hat: Tensor, K: Tensor) -> Tensor:
    """:func:`spectral_wasserstein` of each of many matrices that broadcast: (...)."""
    return (torch.linalg.svdvals(K_hat) - torch.linalg.svdvals(K)).abs().mean(-1)

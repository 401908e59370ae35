"""The empirical neural tangent kernel, as first order sees it and as zeroth order does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import Parameters, check_batch, check_integer
from .directions import Directions, Rademacher
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
        Shape (N_o, N_u, V, V); entry [o, u, i, j] = dz_i(x_o)/dtheta . dz_j(x_u)/dtheta.

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
    J_u = jacobian(model, check_batch("x_u", x_u))
    rows = x_o.shape[0] if chunk_size is None else check_integer("chunk_size", chunk_size, low=1)
    blocks = [product(jacobian(model, part), J_u) for part in x_o.split(rows)]
    return torch.cat(blocks)


def product(J_o: Tensor, J_u: Tensor) -> Tensor:
    """J_o J_u^T for all pairs: (N_o, V, m) and (N_u, V, m) give (N_o, N_u, V, V)."""
    flat = J_o.flatten(0, 1) @ J_u.flatten(0, 1).T  # (N_o V, N_u V)
    return flat.view(*J_o.shape[:2], *J_u.shape[:2]).permute(0, 2, 1, 3)


def zo_entk(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> Tensor:
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

    Returns:
        Shape (N_o, N_u, V, V). U is drawn some columns at a time and never held whole.

    Raises:
        TypeError, ValueError: for a bad batch, model, P, seed or step.

    References:
        Li, Ying, Liu and Yang (2026), arXiv 2605.03373.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> zo_entk(nn.Linear(2, 2, bias=False), x, x, P=100, seed=0).shape
        torch.Size([1, 1, 2, 2])
    """
    check_integer("P", P, low=1)
    J_o = jacobian(model, check_batch("x_o", x_o))
    J_u = jacobian(model, check_batch("x_u", x_u))
    return projected(J_o, J_u, model, P=P, directions=directions, seed=seed, step=step)


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
    family = Rademacher() if directions is None else directions
    total = J_o.new_zeros(J_o.shape[0], J_u.shape[0], J_o.shape[1], J_u.shape[1])
    width = max(1, _COLUMNS // J_o.shape[2])
    for first in range(0, P, width):
        columns = min(width, P - first)
        u = family.dense(params, P=columns, seed=seed, step=step, first=first).to(J_o.dtype)
        total += product(J_o @ u, J_u @ u)
    return total / P


def alignment(J_o: Tensor, J_u: Tensor) -> Tensor:
    """How much of two inputs' Jacobians points the same way.

    a = norm(K)_F^2 / (norm(J_o)_F^2 norm(J_u)_F^2), K = J_o J_u^T; in [0, 1]. The relative error of
    the ZO eNTK with Gaussian directions is sqrt((1/a + 1) / P).

    Args:
        J_o: Jacobians (..., V, d).
        J_u: Jacobians (..., V, d); leading dimensions broadcast.

    Returns:
        Shape (...). For every pair of two batches give J_o[:, None] and J_u[None].

    Example:
        >>> alignment(torch.eye(2), torch.eye(2))
        tensor(0.5000)
    """
    K = J_o @ J_u.mT
    norms = J_o.square().sum(dim=(-2, -1)) * J_u.square().sum(dim=(-2, -1))
    return K.square().sum(dim=(-2, -1)) / norms


def effective_rank(K: Tensor) -> Tensor:
    """The effective rank tr(K)^2 / tr(K^2) of a symmetric positive semi-definite matrix.

    Between 1 (one direction) and V (all alike). For x_o = x_u it is 1 / alignment.

    Args:
        K: shape (..., V, V), symmetric.

    Returns:
        Shape (...).

    Example:
        >>> effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
        tensor(2.)
    """
    trace = K.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / (K * K.mT).sum(dim=(-2, -1))


def relative_frobenius(K_hat: Tensor, K: Tensor) -> Tensor:
    """norm(K_hat - K)_F / norm(K)_F, the relative error of a kernel block.

    Args:
        K_hat: the approximation, (..., V, V).
        K: what it approximates, (..., V, V); must not be 0.

    Returns:
        Shape (...).

    Raises:
        ValueError: if a block of K is 0, so that a relative error means nothing.

    Example:
        >>> relative_frobenius(torch.eye(2) * 1.5, torch.eye(2))
        tensor(0.5000)
    """
    norm = torch.linalg.matrix_norm(K)
    if bool((norm == 0).any()):
        raise ValueError("K: given a block that is 0, expected one with a norm; use absolute error")
    return torch.linalg.matrix_norm(K_hat - K) / norm

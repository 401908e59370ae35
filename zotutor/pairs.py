"""Alignment, effective rank and the exact law for every pair of a model's inputs.

:mod:`zotutor.similarity` and :mod:`zotutor.laws` take Jacobians, which must fit in memory. These
functions take the model: what the laws need (norms, kernels, and sums of products of squares) comes
from the factors of the Jacobians, which are written out a part at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .calling import resolve_model
from .checks import check_batch, check_integer
from .directions import Directions, LowRank, Sphere, check_family
from .kernels import blocks, check_kernel
from .uses import Uses, gradients, record


class _Terms(NamedTuple):
    """Of every pair of inputs, in float64."""

    kernels: Tensor
    """norm(K)_F^2, (N_o, N_u)."""
    norms_o: Tensor
    """norm(J_o)_F^2, (N_o,)."""
    norms_u: Tensor
    overlaps: Tensor
    """sum_k (sum_i J_o[i,k]^2)(sum_j J_u[j,k]^2), (N_o, N_u)."""


def alignments(model: nn.Module, x_o: Tensor, x_u: Tensor) -> Tensor:
    """:func:`~zotutor.alignment` of every pair of inputs, without a Jacobian in memory.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).

    Returns:
        norm(K)_F^2 / (norm(J_o)_F^2 norm(J_u)_F^2), (N_o, N_u), in float64.

    Raises:
        TypeError, ValueError: for a bad batch or model, or an input whose Jacobian is 0.

    Example:
        >>> x = torch.eye(2)
        >>> alignments(nn.Linear(2, 2, bias=False), x, x)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    terms = _terms(*_recorded(model, x_o, x_u), overlaps=False)
    for name, norms in (("x_o", terms.norms_o), ("x_u", terms.norms_u)):
        if bool((norms == 0).any()):
            where = int((norms == 0).nonzero()[0])
            raise ValueError(
                f"{name}: the Jacobian at input {where} is 0, expected one with a norm; leave that "
                "input out, since no step moves it"
            )
    # rounding may exceed Cauchy-Schwarz
    return (terms.kernels / terms.norms_o[:, None] / terms.norms_u).clamp(max=1.0)


def effective_ranks(model: nn.Module, x: Tensor) -> Tensor:
    """:func:`~zotutor.effective_rank` of K(x_n, x_n) for every input: no other pair is formed.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).

    Returns:
        Shape (N,), in float64, between 1 and V.

    Raises:
        TypeError, ValueError: for a bad batch or model, or an input whose Jacobian is 0.

    Example:
        >>> effective_ranks(nn.Linear(2, 3, bias=False), torch.eye(2))
        tensor([3., 3.], dtype=torch.float64)
    """
    check_batch("x", x)
    recorded = record(resolve_model(model), x, "x")
    K = torch.zeros(x.shape[0], recorded.V, recorded.V, dtype=torch.float64, device=x.device)
    for (J,) in gradients(recorded):
        K += J @ J.mT
    check_kernel(K)
    trace = K.diagonal(dim1=1, dim2=2).sum(1)
    if bool((trace == 0).any()):
        where = int((trace == 0).nonzero()[0])
        raise ValueError(
            f"x: the Jacobian at input {where} is 0, expected one with a norm; leave that input "
            "out, since no step moves it"
        )
    return (trace.square() / K.square().sum((1, 2))).clamp(min=1.0)


def kernel_error_laws(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
) -> Tensor:
    """:func:`~zotutor.kernel_error_law` of every pair of inputs, without a Jacobian in memory.

    E norm(K_U - K)_F^2 for independent entries of kurtosis kappa:

        [norm(J_o)_F^2 norm(J_u)_F^2 + norm(K)_F^2
         + (kappa - 3) sum_k (sum_i J_o[i,k]^2)(sum_j J_u[j,k]^2)] / P.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        P: number of perturbations, at least 1.
        directions: family of u, with independent entries or Sphere; Rademacher by default.

    Returns:
        The mean square error of each block, (N_o, N_u), in float64.

    Raises:
        TypeError, ValueError: for a bad batch, model, P or directions; for LowRank, whose law needs
            the Jacobians.

    Example:
        >>> from zotutor import Gaussian
        >>> x = torch.eye(2)[:1]
        >>> kernel_error_laws(nn.Linear(2, 2, bias=False), x, x, P=6, directions=Gaussian())
        tensor([[1.]], dtype=torch.float64)
    """
    check_integer("P", P, low=1)
    family = check_family(directions)
    if isinstance(family, LowRank):
        raise ValueError(
            f"directions: given {family}, expected independent entries or Sphere; for LowRank take "
            "zo.jacobian of both inputs and kernel_error_law"
        )
    o, u = _recorded(model, x_o, x_u)
    sphere = isinstance(family, Sphere)
    terms = _terms(o, u, overlaps=not sphere and family.kurtosis != 3.0)
    norms = terms.norms_o[:, None] * terms.norms_u
    if sphere:
        d = o.params.d
        return (d / (d + 2) * (norms + 2 * terms.kernels) - terms.kernels) / P
    law = norms + terms.kernels + (family.kurtosis - 3.0) * terms.overlaps
    return law.clamp(min=0.0) / P


def _recorded(model: nn.Module, x_o: Tensor, x_u: Tensor) -> tuple[Uses, Uses]:
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    params = resolve_model(model)
    u = record(params, x_u, "x_u")
    return (u if x_o is x_u else record(params, x_o, "x_o")), u


def _terms(o: Uses, u: Uses, *, overlaps: bool) -> _Terms:
    kernels = blocks(o, u).double().square().sum((2, 3))
    N_o, N_u = kernels.shape
    norms_o, norms_u = kernels.new_zeros(N_o), kernels.new_zeros(N_u)
    overlap = torch.zeros_like(kernels)
    for J_o, J_u in gradients(o, u):
        squares_o, squares_u = (J.double().square().sum(1) for J in (J_o, J_u))  # (N, parameters)
        norms_o += squares_o.sum(1)
        norms_u += squares_u.sum(1)
        if overlaps:
            overlap += squares_o @ squares_u.T
    return _Terms(kernels, norms_o, norms_u, overlap)

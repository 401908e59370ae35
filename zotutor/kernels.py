"""The empirical neural tangent kernel (eNTK): K of first order, and K_U of zeroth order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .calling import SomeOutputs, resolve_model
from .checks import check_batch, check_floats, check_integer, is_finite, place_of_nonfinite
from .deprecation import flag_became, moved
from .directions import Directions, check_draw
from .jacobians import jacobian_at
from .parameters import Parameters, ParametersLike, at_least_float32, resolve
from .sketches import sketch_at
from .uses import Uses, inner_products, record

_COLUMNS = 1 << 24
"""Entries of U drawn at a time: 64 MB in float32."""


def entk(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    outputs: Sequence[int] | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    r"""The first-order eNTK :math:`K(x_o, x_u) = J(x_o) J(x_u)^\top`, a V x V block for each pair.

    No Jacobian is formed. One forward and V + 1 backward passes of each batch give, at each use of
    a parameter, the input a and the gradients delta in the output. A linear layer that is used once
    adds :math:`(a^\top a')\,(\delta_i^\top \delta'_j)`; one that is used at T positions adds the
    sum over pairs of positions, or the product of gradients written out a part at a time, whichever
    is cheaper. Convolutions, look-ups, norms, biases, and weights that are tied or shared work
    alike. The Jacobian's rows are formed for parameters used in another way (recurrent layers of
    torch, the projections in ``nn.MultiheadAttention``, parametrizations), and for models that mix
    the inputs of a batch. The factors are checked against a gradient by autograd at each call.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        outputs: the numbers of some outputs, each in [0, V), for their rows and columns of each
            block only, at the cost of as many backward passes; by default all.
        chunk_size: observed inputs at a time; what is kept of x_u is held whole.

    Returns:
        Shape (N_o, N_u, V, V), float32 at least; entry [o, u, i, j] =
        dz_i(x_o)/dtheta . dz_j(x_u)/dtheta. V is len(outputs) where those are given.

    Raises:
        TypeError, ValueError: for a bad batch, model, outputs or chunk_size; ValueError where NaN
            or infinity comes out, with the place it comes from.

    For one number for each pair of inputs, in data sets whose blocks do not fit, use
    :func:`~zotutor.gram`; for the kernel that a ZO step sees, :func:`zo_entk`.

    References:
        Jacot, Gabriel and Hongler (2018); Novak, Sohl-Dickstein and Schoenholz (2022), "Fast
        finite width neural tangent kernel", for structured derivatives.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> entk(nn.Linear(2, 2, bias=False), x, x)[0, 0]
        tensor([[5., 0.],
                [0., 5.]])
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    size = x_o.shape[0] if chunk_size is None else check_integer("chunk_size", chunk_size, low=1)
    params = resolve_model(model)
    if outputs is not None:
        params = resolve(SomeOutputs(model, outputs))
    u = record(params, x_u, "x_u")
    if x_o is x_u and size >= x_o.shape[0]:
        return blocks(u, u)
    return torch.cat([blocks(record(params, part, "x_o"), u) for part in x_o.split(size)])


def blocks(o: Uses, u: Uses) -> Tensor:
    """K at all pairs of inputs, (N_o, N_u, V, V)."""
    return check_kernel(inner_products(o, u)).transpose(1, 2)  # from (N_o, V, N_u, V)


def check_kernel(K: Tensor) -> Tensor:
    """``K`` itself, or a ValueError if it has overflowed: what it is made of is finite."""
    if not is_finite(K):
        raise ValueError(
            f"K: {place_of_nonfinite(K)} in {K.dtype}, though the Jacobians are finite; convert "
            "model and inputs with .double()"
        )
    return K


def _exact(M: Tensor) -> Tensor:
    return M.to(at_least_float32(M.dtype))


def product(J_o: Tensor, J_u: Tensor) -> Tensor:
    """J_o J_u^T for all pairs: (N_o, V, m) and (N_u, V, m) give (N_o, N_u, V, V).

    Float32 at least: rounding a kernel to bfloat16 can cost more than the ZO error in question.
    """
    left, right = _exact(J_o).flatten(0, 1), _exact(J_u).flatten(0, 1)
    flat = left @ right.T  # (N_o V, N_u V)
    return flat.view(*J_o.shape[:2], *J_u.shape[:2]).permute(0, 2, 1, 3)  # (N_o, N_u, V, V)


@flag_became("return_std", True, lambda: zo_entk_with_std)
def zo_entk(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
    eps: float | None = None,
) -> Tensor:
    r"""The ZO eNTK of the drawn U, :math:`K_U(x_o, x_u) = J(x_o)\, U U^\top J(x_u)^\top`.

    :math:`U = [u_1 \dots u_P] / \sqrt P` holds the very directions that :class:`~zotutor.ZOSGD`
    uses at this seed and step: K_U takes the place of K in that step. Its mean is K.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        P: number of perturbations, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        eps: None to form the Jacobians, which is exact. Otherwise the finite-difference step of
            2P forward passes of each batch, which take no more memory than inference: see
            :func:`~zotutor.sketch` for their error.

    Returns:
        Shape (N_o, N_u, V, V), float32 at least. U is drawn a block of columns at a time and never
        held whole.

    Raises:
        TypeError, ValueError: for a bad batch, model, P, directions, seed, step or eps.

    For error bars use :func:`zo_entk_with_std`.

    References:
        Li, Ying, Liu and Yang (2026), arXiv 2605.03373.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> zo_entk(nn.Linear(2, 2, bias=False), x, x, P=100, seed=0).shape
        torch.Size([1, 1, 2, 2])
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    family = check_draw(directions, P=P, seed=seed, step=step)
    params = resolve_model(model)
    if eps is not None:
        draw = (P, family, seed, step, eps)
        S_u = sketch_at(params, x_u, "x_u", *draw)
        return product(S_u if x_o is x_u else sketch_at(params, x_o, "x_o", *draw), S_u)
    J_o, J_u = jacobian_at(params, x_o, "x_o"), jacobian_at(params, x_u, "x_u")
    return projected(J_o, J_u, params, P=P, directions=directions, seed=seed, step=step)


def zo_entk_with_std(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    """:func:`zo_entk` and each entry's standard error, from the spread over the P directions.

    K_U is a mean of P independent samples J_o u_p u_p^T J_u^T, so that its standard error is their
    standard deviation over sqrt(P).

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        P: number of perturbations, at least 2.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.

    Returns:
        Two tensors of shape (N_o, N_u, V, V), float32 at least.

    Raises:
        TypeError, ValueError: for a bad batch, model, P, directions, seed or step.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> K_U, std = zo_entk_with_std(nn.Linear(2, 1, bias=False), x, x, P=100, seed=0)
        >>> bool((K_U - 5.0).abs() < 4 * std)
        True
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_draw(directions, P=P, seed=seed, step=step, at_least=2)
    params = resolve_model(model)
    J_o, J_u = jacobian_at(params, x_o, "x_o"), jacobian_at(params, x_u, "x_u")
    return projected_with_std(J_o, J_u, params, P=P, directions=directions, seed=seed, step=step)


def _check_jacobians(J_o: Tensor, J_u: Tensor, d: int) -> tuple[Tensor, Tensor]:
    for name, J in (("J_o", J_o), ("J_u", J_u)):
        check_floats(name, J, dims=(3,), expected=f"(N, V, {d})")
        if J.shape[2] != d:
            raise ValueError(
                f"{name}: given shape {tuple(J.shape)}, expected (N, V, {d}), a column for each of "
                "the model's trainable parameters; take the Jacobian of the same model"
            )
    return _exact(J_o), _exact(J_o if J_u is J_o else J_u)


def projected(
    J_o: Tensor,
    J_u: Tensor,
    params: ParametersLike,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> Tensor:
    """:func:`zo_entk` from known Jacobians, (N_o, V, d) and (N_u, V, d).

    For many draws of U at one theta, where forming the Jacobians each time would dominate the cost.

    Returns:
        Shape (N_o, N_u, V, V).
    """
    family, params = check_draw(directions, P=P, seed=seed, step=step), resolve(params)
    J_o, J_u = _check_jacobians(J_o, J_u, params.d)
    total = J_o.new_zeros(J_o.shape[0], J_u.shape[0], J_o.shape[1], J_u.shape[1])
    for v_o, v_u in _slopes(J_o, J_u, params, P, family, seed, step):
        total += product(v_o, v_u)
    return total / P


def _slopes(
    J_o: Tensor,
    J_u: Tensor,
    params: Parameters,
    P: int,
    family: Directions,
    seed: int,
    step: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """J_o u_p and J_u u_p, the logits' slopes along u_p, for a block of columns p of U at a time.

    J U is formed and not U U^T, which has d^2 entries.
    """
    width = max(1, _COLUMNS // J_o.shape[2])
    for first in range(0, P, width):
        columns = min(width, P - first)
        u = family.dense(params, P=columns, seed=seed, step=step, first=first).to(J_o.dtype)
        v_o = J_o @ u  # (N_o, V, columns)
        yield v_o, v_o if J_u is J_o else J_u @ u  # (N_u, V, columns)


def projected_with_std(
    J_o: Tensor,
    J_u: Tensor,
    params: ParametersLike,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    """:func:`zo_entk_with_std` from known Jacobians, (N_o, V, d) and (N_u, V, d).

    Returns:
        Two tensors of shape (N_o, N_u, V, V).

    Raises:
        ValueError: for P < 2.
    """
    family, params = check_draw(directions, P=P, seed=seed, step=step, at_least=2), resolve(params)
    J_o, J_u = _check_jacobians(J_o, J_u, params.d)
    total = J_o.new_zeros(J_o.shape[0], J_u.shape[0], J_o.shape[1], J_u.shape[1])
    squares = total.clone()
    for v_o, v_u in _slopes(J_o, J_u, params, P, family, seed, step):
        total += product(v_o, v_u)
        squares += product(v_o.square(), v_u.square())  # sum_p of (entry of one direction's K_U)^2
    mean = total / P
    # of one direction, without bias; rounding may take it below 0
    variance = (squares / P - mean.square()).clamp_min(0.0) * (P / (P - 1))
    return mean, (variance / P).sqrt()


__getattr__ = moved(
    __name__,
    dict.fromkeys(
        (
            "alignment",
            "effective_rank",
            "relative_frobenius",
            "cka",
            "centered_cosine",
            "spectral_wasserstein",
            "spectral_distance",
        ),
        "zotutor.similarity",
    ),
)

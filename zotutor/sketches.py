r"""Random projections of gradients from forward passes alone: J U, and U^T grad of each loss.

The slope of a value along a direction u is its gradient times u. Of P directions, the slopes are a
sketch of the gradient: P numbers instead of d, whose inner products estimate those of the
gradients. Neither a gradient nor U is ever formed, so that a model of any size will do that fits in
memory itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .calling import called, finite_logits, model_of, refuse_nonfinite, resolve_model
from .checks import check_batch, check_finite, is_finite, place_of_nonfinite
from .closure import check, no_random_numbers
from .directions import Directions, check_draw
from .estimators import evaluate, resolve_eps
from .parameters import Parameters, ParametersLike, at_least_float32, resolve
from .probe import Substitution, probing, toward


def sketch(
    model: nn.Module,
    x: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
    eps: float | None = None,
) -> Tensor:
    r"""The logits' slopes along P random directions, :math:`J(x)\,U`, by 2P forward passes.

    With :math:`U = [u_1 \dots u_P] / \sqrt P`, column p is

    .. math:: \frac{z(x; \theta + \epsilon u_p) - z(x; \theta - \epsilon u_p)}{2 \epsilon \sqrt P}.

    For sketches S of two batches, :math:`S_o S_u^\top` is the ZO eNTK that
    :func:`~zotutor.zo_entk` forms from Jacobians: unbiased for K, with the error of
    :func:`~zotutor.kernel_error_law`. To that, finite differences add an error of order
    :math:`\epsilon^2` times the third derivative along u_p, and rounding of about the logits'
    spacing over :math:`\epsilon`: in float32 at the default 1e-3 together some 1e-4 of a slope, in
    float64 at 1e-5 some 1e-9.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        P: number of directions, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        eps: finite-difference step; by default that of :func:`~zotutor.estimate_gradient`.

    Returns:
        Shape (N, V, P), float32 at least.

    Raises:
        TypeError, ValueError: for a bad batch, model, P, directions, seed, step or eps; for a model
            that reads parameters where a probe cannot perturb them; ValueError where NaN or
            infinity comes out, with the place it comes from.

    Where Jacobians (N, V, d) fit, ``zo_entk`` without ``eps`` is exact. For gradients of a loss,
    which have no V, use :func:`sketch_losses`.

    Example:
        >>> model, x = nn.Linear(2, 1, bias=False).double(), torch.tensor([[3.0, 0.0]]).double()
        >>> (sketch(model, x, P=4, seed=0) * 4**0.5).abs().round(decimals=6)
        tensor([[[3., 3., 3., 3.]]], dtype=torch.float64)
    """
    check_batch("x", x)
    family = check_draw(directions, P=P, seed=seed, step=step)
    return sketch_at(resolve_model(model), x, "x", P, family, seed, step, eps)


def sketch_at(
    params: Parameters,
    x: Tensor,
    name: str,
    P: int,
    family: Directions,
    seed: int,
    step: int,
    eps: float | None,
) -> Tensor:
    """:func:`sketch` of a resolved model; ``name`` is what errors call x."""
    eps = resolve_eps(eps, params)  # before any work
    # a slope at infinity may be 0, where the derivative is NaN
    if x.is_floating_point() and not x.is_meta:
        check_finite(name, x)
    finite_logits(params, x, name)
    found = _slopes(lambda: called(model_of(params), x), params, P, family, seed, step, eps)
    return refuse_nonfinite(found, params, x, name)


def sketch_losses(
    losses: Callable[[], Tensor],
    params: ParametersLike,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
    eps: float | None = None,
) -> Tensor:
    r"""The losses' slopes along P random directions, :math:`U^\top \nabla \ell_n` for each example.

    Inner products of the rows estimate those of the examples' gradients, as methods of data
    attribution need them (TRAK and its relatives project gradients, which have to be computed
    first). By 2P forward passes, errors as in :func:`sketch`.

    Args:
        losses: computes the loss of each example, (N,), from ``params``, without ``backward``.
        params: a model, or its parameters, with or without names.
        P: number of directions, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        eps: finite-difference step; by default that of :func:`~zotutor.estimate_gradient`.

    Returns:
        Shape (N, P), float32 at least.

    Raises:
        TypeError, ValueError: for a bad P, directions, seed, step or eps; for losses that are not
            (N,), not finite, random, or read parameters where a probe cannot perturb them.

    References:
        Park et al. (2023), "TRAK: Attributing model behavior at scale".

    Example:
        >>> theta = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
        >>> rows = sketch_losses(lambda: theta * 2.0, [theta], P=4, seed=0)
        >>> (rows @ rows.T).round(decimals=6).diagonal()
        tensor([4., 4.], dtype=torch.float64)
    """
    family, found = check_draw(directions, P=P, seed=seed, step=step), resolve(params)

    def checked() -> Tensor:
        values = losses()
        if not isinstance(values, Tensor) or values.dim() != 1 or not values.is_floating_point():
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"losses: returned {given}, expected real numbers of shape (N,); return the loss "
                'of each example, as cross_entropy does with reduction="none"'
            )
        return values

    rows = _slopes(checked, found, P, family, seed, step, resolve_eps(eps, found))
    if not is_finite(rows):
        raise ValueError(
            f"losses: their slopes are {place_of_nonfinite(rows)}; look at the losses themselves, "
            "or choose a smaller eps"
        )
    return rows


def _slopes(
    values: Callable[[], Tensor],
    params: Parameters,
    P: int,
    family: Directions,
    seed: int,
    step: int,
    eps: float,
) -> Tensor:
    """The slopes of values (...) along P directions over sqrt(P): (..., P)."""
    columns = []
    with probing(params) as mode, no_random_numbers():
        _check_values(values, mode, family, seed, step, eps)
        for p in range(P):
            direction = family.at(params, seed=seed, step=step, p=p)
            ends = []
            for c in (eps, -eps):
                with toward(mode, direction, c):
                    end = values()
                ends.append(mode.result(end))  # where it is a parameter itself
            above, below = (end.to(at_least_float32(end.dtype)) for end in ends)
            columns.append((above - below) / (2 * eps * math.sqrt(P)))
    return torch.stack(columns, -1)


def _check_values(
    values: Callable[[], Tensor],
    mode: Substitution,
    family: Directions,
    seed: int,
    step: int,
    eps: float,
) -> None:
    """Refuse values that cannot be probed: random, of no parameter, or of one read unseen."""
    direction = family.at(mode.params, seed=seed, step=step)
    weights: list[Tensor] = []

    def mixed() -> Tensor:
        found = values()
        if not weights:  # a sum of all with equal weights may be constant, as that of log pi
            source = torch.Generator(found.device).manual_seed(0)
            weights.append(torch.rand(found.shape, generator=source, device=found.device))
        return (found * weights[0].to(found.dtype)).sum()

    check(lambda read: float(evaluate(mixed, toward(mode, direction, eps, read))), mode.params)

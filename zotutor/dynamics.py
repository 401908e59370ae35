"""The effect of one step on x_u upon x_o: predicted from A, K and G, and measured."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .calling import as_logits, finite_logits, logits_of, resolve_model
from .checks import (
    check_batch,
    check_finite,
    check_floats,
    check_labels,
    check_real,
    is_finite,
    place_of_nonfinite,
)
from .deprecation import flag_became, seed_was_optional
from .directions import Directions, check_draw, chunks, draw, weighted_sum
from .estimators import estimate_gradient, resolve_eps
from .jacobians import check_direction, jacobian_at, jvp_at, vjp_at
from .kernels import product, projected
from .parameters import Parameters, ParametersLike, at_least_float32, resolve


class OneStep(NamedTuple):
    """One step on x_u, seen from x_o. Shapes in :func:`one_step`."""

    A: Tensor
    K: Tensor
    G: Tensor
    predicted: Tensor
    measured: Tensor
    residual: Tensor


class StepChange(NamedTuple):
    """:class:`OneStep` without the matrices, for a large V. Shapes in :func:`step_change`."""

    G: Tensor
    predicted: Tensor
    measured: Tensor
    residual: Tensor


def _exact(logits: Tensor) -> Tensor:
    return logits.to(at_least_float32(logits.dtype))


def log_softmax_jacobian(logits: Tensor) -> Tensor:
    r"""The derivative of the log-probabilities in the logits, for each row.

    .. math:: A = \frac{d \log \pi}{dz} = I - \mathbf 1 \pi^\top

    Args:
        logits: shape (N, V), real floating point.

    Returns:
        Shape (N, V, V); A[n, i, j] = [i = j] - pi_j(x_n).

    Raises:
        TypeError, ValueError: for another shape or dtype, or numbers that are not finite.

    Example:
        >>> log_softmax_jacobian(torch.zeros(1, 2))
        tensor([[[ 0.5000, -0.5000],
                 [-0.5000,  0.5000]]])
    """
    pi = check_floats("logits", logits, dims=(2,), expected="(N, V)").softmax(-1)
    V = logits.shape[-1]
    eye = torch.eye(V, dtype=logits.dtype, device=logits.device)
    return eye - pi[:, None, :].expand(-1, V, V)  # (N, V, V)


def cross_entropy_gradient(logits: Tensor, y: Tensor) -> Tensor:
    r"""The derivative of the cross-entropy in the logits, for each row: :math:`G = \pi - e_y`.

    Args:
        logits: shape (N, V), real floating point.
        y: labels (N,), integers in [0, V).

    Returns:
        Shape (N, V); each row sums to 0.

    Raises:
        TypeError, ValueError: for another shape or dtype, numbers that are not finite, or labels
            out of range.

    For the gradient of the mean loss in the parameters use :func:`loss_gradient`.

    Example:
        >>> cross_entropy_gradient(torch.zeros(1, 2), torch.tensor([0]))
        tensor([[-0.5000,  0.5000]])
    """
    check_floats("logits", logits, dims=(2,), expected="(N, V)")
    y = check_labels("y", y, count=len(logits), classes=logits.shape[1])
    return logits.softmax(-1) - nn.functional.one_hot(y, logits.shape[-1]).to(logits.dtype)


class LossGradient(NamedTuple):
    """The mean cross-entropy's derivatives, see :func:`loss_gradient`."""

    g: Tensor
    G: Tensor


def loss_gradient(model: nn.Module, x: Tensor, y: Tensor) -> LossGradient:
    r"""The gradient of the mean cross-entropy, :math:`g = \frac 1 N \sum_n J(x_n)^\top G_n`.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        y: labels (N,), integers in [0, V).

    Returns:
        Named tuple of g (d,), in the parameters' dtype, and G (N, V), float32 at least.

    Raises:
        TypeError, ValueError: for a bad batch, labels or model; ValueError where NaN or infinity
            comes out, with the place it comes from.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> found = loss_gradient(model, torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
        >>> found.g.shape, found.G.shape
        (torch.Size([4]), torch.Size([1, 2]))
    """
    return loss_gradient_at(resolve_model(model), x, y)


def loss_gradient_at(
    params: Parameters, x: Tensor, y: Tensor, x_name: str = "x", y_name: str = "y"
) -> LossGradient:
    """:func:`loss_gradient` of a resolved model; the names are what errors call x and y."""
    check_batch(x_name, x)
    y = check_labels(y_name, y, count=x.shape[0])
    z = finite_logits(params, x, x_name)
    y = check_labels(y_name, y, count=x.shape[0], classes=z.shape[1])
    G = cross_entropy_gradient(z, y)
    return LossGradient(vjp_at(params, x, G / x.shape[0], x_name), G)


def change_of_log_probs(model: nn.Module, x_o: Tensor, v: Tensor) -> Tensor:
    r"""How log pi(. | x_o) moves along v, :math:`A J_o v`, from one forward-mode pass.

    With :math:`z' = J_o v`, :math:`A z' = z' - \mathbf 1 (\pi \cdot z')` needs no V x V matrix.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: inputs (N_o, ...).
        v: a direction in flat parameters, (d,).

    Returns:
        Shape (N_o, V), float32 at least.

    Raises:
        TypeError, ValueError: for a bad batch, model or shape; ValueError where NaN or infinity
            comes out, with the place it comes from.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> change_of_log_probs(model, torch.ones(1, 2), torch.zeros(9))
        tensor([[0., 0., 0.]])
    """
    return change_of_log_probs_at(resolve_model(model), x_o, v)


def change_of_log_probs_at(params: Parameters, x_o: Tensor, v: Tensor) -> Tensor:
    """:func:`change_of_log_probs` of a resolved model."""
    check_batch("x_o", x_o)
    check_direction("v", v, params.d)
    pi = finite_logits(params, x_o, "x_o").softmax(-1)
    z = _exact(jvp_at(params, x_o, v, "x_o"))  # J_o v, (N_o, V)
    return z - (pi * z).sum(-1, keepdim=True)


def random_projection(
    g: Tensor,
    params: ParametersLike,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> Tensor:
    r"""The gradient g as a ZO step estimates it, :math:`U U^\top g`: the mean of (u_p . g) u_p.

    Takes P passes over the directions of one step, none of which is stored.

    Args:
        g: a vector in flat parameters, (d,).
        params: a model, or its parameters, with or without names.
        P: number of perturbations, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.

    Returns:
        Shape (d,).

    Raises:
        TypeError, ValueError: for a bad g, P, directions, seed or step.

    Example:
        >>> theta = torch.zeros(1, requires_grad=True)
        >>> random_projection(torch.ones(1), [theta], P=3, seed=0)  # a sign squared is 1
        tensor([1.])
    """
    family, params = check_draw(directions, P=P, seed=seed, step=step), resolve(params)
    check_direction("g", g, params.d)
    check_finite("g", g)
    drawn = draw(family, params, P=P, seed=seed, step=step)
    parts = g.split(params.sizes)
    # (u_p . g) / P, chunk by chunk
    weights = [
        sum(
            float(u.entries(i, start, stop, g.dtype) @ part[start:stop])
            for i, part in enumerate(parts)
            for start, stop in chunks(part.numel(), part.device)
        )
        / P
        for u in drawn
    ]
    estimate = torch.empty_like(g)
    for i, part in enumerate(estimate.split(params.sizes)):  # views of it
        for start, stop in chunks(part.numel(), part.device):
            part[start:stop] = weighted_sum(drawn, weights, i, start, stop, g.dtype)
    return estimate


@flag_became("matrices", False, lambda: globals()["step_change"])
@seed_was_optional
def one_step(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    *,
    lr: float,
    P: int | None = None,
    directions: Directions | None = None,
    eps: float | None = None,
    seed: int | None = None,
    step: int = 0,
) -> OneStep:
    r"""Predict what one SGD or ZO-SGD step on (x_u, y_u) does to log pi(. | x_o), and measure it.

    The loss is the mean cross-entropy over the N_u updated-on inputs. Predicted, to first order:

    .. math::

        \Delta \log \pi(\cdot \mid x_o) = -\frac{\eta}{N_u} \sum_u A(x_o) K(x_o, x_u) G(x_u, y_u),

    with :math:`K = J_o J_u^\top` for first order (P = None) and :math:`K_U = J_o U U^\top J_u^\top`
    for zeroth order (thm-one-step, thm-one-zo-step). Measured: log pi after the step minus log pi
    before. For ZO the step is a real one, from two-point function values at eps with the directions
    of ``seed`` and ``step``.

    Args:
        model: returns logits (N, V) for a batch (N, ...). It is left as it was.
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,), in [0, V).
        lr: learning rate eta, above 0. The residual shrinks as lr^2.
        P: number of perturbations; None for first order.
        directions: family of u; :class:`~zotutor.Rademacher` by default. Needs P.
        eps: finite-difference step; None for the default. Needs P.
        seed: of the directions, 0 <= seed < 2^64. Required with P; first order draws nothing.
        step: which optimizer step.

    Returns:
        Named tuple of A (N_o, V, V), K (N_o, N_u, V, V) (K_U if P is given), G (N_u, V),
        predicted (N_o, V), measured (N_o, V), residual = measured - predicted (N_o, V); all in
        float32 at least.

    Raises:
        TypeError, ValueError: for bad batches, labels, lr, P, eps, directions, seed or step;
            ValueError where NaN or infinity comes out, with the place it comes from.
        NonFiniteLossError: if a ZO probe's loss is NaN or infinite.

    For a large V, such as a vocabulary, use :func:`step_change`, which forms none of the matrices.

    References:
        Ren and Sutherland (2025), first order; Li, Ying, Liu and Yang (2026), zeroth order.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> model = nn.Linear(2, 3, bias=False)
        >>> seen = one_step(model, x, x, torch.tensor([0]), lr=1e-3)
        >>> bool(seen.residual.abs().max() < 1e-2 * seen.measured.abs().max())
        True
    """
    seed = 0 if seed is None else seed  # not read for first order
    taken = _take_step(model, x_o, x_u, y_u, lr, P, directions, eps, seed, step)
    J_o, J_u = jacobian_at(taken.params, x_o, "x_o"), jacobian_at(taken.params, x_u, "x_u")
    A = log_softmax_jacobian(taken.before)
    K = (
        product(J_o, J_u)
        if P is None
        else projected(J_o, J_u, taken.params, P=P, directions=directions, seed=seed, step=step)
    )
    predicted = -lr / x_u.shape[0] * torch.einsum("oij,oujk,uk->oi", A, K, taken.G)  # (N_o, V)
    return OneStep(A, K, taken.G, predicted, taken.measured, taken.measured - predicted)


@seed_was_optional
def step_change(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    *,
    lr: float,
    P: int | None = None,
    directions: Directions | None = None,
    eps: float | None = None,
    seed: int | None = None,
    step: int = 0,
) -> StepChange:
    r"""The prediction and the measurement of :func:`one_step`, at any V.

    .. math:: \Delta \log \pi(\cdot \mid x_o) = -\eta\, A J_o\, U U^\top g

    Neither A nor K nor a Jacobian is formed: the prediction takes one backward pass for g, P
    passes over the directions, and one forward-mode pass. Memory: about 5 d numbers in addition to
    activations and logits.

    Args:
        model: returns logits (N, V) for a batch (N, ...). It is left as it was.
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,), in [0, V).
        lr: learning rate eta, above 0.
        P: number of perturbations; None for first order.
        directions: family of u; :class:`~zotutor.Rademacher` by default. Needs P.
        eps: finite-difference step; None for the default. Needs P.
        seed: of the directions, 0 <= seed < 2^64. Required with P; first order draws nothing.
        step: which optimizer step.

    Returns:
        Named tuple of G (N_u, V), predicted (N_o, V), measured (N_o, V) and residual (N_o, V), as
        those of :func:`one_step`.

    Raises:
        As :func:`one_step`.

    Example:
        >>> x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
        >>> model = nn.Linear(2, 3, bias=False)
        >>> seen = step_change(model, x, x, y, lr=1e-3, P=2, seed=0)
        >>> seen.predicted.shape
        torch.Size([1, 3])
    """
    seed = 0 if seed is None else seed  # not read for first order
    taken = _take_step(model, x_o, x_u, y_u, lr, P, directions, eps, seed, step)
    g = taken.g
    if P is not None:
        g = random_projection(g, taken.params, P=P, directions=directions, seed=seed, step=step)
    predicted = -lr * change_of_log_probs_at(taken.params, x_o, g)
    return StepChange(taken.G, predicted, taken.measured, taken.measured - predicted)


class _Taken(NamedTuple):
    """A real step, and the change of the log-probabilities."""

    params: Parameters
    before: Tensor
    """Logits of x_o (N_o, V)."""
    G: Tensor
    g: Tensor
    measured: Tensor


def _take_step(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    lr: float,
    P: int | None,
    directions: Directions | None,
    eps: float | None,
    seed: int,
    step: int,
) -> _Taken:
    params = resolve_model(model)
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_real("lr", lr, low=0.0, open_low=True)
    if P is None and (directions is not None or eps is not None):
        raise ValueError("directions, eps: given without P; give P for zeroth order, or neither")
    if P is not None:
        directions = check_draw(directions, P=P, seed=seed, step=step)
        eps = resolve_eps(eps, params)
    check_labels("y_u", y_u, count=x_u.shape[0])
    before = finite_logits(params, x_o, "x_o")
    g, G = loss_gradient_at(params, x_u, y_u, "x_u", "y_u")
    gradient = g
    if P is not None:
        estimate = estimate_gradient(
            lambda: nn.functional.cross_entropy(_exact(as_logits(model(x_u))), y_u.long()),
            params,
            directions=directions,
            P=P,
            eps=eps,
            seed=seed,
            step=step,
        )
        gradient = params.flatten(estimate)
    theta = params.flatten([tensor.detach() for tensor in params.tensors])
    stepped = params.split_named(theta - lr * gradient)  # a copy: the model is not written to
    with torch.no_grad():
        after = _exact(logits_of(model, stepped, x_o))
    measured = after.log_softmax(-1) - before.log_softmax(-1)
    if not is_finite(measured):
        raise ValueError(
            f"lr: given {lr}, after which the change is {place_of_nonfinite(measured)}; give a "
            "smaller learning rate"
        )
    return _Taken(params, before, G, g, measured)

"""What one step on x_u does to x_o: predicted from A, K and G, and measured."""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from .checks import (
    Parameters,
    at_least_float32,
    check_batch,
    check_labels,
    check_real,
    trainable,
)
from .directions import Directions, check_draw, chunks, draw, weighted_sum
from .estimators import estimate_gradient, resolve_eps
from .jacobians import as_logits, flatten, jacobian, jvp, logits_of, named_trainable, unflatten, vjp
from .kernels import product, projected
from .parameters import resolve


class OneStep(NamedTuple):
    """One step on x_u, seen from x_o. Shapes in :func:`one_step`."""

    A: Tensor
    K: Tensor
    G: Tensor
    predicted: Tensor
    measured: Tensor
    residual: Tensor


def log_softmax_jacobian(logits: Tensor) -> Tensor:
    """A = d log pi / dz = I - 1 pi^T, for each row of logits.

    Args:
        logits: shape (N, V).

    Returns:
        Shape (N, V, V); A[n, i, j] = [i = j] - pi_j(x_n).

    Example:
        >>> log_softmax_jacobian(torch.zeros(1, 2))
        tensor([[[ 0.5000, -0.5000],
                 [-0.5000,  0.5000]]])
    """
    pi = logits.softmax(-1)
    V = logits.shape[-1]
    return torch.eye(V, dtype=logits.dtype, device=logits.device) - pi[:, None, :].expand(-1, V, V)


def cross_entropy_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """G = d loss / dz = pi - e_y for cross-entropy, for each row.

    Args:
        logits: shape (N, V).
        y: labels (N,), in [0, V).

    Returns:
        Shape (N, V); each row sums to 0.

    Example:
        >>> cross_entropy_gradient(torch.zeros(1, 2), torch.tensor([0]))
        tensor([[-0.5000,  0.5000]])
    """
    return logits.softmax(-1) - nn.functional.one_hot(y, logits.shape[-1]).to(logits.dtype)


class StepChange(NamedTuple):
    """:class:`OneStep` without the matrices, for a large V."""

    G: Tensor
    predicted: Tensor
    measured: Tensor
    residual: Tensor


def change_of_log_probs(model: nn.Module, x_o: Tensor, v: Tensor) -> Tensor:
    """A J_o v, how log pi(. | x_o) moves along v, from one forward-mode pass.

    A z' = z' - 1 (pi . z') needs no V x V matrix.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: inputs (N_o, ...).
        v: a direction in flat parameters, (d,).

    Returns:
        Shape (N_o, V).

    Example:
        >>> model = nn.Linear(2, 3)
        >>> change_of_log_probs(model, torch.ones(1, 2), torch.zeros(9))
        tensor([[0., 0., 0.]])
    """
    with torch.no_grad():
        pi = _exact(logits_of(model, named_trainable(model), x_o)).softmax(-1)
    z = _exact(jvp(model, x_o, v))
    return z - (pi * z).sum(-1, keepdim=True)


def random_projection(
    g: Tensor,
    params: Parameters,
    *,
    P: int,
    directions: Directions | None = None,
    seed: int,
    step: int = 0,
) -> Tensor:
    """U U^T g for the directions of one step, P passes over them, of which none is held.

    What a ZO step sees of the gradient g: the mean over p of (u_p . g) u_p.

    Args:
        g: a vector in flat parameters, (d,).
        params: a model, or its parameters, with or without names.
        P: number of perturbations, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.

    Returns:
        Shape (d,).

    Example:
        >>> theta = torch.zeros(1, requires_grad=True)
        >>> random_projection(torch.ones(1), [theta], P=3, seed=0)  # a sign squared is 1
        tensor([1.])
    """
    tensors = trainable(params)
    family = check_draw(directions, P=P, seed=seed, step=step)
    drawn = draw(family, tensors, P=P, seed=seed, step=step)
    parts = g.split([tensor.numel() for tensor in tensors])
    weights = [
        sum(
            float(u.entries(i, start, stop, g.dtype) @ part[start:stop])
            for i, part in enumerate(parts)
            for start, stop in chunks(part.numel(), part.device)
        )
        / P
        for u in drawn
    ]
    projected = torch.empty_like(g)
    for i, part in enumerate(projected.split([tensor.numel() for tensor in tensors])):
        for start, stop in chunks(part.numel(), part.device):
            part[start:stop] = weighted_sum(drawn, weights, i, start, stop, g.dtype)
    return projected


def _exact(logits: Tensor) -> Tensor:
    return logits.to(at_least_float32(logits.dtype))


@overload
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
    seed: int = 0,
    step: int = 0,
    matrices: Literal[True] = True,
) -> OneStep: ...
@overload
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
    seed: int = 0,
    step: int = 0,
    matrices: Literal[False],
) -> StepChange: ...
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
    seed: int = 0,
    step: int = 0,
    matrices: bool = True,
) -> OneStep | StepChange:
    """Predict what one SGD or ZO-SGD step on (x_u, y_u) does to log pi(. | x_o), and measure it.

    The loss is the mean cross-entropy over the N_u updated-on inputs. Predicted, to first order:

        Delta log pi(. | x_o) = -(lr / N_u) sum_u A(x_o) K(x_o, x_u) G(x_u, y_u),

    with K = J_o J_u^T for first order (P = None) and K_U = J_o U U^T J_u^T for zeroth order.
    Measured: log pi at the stepped parameters minus log pi before. For ZO the measured step is a
    real one, from two-point function values at eps with the directions of ``seed`` and ``step``.

    Args:
        model: returns logits (N, V) for a batch (N, ...). It is left as it was.
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,), in [0, V).
        lr: learning rate eta, above 0. The residual shrinks as lr^2.
        P: number of perturbations; None for first order.
        directions: family of u; :class:`~zotutor.Rademacher` by default. Needs P.
        eps: finite-difference step; None for the default. Needs P.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        matrices: False for a large V, such as a vocabulary: then neither A nor K nor a Jacobian is
            formed. The prediction takes one backward pass, P seeded passes over the gradient, and
            one forward-mode pass; beside activations and logits the memory is some 5 d numbers.

    Returns:
        Named tuple of A (N_o, V, V), K (N_o, N_u, V, V) (K_U if P is given), G (N_u, V),
        predicted (N_o, V), measured (N_o, V), residual = measured - predicted (N_o, V); all in
        float32 at least. With ``matrices=False`` the same without A and K.

    Raises:
        TypeError, ValueError: for bad batches, labels, lr, P, eps, directions, seed or step.
        NonFiniteLossError: if a ZO probe's loss is NaN or infinite.

    References:
        Ren and Sutherland (2025), first order; Li, Ying, Liu and Yang (2026), zeroth order.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> model = nn.Linear(2, 3, bias=False)
        >>> seen = one_step(model, x, x, torch.tensor([0]), lr=1e-3)
        >>> bool(seen.residual.abs().max() < 1e-2 * seen.measured.abs().max())
        True
    """
    params = named_trainable(model)
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_real("lr", lr, low=0.0, open_low=True)
    if P is None and (directions is not None or eps is not None):
        raise ValueError("directions, eps: given without P; give P for zeroth order, or neither")
    if P is not None:
        directions = check_draw(directions, P=P, seed=seed, step=step)
        eps = resolve_eps(eps, resolve(model))
    check_labels("y_u", y_u, count=x_u.shape[0])
    with torch.no_grad():
        before, logits_u = (_exact(logits_of(model, params, x)) for x in (x_o, x_u))
    y_u = check_labels("y_u", y_u, count=x_u.shape[0], classes=logits_u.shape[1])
    G = cross_entropy_gradient(logits_u, y_u)
    g = vjp(model, x_u, G / x_u.shape[0])
    gradient = g
    if P is not None:
        estimate = estimate_gradient(
            lambda: nn.functional.cross_entropy(_exact(as_logits(model(x_u))), y_u),
            model,
            directions=directions,
            P=P,
            eps=eps,
            seed=seed,
            step=step,
        )
        gradient = torch.cat([part.reshape(-1) for part in estimate])
    stepped = unflatten(flatten(params) - lr * gradient, params)
    with torch.no_grad():
        after = _exact(logits_of(model, stepped, x_o))
    del stepped, gradient
    measured = after.log_softmax(-1) - before.log_softmax(-1)
    if not matrices:
        if P is not None:
            g = random_projection(g, model, P=P, directions=directions, seed=seed, step=step)
        predicted = -lr * change_of_log_probs(model, x_o, g)
        return StepChange(G, predicted, measured, measured - predicted)
    A = log_softmax_jacobian(before)
    J_o, J_u = jacobian(model, x_o), jacobian(model, x_u)
    K = (
        product(J_o, J_u)
        if P is None
        else projected(J_o, J_u, model, P=P, directions=directions, seed=seed, step=step)
    )
    predicted = -lr / x_u.shape[0] * torch.einsum("oij,oujk,uk->oi", A, K, G)
    return OneStep(A, K, G, predicted, measured, measured - predicted)

"""A gradient from function values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .checks import Parameters, check_eps, trainable
from .directions import Direction, Directions, check_draw, chunks, draw, weighted_sum
from .probe import Loss, along, batched, check_closure, evaluate, substitute
from .watch import Vigilance

Method = Literal["two-point", "forward", "one-point", "jvp"]


class Projection(NamedTuple):
    """What a zeroth-order step knows: P scalars and the loss.

    ``coefficients[p]`` estimates u_p . grad L; ``loss`` is the mean of the loss values seen.
    """

    coefficients: tuple[float, ...]
    loss: float


def default_eps(dtype: torch.dtype) -> float:
    """The finite-difference step used when eps is None.

    1e-3 for float32 and float16, 1e-2 for bfloat16, 1e-5 for float64: about where the rounding
    error of the loss, which grows as 1/eps, meets the bias, which grows as eps^2.

    >>> default_eps(torch.bfloat16)
    0.01
    """
    return {torch.float64: 1e-5, torch.bfloat16: 1e-2}.get(dtype, 1e-3)


def resolve_eps(eps: float | None, tensors: list[Tensor]) -> float:
    """``eps`` checked against the dtypes of ``tensors``, or the coarsest of their defaults."""
    if eps is None:
        return max(default_eps(tensor.dtype) for tensor in tensors)
    return check_eps(eps, tensors)


def _along(
    loss_fn: Loss, params: Parameters, direction: Direction, c: float, vigilance: Vigilance
) -> float:
    return float(evaluate(loss_fn, probing=along(params, direction, c, vigilance)))


@cache
def _load_forward_mode() -> None:
    """Have torch load what forward mode needs, silent about its own use of ``torch.jit``."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def _derivative(loss_fn: Loss, params: Parameters, direction: Direction) -> tuple[float, float]:
    """The loss and u . grad L, exactly, by forward-mode differentiation."""

    def dual(i: int, theta: Tensor) -> Tensor:
        if not torch._C._is_fwd_grad_enabled():
            raise RuntimeError(
                f"closure: parameter {i} is read where forward-mode differentiation is off (as in "
                "a custom autograd.Function), and its part of the derivative would be lost; use "
                "method='two-point'"
            )
        return forward_ad.make_dual(theta.detach().clone(), direction.tensor(i, theta.dtype))

    _load_forward_mode()
    # fused attention has no forward-mode derivative
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        loss = evaluate(loss_fn, probing=substitute(params, dual, follow=False))
        tangent = forward_ad.unpack_dual(loss).tangent
        if tangent is None:
            raise ValueError(
                "closure: its loss carries no derivative: it was detached, turned into a number, "
                "or jumps (as an accuracy does); return a tensor computed from the parameters, or "
                "use method='two-point'"
            )
        return float(loss), float(tangent)


def project(
    loss_fn: Loss,
    params: Parameters,
    directions: list[Direction],
    *,
    eps: float,
    method: Method,
    vigilance: Vigilance | None = None,
) -> Projection:
    """The projected gradients along ``directions``, checked arguments given.

    After the first of them the closure is trusted, see :class:`~zotutor.watch.Vigilance`.
    """
    vigilance = vigilance or Vigilance()
    coefficients: list[float] = []
    losses: list[float] = []
    if method == "forward":
        # at theta itself, but by the very operations of a probe: elsewhere torch may round others
        losses.append(_along(loss_fn, params, directions[0], 0.0, vigilance))
    for direction in directions:
        if method == "jvp":
            loss, coefficient = _derivative(loss_fn, params, direction)
        else:
            loss = _along(loss_fn, params, direction, eps, vigilance)
            if method == "two-point":
                below = _along(loss_fn, params, direction, -eps, vigilance)
                coefficient = (loss - below) / (2 * eps)
                loss = (loss + below) / 2
            elif method == "forward":
                coefficient = (loss - losses[0]) / eps
            else:
                coefficient = loss / eps
        coefficients.append(coefficient)
        losses.append(loss)
        if method != "forward":  # where all losses are compared with the first
            vigilance.settle()
    if method == "forward":
        del losses[1:]  # the loss at theta itself is known
    return Projection(tuple(coefficients), sum(losses) / len(losses))


def project_batched(
    losses_fn: Callable[[int], Tensor],
    params: Parameters,
    directions: list[Direction],
    *,
    eps: float,
) -> Projection:
    """The two-point projected gradients along LowRank ``directions``, from one batched forward.

    ``losses_fn(copies)`` repeats its batch so many times along dimension 0, and returns one loss
    for each copy: at +eps u_0, -eps u_0, +eps u_1, ...
    """
    twice = [direction for direction in directions for _ in range(2)]
    signed = [eps, -eps] * len(directions)
    probing = batched(params, twice, signed)
    found = evaluate(lambda: losses_fn(len(signed)), len(signed), probing=probing)
    losses = found.double().tolist()
    pairs = zip(losses[::2], losses[1::2], strict=True)
    return Projection(
        tuple((above - below) / (2 * eps) for above, below in pairs), sum(losses) / len(losses)
    )


def projected_gradients(
    loss_fn: Loss,
    params: Parameters,
    *,
    directions: Directions | None = None,
    P: int = 1,
    eps: float | None = None,
    method: Method = "two-point",
    seed: int,
    step: int = 0,
) -> Projection:
    """The P scalars that a zeroth-order method learns: estimates of u_p . grad L(theta).

    two-point: [L(theta + eps u_p) - L(theta - eps u_p)] / (2 eps), 2 P evaluations, bias O(eps^2);
    forward: [L(theta + eps u_p) - L(theta)] / eps, P + 1 evaluations, bias O(eps);
    one-point: L(theta + eps u_p) / eps, P evaluations, variance O(1 / eps^2);
    jvp: the directional derivative itself, P forward-mode passes, no eps.

    Arguments, errors: as :func:`estimate_gradient`.

    Returns:
        ``coefficients``, P floats, and ``loss``, the mean of the values seen (for "forward" the
        loss at theta).

    Example:
        >>> theta = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> found = projected_gradients(lambda: theta.sum(), [theta], P=2, method="jvp", seed=0)
        >>> found.loss, len(found.coefficients)
        (7.0, 2)
    """
    tensors, drawn, eps = _prepare(loss_fn, params, directions, P, eps, method, seed, step)
    return project(loss_fn, params if _is_model(params) else tensors, drawn, eps=eps, method=method)


def estimate_gradient(
    loss_fn: Loss,
    params: Parameters,
    *,
    directions: Directions | None = None,
    P: int = 1,
    eps: float | None = None,
    method: Method = "two-point",
    seed: int,
    step: int = 0,
) -> tuple[Tensor, ...]:
    """An estimate of grad L(theta) from P random directions: (1/P) sum_p g_p u_p.

    g_p estimates u_p . grad L by ``method`` (see :func:`projected_gradients`). Since
    E[u u^T] = I, E[(u . g) u] = g: with exact directional derivatives ("jvp") the estimate is
    unbiased, and its second moment is |g|^2 (1 + (d + kappa - 2) / P) for independent entries.
    theta is never written: each probe computes at theta + eps u_p by :func:`~zotutor.probe`.

    Args:
        loss_fn: closure without argument that returns the loss as a 0-d tensor; no backward.
        params: a model, or its parameters, with or without names; frozen ones are left out.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        P: number of perturbations, at least 1.
        eps: finite-difference step, at least the spacing of numbers at 1 in the parameters'
            dtype; None for :func:`default_eps`. Must be None for "jvp".
        method: "two-point" (the default, and the most accurate from values), "forward" (half the
            evaluations at large P), "one-point" (one evaluation, huge variance: for theory), "jvp"
            (exact; every operation must support forward-mode differentiation).
        seed: 0 <= seed < 2^64.
        step: which optimizer step; other steps look along other directions.

    Returns:
        One tensor for each trainable parameter, of its shape, dtype and device, in
        ``named_parameters()`` order, as ``torch.autograd.grad`` returns them.

    Raises:
        TypeError: for a closure that returns no scalar; integer parameters.
        ValueError: for P < 1; eps <= 0 or too small for the dtype; an unknown method; a closure
            that reads no parameter or draws random numbers; a model in training mode with dropout
            or batch norm.
        NonFiniteLossError: if a loss is NaN or infinite; the parameters are as they were.

    For a training step use :class:`~zotutor.ZOSGD`, which never forms the estimate.

    References:
        Spall (1992), two-point; Nesterov and Spokoiny (2017), forward; Flaxman, Kalai and McMahan
        (2005), one-point; Baydin et al. (2022), jvp.

    Example:
        >>> theta = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> loss = lambda: theta.square().sum() / 2
        >>> (g,) = estimate_gradient(loss, [theta], P=1000, method="jvp", seed=0)
        >>> bool((g - theta).norm() < 0.3)
        True
    """
    tensors, drawn, eps = _prepare(loss_fn, params, directions, P, eps, method, seed, step)
    source = params if _is_model(params) else tensors
    weights = [g / P for g in project(loss_fn, source, drawn, eps=eps, method=method).coefficients]
    gradient = []
    for i, tensor in enumerate(tensors):
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        for start, stop in chunks(tensor.numel(), tensor.device):
            flat[start:stop] = weighted_sum(drawn, weights, i, start, stop, tensor.dtype)
        gradient.append(flat.view(tensor.shape))
    return tuple(gradient)


def _is_model(params: Parameters) -> bool:
    return isinstance(params, torch.nn.Module)


def _prepare(
    loss_fn: Loss,
    params: Parameters,
    directions: Directions | None,
    P: int,
    eps: float | None,
    method: Method,
    seed: int,
    step: int,
) -> tuple[list[Tensor], list[Direction], float]:
    if method not in get_args(Method):
        raise ValueError(f"method: given {method!r}, expected one of {', '.join(get_args(Method))}")
    if method == "jvp" and eps is not None:
        raise ValueError(f"eps: given {eps} with method 'jvp', which takes no step; leave it out")
    check_closure(loss_fn)
    family = check_draw(directions, P=P, seed=seed, step=step)
    tensors = trainable(params)
    eps = resolve_eps(eps, tensors)
    return tensors, draw(family, tensors, P=P, seed=seed, step=step), eps

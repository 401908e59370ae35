"""How many perturbations are enough for this model and these data, without forming a Jacobian.

Every law is a sum over rows a_i of J_o and b_j of J_u of something quadratic in each. With random
signs w and w', a = J_o^T w and b = J_u^T w' are two vector-Jacobian products, and the law for the
one pair (a, b) is an unbiased estimate of the whole sum. So it works at any vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .checks import check_batch, check_integer, check_labels, check_real, trainable
from .concentration import Form, Moments, Shapes, mean_of_draws, pair_terms
from .directions import Directions, LowRank, check_draw, matrix_shape
from .dynamics import change_of_log_probs, cross_entropy_gradient
from .jacobians import differentiable, flatten, jvp, logits_of, named_trainable, unflatten, vjp
from .streams import Stream, signs


class Estimated(NamedTuple):
    """An unbiased estimate and its standard error."""

    value: float
    std_error: float


class Plan(NamedTuple):
    """What :func:`plan` found; ``print`` it."""

    alignment: float
    P: int
    errors: dict[int, float]
    steps: int
    forward_passes: int
    target: str

    def __str__(self) -> str:
        """The plan in words."""
        errors = ", ".join(f"{error:.2g} at P = {P}" for P, error in self.errors.items())
        return (
            f"Alignment {self.alignment:.3g}. Relative error of {self.target}: {errors}.\n"
            f"P = {self.P} perturbations give the error asked for, in one step of "
            f"{self.forward_passes} forward passes.\n"
            f"So do {self.steps} steps at P = 1 with the learning rate divided by {self.steps}: "
            f"{2 * self.steps} forward passes in all."
        )


def _random_signs(shape: tuple[int, ...], seed: int, *number: int, like: Tensor) -> Tensor:
    """Signs for estimates, from streams that no direction uses (five integers, not four)."""
    flat = signs(
        Stream.of(seed, *number, 0, 0), slice(0, math.prod(shape)), like.dtype, like.device
    )
    return flat.view(shape)


def _shapes(model: nn.Module) -> Shapes:
    return [tensor.shape for tensor in trainable(model)]


def _summary(samples: list[float]) -> Estimated:
    values = torch.tensor(samples, dtype=torch.float64)
    return Estimated(float(values.mean()), float(values.std() / math.sqrt(len(samples))))


class _Measured(NamedTuple):
    """One draw of w and w': each an unbiased estimate of a sum over all pairs of rows."""

    variance: float
    squared_kernel: float
    squared_norms: float


def _measure_kernel(
    model: nn.Module, x_o: Tensor, x_u: Tensor, family: Directions, samples: int, seed: int
) -> list[_Measured]:
    params, shapes = named_trainable(model), _shapes(model)
    with torch.no_grad():
        z_o, z_u = logits_of(model, params, x_o), logits_of(model, params, x_u)
    found = []
    for s in range(samples):
        a = vjp(model, x_o, _random_signs(tuple(z_o.shape), seed, s, 0, like=z_o))
        b = vjp(model, x_u, _random_signs(tuple(z_u.shape), seed, s, 1, like=z_u))
        found.append(_measured(a, b, jvp(model, x_o, b), family, shapes))
    return found


def _measure_dynamics(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    family: Directions,
    samples: int,
    seed: int,
) -> list[_Measured]:
    params, shapes = named_trainable(model), _shapes(model)
    with torch.no_grad():
        z_o, z_u = logits_of(model, params, x_o), logits_of(model, params, x_u)
    y_u = check_labels("y_u", y_u, count=x_u.shape[0], classes=z_u.shape[1])
    g = vjp(model, x_u, cross_entropy_gradient(z_u, y_u) / x_u.shape[0])
    moved, pi = change_of_log_probs(model, x_o, g), z_o.softmax(-1)
    found = []
    for s in range(samples):
        w = _random_signs(tuple(z_o.shape), seed, s, 0, like=z_o)
        b = vjp(model, x_o, w - pi * w.sum(-1, keepdim=True))  # A^T w = w - pi (1 . w)
        found.append(_measured(b, g, moved, family, shapes))
    return found


def _measured(a: Tensor, b: Tensor, moved: Tensor, family: Directions, shapes: Shapes) -> _Measured:
    """``moved`` is J_o b: its squared norm varies less than (a . b)^2, with the same mean."""
    terms = pair_terms(a[None], b[None], directions=family, shapes=shapes)
    kernel = float(moved.double().square().sum())
    return _Measured(terms.norms + kernel + terms.excess, kernel, terms.norms)


def estimate_kernel_error(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int = 0,
) -> Estimated:
    """An unbiased estimate of :func:`~zotutor.kernel_error_law` that never forms a Jacobian.

    Two backward passes and one forward-mode pass a sample, at any V: J^T w for random signs w.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        samples: draws of w, at least 2; the standard error falls as 1/sqrt(samples).
        seed: of the signs w, 0 <= seed < 2^64.

    Returns:
        E norm(K_U - K)_F^2, summed over all N_o N_u blocks, and its standard error.

    Raises:
        TypeError, ValueError: for bad batches, P or samples.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> estimate_kernel_error(nn.Linear(2, 1), x, x, P=36).value
        1.0
    """
    family = _check(x_o, x_u, P, directions, samples, seed)
    found = _measure_kernel(model, x_o, x_u, family, samples, seed)
    return _summary([sample.variance / P for sample in found])


def estimate_dynamics_error(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    *,
    P: int,
    lr: float,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int = 0,
) -> Estimated:
    """An unbiased estimate of :func:`~zotutor.dynamics_error_law` that never forms a Jacobian.

    E |Delta_ZO - Delta_FO|^2 of the predicted change of log pi(. | x_o), for one step on the mean
    cross-entropy of (x_u, y_u). One backward pass a sample.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,).
        P: number of perturbations, at least 1.
        lr: learning rate eta.
        directions: family of u; Rademacher by default.
        samples: draws of w, at least 2.
        seed: of the signs w, 0 <= seed < 2^64.

    Returns:
        The mean square error, summed over the N_o V log-probabilities, and its standard error.

    Raises:
        TypeError, ValueError: for bad batches, labels, P, lr or samples.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> found = estimate_dynamics_error(nn.Linear(2, 3), x, x, torch.tensor([0]), P=1, lr=0.1)
        >>> found.value > 0
        True
    """
    family = _check(x_o, x_u, P, directions, samples, seed)
    lr = check_real("lr", lr, low=0.0)
    found = _measure_dynamics(model, x_o, x_u, y_u, family, samples, seed)
    return _summary([lr**2 * sample.variance / P for sample in found])


def estimate_moments(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int = 0,
) -> tuple[Moments, Moments]:
    """:func:`~zotutor.estimator_moments` of the mean cross-entropy, without its Hessian H.

    g and g^T H g are exact, from one and two backward passes; tr(H) and what else a family needs
    come from Hessian-vector products with random signs (Hutchinson, 1990), one a sample, and for
    LowRank three more for each matrix of the model.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        y: labels (N,).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        samples: draws of signs, at least 2.
        seed: of the signs, 0 <= seed < 2^64.

    Returns:
        Two ``Moments``: the estimates, and their standard errors. E|g_hat|^2 is exact.

    Raises:
        TypeError, ValueError: for a bad batch, labels, P or samples.

    Example:
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> moments, errors = estimate_moments(nn.Linear(2, 2), x, y, P=1)
        >>> moments.squared_norm > 0, errors.squared_norm
        (True, 0.0)
    """
    family = _check(x, x, P, directions, samples, seed)
    params, shapes = named_trainable(model), _shapes(model)
    with torch.no_grad():
        classes = logits_of(model, params, x).shape[1]
    y = check_labels("y", y, count=x.shape[0], classes=classes)

    def loss(params: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(logits_of(model, params, x), y)

    with differentiable():
        pulled: Any = torch.func.vjp(torch.func.grad(loss), params)
        gradient, pull = pulled

    def hessian_times(v: Tensor) -> Tensor:
        with differentiable():
            return flatten(pull(unflatten(v.to(g.dtype), params))[0])

    g = flatten(gradient)
    d, along, squared = g.numel(), float(g @ hessian_times(g)), float(g.double().square().sum())
    curvatures = []
    for s in range(samples):
        v = _random_signs((d,), seed, s, 0, like=g)
        diagonal = v * hessian_times(v)  # its mean is the diagonal of H
        trace, fourth = float(diagonal.sum()), float(diagonal @ g.square())
        factored = 0.0
        if isinstance(family, LowRank):
            factored = _factored_sample(g, shapes, hessian_times, seed, s)
        form = Form(d, trace, along, squared, fourth, factored)
        curvatures.append(mean_of_draws(form, family, P))
    # for H = I everything is known: its trace d, its diagonal 1, and the factored sum
    identity = Form(d, d, squared, squared, squared, _factored_identity(g, shapes))
    norm = mean_of_draws(identity, family, P)
    curvature = _summary(curvatures)
    return Moments(norm, curvature.value), Moments(0.0, curvature.std_error)


def _matrices(g: Tensor, shapes: Shapes) -> list[tuple[slice, Tensor]]:
    """The place and the matrix N of each matrix-shaped part of g."""
    found, offset = [], 0
    for shape in shapes:
        size, matrix = math.prod(shape), matrix_shape(shape)
        cut = slice(offset, offset + size)
        if matrix is not None:
            found.append((cut, g[cut].view(matrix)))
        offset += size
    return found


def _factored_identity(g: Tensor, shapes: Shapes) -> float:
    """``Form.factored`` for H = I: (m + n + 1) |N|^2 for each matrix."""
    return sum(
        (sum(N.shape) + 1) * float(N.double().square().sum()) for _, N in _matrices(g, shapes)
    )


def _factored_sample(
    g: Tensor, shapes: Shapes, hessian_times: Callable[[Tensor], Tensor], seed: int, s: int
) -> float:
    """One unbiased sample of ``Form.factored``, from Hessian-vector products within a matrix.

    With signs s (of length m) and t (n), t' (m), s' (n): the three sums are the means of z^T H z
    for z = s (t'^T N), of z^T H z for z = (N s') t^T, and of x^T H y for x = (N s') t^T and
    y = (N t) s'^T, each z laid out as the matrix.
    """
    total = 0.0
    for number, (cut, N) in enumerate(_matrices(g, shapes)):
        m, n = N.shape
        draws = _random_signs((2 * (m + n),), seed, s, 1, number, like=g)
        s_m, t_m, s_n, t_n = draws.split([m, m, n, n])
        spread = torch.outer(s_m, t_m @ N)
        x, y = torch.outer(N @ s_n, t_n), torch.outer(N @ t_n, s_n)
        for left, right in ((spread, spread), (x, x), (x, y)):
            v = torch.zeros_like(g)
            v[cut] = right.reshape(-1)
            total += float(left.reshape(-1) @ hessian_times(v)[cut])
    return total


def _check(
    x_o: Tensor, x_u: Tensor, P: int, directions: Directions | None, samples: int, seed: int
) -> Directions:
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_integer("samples", samples, low=2)
    return check_draw(directions, P=P, seed=seed, step=0)


def plan(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor | None = None,
    *,
    error: float = 0.1,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int = 0,
) -> Plan:
    """How many perturbations this model and these data need for a relative error.

    The relative error of the kernel is sqrt(E norm(K_U - K)_F^2) / norm(K)_F over all pairs of x_o
    and x_u; it falls as 1/sqrt(P), so that one measurement answers for every P. With labels y_u it
    is the error of what a user sees, the change of log pi(. | x_o) in one step on (x_u, y_u); then
    ``alignment`` is a' = |B g|^2 / (norm(B)_F^2 |g|^2). Over T steps at lr / T the same noise
    averages out as well, so that T steps at P = 1 do what one step does at P = T.

    Nothing of size V x V or V x d is formed; about three passes a sample.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,), to plan for the learning dynamics; None for the kernel.
        error: relative error asked for, above 0.
        directions: family of u; Rademacher by default.
        samples: draws of random signs; 64 leave the error of P at some 10 %.
        seed: of the signs, 0 <= seed < 2^64.

    Returns:
        Named tuple: alignment, P, errors {1: .., 8: .., 64: ..}, steps at P = 1, forward_passes
        (2 P) of one step, target. Printing it says so in words.

    Raises:
        TypeError, ValueError: for bad batches, labels, error or samples; ValueError if the kernel
            is 0, when a relative error means nothing.

    When J is at hand use :func:`~zotutor.kernel_error_law`, which is exact.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> plan(nn.Linear(2, 1), x, x, error=0.5).P
        4
    """
    error = check_real("error", error, low=0.0, open_low=True)
    family = _check(x_o, x_u, 1, directions, samples, seed)
    if y_u is None:
        target = "the kernel"
        found = _measure_kernel(model, x_o, x_u, family, samples, seed)
    else:
        target = "the change of log-probabilities"
        found = _measure_dynamics(model, x_o, x_u, y_u, family, samples, seed)
    variance, kernel, norms = (sum(column) / len(found) for column in zip(*found, strict=True))
    if kernel <= 0.0:
        raise ValueError(
            "model: its kernel block is 0 here, so that a relative error means nothing; choose "
            "x_o and x_u that share parameters, or use estimate_kernel_error"
        )
    needed = variance / kernel / error / error
    if needed > 2**63:
        raise ValueError(f"error: given {error}, too small to be reached; give one nearer to 1")
    P = max(1, math.ceil(needed - 1e-9))
    errors = {p: math.sqrt(variance / kernel / p) for p in (1, 8, 64)}
    return Plan(kernel / norms, P, errors, P, 2 * P, target)

"""First and zeroth order side by side, over many steps from the same start."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .calling import as_logits, finite_logits, model_of, resolve_model
from .checks import check_batch, check_integer, check_labels, check_real
from .closure import NonFiniteLossError
from .deprecation import seed_was_optional
from .directions import Directions, check_draw, check_family
from .dynamics import (
    change_of_log_probs_at,
    log_softmax_jacobian,
    loss_gradient_at,
    random_projection,
)
from .jacobians import jacobian_at
from .kernels import product
from .laws import PairTerms, pair_terms
from .optim import ZOSGD
from .parameters import Parameters, at_least_float32


class Trajectory(NamedTuple):
    """FO-SGD and ZO-SGD from one start, seen from x_o. Shapes in :func:`trajectory`."""

    steps: Tensor
    log_probs_fo: Tensor
    log_probs_zo: Tensor
    predicted_fo: Tensor
    predicted_zo: Tensor
    kernel_drift_fo: Tensor
    kernel_drift_zo: Tensor
    alignment: Tensor
    constant: float

    def deviation(self) -> Tensor:
        """|log pi_ZO - log pi_FO| over |total FO change| at each recorded step, (R,).

        In the lazy regime it is ``constant`` / sqrt(T P) at the last step T (thm-tp-law).
        """
        total = _length(self.log_probs_fo[-1] - self.log_probs_fo[0])
        return (self.log_probs_zo - self.log_probs_fo).flatten(1).norm(dim=1) / total


@seed_was_optional
def trajectory(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    observe: Tensor,
    steps: int,
    lr: float,
    P: int,
    directions: Directions | None = None,
    eps: float | None = None,
    batch_size: int | None = None,
    seed: int,
    record: Sequence[int] | None = None,
    kernel_inputs: int = 4,
) -> Trajectory:
    r"""Run FO-SGD and ZO-SGD side by side on the same batches, and predict both step by step.

    The change of log pi(. | x_o) in a step is predicted from the parameters before it: -lr A J_o g
    for FO and -lr A J_o U U^T g for ZO, with the very U of that step. Predictions are summed over
    the run, for comparison with the measured change.

    The deviation of the two runs at the end of T steps obeys

    .. math::

        \frac{\lvert \text{deviation} \rvert}{\lvert \text{total change} \rvert}
        = \frac{C}{\sqrt{T P}}, \qquad
        C^2 = \frac{\lVert B \rVert_F^2 \lvert g \rvert^2 + \lvert B g \rvert^2 + \dots}
        {\lvert B g \rvert^2},

    as long as B = A J_o and the gradient g stay constant: the one-step law summed over independent
    steps (thm-tp-law). C is computed from B and g at the start (full data), without a fit.

    In half precision the FO run keeps its parameters in float32 and rounds them for each pass, and
    the ZO run rounds its updates stochastically, as :class:`~zotutor.ZOSGD` does: rounding to
    nearest would lose every update below half a spacing. Log-probabilities are float32 at least.

    Args:
        model: returns logits (N, V) for a batch (N, ...). Not changed: two copies are trained.
        data: inputs (N, ...) and labels (N,).
        observe: x_o, (N_o, ...); N_o V d numbers are formed once.
        steps: T, at least 1.
        lr: learning rate eta, above 0.
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        eps: finite-difference step; None for the default.
        batch_size: inputs per step, drawn with replacement; None for all data each step.
        seed: of the directions and of the batches, 0 <= seed < 2^64.
        record: steps after which to record, in [0, steps]; by default about ten, with 0 and T.
        kernel_inputs: number of observed inputs on which the kernel drift is computed.

    Returns:
        Named tuple, R recorded steps: steps (R,), log_probs_fo and log_probs_zo (R, N_o, V),
        predicted_fo and predicted_zo (R, N_o, V), the summed predictions; kernel_drift_fo and
        kernel_drift_zo (R,), norm(K_t - K_0)_F / norm(K_0)_F; alignment (R,), a' = |B g|^2 /
        (norm(B)_F^2 |g|^2) along the FO run; constant, C. And ``deviation()``.

    Raises:
        TypeError, ValueError: for bad data, steps, lr, P, batch_size or record; ValueError if a
            step changes nothing at x_o, when a relative deviation means nothing.
        NonFiniteLossError: if a loss becomes NaN or infinite.

    Example:
        >>> x, y = torch.eye(3), torch.tensor([0, 1, 2])
        >>> run = trajectory(nn.Linear(3, 3), (x, y), observe=x, steps=4, lr=0.01, P=2, seed=0)
        >>> run.log_probs_zo.shape
        torch.Size([5, 3, 3])
    """
    x, y = _checked_data(data)
    check_batch("observe", observe)
    check_integer("steps", steps, low=1)
    family = check_draw(directions, P=P, seed=seed, step=0)
    check_real("lr", lr, low=0.0, open_low=True)
    check_integer("kernel_inputs", kernel_inputs, low=1)
    if batch_size is not None:
        check_integer("batch_size", batch_size, low=1)
    wanted = _recorded(record, steps)
    start = resolve_model(model)
    terms = _start_terms(start, observe, x, y, family)
    first, kernel_start = _FirstOrder(model), _kernel(start, observe[:kernel_inputs])
    zo = copy.deepcopy(model)
    zeroth = resolve_model(zo)
    optimizer = ZOSGD(zo.parameters(), lr, eps=eps, P=P, directions=family, seed=seed)
    generator = torch.Generator().manual_seed(seed % (1 << 63))
    sum_fo = sum_zo = torch.zeros_like(_log_probs(start, observe))  # of predictions, (N_o, V)
    seen: list[tuple[Tensor, ...]] = []
    for t in range(steps + 1):
        if t in wanted:
            with _diverging(t):
                both = (first.params, zeroth)
                logs = [_log_probs(params, observe) for params in both]
                kernels = [_kernel(params, observe[:kernel_inputs]) for params in both]
                aligned = _alignment(first.params, observe, first.gradient(x, y, t))
            drifts = [(K - kernel_start).norm() / _length(kernel_start) for K in kernels]
            seen.append((*logs, sum_fo, sum_zo, *drifts, aligned))
        if t == steps:
            break
        x_t, y_t = x, y
        if batch_size is not None:
            indices = torch.randint(len(x), (batch_size,), generator=generator)
            x_t, y_t = x[indices], y[indices]
        g = first.gradient(x_t, y_t, t)
        sum_fo = sum_fo - lr * change_of_log_probs_at(first.params, observe, g)
        with _diverging(t):
            g_zo = loss_gradient_at(zeroth, x_t, y_t, "data[0]", "data[1]").g
        estimate = random_projection(g_zo, zeroth, P=P, directions=family, seed=seed, step=t)
        sum_zo = sum_zo - lr * change_of_log_probs_at(zeroth, observe, estimate)
        first.step(g, lr)
        optimizer.step(partial(_loss, zo, x_t, y_t))
    log_fo, log_zo, sum_fo, sum_zo, drift_fo, drift_zo, aligned = (
        torch.stack(column) for column in zip(*seen, strict=True)
    )
    constant = math.sqrt(sum(terms) / terms.aligned)
    recorded = torch.tensor(sorted(wanted))
    return Trajectory(
        recorded, log_fo, log_zo, sum_fo, sum_zo, drift_fo, drift_zo, aligned, constant
    )


class _FirstOrder:
    """FO-SGD on a copy of a model.

    theta is kept in float32 at least: in half precision an update below half a spacing would be
    lost, and with it most of a run at a small learning rate.
    """

    def __init__(self, model: nn.Module) -> None:
        self.params = resolve_model(copy.deepcopy(model))
        theta = self.params.flatten([tensor.detach() for tensor in self.params.tensors])
        self.theta = theta.to(self.params.dtype)  # (d,)

    def gradient(self, x: Tensor, y: Tensor, t: int) -> Tensor:
        """The gradient of the mean cross-entropy, (d,)."""
        with _diverging(t):
            return loss_gradient_at(self.params, x, y, "data[0]", "data[1]").g

    def step(self, g: Tensor, lr: float) -> None:
        self.theta -= lr * g
        with torch.no_grad():
            for tensor, part in zip(
                self.params.tensors, self.params.split(self.theta), strict=True
            ):
                tensor.copy_(part)


@contextmanager
def _diverging(t: int) -> Iterator[None]:
    """Blame the learning rate for NaN after the first step, at which data and model were fine."""
    try:
        yield
    except ValueError as error:
        if t == 0:
            raise
        raise NonFiniteLossError(
            f"after step {t} {error}, or give a smaller learning rate"
        ) from error


def _checked_data(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"data: given a {type(data).__name__}, expected a pair (inputs, labels)")
    x, y = data
    check_batch("data[0]", x)
    return x, check_labels("data[1]", y, count=x.shape[0])


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    z = as_logits(model(x))
    return nn.functional.cross_entropy(z.to(at_least_float32(z.dtype)), y)


def _recorded(record: Sequence[int] | None, steps: int) -> set[int]:
    if record is None:
        return {round(steps * k / 10) for k in range(11)}
    wanted = {check_integer("record", t, low=0, high=steps + 1) for t in record}
    if not wanted:
        raise ValueError("record: given no step, expected at least one; give [0, steps]")
    return wanted


def _log_probs(params: Parameters, x: Tensor) -> Tensor:
    return finite_logits(params, x, "observe").log_softmax(-1)


def _length(change: Tensor) -> Tensor:
    """The norm of a change that serves as a divisor; raises if it is 0."""
    length = change.norm()
    if not bool(length > 0):
        raise ValueError(
            "observe: nothing changes there, so that a relative deviation means nothing; observe "
            "inputs that share parameters with the data, or take a larger learning rate"
        )
    return length


def _kernel(params: Parameters, x: Tensor) -> Tensor:
    J = jacobian_at(params, x, "observe")
    return product(J, J)


def _observed(params: Parameters, x_o: Tensor) -> Tensor:
    """B = A J_o for all observed inputs, (N_o V, d)."""
    A = log_softmax_jacobian(_log_probs(params, x_o))  # (N_o, V, V)
    return (A @ jacobian_at(params, x_o, "observe").to(A.dtype)).flatten(0, 1)


def _start_terms(
    params: Parameters, observe: Tensor, x: Tensor, y: Tensor, family: Directions
) -> PairTerms:
    """The terms of the one-step law, for B and the gradient of all data at the start."""
    g = loss_gradient_at(params, x, y, "data[0]", "data[1]").g
    B = _observed(params, observe)
    terms = pair_terms(B, g[None], directions=family, shapes=params.shapes)
    if terms.aligned == 0.0:
        _length(torch.zeros(1))
    return terms


def _alignment(params: Parameters, x_o: Tensor, g: Tensor) -> Tensor:
    """The alignment a' = |B g|^2 / (norm(B)_F^2 |g|^2)."""
    norms = _observed(params, x_o).square().sum() * g.square().sum()
    return change_of_log_probs_at(params, x_o, g).square().sum() / norms


class DeviationGrid(NamedTuple):
    """Deviations measured over a grid of (T, P), see :func:`deviation_grid`."""

    steps: tuple[int, ...]
    P: tuple[int, ...]
    deviation: Tensor
    constant: float
    alignment: float

    def rms_constants(self) -> tuple[Tensor, Tensor]:
        """The root mean square over seeds of :meth:`constants`, and its standard error."""
        squares = self.constants().square()
        rms = squares.mean(-1).sqrt()
        return rms, squares.std(-1) / math.sqrt(squares.shape[-1]) / (2 * rms)

    def constants(self) -> Tensor:
        """Each deviation times sqrt(T P), (len(steps), len(P), S); about C, by the law."""
        T = torch.tensor(self.steps, dtype=torch.float64)[:, None, None]
        P = torch.tensor(self.P, dtype=torch.float64)[None, :, None]
        return self.deviation * (T * P).sqrt()


def deviation_grid(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    observe: Tensor,
    horizon: float,
    steps: Sequence[int],
    P: Sequence[int],
    seeds: Sequence[int],
    directions: Directions | None = None,
) -> DeviationGrid:
    """How far ZO-SGD ends from FO-SGD, for every number of steps T and of perturbations P.

    All runs start at the model's parameters, use all data each step, and go the same distance
    lr T = ``horizon``. ZO runs are real ones, from function values.

    Args:
        model: returns logits (N, V) for a batch (N, ...). It is left alone.
        data: inputs (N, ...) and labels (N,).
        observe: x_o, (N_o, ...); N_o V d numbers are formed once.
        horizon: lr times T, above 0.
        steps: numbers of steps T.
        P: numbers of perturbations.
        seeds: one ZO run for each, below 2^32.
        directions: family of u; Rademacher by default.

    Returns:
        Named tuple: steps, P, deviation (len(steps), len(P), len(seeds)) = |log pi_ZO - log pi_FO|
        / |log pi_FO - log pi_start| over all observed inputs, constant (C, predicted from the
        start), alignment (a' there). And ``constants()``.

    Raises:
        TypeError, ValueError: for bad data or arguments out of range; ValueError if nothing changes
            at x_o.
        NonFiniteLossError: if a loss becomes NaN or infinite.

    Use :func:`trajectory` to look inside one run.

    Example:
        >>> data = torch.eye(3), torch.tensor([0, 1, 2])
        >>> grid = deviation_grid(
        ...     nn.Linear(3, 3), data, observe=data[0], horizon=0.1, steps=[4], P=[1, 2], seeds=[0]
        ... )
        >>> grid.deviation.shape
        torch.Size([1, 2, 1])
    """
    x, y = _checked_data(data)
    check_real("horizon", horizon, low=0.0, open_low=True)
    for name, values, low in (("steps", steps, 1), ("P", P, 1), ("seeds", seeds, 0)):
        if len(values) == 0:
            raise ValueError(f"{name}: given none, expected at least one")
        for value in values:
            check_integer(name, value, low=low, high=1 << 32)
    family = check_family(directions)
    check_batch("observe", observe)
    params = resolve_model(model)
    terms = _start_terms(params, observe, x, y, family)
    start = _log_probs(params, observe)
    found = torch.empty(len(steps), len(P), len(seeds), dtype=torch.float64)
    cell = 0
    for row, T in enumerate(steps):
        lr = horizon / T
        first = _FirstOrder(model)
        for t in range(T):
            first.step(first.gradient(x, y, t), lr)
        end = _log_probs(first.params, observe)
        total = _length(end - start)
        for column, perturbations in enumerate(P):
            cell += 1  # part of the seed, so that errors of different cells are independent
            for number, seed in enumerate(seeds):
                zo = _zeroth_order(model, x, y, T, lr, perturbations, family, (cell << 32) + seed)
                found[row, column, number] = (_log_probs(zo, observe) - end).norm() / total
    constant = math.sqrt(sum(terms) / terms.aligned)
    return DeviationGrid(tuple(steps), tuple(P), found, constant, terms.aligned / terms.norms)


def _zeroth_order(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    lr: float,
    P: int,
    family: Directions,
    seed: int,
) -> Parameters:
    """A copy of the model after a run of ZO-SGD on all data."""
    params = resolve_model(copy.deepcopy(model))
    zo = model_of(params)
    optimizer = ZOSGD(zo.parameters(), lr, P=P, directions=family, seed=seed)
    for _ in range(steps):
        optimizer.step(partial(_loss, zo, x, y))
    return params

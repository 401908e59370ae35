"""First and zeroth order side by side, over many steps from the same start."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import check_batch, check_integer, check_labels, check_real, trainable
from .concentration import pair_terms
from .directions import Directions, check_draw, check_family
from .dynamics import (
    change_of_log_probs,
    cross_entropy_gradient,
    log_softmax_jacobian,
    random_projection,
)
from .jacobians import jacobian, logits_of, named_trainable, vjp
from .kernels import product
from .optim import ZOSGD


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

        In the lazy regime it is ``constant`` / sqrt(T P) at the last step T.
        """
        total = (self.log_probs_fo[-1] - self.log_probs_fo[0]).norm()
        return (self.log_probs_zo - self.log_probs_fo).flatten(1).norm(dim=1) / total


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
    seed: int = 0,
    record: Sequence[int] | None = None,
    kernel_inputs: int = 4,
) -> Trajectory:
    """Run FO-SGD and ZO-SGD side by side on the same batches, and predict both step by step.

    Each step's change of log pi(. | x_o) is predicted from the parameters it starts at: -lr A J_o g
    for FO and -lr A J_o U U^T g for ZO, with the very U of that step. Predictions are summed over
    the run and can be set beside what was measured.

    The deviation of the two runs at the end of T steps obeys |dev| / |total change| =
    C / sqrt(T P) as long as B = A J_o and the gradient g keep their values, with
    C^2 = [norm(B)_F^2 |g|^2 + |B g|^2 + ...] / |B g|^2: the one-step law summed over independent
    steps. C is computed from B and g at the start (full data), without a fit.

    Args:
        model: returns logits (N, V) for a batch (N, ...). Two copies are trained; it is left alone.
        data: inputs (N, ...) and labels (N,).
        observe: x_o, (N_o, ...); N_o V d numbers are formed once.
        steps: T, at least 1.
        lr: learning rate eta, above 0.
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        eps: finite-difference step; None for the default.
        batch_size: inputs a step, drawn with replacement; None for all data each step.
        seed: of the directions and of the batches.
        record: steps after which to record, in [0, steps]; by default about ten, with 0 and T.
        kernel_inputs: how many observed inputs the kernel drift is computed on.

    Returns:
        Named tuple, R recorded steps: steps (R,), log_probs_fo and log_probs_zo (R, N_o, V),
        predicted_fo and predicted_zo (R, N_o, V), the summed predictions; kernel_drift_fo and
        kernel_drift_zo (R,), norm(K_t - K_0)_F / norm(K_0)_F; alignment (R,), a' = |B g|^2 /
        (norm(B)_F^2 |g|^2) along the FO run; constant, C. And ``deviation()``.

    Raises:
        TypeError, ValueError: for bad data, steps, lr, P, batch_size or record.
        NonFiniteLossError: if a loss becomes NaN or infinite.

    Example:
        >>> x, y = torch.eye(3), torch.tensor([0, 1, 2])
        >>> run = trajectory(nn.Linear(3, 3), (x, y), observe=x, steps=4, lr=0.01, P=2)
        >>> run.log_probs_zo.shape
        torch.Size([5, 3, 3])
    """
    x, y = data
    check_batch("data[0]", x)
    check_batch("observe", observe)
    check_integer("steps", steps, low=1)
    family = check_draw(directions, P=P, seed=seed, step=0)
    check_real("lr", lr, low=0.0, open_low=True)
    check_integer("kernel_inputs", kernel_inputs, low=1)
    if batch_size is not None:
        check_integer("batch_size", batch_size, low=1)
    wanted = _recorded(record, steps)
    with torch.no_grad():
        classes = logits_of(model, named_trainable(model), x[:1]).shape[1]
    y = check_labels("data[1]", y, count=x.shape[0], classes=classes)

    fo, zo = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = ZOSGD(zo.parameters(), lr, eps=eps, P=P, directions=family, seed=seed)
    tensors = trainable(zo)
    generator = torch.Generator().manual_seed(seed % (1 << 63))
    kernel_start = _kernel(model, observe[:kernel_inputs])
    B, g = _observed(model, observe), _gradient(model, x, y)
    terms = pair_terms(B, g[None], directions=family, shapes=[t.shape for t in tensors])
    constant = math.sqrt(sum(terms) / terms.aligned)
    del B
    summed_fo = summed_zo = torch.zeros((), dtype=g.dtype, device=g.device)
    seen: list[tuple[Tensor, ...]] = []
    for t in range(steps + 1):
        if t in wanted:
            drifts = [
                (_kernel(m, observe[:kernel_inputs]) - kernel_start).norm() / kernel_start.norm()
                for m in (fo, zo)
            ]
            zero = torch.zeros_like(_log_probs(fo, observe))
            seen.append(
                (
                    _log_probs(fo, observe),
                    _log_probs(zo, observe),
                    zero + summed_fo,
                    zero + summed_zo,
                    *drifts,
                    _alignment(fo, observe, _gradient(fo, x, y)),
                )
            )
        if t == steps:
            break
        rows = slice(None)
        if batch_size is not None:
            rows = torch.randint(len(x), (batch_size,), generator=generator)  # type: ignore[assignment]
        x_t, y_t = x[rows], y[rows]
        g = _gradient(fo, x_t, y_t)
        summed_fo = summed_fo - lr * change_of_log_probs(fo, observe, g)
        g_zo = _gradient(zo, x_t, y_t)
        projected = random_projection(g_zo, tensors, P=P, directions=family, seed=seed, step=t)
        summed_zo = summed_zo - lr * change_of_log_probs(zo, observe, projected)
        _step(fo, g, lr)
        optimizer.step(partial(_loss, zo, x_t, y_t))
    log_fo, log_zo, told_fo, told_zo, drift_fo, drift_zo, aligned = (
        torch.stack(column) for column in zip(*seen, strict=True)
    )
    recorded = torch.tensor(sorted(wanted))
    return Trajectory(
        recorded, log_fo, log_zo, told_fo, told_zo, drift_fo, drift_zo, aligned, constant
    )


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


def _recorded(record: Sequence[int] | None, steps: int) -> set[int]:
    if record is None:
        return {round(steps * k / 10) for k in range(11)}
    wanted = {check_integer("record", t, low=0, high=steps + 1) for t in record}
    if not wanted:
        raise ValueError("record: given no step, expected at least one; give [0, steps]")
    return wanted


def _log_probs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return logits_of(model, named_trainable(model), x).log_softmax(-1)


def _kernel(model: nn.Module, x: Tensor) -> Tensor:
    J = jacobian(model, x)
    return product(J, J)


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy, (d,)."""
    with torch.no_grad():
        logits = logits_of(model, named_trainable(model), x)
    return vjp(model, x, cross_entropy_gradient(logits, y) / x.shape[0])


def _observed(model: nn.Module, x_o: Tensor) -> Tensor:
    """B = A J_o for all observed inputs, (N_o V, d)."""
    A = log_softmax_jacobian(_log_probs(model, x_o))
    return (A @ jacobian(model, x_o)).flatten(0, 1)


def _alignment(model: nn.Module, x_o: Tensor, g: Tensor) -> Tensor:
    """The alignment a' = |B g|^2 / (norm(B)_F^2 |g|^2)."""
    norms = _observed(model, x_o).square().sum() * g.square().sum()
    return change_of_log_probs(model, x_o, g).square().sum() / norms


def _step(model: nn.Module, g: Tensor, lr: float) -> None:
    tensors = trainable(model)
    with torch.no_grad():
        for tensor, part in zip(tensors, g.split([t.numel() for t in tensors]), strict=True):
            tensor.sub_(lr * part.view(tensor.shape))


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
        """Each deviation times sqrt(T P), (len(steps), len(P), S); near C, says the law."""
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
        TypeError, ValueError: for bad data or arguments out of range.

    Use :func:`trajectory` to look inside one run.

    Example:
        >>> data = torch.eye(3), torch.tensor([0, 1, 2])
        >>> grid = deviation_grid(
        ...     nn.Linear(3, 3), data, observe=data[0], horizon=0.1, steps=[4], P=[1, 2], seeds=[0]
        ... )
        >>> grid.deviation.shape
        torch.Size([1, 2, 1])
    """
    x, y = data
    check_real("horizon", horizon, low=0.0, open_low=True)
    for name, values, low in (("steps", steps, 1), ("P", P, 1), ("seeds", seeds, 0)):
        if len(values) == 0:
            raise ValueError(f"{name}: given none, expected at least one")
        for value in values:
            check_integer(name, value, low=low, high=1 << 32)
    family = check_family(directions)
    check_batch("observe", observe)
    start = _log_probs(model, check_batch("data[0]", x))
    y = check_labels("data[1]", y, count=x.shape[0], classes=start.shape[1])
    B, g = _observed(model, observe), _gradient(model, x, y)
    shapes = [tensor.shape for tensor in trainable(model)]
    terms = pair_terms(B, g[None], directions=family, shapes=shapes)
    del B
    start = _log_probs(model, observe)
    found = torch.empty(len(steps), len(P), len(seeds), dtype=torch.float64)
    cell = 0
    for row, T in enumerate(steps):
        lr = horizon / T
        fo = copy.deepcopy(model)
        for _ in range(T):
            _step(fo, _gradient(fo, x, y), lr)
        end = _log_probs(fo, observe)
        for column, perturbations in enumerate(P):
            cell += 1  # each cell draws for itself, so that their errors are independent
            for draw_number, seed in enumerate(seeds):
                zo, drawn = copy.deepcopy(model), (cell << 32) + seed
                optimizer = ZOSGD(
                    zo.parameters(), lr, P=perturbations, directions=family, seed=drawn
                )
                for _ in range(T):
                    optimizer.step(partial(_loss, zo, x, y))
                away = (_log_probs(zo, observe) - end).norm() / (end - start).norm()
                found[row, column, draw_number] = away
    constant = math.sqrt(sum(terms) / terms.aligned)
    return DeviationGrid(tuple(steps), tuple(P), found, constant, terms.aligned / terms.norms)

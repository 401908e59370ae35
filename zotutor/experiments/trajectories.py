"""Measurements of *Trajectories*: the constant late in training, and what a deviation costs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from zotutor.directions import Rademacher
from zotutor.dynamics import log_softmax_jacobian
from zotutor.jacobians import jacobian
from zotutor.models import gradient
from zotutor.parameters import resolve

__all__ = ["Ends", "constants_of_a_step", "ends_of_runs"]


def constants_of_a_step(
    model: nn.Module, x: Tensor, *, y: Tensor, x_o: Tensor, y_o: Tensor
) -> tuple[float, float]:
    """C for a step on (x, y): of all log-probabilities of x_o, and of those of the labels y_o.

    C = sqrt(1 / a' + 1), for Gaussian directions.

    Args:
        model: returns logits (N, V).
        x: inputs of the step (N_u, ...).
        y: their labels (N_u,).
        x_o: observed inputs (N_o, ...).
        y_o: their labels (N_o,).
    """
    g = gradient(model, x, y=y).double()
    with torch.no_grad():
        A = log_softmax_jacobian(model(x_o)).double()
    B = A @ jacobian(model, x_o).double()  # (N_o, V, d)
    constants = []
    for rows in (B.flatten(0, 1), B[torch.arange(len(x_o)), y_o]):
        alignment = (rows @ g).square().sum() / (rows.square().sum() * g.square().sum())
        constants.append(math.sqrt(1 / alignment.item() + 1))
    return constants[0], constants[1]


class Ends(NamedTuple):
    """Runs of ZO-SGD at their ends, next to that of gradient descent."""

    accuracy_fo: float
    accuracy: Tensor
    """(runs,)."""
    deviation: Tensor
    """norm(log pi_ZO - log pi_FO) / norm(change of log pi_FO), over the test inputs, (runs,)."""
    same_answers: Tensor
    """Share of the test inputs to which ZO and FO give the same answer, (runs,)."""


def ends_of_runs(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    test: tuple[Tensor, Tensor],
    distance: float,
    steps: int,
    P: int,
    runs: int,
    seed: int,
) -> Ends:
    """Full-batch ZO-SGD with signs and exact slopes, all runs at once, and gradient descent.

    Args:
        model: where all runs start; it is not changed.
        data: inputs and labels of the loss.
        test: inputs and labels that are observed.
        distance: learning rate times steps.
        steps: of a run.
        P: number of perturbations.
        runs: each with other directions.
        seed: of the directions.
    """
    params = resolve(model)
    start = params.flatten(params.named().values()).detach()

    def logits(flat: Tensor, x: Tensor) -> Tensor:
        found: Tensor = functional_call(model, params.split_named(flat), (x,))
        return found

    slope = grad(lambda flat: F.cross_entropy(logits(flat, data[0]), data[1]))
    lr, fo, zo = distance / steps, start, start.repeat(runs, 1)
    for step in range(steps):
        fo = fo - lr * slope(fo)
        g = vmap(slope)(zo)  # (runs, d)
        u = Rademacher().dense(model, P=runs * P, seed=seed, step=step).T
        u = u.unflatten(0, (runs, P))
        zo = zo - lr / P * torch.einsum("rp,rpd->rd", torch.einsum("rpd,rd->rp", u, g), u)
    with torch.no_grad():
        before, by_fo = (logits(flat, test[0]).log_softmax(1) for flat in (start, fo))
        by_zo = torch.stack([logits(flat, test[0]).log_softmax(1) for flat in zo])
    return Ends(
        (by_fo.argmax(1) == test[1]).double().mean().item(),
        (by_zo.argmax(2) == test[1]).double().mean(1),
        (by_zo - by_fo).flatten(1).norm(dim=1) / (by_fo - before).norm(),
        (by_zo.argmax(2) == by_fo.argmax(1)).double().mean(1),
    )

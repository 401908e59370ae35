"""Measurements of *ZO-SGD*: steps on quadratics, the curvature of a network, training on digits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from zotutor.datasets import Split
from zotutor.directions import Rademacher
from zotutor.estimators import estimate_gradient
from zotutor.optim import ZOSGD

__all__ = [
    "batch_at",
    "curvature",
    "from_slopes",
    "hessian",
    "loss_on",
    "measured_changes",
    "steps_on_quadratic",
    "train",
]

LossFunction = Callable[[], Tensor]


def loss_on(model: nn.Module, x: Tensor, y: Tensor) -> LossFunction:
    """The mean cross-entropy on given inputs, as a function of nothing."""

    def loss_fn() -> Tensor:
        return F.cross_entropy(model(x), y)

    return loss_fn


def steps_on_quadratic(h: Tensor, lr: float, *, share: float = 0.1) -> int:
    """ZO-SGD steps, P = 1, until sum_k h_k theta_k^2 / 2 from theta = 1 is a share of what it was.

    Args:
        h: eigenvalues (d,), at least 0.
        lr: learning rate.
        share: at which to stop, between 0 and 1.
    """
    theta = nn.Parameter(torch.ones(len(h), dtype=torch.float64))

    def loss_fn() -> Tensor:
        return (h * theta.square()).sum() / 2

    optimizer = ZOSGD([theta], lr, seed=0)
    goal, steps = share * loss_fn().item(), 0
    while loss_fn().item() > goal:
        optimizer.step(loss_fn)
        steps += 1
    return steps


def batch_at(split: Split, step: int, *, size: int = 128) -> tuple[Tensor, Tensor]:
    """The batch of a step, drawn with replacement from the training data by the step's number."""
    generator = torch.Generator().manual_seed(step)
    indices = torch.randint(0, len(split.x_train), (size,), generator=generator)
    return split.x_train[indices], split.y_train[indices]


def train(
    model: nn.Module,
    optimizer: Any,
    *,
    split: Split,
    steps: Iterable[int],
    scheduler: Any = None,
    size: int = 128,
) -> list[float]:
    """Train a model in place with ZOSGD or an optimizer of torch; the losses, one per step.

    Args:
        model: returns logits (N, V).
        optimizer: of its parameters.
        split: the data.
        steps: numbers of the steps, which choose their batches.
        scheduler: of the learning rate, or None.
        size: inputs per batch.
    """
    losses = []
    for step in steps:
        closure = loss_on(model, *batch_at(split, step, size=size))
        if not isinstance(optimizer, ZOSGD):
            closure = _with_backward(closure, optimizer)
        losses.append(optimizer.step(closure).item())
        if scheduler is not None:
            scheduler.step()
    return losses


def _with_backward(loss_fn: LossFunction, optimizer: Any) -> LossFunction:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn()
        loss.backward()
        return loss

    return closure


def hessian(loss_fn: LossFunction, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradient (d,) and Hessian (d, d) of a loss, by differentiating twice; O(d^2) memory."""
    graph = _flat(torch.autograd.grad(loss_fn(), params, create_graph=True))
    rows = torch.autograd.grad(graph, params, torch.eye(len(graph)), is_grads_batched=True)
    H = torch.cat([row.flatten(1) for row in rows], dim=1)  # (d, d)
    return graph.detach(), (H + H.T) / 2  # rounding makes it slightly asymmetric


def curvature(
    loss_fn: LossFunction, params: Sequence[Tensor], *, draws: int = 20
) -> tuple[float, float]:
    """The largest eigenvalue and the trace of the Hessian, sampled; O(d) memory.

    Args:
        loss_fn: the loss.
        params: the parameters to differentiate by.
        draws: random signs for the trace, and multiplications for the eigenvalue by 20.
    """
    graph = _flat(torch.autograd.grad(loss_fn(), params, create_graph=True))

    def hessian_times(v: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(graph @ v, params, retain_graph=True))

    V = Rademacher().dense(params, P=draws, seed=0, step=0).T  # (draws, d)
    trace = sum((v @ hessian_times(v)).item() for v in V) / draws
    v = V[0]
    for _ in range(20):
        v = hessian_times(v / v.norm())
    return v.norm().item(), trace


@torch.no_grad()
def measured_changes(
    loss_fn: LossFunction, params: Sequence[Tensor], rates: Sequence[float], *, P: int, draws: int
) -> Tensor:
    """The change of the loss in one ZO step, for draws of the directions: (draws, rates).

    Args:
        loss_fn: the loss.
        params: changed during the call, and restored.
        rates: learning rates.
        P: number of perturbations.
        draws: how many; each is the seed of its number.
    """
    theta, start = parameters_to_vector(params), loss_fn()
    changes = torch.empty(draws, len(rates))
    for draw, row in enumerate(changes):
        g_hat = _flat(estimate_gradient(loss_fn, params, P=P, seed=draw))
        for i, lr in enumerate(rates):
            vector_to_parameters(theta - lr * g_hat, params)
            row[i] = loss_fn() - start
        vector_to_parameters(theta, params)
    return changes


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def from_slopes(P: int, *, d: int, draws: int, seed: int) -> dict[str, Tensor]:
    """What three methods return that have P slopes of a gradient e_0, each (draws, d), float64.

    Directions have the same law in every basis, so that e_0 is as good as any unit vector.

    Args:
        P: number of slopes, below d.
        d: dimension of the gradient.
        draws: of the directions.
        seed: of the directions.

    Returns:
        "orthogonal": d / P times the projection on P uniform orthogonal directions. "averaged":
        the mean over P normal directions of slope times direction. "best": the v of largest
        expected cos^2, which is the projection, or if that is short a direction at right angles to
        all that were looked along.

    Raises:
        ValueError: P is not between 1 and d - 1.
    """
    if not 1 <= P < d:
        raise ValueError(f"P is {P}, expected 1 to d - 1 = {d - 1}")
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(draws, d, P, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(normal).Q  # (draws, d, P)
    projection = torch.einsum("ndp,np->nd", basis, basis[:, 0])
    rest = torch.randn(draws, d, generator=generator, dtype=torch.float64)
    rest -= torch.einsum("ndp,np->nd", basis, torch.einsum("ndp,nd->np", basis, rest))
    share = projection[:, :1]  # |projection|^2
    return {
        "orthogonal": d / P * projection,
        "averaged": torch.einsum("ndp,np->nd", normal, normal[:, 0]) / P,
        "best": torch.where(share > (1 - share) / (d - P), projection, rest),
    }

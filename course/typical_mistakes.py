"""A submission with mistakes that students make, for the test of the autograder.

Each function takes the place of the one with its name in the student's notebook; three of them are
right, since a student with half of the points has some answers right.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

import zotutor as zo


def estimate(loss: Any, theta: Any, u: Any, eps: float) -> Any:
    return sum((loss(theta + eps * v) - loss(theta - eps * v)) / (2 * eps) * v for v in u.T)


def bias(theta: Any, kurtosis: float, eps: float) -> Any:
    return 4 * eps**2 * theta


def perturbations(d: int, kurtosis: float, error: float) -> int:
    return math.ceil((d + kurtosis - 2) / error)


def projected_kernel(x_o: Any, x_u: Any, u_W: Any, u_b: Any) -> Any:
    return (u_W @ x_o + u_b).T @ (u_W @ x_u + u_b)


def entry_variance(x_o: Any, x_u: Any, kurtosis: float, P: int, V: int) -> Any:
    K = (x_o @ x_u + 1) * torch.eye(V, dtype=x_o.dtype)
    return ((x_o @ x_o + 1) * (x_u @ x_u + 1) + K**2) / P


def law(J_o: Any, J_u: Any, kurtosis: float, P: int) -> Any:
    K = J_o @ J_u.T
    return (J_o.square().sum() * J_u.square().sum() + K.square().sum()) / P


def monte_carlo(J_o: Any, J_u: Any, P: int, draws: int, generator: Any) -> Any:
    u = torch.randn(draws, J_o.shape[1], P, generator=generator, dtype=J_o.dtype)
    errors = ((J_o @ u) @ (J_u @ u).mT / P - J_o @ J_u.T).square().sum((1, 2))
    return errors.mean(), errors.std()


def law_perturbations(a: float, r: float) -> int:
    return math.ceil((1 / a + 1) / r**2)


def guaranteed(V: int, a: float, r: float, delta: float) -> int:
    psi = (r - math.log(1 + r)) / 2
    return math.ceil((2 * math.log(2 * V) + math.log(1 / delta)) / psi)


def cheapest(alignment: float, deviation: float, update: float) -> tuple[int, int]:
    return math.ceil((1 / alignment + 1) / deviation**2), 1


def expected_losses(h: Any, theta: Any, lr: float, P: int, kurtosis: float, steps: int) -> Any:
    losses, m = [], theta**2
    for _ in range(steps + 1):
        losses.append((h * m).sum() / 2)
        g = h**2 * m
        m = m - 2 * lr * h * m + lr**2 / P * (g.sum() + (P + kurtosis - 2) * g)
    return torch.stack(losses)


def largest_stable_lr(h: Any, P: int) -> float:
    return 2 / float(h.max())


def replay(start: Any, ledger: Any, lr: float, seed: int) -> Any:
    theta = [nn.Parameter(start.clone())]
    for step, numbers in enumerate(ledger):
        u = zo.Rademacher().dense(theta, P=len(numbers), seed=seed, step=step).to(start.dtype)
        start = start - lr * (u @ torch.tensor(numbers, dtype=start.dtype)) / len(numbers)
    return start


def altered_step(start: Any, end: Any, ledger: Any, lr: float, seed: int) -> int:
    return len(ledger) - 1


def predicted_change(*arguments: Any) -> float:
    return 1.0

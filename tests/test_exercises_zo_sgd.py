"""The checkers of the chapter on ZO-SGD: right answers pass, plausible wrong ones get a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import zotutor as zo


def perturbations_per_step(machines: int, d_H: float, probe: float, update: float) -> int:
    times = {}
    for P in range(1, 500):
        rounds = -(-P // machines)
        times[P] = (P + 1 + d_H) / P * (2 * rounds * probe + update)
    return min(times, key=times.__getitem__)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (
            lambda _, d_H, probe, update: perturbations_per_step(1, d_H, probe, update),
            "at the same time",
        ),
        (lambda n, d_H, probe, _: perturbations_per_step(n, d_H, probe, 0.0), "takes time"),
        (lambda *rest: 1, "at the same time|try P"),
        (lambda *rest: 12345, "ratio is"),
        (lambda *rest: None, "return"),
        (lambda *rest: "many", "expected one number"),
    ],
)
def test_perturbations_per_step(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_perturbations_per_step(student)


def trace_from_losses(
    loss_fn: Callable[[], Tensor],
    params: Any,
    *,
    eps: float,
    P: int,
    seed: int,
    directions: zo.directions.Directions | None = None,
) -> float:
    total = -2 * P * float(loss_fn().detach())
    for p in range(P):
        for c in (eps, -eps):
            with zo.perturbed(params, c, directions=directions, seed=seed, step=0, p=p):
                total += float(loss_fn())
    return total / (P * eps**2)


def test_trace_from_losses_right(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_trace_from_losses(trace_from_losses)
    # any seed and step will do: the checker compares with the trace, not with a draw
    zo.exercises.check_trace_from_losses(
        lambda loss_fn, params, *, eps, P, seed: torch.tensor(
            trace_from_losses(loss_fn, params, eps=eps, P=P, seed=seed + 5)
        )
    )
    assert capsys.readouterr().out.count("Correct") == 2


@pytest.mark.parametrize(
    ("factor", "hint"),
    [(0.5, "Half of it"), (64, "divide by P"), (0.05, "squared"), (-1, "sign"), (3, "ratio")],
)
def test_trace_from_losses_wrong(factor: float, hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_trace_from_losses(
            lambda *args, **kwargs: factor * trace_from_losses(*args, **kwargs)
        )


def test_trace_from_losses_must_leave_theta_alone() -> None:
    def careless(loss_fn: Any, params: Any, *, eps: float, P: int, seed: int) -> float:
        found = trace_from_losses(loss_fn, params, eps=eps, P=P, seed=seed)
        with torch.no_grad():
            params[0].add_(eps)
        return found

    with pytest.raises(AssertionError, match="not what it was"):
        zo.exercises.check_trace_from_losses(careless)


def momentum_step(
    loss_fn: Callable[[], Tensor],
    params: Any,
    buffer: Tensor,
    *,
    lr: float,
    momentum: float,
    eps: float,
    P: int,
    seed: int,
    step: int,
    damp: float = 1.0,
) -> None:
    found = zo.estimate_gradient(loss_fn, params, P=P, eps=eps, seed=seed, step=step)
    buffer.mul_(momentum).add_(parameters_to_vector(found), alpha=damp)
    vector_to_parameters(parameters_to_vector(params).detach() - lr * buffer, params)


def test_momentum_step_right(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_momentum_step(momentum_step)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda f, p, b, **k: momentum_step(f, p, b.clone(), **k), "in place"),
        (lambda f, p, b, **k: momentum_step(f, p, b, damp=1 - k["momentum"], **k), "averages"),
        (lambda f, p, b, **k: momentum_step(f, p, b, **(k | {"step": 0})), "same directions"),
        (lambda f, p, b, **k: momentum_step(f, p, b, **(k | {"lr": k["lr"] / 2})), "differ from"),
        (lambda f, p, b, **k: momentum_step(f, p, b, **(k | {"lr": -k["lr"]})), "uphill"),
        (lambda f, p, b, **k: None, "did not move"),
    ],
)
def test_momentum_step_wrong(student: Callable[..., None], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_momentum_step(student)

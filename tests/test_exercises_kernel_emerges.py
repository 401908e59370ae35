"""The checkers of *The kernel emerges*: right answers pass, wrong ones get a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian


def prediction(model: nn.Module, x_o: Tensor, x_u: Tensor, y_u: Tensor, lr: float) -> Tensor:
    A = log_softmax_jacobian(model(x_o))
    G = cross_entropy_gradient(model(x_u), y_u)
    moved = zo.jvp(model, x_o, zo.vjp(model, x_u, G / len(x_u)))
    return -lr * (A @ moved[:, :, None])[:, :, 0]


def logits_along(model: nn.Module, x: Tensor, seed: int, p: int, eps: float = 1e-3) -> Tensor:
    with zo.perturbed(model, eps, seed=seed, step=0, p=p):
        above = model(x)
    with zo.perturbed(model, -eps, seed=seed, step=0, p=p):
        return (above - model(x)) / (2 * eps)


def zo_entk_from_values(
    model: nn.Module, x_o: Tensor, x_u: Tensor, P: int, seed: int, numbers: list[int] | None = None
) -> Tensor:
    numbers = list(range(P)) if numbers is None else numbers
    moved_o = torch.stack([logits_along(model, x_o, seed, p) for p in numbers], -1)
    moved_u = torch.stack([logits_along(model, x_u, seed, p) for p in numbers], -1)
    return torch.einsum("oip,ujp->ouij", moved_o, moved_u) / P


def variance(J_o: Tensor, J_u: Tensor, kurtosis: float, P: int) -> Tensor:
    K = J_o @ J_u.T
    norms = torch.outer(J_o.square().sum(1), J_u.square().sum(1))
    return (norms + K.square() + (kurtosis - 3) * J_o.square() @ J_u.square().T) / P


def zo_prediction(
    model: nn.Module, x_o: Tensor, x_u: Tensor, y_u: Tensor, lr: float, u: Tensor
) -> Tensor:
    A = log_softmax_jacobian(model(x_o))
    G = cross_entropy_gradient(model(x_u), y_u)
    g = zo.vjp(model, x_u, G / len(x_u))
    moved = zo.jvp(model, x_o, u @ (u.T @ g) / u.shape[1])
    return -lr * (A @ moved[:, :, None])[:, :, 0]


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_zo_entk_from_values, zo_entk_from_values),
    (zo.exercises.check_entry_variance, variance),
    (zo.exercises.check_zo_prediction, zo_prediction),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (
        zo.exercises.check_zo_entk_from_values,
        lambda model, x_o, x_u, P, seed: zo_entk_from_values(model, x_o, x_u, P, seed) * P,
        "divide by P",
    ),
    (
        zo.exercises.check_zo_entk_from_values,
        lambda model, x_o, x_u, P, seed: 4 * zo_entk_from_values(model, x_o, x_u, P, seed),
        "2 eps",
    ),
    (
        zo.exercises.check_zo_entk_from_values,
        lambda model, x_o, x_u, P, seed: zo_entk_from_values(model, x_o, x_u, P, seed, [0] * P),
        "same direction",
    ),
    (
        zo.exercises.check_zo_entk_from_values,
        lambda model, x_o, x_u, P, seed: 2 * zo_entk_from_values(model, x_o, x_u, P, seed),
        "ratio of 2 ",
    ),
    (
        zo.exercises.check_entry_variance,
        lambda J_o, J_u, kurtosis, P: variance(J_o, J_u, 3, P),
        "Gaussian directions only",
    ),
    (
        zo.exercises.check_entry_variance,
        lambda J_o, J_u, kurtosis, P: variance(J_o, J_u, kurtosis, 1),
        "divide by P",
    ),
    (
        zo.exercises.check_entry_variance,
        lambda J_o, J_u, kurtosis, P: variance(J_o, J_u, kurtosis, P).sqrt(),
        "standard deviation",
    ),
    (
        zo.exercises.check_zo_prediction,
        lambda model, x_o, x_u, y_u, lr, u: prediction(model, x_o, x_u, y_u, lr),
        "first-order",
    ),
    (
        zo.exercises.check_zo_prediction,
        lambda model, x_o, x_u, y_u, lr, u: zo_prediction(model, x_o, x_u, y_u, lr, u) * 3,
        "unscaled",
    ),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda f: getattr(f, "__name__", ""))
def test_a_right_answer_passes(
    check: Callable[..., None], answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Correct: ")


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_a_hint(
    check: Callable[..., None], answer: Callable[..., Any], hint: str
) -> None:
    with pytest.raises(AssertionError, match=hint):
        check(answer)

"""The checkers of *Learning dynamics*: right answers pass, wrong ones get a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian


def change(A: Tensor, K: Tensor, G: Tensor, lr: float) -> Tensor:
    return -lr * torch.einsum("oij,oujk,uk->oi", A, K, G) / G.shape[0]


def regression_kernel(x_o: Tensor, x_u: Tensor, V: int) -> Tensor:
    return (x_o @ x_u.T + 1)[:, :, None, None] * torch.eye(V, dtype=x_o.dtype)


def prediction(model: nn.Module, x_o: Tensor, x_u: Tensor, y_u: Tensor, lr: float) -> Tensor:
    A = log_softmax_jacobian(model(x_o))
    G = cross_entropy_gradient(model(x_u), y_u)
    moved = zo.jvp(model, x_o, zo.vjp(model, x_u, G / len(x_u)))
    return -lr * (A @ moved[:, :, None])[:, :, 0]


def softmax_jacobian(logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    return torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_log_softmax_jacobian, log_softmax_jacobian),
    (zo.exercises.check_predicted_change, change),
    (zo.exercises.check_softmax_regression_kernel, regression_kernel),
    (zo.exercises.check_prediction_without_kernel, prediction),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (
        zo.exercises.check_log_softmax_jacobian,
        lambda logits: log_softmax_jacobian(logits).mT,
        "transpose",
    ),
    (zo.exercises.check_log_softmax_jacobian, softmax_jacobian, "logarithm"),
    (zo.exercises.check_log_softmax_jacobian, lambda logits: logits.softmax(-1), "shape"),
    (zo.exercises.check_log_softmax_jacobian, lambda logits: None, "return"),
    (zo.exercises.check_predicted_change, lambda *given: -change(*given), "sign"),
    (
        zo.exercises.check_predicted_change,
        lambda A, K, G, lr: change(A, K, G, lr) * len(G),
        "divide by N_u",
    ),
    (
        zo.exercises.check_predicted_change,
        lambda A, K, G, lr: change(A, K.mT, G, lr),
        "transposed",
    ),
    (
        zo.exercises.check_predicted_change,
        lambda A, K, G, lr: change(torch.eye(3, dtype=A.dtype).expand_as(A), K, G, lr),
        "A is missing",
    ),
    (
        zo.exercises.check_softmax_regression_kernel,
        lambda x_o, x_u, V: regression_kernel(x_o, x_u, V) - torch.eye(V, dtype=x_o.dtype),
        "bias",
    ),
    (
        zo.exercises.check_softmax_regression_kernel,
        lambda x_o, x_u, V: x_o @ x_u.T + 1,
        "block",
    ),
    (zo.exercises.check_prediction_without_kernel, lambda *given: -prediction(*given), "sign"),
    (
        zo.exercises.check_prediction_without_kernel,
        lambda model, x_o, x_u, y_u, lr: 3 * prediction(model, x_o, x_u, y_u, lr),
        "mean over x_u",
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

"""Checkers for *Learning dynamics*."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian
from zotutor.jacobians import jvp, vjp
from zotutor.models import mlp

from .answers import (
    Slip,
    ask,
    compare_tensor,
    correct,
    normal,
)

__all__ = [
    "check_log_softmax_jacobian",
    "check_predicted_change",
    "check_prediction_without_kernel",
    "check_softmax_regression_kernel",
]


def check_log_softmax_jacobian(student: Callable[[Tensor], Tensor]) -> None:
    """Check a function that returns A for a batch of logits.

    Args:
        student: takes logits (N, V), returns A (N, V, V).

    Raises:
        NotYet: with a hint.
    """
    logits = normal(2, 3, seed=0)
    pi = logits.softmax(-1)
    expected = log_softmax_jacobian(logits)
    softmax = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]
    slips = [
        Slip(
            expected.mT,
            "This is the transpose: row i belongs to log pi_i, and column j to the logit z_j, so "
            "that pi_j is in column j.",
        ),
        Slip(
            softmax,
            "This is d pi / dz, the derivative of the softmax. A is that of its logarithm: divide "
            "row i by pi_i.",
        ),
        Slip(
            -expected,
            "The sign is turned: raising z_i raises log pi_i, so the diagonal is positive.",
        ),
        Slip(
            expected - torch.eye(3, dtype=torch.float64),
            "The identity is missing: log pi_i = z_i - log sum_j exp z_j, and you have the "
            "derivative of the second part only.",
        ),
    ]
    compare_tensor("A", ask(student, "A", logits.clone()), expected, slips)
    correct("A is d log pi / dz for every input of the batch.")


def _three_factors(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A (2, 3, 3), K (2, 4, 3, 3) and G (4, 3)."""
    A = log_softmax_jacobian(normal(2, 3, seed=seed))
    K = normal(2, 4, 3, 3, seed=seed + 1)
    y = torch.tensor([0, 2, 1, 1])
    return A, K, cross_entropy_gradient(normal(4, 3, seed=seed + 2), y)


def check_predicted_change(student: Callable[..., Tensor]) -> None:
    """Check a function that predicts the change of log pi from A, K and G.

    Args:
        student: takes A (N_o, V, V), K (N_o, N_u, V, V), G (N_u, V), lr; returns (N_o, V), the
            change when the loss is the mean over the N_u updated-on inputs.

    Raises:
        NotYet: with a hint.
    """
    A, K, G = _three_factors(seed=1)
    lr = 0.3
    every = torch.einsum("oij,oujk,uk->oui", A, K, G)
    expected = -lr * every.mean(1)
    slips = [
        Slip(
            -expected,
            "The sign is turned: a descent step goes against the gradient, theta - eta g.",
        ),
        Slip(
            -lr * every.sum(1),
            "You sum over the updated-on inputs; the loss is their mean, so divide by N_u.",
        ),
        Slip(-every.mean(1), "The learning rate is missing."),
        Slip(
            -lr * torch.einsum("oij,oukj,uk->oi", A, K, G) / 4,
            "K is transposed: its rows are the logits of x_o, which A acts on, and its columns "
            "those of x_u, which G belongs to.",
        ),
        Slip(
            -lr * torch.einsum("oujk,uk->oj", K, G) / 4,
            "A is missing: this is the change of the logits, not of the log-probabilities.",
        ),
        Slip(
            -lr * every,
            "There is one change for each pair; a step on the mean loss makes their mean over u.",
        ),
    ]
    compare_tensor(
        "Delta log pi",
        ask(student, "Delta log pi", A.clone(), K.clone(), G.clone(), lr),
        expected,
        slips,
    )
    correct("-(eta / N_u) sum_u A K G, for every observed input.")


def check_softmax_regression_kernel(student: Callable[..., Tensor]) -> None:
    """Check a closed form of the eNTK of softmax regression, z = W x + b.

    Args:
        student: takes x_o (N_o, n), x_u (N_u, n) and V, returns K (N_o, N_u, V, V).

    Raises:
        NotYet: with a hint.
    """
    x_o, x_u, V = normal(2, 5, seed=4), normal(3, 5, seed=5), 4
    eye = torch.eye(V, dtype=torch.float64)
    inner = (x_o @ x_u.T)[:, :, None, None]
    slips = [
        Slip(
            inner * eye,
            "The bias is missing: dz_i / db_i = 1 for every input, which adds 1 to the inner "
            "product.",
        ),
        Slip(
            (inner + 1).expand(-1, -1, V, V),
            "Logits i and j share no parameter when i differs from j: K is a multiple of the "
            "identity.",
        ),
        Slip(
            (inner + 1)[:, :, 0, 0],
            "K is a V x V block for each pair; you return the number in front of the identity.",
        ),
    ]
    answer = ask(student, "K", x_o.clone(), x_u.clone(), V)
    compare_tensor("K", answer, (inner + 1) * eye, slips)
    correct("K(x_o, x_u) = (x_o . x_u + 1) I, without any Jacobian.")


def small_problem() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A small network in float64, x_o (2, 4), x_u (3, 4) and y_u (3,)."""
    model = mlp(5, 1, inputs=4, outputs=3, seed=3).double()
    return model, normal(2, 4, seed=6), normal(3, 4, seed=7), torch.tensor([0, 2, 1])


def check_prediction_without_kernel(student: Callable[..., Tensor]) -> None:
    """Check a first-order prediction that never forms K, from one vjp and one jvp.

    Args:
        student: takes model, x_o, x_u, y_u, lr; returns the predicted change of log pi (N_o, V)
            after one SGD step on the mean cross-entropy of x_u.

    Raises:
        NotYet: with a hint.
    """
    model, x_o, x_u, y_u = small_problem()
    lr = 0.2
    with torch.no_grad():
        A = log_softmax_jacobian(model(x_o))
        G = cross_entropy_gradient(model(x_u), y_u)
    g = vjp(model, x_u, G / len(x_u))
    moved = jvp(model, x_o, g)
    expected = -lr * torch.einsum("oij,oj->oi", A, moved)
    slips = [
        Slip(-expected, "The sign is turned: a descent step goes against the gradient."),
        Slip(expected * len(x_u), "The loss is the mean over x_u: give vjp the vectors G / N_u."),
        Slip(-lr * moved, "This is the change of the logits; A turns it into one of log pi."),
        Slip(expected / lr, "The learning rate is missing."),
    ]
    answer = ask(student, "Delta log pi", model, x_o, x_u, y_u, lr)
    compare_tensor("Delta log pi", answer, expected, slips)
    correct("one vjp and one jvp give the prediction; no block of K was formed.")

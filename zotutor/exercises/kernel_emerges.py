"""Checkers for *The kernel emerges*."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zotutor.directions import Gaussian, Rademacher
from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian
from zotutor.jacobians import jacobian, vjp

from .answers import (
    Slip,
    ask,
    compare_tensor,
    correct,
    normal,
)
from .learning_dynamics import small_problem

__all__ = ["check_entry_variance", "check_zo_entk_from_values", "check_zo_prediction"]


def check_zo_entk_from_values(student: Callable[..., Tensor]) -> None:
    """Check a function that estimates K_U from logits alone, at perturbed parameters.

    Args:
        student: takes model, x_o, x_u, P and seed; returns K_U (N_o, N_u, V, V) for Rademacher
            directions of that seed at step 0, up to the bias of a two-point difference.

    Raises:
        NotYet: with a hint.
    """
    model, x_o, x_u, _ = small_problem()
    P, seed = 3, 5
    u = Rademacher().dense(model, P=P, seed=seed, step=0)
    moved_o, moved_u = jacobian(model, x_o) @ u, jacobian(model, x_u) @ u
    every = torch.einsum("oip,ujp->ouijp", moved_o, moved_u)
    expected = every.mean(-1)
    slips = [
        Slip(every.sum(-1), "U = [u_1 .. u_P] / sqrt(P) occurs twice in K_U: divide by P."),
        Slip(
            4 * expected,
            "Both probes together are 2 eps apart: divide each difference by 2 eps.",
        ),
        Slip(
            every[..., 0],
            "All probes went along the same direction: give zo.perturbed its number, p=p.",
        ),
        Slip(expected.mT, "Each block is transposed: its rows belong to x_o."),
    ]
    answer = ask(student, "K_U", model, x_o, x_u, P, seed)
    compare_tensor("K_U", answer, expected, slips, rtol=1e-2)
    correct("K_U from 2 P forward passes, without a derivative.")


def check_entry_variance(student: Callable[..., Tensor]) -> None:
    """Check a function that returns the variance of every entry of K_U.

    Args:
        student: takes J_o (V, d), J_u (V, d), kurtosis and P; returns (V, V), the variance of
            each entry for independent entries of u with that kurtosis.

    Raises:
        NotYet: with a hint.
    """
    J_o, J_u = normal(3, 7, seed=11), normal(3, 7, seed=12)
    P = 4
    K = J_o @ J_u.T
    norms = J_o.square().sum(1)[:, None] * J_u.square().sum(1)[None]
    fourth = J_o.square() @ J_u.square().T
    for kurtosis in (3.0, 1.0, 30.0):
        expected = (norms + K.square() + (kurtosis - 3) * fourth) / P
        slips = [
            Slip(expected * P, "Average over P independent directions: divide by P."),
            Slip(expected.sqrt(), "This is the standard deviation; the variance is its square."),
            Slip(
                expected + K.square() / P,
                "This is the second moment E[K_U[i, j]^2] of one direction; subtract the squared "
                "mean K[i, j]^2.",
            ),
            Slip(
                expected - K.square() / P,
                "K[i, j]^2 is missing: for Gaussian u, E[(a . u)^2 (b . u)^2] is |a|^2 |b|^2 + "
                "2 (a . b)^2, and the variance takes one (a . b)^2 away.",
            ),
            Slip(
                (norms + K.square()) / P,
                "It is right for Gaussian directions only: the term with (kappa - 3), where all "
                "four indices are equal, is missing.",
            ),
            Slip(
                (norms + K.square() + kurtosis * fourth) / P,
                "The fourth moment enters as kappa - 3: the three pairings of equal indices are "
                "counted in the other terms already.",
            ),
        ]
        if kurtosis == 3.0:  # where the last two say nothing about this student
            slips = slips[:4]
        call = f"Var K_U at kappa = {kurtosis:g}"
        compare_tensor(
            call, ask(student, call, J_o.clone(), J_u.clone(), kurtosis, P), expected, slips
        )
    correct("the variance of every entry, for kappa = 3, 1 and 30.")


def check_zo_prediction(student: Callable[..., Tensor]) -> None:
    """Check a zeroth-order prediction that never forms K_U: vjp, U, U^T, jvp.

    Args:
        student: takes model, x_o, x_u, y_u, lr and u (d, P), the directions unscaled; returns the
            predicted change of log pi (N_o, V) after one ZO-SGD step along these directions.

    Raises:
        NotYet: with a hint.
    """
    model, x_o, x_u, y_u = small_problem()
    lr = 0.2
    u = Gaussian().dense(model, P=3, seed=0, step=0)
    with torch.no_grad():
        A = log_softmax_jacobian(model(x_o))
        G = cross_entropy_gradient(model(x_u), y_u)
    g = vjp(model, x_u, G / len(x_u))
    J_o = jacobian(model, x_o)

    def change(step: Tensor) -> Tensor:
        return -lr * torch.einsum("oij,ojd,d->oi", A, J_o, step)

    expected = change(u @ (u.T @ g) / 3)
    slips = [
        Slip(-expected, "The sign is turned: a descent step goes against the estimate."),
        Slip(expected * 3, "u holds the directions unscaled: U U^T = u u^T / P."),
        Slip(expected * 3**0.5, "U occurs twice, each time with 1 / sqrt(P): divide by P."),
        Slip(change(g), "This is the first-order prediction; send the gradient through U U^T."),
        Slip(expected * len(x_u), "The loss is the mean over x_u: give vjp the vectors G / N_u."),
        Slip(
            -lr * torch.einsum("ojd,d->oj", J_o, u @ (u.T @ g) / 3),
            "This is the change of the logits; A turns it into one of log pi.",
        ),
    ]
    answer = ask(student, "Delta log pi", model, x_o, x_u, y_u, lr, u)
    compare_tensor("Delta log pi", answer, expected, slips)
    correct("vjp, U^T, U, jvp: the prediction of a ZO step in O(d) memory.")

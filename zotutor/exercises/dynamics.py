"""Checkers for the chapters of part II, *Learning dynamics* and *The kernel emerges*.

Each compares the student's function with the definition on small random inputs in float64. If they
differ, common slips are tried in turn, and the one that reproduces the wrong answer becomes the
hint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zotutor.directions import Gaussian, Rademacher
from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian
from zotutor.jacobians import jacobian, jvp, vjp
from zotutor.models import mlp

__all__ = [
    "check_entry_variance",
    "check_log_softmax_jacobian",
    "check_predicted_change",
    "check_prediction_without_kernel",
    "check_softmax_regression_kernel",
    "check_zo_entk_from_values",
    "check_zo_prediction",
]


class Slip(NamedTuple):
    """A common mistake: the wrong answer it gives, and what to tell the student."""

    wrong: Tensor
    hint: str


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _compare(
    name: str, answer: Any, expected: Tensor, slips: Sequence[Slip], *, tolerance: float = 1e-6
) -> None:
    """Raise AssertionError with a hint unless ``answer`` is ``expected``.

    Args:
        name: what was asked for, as the student knows it.
        answer: what the student's function returned.
        expected: the right answer.
        slips: common mistakes.
        tolerance: of the largest difference, relative to the largest entry.
    """
    if not isinstance(answer, Tensor):
        raise AssertionError(
            f"{name}: your function returned {type(answer).__name__}, expected a tensor; "
            "does it end with `return`?"
        )
    answer = answer.detach().to(expected.dtype)

    def is_close(other: Tensor) -> bool:
        if answer.shape != other.shape:
            return False
        return bool((answer - other).abs().max() <= tolerance * other.abs().max())

    if is_close(expected):
        return
    for wrong, hint in slips:
        if is_close(wrong):
            raise AssertionError(f"{name}: not yet. {hint}")
    if answer.shape != expected.shape:
        raise AssertionError(
            f"{name}: your answer has shape {tuple(answer.shape)}, expected "
            f"{tuple(expected.shape)}; write the shapes behind each line to find the axis"
        )
    index = tuple(
        int(i) for i in torch.unravel_index((answer - expected).abs().argmax(), answer.shape)
    )
    raise AssertionError(
        f"{name}: the shape is right, the numbers are not. Largest difference at {index}: "
        f"yours {float(answer[index]):.6g}, expected {float(expected[index]):.6g}, "
        f"ratio {float(answer[index] / expected[index]):.4g}"
    )


def _correct(what: str) -> None:
    print(f"Correct: {what}")


def check_log_softmax_jacobian(student: Callable[[Tensor], Tensor]) -> None:
    """Check a function that returns A for a batch of logits.

    Args:
        student: takes logits (N, V), returns A (N, V, V).

    Raises:
        AssertionError: with a hint.

    Example:
        >>> from zotutor.dynamics import log_softmax_jacobian
        >>> check_log_softmax_jacobian(log_softmax_jacobian)
        Correct: A is d log pi / dz for every input of the batch.
    """
    logits = _random(2, 3, seed=0)
    pi = logits.softmax(-1)
    expected = log_softmax_jacobian(logits)
    softmax = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]
    slips = [
        Slip(
            expected.mT,
            "This is the transpose: row i belongs to log pi_i, and column j to the logit z_j, so "
            "that pi_j stands in column j.",
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
    _compare("A", student(logits), expected, slips)
    _correct("A is d log pi / dz for every input of the batch.")


def _three_factors(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A (2, 3, 3), K (2, 4, 3, 3) and G (4, 3)."""
    A = log_softmax_jacobian(_random(2, 3, seed=seed))
    K = _random(2, 4, 3, 3, seed=seed + 1)
    y = torch.tensor([0, 2, 1, 1])
    return A, K, cross_entropy_gradient(_random(4, 3, seed=seed + 2), y)


def check_predicted_change(student: Callable[..., Tensor]) -> None:
    """Check a function that predicts the change of log pi from A, K and G.

    Args:
        student: takes A (N_o, V, V), K (N_o, N_u, V, V), G (N_u, V), lr; returns (N_o, V), the
            change when the loss is the mean over the N_u updated-on inputs.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_predicted_change(
        ...     lambda A, K, G, lr: -lr / len(G) * torch.einsum("oij,oujk,uk->oi", A, K, G)
        ... )
        Correct: -(eta / N_u) sum_u A K G, for every observed input.
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
    _compare("Delta log pi", student(A, K, G, lr), expected, slips)
    _correct("-(eta / N_u) sum_u A K G, for every observed input.")


def check_softmax_regression_kernel(student: Callable[..., Tensor]) -> None:
    """Check a closed form of the eNTK of softmax regression, z = W x + b.

    Args:
        student: takes x_o (N_o, n), x_u (N_u, n) and V, returns K (N_o, N_u, V, V).

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_softmax_regression_kernel(
        ...     lambda x_o, x_u, V: (
        ...         (x_o @ x_u.T + 1)[:, :, None, None] * torch.eye(V, dtype=x_o.dtype)
        ...     )
        ... )
        Correct: K(x_o, x_u) = (x_o . x_u + 1) I, without any Jacobian.
    """
    x_o, x_u, V = _random(2, 5, seed=4), _random(3, 5, seed=5), 4
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
    _compare("K", student(x_o, x_u, V), (inner + 1) * eye, slips)
    _correct("K(x_o, x_u) = (x_o . x_u + 1) I, without any Jacobian.")


def _small_problem() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A small network in float64, x_o (2, 4), x_u (3, 4) and y_u (3,)."""
    model = mlp(5, 1, inputs=4, outputs=3, seed=3).double()
    return model, _random(2, 4, seed=6), _random(3, 4, seed=7), torch.tensor([0, 2, 1])


def check_prediction_without_kernel(student: Callable[..., Tensor]) -> None:
    """Check a first-order prediction that never forms K, from one vjp and one jvp.

    Args:
        student: takes model, x_o, x_u, y_u, lr; returns the predicted change of log pi (N_o, V)
            after one SGD step on the mean cross-entropy of x_u.

    Raises:
        AssertionError: with a hint.
    """
    model, x_o, x_u, y_u = _small_problem()
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
    answer = student(model, x_o, x_u, y_u, lr)
    _compare("Delta log pi", answer, expected, slips)
    _correct("one vjp and one jvp give the prediction; no block of K was formed.")


def check_zo_entk_from_values(student: Callable[..., Tensor]) -> None:
    """Check a function that estimates K_U from logits alone, at perturbed parameters.

    Args:
        student: takes model, x_o, x_u, P and seed; returns K_U (N_o, N_u, V, V) for Rademacher
            directions of that seed at step 0, up to the bias of a two-point difference.

    Raises:
        AssertionError: with a hint.
    """
    model, x_o, x_u, _ = _small_problem()
    P, seed = 3, 5
    u = Rademacher().dense(model, P=P, seed=seed, step=0)
    moved_o, moved_u = jacobian(model, x_o) @ u, jacobian(model, x_u) @ u
    every = torch.einsum("oip,ujp->ouijp", moved_o, moved_u)
    expected = every.mean(-1)
    slips = [
        Slip(every.sum(-1), "U = [u_1 .. u_P] / sqrt(P) stands twice in K_U: divide by P."),
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
    answer = student(model, x_o, x_u, P, seed)
    _compare("K_U", answer, expected, slips, tolerance=1e-2)
    _correct("K_U from 2 P forward passes, without a derivative.")


def check_entry_variance(student: Callable[..., Tensor]) -> None:
    """Check a function that returns the variance of every entry of K_U.

    Args:
        student: takes J_o (V, d), J_u (V, d), kurtosis and P; returns (V, V), the variance of
            each entry for independent entries of u with that kurtosis.

    Raises:
        AssertionError: with a hint.
    """
    J_o, J_u = _random(3, 7, seed=11), _random(3, 7, seed=12)
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
        _compare(
            f"Var K_U at kappa = {kurtosis:g}", student(J_o, J_u, kurtosis, P), expected, slips
        )
    _correct("the variance of every entry, for kappa = 3, 1 and 30.")


def check_zo_prediction(student: Callable[..., Tensor]) -> None:
    """Check a zeroth-order prediction that never forms K_U: vjp, U, U^T, jvp.

    Args:
        student: takes model, x_o, x_u, y_u, lr and u (d, P), the directions unscaled; returns the
            predicted change of log pi (N_o, V) after one ZO-SGD step along these directions.

    Raises:
        AssertionError: with a hint.
    """
    model, x_o, x_u, y_u = _small_problem()
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
        Slip(expected * 3**0.5, "U stands twice, each time with 1 / sqrt(P): divide by P."),
        Slip(change(g), "This is the first-order prediction; send the gradient through U U^T."),
        Slip(expected * len(x_u), "The loss is the mean over x_u: give vjp the vectors G / N_u."),
        Slip(
            -lr * torch.einsum("ojd,d->oj", J_o, u @ (u.T @ g) / 3),
            "This is the change of the logits; A turns it into one of log pi.",
        ),
    ]
    answer = student(model, x_o, x_u, y_u, lr, u)
    _compare("Delta log pi", answer, expected, slips)
    _correct("vjp, U^T, U, jvp: the prediction of a ZO step in O(d) memory.")

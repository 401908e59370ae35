"""Checkers for *Kernel fidelity*."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .answers import (
    NotYet,
    ask,
    compare_number,
    correct,
    grading,
    normal,
    number,
)

__all__ = ["check_alignment_from_error", "check_alignment_from_responses", "check_law_from_kernels"]


def check_alignment_from_error(student: Callable[[float, int], float]) -> None:
    """Check a function that reads the alignment off a relative error.

    Args:
        student: takes a relative error and P, returns a for Gaussian directions.

    Raises:
        NotYet: with a hint.
    """
    for error, P in ((0.338, 125), (2.0, 3)):
        expected = 1 / (P * error**2 - 1)
        slips = [
            (1 / (P * error**2), "The law has 1/a + 1; the 1 is missing."),
            (1 / (P * error**2 + 1), "Solve P r^2 = 1/a + 1: the 1 changes sides."),
            (1 / (P * error - 1), "The law is for the square of the error."),
            (1 / (error**2 / P - 1), "The error is sqrt((1/a + 1) / P): multiply by P."),
            (P * error**2 - 1, "This is 1/a."),
        ]
        call = f"alignment_from_error({error}, {P})"
        compare_number(call, ask(student, call, error, P), expected, slips)
    correct("one relative error tells the alignment, and so the error at every other P.")


def check_law_from_kernels(
    student: Callable[[Tensor, Tensor, Tensor, int], float | Tensor],
) -> None:
    """Check a function that returns E norm(K_U - K)_F^2 from three kernel blocks.

    Args:
        student: takes K_oo, K_uu and K_ou (V, V) and P, returns the law for Gaussian directions.

    Raises:
        NotYet: with a hint.
    """
    J_o, J_u, P = normal(3, 9, seed=2), normal(3, 9, seed=3), 5
    K_oo, K_uu, K_ou = J_o @ J_o.T, J_u @ J_u.T, J_o @ J_u.T
    traces, size = float(K_oo.trace() * K_uu.trace()), float(K_ou.square().sum())
    expected = (traces + size) / P
    slips = [
        (traces / P, "The second term of the law is missing, norm(K)_F^2."),
        (traces + size, "Divide by P."),
        ((traces + size**0.5) / P, "The second term is the squared norm of K."),
        (
            float(K_oo.norm() * K_uu.norm() + size) / P,
            "norm(J)_F^2 is the trace of the kernel of an input with itself, not its norm.",
        ),
        (
            float(K_oo.square().sum() * K_uu.square().sum() + size) / P,
            "norm(J)_F^2 is the trace of the kernel of an input with itself, not its squared norm.",
        ),
        (math.sqrt(expected), "The law is for the square; take no root."),
        (expected / size, "This is relative to norm(K)_F^2; the law in question is not."),
    ]
    call = f"law_from_kernels(K_oo, K_uu, K_ou, {P})"
    answer = ask(student, call, K_oo.clone(), K_uu.clone(), K_ou.clone(), P)
    compare_number(call, answer, expected, slips)
    correct("traces and one norm: the exact law without a Jacobian.")


def check_alignment_from_responses(student: Callable[[Tensor, Tensor], float | Tensor]) -> None:
    """Check an estimate of the alignment from the responses J_o u_p and J_u u_p alone.

    Its mean over 4,000 draws at P = 16 must be within 7 % of the alignment, and it must be a
    symmetric function of the directions, so that none is preferred.

    Args:
        student: takes v_o and v_u (V, P), returns the estimate.

    Raises:
        NotYet: with a hint.
    """
    P, draws = 16, 4000
    J_o = normal(4, 40, seed=4)
    J_u = 0.6 * J_o + normal(4, 40, seed=5)
    a = float((J_o @ J_u.T).square().sum() / (J_o.square().sum() * J_u.square().sum()))
    u = normal(draws, 40, P, seed=6)
    v_o, v_u = J_o @ u, J_u @ u  # (draws, V, P)
    call = "alignment_from_responses(v_o, v_u)"
    answers = [
        number(call, ask(student, call, left, right)) for left, right in zip(v_o, v_u, strict=True)
    ]
    mean = sum(answers) / draws
    K_U = v_o @ v_u.mT / P
    sizes = [v.square().sum((1, 2)) / P for v in (v_o, v_u)]
    plain = float((K_U.square().sum((1, 2)) / (sizes[0] * sizes[1])).mean())
    call = f"alignment_from_responses, mean over {draws} draws at P = {P}"
    if math.isclose(mean, plain, rel_tol=0.05):
        raise NotYet(
            f"{call}: the norm of K_U counts the noise as well; leave out the products of a "
            "direction with itself."
        )
    scales = {P: "divided by P once too seldom", 1 / P: "divided by P once too often"}
    for scale, what in scales.items():
        if math.isclose(mean, scale * a, rel_tol=0.1):
            raise NotYet(f"{call}: {what}.")
    if not math.isclose(mean, a, rel_tol=0.07):
        raise NotYet(
            f"{call}: {mean:.4g}{'' if grading() else f', {mean / a:.3g} times the right one'}; "
            "check numerator and denominator one by one: their means are norm(K)_F^2 and "
            "norm(J_o)_F^2 norm(J_u)_F^2"
        )
    correct("pairs of different directions know the kernel without its noise.")

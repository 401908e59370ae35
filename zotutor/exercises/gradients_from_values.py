"""Checkers for *A gradient from two function values*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .answers import (
    NotYet,
    ask,
    compare_choices,
    compare_number,
    correct,
)

__all__ = ["check_best_eps", "check_expected_bias", "check_four_point", "check_which_directions"]


def check_best_eps(student: Callable[..., float]) -> None:
    """Check a function that returns the best step of a two-point difference.

    Args:
        student: takes delta, the size of the rounding error of one loss value, and third, the size
            of the third derivative along u; returns the eps that minimizes
            third eps^2 / 6 + delta / eps.

    Raises:
        NotYet: with a hint.
    """
    for delta, third in ((1e-7, 100.0), (1e-3, 2.0), (1e-16, 7.0)):
        slips = [
            (
                math.sqrt(3 * delta / third),
                "Setting third eps / 3 - delta / eps^2 to 0 gives eps^3: take a cube root.",
            ),
            ((6 * delta / third) ** (1 / 3), "Here the two terms are equal; set the derivative 0."),
            ((delta / third) ** (1 / 3), "A factor is lost: third eps / 3 = delta / eps^2."),
            (
                (3 * third / delta) ** (1 / 3),
                "Upside down: the rougher the loss along u, the smaller the step must be.",
            ),
            (
                2 * math.sqrt(delta / third),
                "This is the rule for the forward difference with its second derivative.",
            ),
        ]
        expected = (3 * delta / third) ** (1 / 3)
        call = f"best_eps({delta:g}, {third:g})"
        compare_number(call, ask(student, call, delta, third), expected, slips)
    correct("eps = (3 delta / third)^(1/3).")


def check_expected_bias(student: Callable[..., float]) -> None:
    """Check the bias of the expected two-point estimate for the sum of cubes.

    Args:
        student: takes kurtosis and eps; returns what E[g_hat] - g is in each coordinate for
            L(theta) = sum_i theta_i^3.

    Raises:
        NotYet: with a hint.
    """
    for kurtosis, eps in ((3.0, 0.1), (30.0, 0.01)):
        expected = kurtosis * eps**2
        slips = [
            (eps**2, "E[u_i^4] is kappa, which is 1 for signs only."),
            (
                (kurtosis + 2) * eps**2,
                "In E[u_i^3 u_j] only j = i is left: the other pairings have an odd power.",
            ),
            (expected / 6, "The third derivative of theta^3 is 6, which cancels the 1/6."),
            (6 * expected, "The 1/6 of the Taylor series is missing."),
            (kurtosis * eps, "Two-point differences have no term of first order in eps."),
            (
                math.sqrt(kurtosis) * eps**2,
                "The sum over i of u_i^3 is multiplied by u_i once more: E[u_i^4] = kappa.",
            ),
        ]
        call = f"expected_bias({kurtosis:g}, {eps:g})"
        compare_number(call, ask(student, call, kurtosis, eps), expected, slips)
    correct("kappa eps^2 in every coordinate.")


def check_four_point(student: Callable[..., Any]) -> None:
    """Check a finite difference whose error is O(eps^4).

    Args:
        student: takes f, theta (d,), u (d,) and eps; returns the slope of f along u from the
            values of f at theta +- eps u and theta +- 2 eps u.

    Raises:
        NotYet: with a hint.
    """
    weights = torch.tensor([0.7, -0.4, 0.2], dtype=torch.float64)
    theta = torch.tensor([0.3, 0.1, -0.5], dtype=torch.float64)
    u = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    before = theta.clone()
    calls = 0

    def f(at: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (at @ weights.to(at.dtype)).exp()  # a student may compute in float32

    def two_point(eps: float) -> float:
        return float(f(theta + eps * u) - f(theta - eps * u)) / (2 * eps)

    for eps in (0.3, 0.1):
        near, far = two_point(eps), two_point(2 * eps)
        slips = [
            (near, "This is the two-point difference; combine it with the one at 2 eps."),
            (far, "This is the two-point difference at 2 eps; combine it with the one at eps."),
            (
                (near + far) / 2,
                "An average keeps the error of order eps^2; weigh the two so that it cancels.",
            ),
            (
                (4 * far - near) / 3,
                "The weights are swapped: the more accurate one, at eps, gets 4/3.",
            ),
            (2 * near - far, "These weights cancel an error of order eps; here it is eps^2."),
            (4 * near - far, "The weights must add up to 1: divide by 3."),
        ]
        calls = 0
        call = f"four_point(f, theta, u, {eps:g})"
        answer = ask(student, call, f, theta, u, eps)
        if isinstance(answer, Tensor) and answer.numel() > 1:
            raise NotYet("four_point: returned a vector; return the slope, one number, without u")
        if not torch.equal(theta, before):
            theta.copy_(before)
            raise NotYet("four_point: theta was written; evaluate at new tensors, theta + eps * u")
        if calls > 4:
            raise NotYet(f"four_point: called f {calls} times; 4 are enough")
        # differences of float32 values are good to 1e-6 / eps
        compare_number(call, answer, (4 * near - far) / 3, slips, rtol=1e-4)
    correct("four values give an error of order eps^4.")


def check_which_directions(student: Callable[..., str]) -> None:
    """Check the choice between independent and orthogonal signs for a given error.

    Args:
        student: takes error, d, tokens; returns "independent" or "orthogonal", whichever takes
            fewer operations: 4 tokens d for the two passes of a direction, and 2 d P^2 to make P
            directions orthogonal.

    Raises:
        NotYet: with a hint.
    """
    cases = ((3.0, 1_000_000, 1024), (0.1, 10_000, 1024), (1.0, 1000, 16), (1.0, 1000, 4096))

    def costs(error: float, d: int, tokens: int) -> dict[str, float]:
        drawn, turned = (d - 1) / error**2, d / (1 + error**2)
        return {
            "independent": 4 * tokens * drawn,
            "orthogonal": 4 * tokens * turned + 2 * turned**2,
        }

    compare_choices(
        student,
        "which_directions",
        cases,
        costs,
        always={
            "orthogonal": "Orthogonal ones always need fewer passes, but to make them so takes "
            "2 d P^2.",
            "independent": "For a small error independent ones need 1 / error^2 times as many "
            "passes.",
        },
        opposite="Just the other way round: take the one with fewer operations.",
        hint="Solve both laws for P, and compare 4 tokens P with 4 tokens P + 2 P^2.",
    )
    correct("orthogonal ones where the error is small and a pass is expensive.")

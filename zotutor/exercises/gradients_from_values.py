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
    compare_number,
    correct,
)

__all__ = ["check_best_eps", "check_expected_bias", "check_four_point", "check_perturbations_for"]


def check_perturbations_for(student: Callable[..., float]) -> None:
    """Check a function that says how many perturbations make a gradient estimate this accurate.

    Args:
        student: takes error, d, kurtosis; returns the smallest whole P for which the root mean
            square of |g_hat - g| is at most error * |g|.

    Raises:
        NotYet: with a hint.
    """
    for error, d, kurtosis in ((0.5, 650, 3.0), (0.25, 2410, 1.0), (0.3, 1000, 30.0)):
        n = d + kurtosis - 2
        exact = n / error**2
        slips = [
            (exact, "P counts directions: round up to a whole number, math.ceil."),
            (math.floor(exact), "Rounded down, the error is still above the given one."),
            (math.ceil(n / error), "The squared error falls as 1/P, so P goes with 1 / error^2."),
            (
                math.ceil((n + 1) / error**2),
                "This asks for E|g_hat|^2; the error leaves |g|^2 out: d + kappa - 2.",
            ),
            (math.ceil(d / error**2), "The fourth moment is missing: d + kappa - 2."),
            (math.ceil(n * error**2), "A smaller error needs more perturbations: divide."),
        ]
        call = f"perturbations_for({error:g}, {d}, {kurtosis:g})"
        answer = ask(student, call, error, d, kurtosis)
        compare_number(call, answer, math.ceil(exact), slips, whole=True)
    correct("P = (d + kappa - 2) / error^2, rounded up.")


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
        return (at @ weights).exp()

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
        compare_number(call, answer, (4 * near - far) / 3, slips)
    correct("four values give an error of order eps^4.")

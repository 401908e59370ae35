"""Checkers for the introduction and for *A gradient from two function values*.

Each compares the student's function with the definition at a few arguments. If they differ, common
slips are tried in turn, and the one that reproduces the wrong answer becomes the hint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "check_best_eps",
    "check_best_factor",
    "check_expected_bias",
    "check_four_point",
    "check_perturbations_for",
    "check_steps_needed",
]

Slips = Sequence[tuple[float, str]]
"""Wrong answers, each with what to tell the student."""


def _compare(call: str, answer: Any, expected: float, slips: Slips, *, rtol: float = 1e-6) -> None:
    """Raise AssertionError with a hint unless ``answer`` is the number ``expected``.

    Args:
        call: the student's call, as the student would write it.
        answer: what it returned.
        expected: the right answer.
        slips: common mistakes.
        rtol: relative tolerance; 0 for integers.
    """
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    if answer is None:
        raise AssertionError(f"{call}: returned None; does your function end with `return`?")
    try:
        number = float(answer)
    except (TypeError, ValueError):
        raise AssertionError(
            f"{call}: returned {type(answer).__name__}, expected one number"
        ) from None
    if math.isclose(number, expected, rel_tol=rtol, abs_tol=0.0):
        return
    for wrong, hint in slips:
        if math.isclose(number, wrong, rel_tol=max(rtol, 1e-12), abs_tol=0.0):
            raise AssertionError(f"{call}: not yet. {hint}")
    raise AssertionError(
        f"{call}: returned {number:.6g}, expected {expected:.6g}; the ratio is "
        f"{number / expected:.6g}"
    )


def _correct(what: str) -> None:
    print(f"Correct: {what}")


def check_steps_needed(student: Callable[..., float]) -> None:
    """Check a function that counts ZO steps on the round quadratic.

    Args:
        student: takes d and factor; returns the smallest whole number of steps after which the
            expected loss, which falls by 1 - 1/d a step, is at most 1 / factor of what it was.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_steps_needed(lambda d, factor: math.ceil(-math.log(factor) / math.log1p(-1 / d)))
        Correct: about d ln(factor) steps, in proportion to d.
    """
    for d, factor in ((100, 10.0), (3000, 2.0), (10**6, 100.0)):
        exact = math.log(factor) / -math.log1p(-1 / d)
        expected = math.ceil(exact)
        slips = [
            (exact, "A step is taken whole or not at all: round up, math.ceil."),
            (math.floor(exact), "Rounded down, the loss is not yet small enough: math.ceil."),
            (-expected, "The sign is turned: ln(1 - 1/d) is negative, and so is -ln(factor)."),
            (
                math.ceil(d * math.log(factor)),
                "This is d ln(factor), a good approximation; solve (1 - 1/d)^T = 1/factor itself.",
            ),
            (
                math.ceil(math.log10(factor) / -math.log1p(-1 / d)),
                "Take both logarithms to the same base.",
            ),
        ]
        answer = student(d, factor)
        _compare(f"steps_needed({d}, {factor:g})", answer, expected, slips, rtol=0.0)
    _correct("about d ln(factor) steps, in proportion to d.")


def check_best_factor(student: Callable[..., float]) -> None:
    """Check a function that returns the best expected factor of a ZO step on the round quadratic.

    Args:
        student: takes d and kurtosis, returns the smallest value over lr of E L(after) / L(before)
            for L = |theta|^2 / 2 and one direction of independent entries.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_best_factor(lambda d, kurtosis: 1 - 1 / (d + kurtosis - 1))
        Correct: 1 - 1 / (d + kappa - 1), at lr = 1 / (d + kappa - 1).
    """
    for d, kurtosis in ((10, 3.0), (10, 30.0), (1000, 1.0)):
        n = d + kurtosis - 1
        slips = [
            (1 - 1 / (d + kurtosis - 2), "E|u|^2 (u . theta)^2 is (d + kappa - 1)|theta|^2."),
            (1 - 1 / (d + kurtosis), "E|u|^2 (u . theta)^2 is (d + kappa - 1)|theta|^2."),
            (1 / n, "This is the best lr, or the share that is lost; the factor is what is left."),
            (
                (1 - 1 / n) ** 2,
                "L is quadratic in theta already: E|theta'|^2 / |theta|^2 is the factor itself.",
            ),
        ]
        if kurtosis != 1.0:
            slips.append((1 - 1 / d, "True for signs, where |u|^2 = d; kurtosis is to come in."))
            slips.append(
                (
                    1 - 2 / d + n / d**2,
                    "This is the factor at lr = 1/d, best for signs only: minimize over lr.",
                )
            )
        _compare(f"best_factor({d}, {kurtosis:g})", student(d, kurtosis), 1 - 1 / n, slips)
    _correct("1 - 1 / (d + kappa - 1), at lr = 1 / (d + kappa - 1).")


def check_perturbations_for(student: Callable[..., float]) -> None:
    """Check a function that says how many perturbations make a gradient estimate this accurate.

    Args:
        student: takes error, d, kurtosis; returns the smallest whole P for which the root mean
            square of |g_hat - g| is at most error * |g|.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_perturbations_for(
        ...     lambda error, d, kurtosis: math.ceil((d + kurtosis - 2) / error**2)
        ... )
        Correct: P = (d + kappa - 2) / error^2, rounded up.
    """
    for error, d, kurtosis in ((0.5, 650, 3.0), (0.25, 2410, 1.0), (0.3, 1000, 30.0)):
        n = d + kurtosis - 2
        exact = n / error**2
        slips = [
            (exact, "P counts directions: round up to a whole number, math.ceil."),
            (math.floor(exact), "Rounded down, the error is still above what was asked for."),
            (math.ceil(n / error), "The squared error falls as 1/P, so P goes with 1 / error^2."),
            (
                math.ceil((n + 1) / error**2),
                "This asks for E|g_hat|^2; the error leaves |g|^2 out: d + kappa - 2.",
            ),
            (math.ceil(d / error**2), "The fourth moment is missing: d + kappa - 2."),
            (math.ceil(n * error**2), "A smaller error needs more perturbations: divide."),
        ]
        answer = student(error, d, kurtosis)
        call = f"perturbations_for({error:g}, {d}, {kurtosis:g})"
        _compare(call, answer, math.ceil(exact), slips, rtol=0.0)
    _correct("P = (d + kappa - 2) / error^2, rounded up.")


def check_best_eps(student: Callable[..., float]) -> None:
    """Check a function that returns the best step of a two-point difference.

    Args:
        student: takes delta, the size of the rounding error of one loss value, and third, the size
            of the third derivative along u; returns the eps that minimizes
            third eps^2 / 6 + delta / eps.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_best_eps(lambda delta, third: (3 * delta / third) ** (1 / 3))
        Correct: eps = (3 delta / third)^(1/3).
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
        _compare(f"best_eps({delta:g}, {third:g})", student(delta, third), expected, slips)
    _correct("eps = (3 delta / third)^(1/3).")


def check_expected_bias(student: Callable[..., float]) -> None:
    """Check the bias of the expected two-point estimate for the sum of cubes.

    Args:
        student: takes kurtosis and eps; returns what E[g_hat] - g is in each coordinate for
            L(theta) = sum_i theta_i^3.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_expected_bias(lambda kurtosis, eps: kurtosis * eps**2)
        Correct: kappa eps^2 in every coordinate.
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
        _compare(call, student(kurtosis, eps), expected, slips)
    _correct("kappa eps^2 in every coordinate.")


def check_four_point(student: Callable[..., Any]) -> None:
    """Check a finite difference whose error is O(eps^4).

    Args:
        student: takes f, theta (d,), u (d,) and eps; returns the slope of f along u from the
            values of f at theta +- eps u and theta +- 2 eps u.

    Raises:
        AssertionError: with a hint.
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
        answer = student(f, theta, u, eps)
        if isinstance(answer, Tensor) and answer.numel() > 1:
            raise AssertionError(
                "four_point: returned a vector; return the slope, one number, without u"
            )
        if not torch.equal(theta, before):
            theta.copy_(before)
            raise AssertionError(
                "four_point: theta was written; evaluate at new tensors, theta + eps * u"
            )
        if calls > 4:
            raise AssertionError(f"four_point: called f {calls} times; 4 are enough")
        _compare(f"four_point(f, theta, u, {eps:g})", answer, (4 * near - far) / 3, slips)
    _correct("four values give an error of order eps^4.")

"""Checkers for the introduction."""

from __future__ import annotations

import math
from collections.abc import Callable

from .answers import (
    ask,
    compare_number,
    correct,
)

__all__ = ["check_best_factor", "check_steps_needed"]


def check_steps_needed(student: Callable[..., float]) -> None:
    """Check a function that counts ZO steps on the round quadratic.

    Args:
        student: takes d and factor; returns the smallest whole number of steps after which the
            expected loss, which falls by 1 - 1/d a step, is at most 1 / factor of what it was.

    Raises:
        NotYet: with a hint.
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
        call = f"steps_needed({d}, {factor:g})"
        answer = ask(student, call, d, factor)
        compare_number(call, answer, expected, slips, whole=True)
    correct("about d ln(factor) steps, in proportion to d.")


def check_best_factor(student: Callable[..., float]) -> None:
    """Check a function that returns the best expected factor of a ZO step on the round quadratic.

    Args:
        student: takes d and kurtosis, returns the smallest value over lr of E L(after) / L(before)
            for L = |theta|^2 / 2 and one direction of independent entries.

    Raises:
        NotYet: with a hint.
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
        call = f"best_factor({d}, {kurtosis:g})"
        compare_number(call, ask(student, call, d, kurtosis), 1 - 1 / n, slips)
    correct("1 - 1 / (d + kappa - 1), at lr = 1 / (d + kappa - 1).")

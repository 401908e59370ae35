"""Checkers for the exercises of the chapter on trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .answers import (
    NotYet,
    ask,
    compare_number,
    correct,
)

__all__ = ["check_budget", "check_constant", "check_steps"]


def check_constant(student: Callable[[float], Any]) -> None:
    """Check a function from the alignment a' to the constant C of Gaussian directions.

    Args:
        student: takes the alignment a', returns C.

    Raises:
        NotYet: with a hint.
    """
    for alignment in (0.25, 0.05, 1.0):
        call = f"constant({alignment:g})"
        squared = 1 / alignment + 1
        slips = [
            (
                math.sqrt(squared - 1),
                "the term |B g|^2 of the law is missing: at a' = 1 one direction is noisy, C^2 = 2",
            ),
            (squared, "this is C^2, the law of the squared deviation; take the root"),
            (math.sqrt(1 / alignment) + 1, "the 1 belongs under the root"),
            (math.sqrt(alignment + 1), "the alignment divides: |B g|^2 is the smaller of the two"),
        ]
        hint = "divide norm(B)_F^2 |g|^2 + |B g|^2 by |B g|^2"
        compare_number(call, ask(student, call, alignment), math.sqrt(squared), slips, hint=hint)
    correct("C = sqrt(1/a' + 1).")


def check_steps(student: Callable[[float, float], Any]) -> None:
    """Check a function from (C, deviation) to the steps needed at P = 1.

    Args:
        student: takes C and a deviation, returns the smallest whole number of steps.

    Raises:
        NotYet: with a hint.
    """
    for C, deviation in ((4.0, 0.53), (3.87, 0.1), (2.0, 0.3)):
        call = f"steps({C:g}, {deviation:g})"
        exact = (C / deviation) ** 2
        root = "the deviation falls with the root of T, not with T itself"
        slips = [(rounded(C / deviation), root) for rounded in (float, math.ceil, math.floor)]
        slips.append((math.floor(exact), "rounded down, T does not reach the deviation: round up"))
        slips.append((math.ceil(C**2 / deviation), "the deviation is squared as well"))
        hint = "solve C / sqrt(T) = deviation for T, and round up to an int"
        answer = ask(student, call, C, deviation)
        compare_number(call, answer, math.ceil(exact), slips, whole=True, hint=hint)
    correct("T = (C / deviation)^2, rounded up.")


def check_budget(answer: str) -> None:
    """Check which way to spend a budget of forward passes.

    Args:
        answer: "P", "T" or "same".

    Raises:
        NotYet: with a hint.
    """
    if not isinstance(answer, str) or answer not in ("P", "T", "same"):
        raise NotYet('check_budget: answer with "P", "T" or "same"')
    if answer != "same":
        seen = {
            "P": "each step is more accurate, and there are fewer of them",
            "T": "there are more steps, and each of them is less accurate",
        }
        raise NotYet(
            f"check_budget: {seen[answer]}: a step costs 2 P forward passes, so the budget fixes "
            "T P; what does the law depend on?"
        )
    correct("a budget of 2 T P forward passes fixes T P, and with it the deviation.")

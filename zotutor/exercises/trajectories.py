"""Checkers for the exercises of the chapter on trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable


def check_constant(constant: Callable[[float], float]) -> None:
    """Check a function from the alignment a' to the constant C of Gaussian directions.

    Raises:
        AssertionError: with a hint.
    """
    for alignment in (1.0, 0.25, 0.05):
        answer = constant(alignment)
        assert answer is not None, "your function returned nothing; end it with return"
        given, expected = float(answer), math.sqrt(1 / alignment + 1)
        assert not math.isclose(given, math.sqrt(1 / alignment), rel_tol=1e-9), (
            "the term |B g|^2 of the law is missing: at a' = 1 one direction is noisy too, C^2 = 2"
        )
        assert not math.isclose(given, expected**2, rel_tol=1e-9), (
            "this is C^2, the law of the squared deviation; take the root"
        )
        assert math.isclose(given, expected, rel_tol=1e-9), (
            f"at a' = {alignment} C is {expected:.4f}, and your function says {given:.4f}; divide "
            "norm(B)_F^2 |g|^2 + |B g|^2 by |B g|^2"
        )
    print("Correct: C = sqrt(1/a' + 1).")


def check_steps(steps: Callable[[float, float], int]) -> None:
    """Check a function from (C, deviation) to the steps needed at P = 1.

    Raises:
        AssertionError: with a hint.
    """
    for C, deviation in ((4.0, 0.5), (3.87, 0.1), (2.0, 0.3)):
        given, expected = steps(C, deviation), math.ceil((C / deviation) ** 2)
        assert given is not None, "your function returned nothing; end it with return"
        assert not math.isclose(given, C / deviation, rel_tol=0.02), (
            "the deviation falls with the root of T, not with T itself"
        )
        assert given == expected, (
            f"C = {C} and deviation {deviation} need {expected} steps, and your function says "
            f"{given}; solve C / sqrt(T) = deviation for T, and round up to an int"
        )
    print("Correct: T = (C / deviation)^2, rounded up.")


def check_budget(answer: str) -> None:
    """Check which way to spend a budget of forward passes: "P", "T" or "same".

    Raises:
        AssertionError: with a hint.
    """
    assert answer in ("P", "T", "same"), 'answer with "P", "T" or "same"'
    assert answer == "same", (
        "a step costs 2 P forward passes, so the budget fixes T P; what does the law depend on?"
    )
    print("Correct: a budget of 2 T P forward passes fixes T P, and with it the deviation.")

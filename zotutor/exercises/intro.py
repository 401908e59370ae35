"""Checkers for the introduction."""

from __future__ import annotations

from collections.abc import Callable

from .answers import (
    ask,
    compare_number,
    correct,
)

__all__ = ["check_best_factor", "check_loss_left"]


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


def check_loss_left(student: Callable[..., float]) -> None:
    """Check what a number of forward passes leaves of the loss on the round bowl.

    Args:
        student: takes d, P and passes; returns the expected share of the loss that is left after
            passes / (2 P) steps with P directions of random signs, at the best learning rate.

    Raises:
        NotYet: with a hint.
    """
    for d, P, passes in ((100, 1, 400), (100, 10, 400), (40, 4, 64)):
        steps = passes / (2 * P)
        share = (d - 1) / (d - 1 + P)
        slips = [
            (
                share ** (2 * steps),
                "A direction costs two passes, so there are passes / (2 P) steps.",
            ),
            (share ** (P * steps), "A step with P directions costs 2 P passes, not 2."),
            (share, "This is one step; repeat it passes / (2 P) times."),
            (
                (1 - 1 / d) ** steps,
                "This is the best factor for P = 1: minimize 1 - 2 x + (1 + (d - 1)/P) x^2 over x.",
            ),
        ]
        call = f"loss_left({d}, {P}, {passes})"
        compare_number(call, ask(student, call, d, P, passes), share**steps, slips)
    correct(
        "((d - 1) / (d - 1 + P))^(passes / 2P); at a given number of passes P = 1 leaves least."
    )

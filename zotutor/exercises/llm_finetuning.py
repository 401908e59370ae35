"""Checkers for the exercises of the chapter on fine-tuning a language model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .answers import (
    ask,
    compare_choices,
    compare_number,
    correct,
)

__all__ = ["check_quantum", "check_steps_until_checkpoint", "check_which_rounding"]


def check_quantum(student: Callable[[float, float], Any]) -> None:
    """Check a function from (loss, eps) to the step between projected gradients in bfloat16.

    Args:
        student: takes a loss and eps, returns the distance of neighboring projected gradients.

    Raises:
        NotYet: with a hint.
    """
    for loss, eps in ((0.3, 1e-3), (0.69, 1e-3), (2.5, 1e-2), (1.0, 1e-4)):
        call = f"quantum({loss:g}, {eps:g})"
        spacing = 2.0 ** (math.floor(math.log2(loss)) - 7)
        slips = [
            (
                spacing,
                "this is the spacing of the loss; divide the difference of two losses by 2 eps",
            ),
            (
                2.0**-7 / (2 * eps),
                "the spacing depends on the loss: 2^-7 between 1 and 2, and half of it below",
            ),
            (spacing / eps, "both probes together are 2 eps apart: divide by 2 eps"),
            (
                spacing / 2 / (2 * eps),
                "8 bits of precision count the leading one: 2^7 values between powers of two",
            ),
        ]
        hint = "bfloat16 has 2^7 values between one power of two and the next"
        answer = ask(student, call, loss, eps)
        compare_number(call, answer, spacing / (2 * eps), slips, hint=hint)
    correct("2^(floor(log2 loss) - 7) / (2 eps).")


def check_steps_until_checkpoint(student: Callable[[int, int], Any]) -> None:
    """Check a function from (d, P) to the steps after which a ledger is as large as a checkpoint.

    Args:
        student: takes d and P, returns a number of steps, rounded or not.

    Raises:
        NotYet: with a hint.
    """
    for d, P in ((661_248, 1), (13_000_000_000, 1), (13_000_000_000, 8)):
        call = f"steps({d}, {P})"
        exact = 2 * d / (40 + 8 * P)
        slips = [
            (
                2 * d / 48,
                "a record grows with P: 8 bytes for each projected gradient, and 40 for the rest",
            ),
            (2 * exact, "this is for float32; the checkpoint in question has 2 bytes a parameter"),
            (exact / 2, "a parameter of the checkpoint in question takes 2 bytes"),
            (2 * d / (8 * P), "a record holds more than its projected gradients: 40 bytes more"),
        ]
        hint = "divide 2 d bytes by the bytes of a record, 40 + 8 P"
        answer = ask(student, call, d, P)
        compare_number(call, answer, exact, slips, rtol=1e-4, hint=hint)  # within 1 of 27,552
    correct("2 d / (40 + 8 P) steps.")


def check_which_rounding(student: Callable[[float, float, int], Any]) -> None:
    """Check the choice between rounding to nearest and at random for a run of small updates.

    Args:
        student: takes the size of an update, the spacing and the number of steps; returns
            "nearest" or "random", whichever has the smaller mean square error after all steps.

    Raises:
        NotYet: with a hint.
    """
    cases = ((0.1, 1.0, 5), (0.1, 1.0, 50), (0.4, 1.0, 3), (0.9, 1.0, 5), (2e-5, 2.4e-4, 20))

    def costs(update: float, spacing: float, steps: int) -> dict[str, float]:
        return {
            "nearest": (steps * min(update, spacing - update)) ** 2,
            "random": steps * update * (spacing - update),
        }

    compare_choices(
        student,
        "which_rounding",
        cases,
        costs,
        always={
            "nearest": "One step to nearest errs least, but the same error is made in every step.",
            "random": "At random the mean is right; in few steps its variance is the larger "
            "square.",
        },
        opposite="Just the other way round: take the one with the smaller mean square error.",
        hint="To nearest, every step makes the same error, and they add up; at random, the "
        "variances of the theorem add up.",
    )
    correct("at random, once the whole movement is more than about a spacing.")

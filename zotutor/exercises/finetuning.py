"""Checkers for the exercises of the chapter on fine-tuning a language model."""

from __future__ import annotations

import math
from collections.abc import Callable


def check_quantum(quantum: Callable[[float, float], float]) -> None:
    """Check a function from (loss, eps) to the step between projected gradients in bfloat16.

    Raises:
        AssertionError: with a hint.
    """
    for loss, eps in ((0.69, 1e-3), (0.3, 1e-3), (2.5, 1e-2), (1.0, 1e-4)):
        answer = quantum(loss, eps)
        assert answer is not None, "your function returned nothing; end it with return"
        given = float(answer)
        spacing = 2.0 ** (math.floor(math.log2(loss)) - 7)
        expected = spacing / (2 * eps)
        assert not math.isclose(given, spacing, rel_tol=1e-6), (
            "this is the spacing of the loss; the projected gradient is a difference of two losses "
            "over 2 eps"
        )
        assert not math.isclose(given, 2.0**-7 / (2 * eps), rel_tol=1e-6) or 1 <= loss < 2, (
            "the spacing depends on the loss: it is 2^-7 between 1 and 2 only, and halves with "
            "each power of two below"
        )
        assert math.isclose(given, expected, rel_tol=1e-6), (
            f"at a loss of {loss} and eps = {eps} the step is {expected:.4g}, and your function "
            f"says {given:.4g}; bfloat16 has 2^7 values between one power of two and the next"
        )
    print("Correct: 2^(floor(log2 loss) - 7) / (2 eps).")


def check_updates_needed(updates_needed: Callable[[float, float], int]) -> None:
    """Check a function from (fraction of a spacing, relative error) to a number of updates.

    Raises:
        AssertionError: with a hint.
    """
    for fraction, error in ((0.25, 0.1), (1 / 64, 0.5), (0.001, 0.1)):
        given = updates_needed(fraction, error)
        assert given is not None, "your function returned nothing; end it with return"
        exact = (1 / fraction - 1) / error**2
        assert not math.isclose(given, math.ceil(1 / fraction / error**2), rel_tol=1e-9), (
            "the variance of one update is f (1 - f) squared spacings, not f: the mean is taken off"
        )
        assert exact - 1e-6 <= given < exact + 1 + 1e-6, (
            f"updates of {fraction:.4g} spacings to a relative error of {error} take "
            f"{math.ceil(exact)}, and your function says {given}; solve sqrt((1/f - 1) / T) = error"
        )
    print("Correct: T = (1/f - 1) / error^2, rounded up.")


def check_steps_until_checkpoint(steps: Callable[[int, int], int]) -> None:
    """Check a function from (d, P) to the steps after which a ledger is as large as a checkpoint.

    Raises:
        AssertionError: with a hint.
    """
    for d, P in ((661_248, 1), (13_000_000_000, 1), (13_000_000_000, 8)):
        given = steps(d, P)
        assert given is not None, "your function returned nothing; end it with return"
        exact = 2 * d / (40 + 8 * P)
        assert P == 1 or not math.isclose(given, 2 * d / 48, rel_tol=1e-3), (
            "a record grows with P: 8 bytes for each projected gradient, and 40 for the rest"
        )
        assert not math.isclose(given, 4 * d / (40 + 8 * P), rel_tol=1e-3), (
            "this is for float32; the checkpoint in question has two bytes a parameter"
        )
        assert abs(given - exact) <= 1, (
            f"d = {d:,} and P = {P} give {exact:,.0f} steps, and your function says {given:,}; "
            "divide 2 d bytes by the bytes of a record, 40 + 8 P"
        )
    print("Correct: 2 d / (40 + 8 P) steps.")

"""The checkers of the introduction: right answers pass, wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import zotutor as zo


def steps_needed(d: int, factor: float) -> int:
    return math.ceil(math.log(factor) / -math.log(1 - 1 / d))


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_steps_needed, steps_needed),
    (zo.exercises.check_best_factor, lambda d, kurtosis: 1 - 1 / (d + kurtosis - 1)),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (zo.exercises.check_steps_needed, lambda d, factor: None, "return"),
    (zo.exercises.check_steps_needed, lambda d, factor: "ten", "one number"),
    (zo.exercises.check_steps_needed, lambda d, factor: d * factor, "the ratio is"),
    (
        zo.exercises.check_steps_needed,
        lambda d, factor: math.log(factor) / -math.log1p(-1 / d),
        "round up",
    ),
    (
        zo.exercises.check_steps_needed,
        lambda d, factor: math.ceil(d * math.log(factor)),
        "approximation",
    ),
    (zo.exercises.check_best_factor, lambda d, kurtosis: 1 - 1 / d, "kurtosis is to come in"),
    (
        zo.exercises.check_best_factor,
        lambda d, kurtosis: 1 - 2 / d + (d + kurtosis - 1) / d**2,
        "minimize over lr",
    ),
    (zo.exercises.check_best_factor, lambda d, kurtosis: 1 / (d + kurtosis - 1), "what is left"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(
    check: Callable[..., None], answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Correct: ")


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_wrong_answers_get_a_hint(
    check: Callable[..., None], answer: Callable[..., Any], hint: str
) -> None:
    with pytest.raises(AssertionError, match=hint):
        check(answer)

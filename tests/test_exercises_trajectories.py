"""The checkers of the chapter on trajectories: right answers pass, wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import zotutor as zo


def test_right_answers_pass(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_constant(lambda a: math.sqrt(1 / a + 1))
    zo.exercises.check_constant(lambda a: torch.tensor(1 / a + 1, dtype=torch.float64).sqrt())
    zo.exercises.check_steps(lambda C, deviation: math.ceil((C / deviation) ** 2))
    zo.exercises.check_budget("same")
    assert capsys.readouterr().out.count("Correct") == 4


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda a: math.sqrt(1 / a), "is missing"),
        (lambda a: 1 / a + 1, "take the root"),
        (lambda a: math.sqrt(a + 1), "the alignment divides"),
        (lambda a: 3 * math.sqrt(1 / a + 1), "the ratio is 3 "),
        (lambda a: None, "return"),
    ],
)
def test_constant(student: Callable[[float], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_constant(student)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda C, deviation: math.ceil(C / deviation), "root of T"),
        (lambda C, deviation: (C / deviation) ** 2 - 0.5, "round up"),
        (lambda C, deviation: math.floor((C / deviation) ** 2), "round up"),
        (lambda C, deviation: 12345, "solve"),
        (lambda C, deviation: None, "return"),
    ],
)
def test_steps(student: Callable[[float, float], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_steps(student)


@pytest.mark.parametrize(("answer", "hint"), [("P", "fixes T P"), ("T", "fixes T P"), (3, "with")])
def test_budget(answer: Any, hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_budget(answer)

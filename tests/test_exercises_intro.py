"""The checkers of the introduction: right answers pass, wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import zotutor as zo


def loss_left(d: int, P: int, passes: int) -> float:
    return float(((d - 1) / (d - 1 + P)) ** (passes / (2 * P)))


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_loss_left, loss_left),
    (zo.exercises.check_best_factor, lambda d, kurtosis: 1 - 1 / (d + kurtosis - 1)),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (zo.exercises.check_loss_left, lambda d, P, passes: None, "return"),
    (zo.exercises.check_loss_left, lambda d, P, passes: "ten", "one number"),
    (zo.exercises.check_loss_left, lambda d, P, passes: 0.5, "the ratio is"),
    (zo.exercises.check_loss_left, lambda d, P, passes: loss_left(d, P, 2 * passes), "two passes"),
    (zo.exercises.check_loss_left, lambda d, P, passes: (d - 1) / (d - 1 + P), "one step"),
    (
        zo.exercises.check_loss_left,
        lambda d, P, passes: (1 - 1 / d) ** (passes / (2 * P)),
        "two passes|minimize|one step",
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


def test_the_law_of_loss_left_by_going_through_all_signs() -> None:
    d, P = 3, 2
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * d)
    theta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    single = (signs @ theta)[:, None] * signs
    g_hat = (single[:, None] + single[None]).flatten(0, 1) / P
    lr = 1 / (1 + (d - 1) / P)
    left = (theta - lr * g_hat).square().sum(1).mean() / theta.square().sum()
    assert math.isclose(left, loss_left(d, P, 2 * P))

"""The checkers of *A gradient from two function values*: right answers pass, others get hints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zotutor as zo

Function = Callable[[Tensor], Tensor]


def two_point(f: Function, theta: Tensor, u: Tensor, eps: float) -> Tensor:
    return (f(theta + eps * u) - f(theta - eps * u)) / (2 * eps)


def four_point(f: Function, theta: Tensor, u: Tensor, eps: float) -> Tensor:
    return (4 * two_point(f, theta, u, eps) - two_point(f, theta, u, 2 * eps)) / 3


def writes_theta(f: Function, theta: Tensor, u: Tensor, eps: float) -> Tensor:
    theta += eps * u
    return f(theta)


def which_directions(error: float, d: int, tokens: int) -> str:
    drawn, turned = d / error**2, d / (1 + error**2)
    orthogonal_wins = 2 * tokens * turned + turned**2 < 2 * tokens * drawn
    return "orthogonal" if orthogonal_wins else "independent"


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_which_directions, which_directions),
    (zo.exercises.check_best_eps, lambda delta, third: (3 * delta / third) ** (1 / 3)),
    (zo.exercises.check_best_eps, lambda delta, third: torch.tensor(3 * delta / third) ** (1 / 3)),
    (zo.exercises.check_expected_bias, lambda kurtosis, eps: kurtosis * eps**2),
    (zo.exercises.check_four_point, four_point),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (zo.exercises.check_which_directions, lambda error, d, tokens: "orthogonal", "to make them so"),
    (zo.exercises.check_which_directions, lambda error, d, tokens: "independent", "small error"),
    (
        zo.exercises.check_which_directions,
        lambda error, d, tokens: "orthogonal" if tokens > 16 else "independent",
        "Solve both",
    ),
    (zo.exercises.check_which_directions, lambda error, d, tokens: "signs", "expected"),
    (zo.exercises.check_best_eps, lambda delta, third: (3 * delta / third) ** 0.5, "cube root"),
    (zo.exercises.check_best_eps, lambda delta, third: (6 * delta / third) ** (1 / 3), "equal"),
    (zo.exercises.check_best_eps, lambda delta, third: (3 * third / delta) ** (1 / 3), "Upside"),
    (zo.exercises.check_expected_bias, lambda kurtosis, eps: eps**2, "signs only"),
    (zo.exercises.check_expected_bias, lambda kurtosis, eps: kurtosis * eps**2 / 6, "cancels"),
    (zo.exercises.check_four_point, two_point, "combine"),
    (
        zo.exercises.check_four_point,
        lambda f, theta, u, eps: (
            (4 * two_point(f, theta, u, 2 * eps) - two_point(f, theta, u, eps)) / 3
        ),
        "swapped",
    ),
    (
        zo.exercises.check_four_point,
        lambda f, theta, u, eps: four_point(f, theta, u, eps) * u,
        "without u",
    ),
    (zo.exercises.check_four_point, writes_theta, "was written"),
    (
        zo.exercises.check_four_point,
        lambda f, theta, u, eps: four_point(f, theta, u, eps) + 0 * f(theta),
        "4 are enough",
    ),
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

"""The checkers of *The Johnson-Lindenstrauss lemma*: right answers pass, wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import zotutor as zo
from zotutor.bounds import jl_rate


def tail_probability(P: int, epsilon: float) -> float:
    return 2 * math.exp(-P * jl_rate(epsilon))


def norm_variance(a: Tensor, P: int) -> Tensor:
    return 2 * (a.square().sum() ** 2 - (a**4).sum()) / P


def perturbations_for_distances(n: int, epsilon: float, delta: float) -> int:
    return math.ceil(math.log(n * (n - 1) / delta) / jl_rate(epsilon))


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_tail_probability, tail_probability),
    (zo.exercises.check_norm_variance, norm_variance),
    (zo.exercises.check_perturbations_for_distances, perturbations_for_distances),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (
        zo.exercises.check_tail_probability,
        lambda P, epsilon: tail_probability(P, epsilon) / 2,
        "one tail",
    ),
    (
        zo.exercises.check_tail_probability,
        lambda P, epsilon: 2 * math.exp(-P * epsilon**2 / 4),
        "no bound",
    ),
    (zo.exercises.check_tail_probability, lambda P, epsilon: None, "return"),
    (
        zo.exercises.check_norm_variance,
        lambda a, P: 2 * a.square().sum() ** 2 / P,
        "kappa - 3 = -2",
    ),
    (zo.exercises.check_norm_variance, lambda a, P: norm_variance(a, 1), "one direction"),
    (zo.exercises.check_norm_variance, lambda a, P: norm_variance(a, P).sqrt(), "deviation"),
    (
        zo.exercises.check_perturbations_for_distances,
        lambda n, epsilon, delta: math.ceil(4 * math.log(n) / (epsilon**2 / 2 - epsilon**3 / 3)),
        "scikit-learn",
    ),
    (
        zo.exercises.check_perturbations_for_distances,
        lambda n, epsilon, delta: zo.jl_min_perturbations(
            n, epsilon, delta=delta, directions=zo.Gaussian()
        ),
        "n.2 events",
    ),
    (
        zo.exercises.check_perturbations_for_distances,
        lambda n, epsilon, delta: math.log(n * (n - 1) / delta) / jl_rate(epsilon),
        "round up",
    ),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda f: getattr(f, "__name__", ""))
def test_a_right_answer_passes(
    check: Callable[..., None], answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Correct: ")


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_a_hint(
    check: Callable[..., None], answer: Callable[..., Any], hint: str
) -> None:
    with pytest.raises(AssertionError, match=hint):
        check(answer)


def test_a_formula_that_is_wrong_on_the_axes_is_found() -> None:
    def nearly(a: Tensor, P: int) -> Tensor:
        # wrong only where all but one entry are 0
        return norm_variance(a, P) + (1.0 if int((a != 0).sum()) == 1 else 0.0)

    with pytest.raises(AssertionError, match="square of a sign"):
        zo.exercises.check_norm_variance(nearly)

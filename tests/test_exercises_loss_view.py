"""The checkers of *The loss's view*: right answers pass, plausible wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zotutor as zo


def fits(h: Tensor, share: float, P: int) -> bool:
    lr = 2 * share / float(h.max())
    slack = 2 - (1 + 1 / P) * lr * h
    return bool(slack.min() > 0) and bool((lr / P * (h / slack)).sum() <= 1)


def perturbations_for_share(h: Tensor, share: float) -> int:
    P = 1
    while not fits(h, share, P):
        P += 1
    return P


def test_perturbations_for_share_right(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_perturbations_for_share(perturbations_for_share)
    zo.exercises.check_perturbations_for_share(lambda h, s: torch.tensor(fits_by_bisection(h, s)))
    assert capsys.readouterr().out.count("Correct") == 2


def fits_by_bisection(h: Tensor, share: float) -> int:
    low, high = 0, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(h, share, middle) else (middle, high)
    return high


def rank(h: Tensor) -> float:
    return float(h.sum() / h.max())


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda h, s: perturbations_for_share(h, s) - 1, "One more is needed"),
        (lambda h, s: perturbations_for_share(h, s) + 1, "One fewer will do"),
        (lambda h, s: math.ceil(s / (1 - s) * (1 + rank(h))), "bound by the effective rank|One"),
        (lambda h, s: math.ceil(s / (1 - s) * (1 + len(h))), "worst case|One"),
        (lambda h, s: math.ceil(s * rank(h)), "limit of small P|One"),
        (lambda h, s: 12345, "Put eta"),
        (lambda h, s: None, "return"),
    ],
)
def test_perturbations_for_share_wrong(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_perturbations_for_share(student)


def best_perturbations(d_H: float, machines: int) -> int:
    rates = [P / (P + 1 + d_H) / (math.ceil(P / machines) + 1) for P in range(1, 65)]
    return 1 + rates.index(max(rates))


def test_best_perturbations_right(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_best_perturbations(best_perturbations)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda d, m: 1, "wastes the second"),
        (lambda d, m: 64, "divide by them"),
        (lambda d, m: best_perturbations(d, 1), "for one machine"),
        (lambda d, m: 7, "Compare P"),
        (lambda d, m: None, "return"),
    ],
)
def test_best_perturbations_wrong(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_best_perturbations(student)

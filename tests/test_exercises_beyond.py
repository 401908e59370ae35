"""The checkers of the last chapter: right answers pass, wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zotutor as zo


def lowrank_variance(M: Tensor, N: Tensor, rank: int, *, squares: bool = False) -> Tensor:
    """The law, written out; ``squares`` makes a common slip."""
    inner, product = (M * N).sum(), M.T @ N
    excess = (M @ N.T).square().sum() + product.square().sum()
    excess = excess + (product.square().sum() if squares else (product @ product).trace())
    return M.square().sum() * N.square().sum() + inner**2 + 2 * excess / rank


def gaussian(M: Tensor, N: Tensor) -> Tensor:
    return M.square().sum() * N.square().sum() + (M * N).sum() ** 2


def expected_square(g: Tensor, P: int, kurtosis: float) -> Tensor:
    return (g.square().sum() + (P + kurtosis - 2) * g.square()) / P


def test_right_answers_pass(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_rank_needed(lambda factor: math.ceil(3 / (factor - 1) - 1e-9))
    zo.exercises.check_lowrank_variance(lowrank_variance)
    zo.exercises.check_seconds_needed(lambda squared, s, error: squared * s / error**2)
    zo.exercises.check_expected_square(expected_square)
    assert capsys.readouterr().out.count("Correct") == 4


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda factor: math.ceil(3 / factor), "not 3/r"),
        (lambda factor: 1, "round up"),
        (lambda factor: 100, "round up"),
        (lambda factor: 40 if factor < 4 else 2, "round up"),
        (
            lambda factor: math.ceil(3 / (factor - 1) - 1e-9) + (factor == 4),
            "returned 2; the ratio is 2 ",
        ),
        (lambda factor: None, "return"),
    ],
)
def test_rank_needed(student: Callable[[float], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_rank_needed(student)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda M, N, r: lowrank_variance(M, N, r) + (M * N).sum() ** 2, "second moment"),
        (lambda M, N, r: gaussian(M, N), "1/r are missing"),
        (lambda M, N, r: (gaussian(M, N) + lowrank_variance(M, N, r)) / 2, "carries a 2"),
        (lambda M, N, r: lowrank_variance(M, N, r, squares=True), "not its squared norm"),
        (lambda M, N, r: 1.0, "term by term"),
        (lambda M, N, r: None, "return"),
        (lambda M, N, r: lowrank_variance(M, N, 1), "divided by r"),
    ],
)
def test_lowrank_variance(student: Callable[[Tensor, Tensor, int], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_lowrank_variance(student)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda squared, s, error: squared * s / error, "error squared"),
        (lambda squared, s, error: squared**2 * s / error**2, "square it again"),
        (lambda squared, s, error: math.ceil(squared / error**2) * s + 1, "do not round"),
        (lambda squared, s, error: None, "return"),
    ],
)
def test_seconds_needed(student: Callable[[float, float, float], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_seconds_needed(student)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda g, P, kurtosis: g.square().sum(), "one number for each"),
        (lambda g, P, kurtosis: expected_square(g, P, kurtosis) - g.square(), "squared mean"),
        (lambda g, P, kurtosis: expected_square(g, 1, kurtosis) / P, "average P"),
        (lambda g, P, kurtosis: None, "return"),
    ],
)
def test_expected_square(student: Callable[[Tensor, int, float], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_expected_square(student)


def test_expected_square_is_the_mean_over_all_signs() -> None:
    g = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    one = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    signs = torch.cartesian_prod(one, one, one)
    single = (signs @ g)[:, None] * signs
    pairs = (single[:, None] + single[None]).flatten(0, 1) / 2
    for P, drawn in ((1, single), (2, pairs)):
        torch.testing.assert_close(drawn.square().mean(0), expected_square(g, P, 1.0))

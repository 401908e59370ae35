"""Checkers for the exercises of the chapter on what lies beyond independent entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from zotutor.directions import LowRank
from zotutor.laws import pair_variance

from .answers import (
    NotYet,
    ask,
    compare_number,
    compare_tensor,
    correct,
    normal,
    tensor,
)

__all__ = [
    "check_expected_square",
    "check_lowrank_variance",
    "check_rank_needed",
    "check_seconds_needed",
]


def check_rank_needed(student: Callable[[float], Any]) -> None:
    """Check a function from a factor over Gaussian's variance to the rank that guarantees it.

    Args:
        student: takes the factor, returns the smallest rank r.

    Raises:
        NotYet: with a hint.
    """
    for factor in (1.17, 1.5, 2.5, 4.0):
        call = f"rank_needed({factor:g})"
        slip = "the bound is 1 + 3/r, not 3/r: what remains for 3/r is factor - 1"
        expected = math.ceil(3 / (factor - 1))
        slips = [
            (math.ceil(3 / factor), slip),
            (math.floor(3 / (factor - 1)), "rounded down, the bound is above the factor: round up"),
            (math.ceil(1 / (factor - 1)), "the bound has 3/r: the 3 is lost"),
            (math.ceil(2 / (factor - 1)), "the three terms of the excess add up to 3/r, not 2/r"),
        ]
        slips = [(wrong, text) for wrong, text in slips if wrong != expected]
        hint = "solve 1 + 3/r <= factor for r, and round up to an int"
        compare_number(call, ask(student, call, factor), expected, slips, whole=True, hint=hint)
    correct("r = 3 / (factor - 1), rounded up, whatever the model.")


def check_lowrank_variance(student: Callable[[Tensor, Tensor, int], Any]) -> None:
    """Check a function from (M, N, rank) to Var[(u : M)(u : N)] for u of that rank.

    Args:
        student: takes matrices M and N of one shape and a rank, returns the variance.

    Raises:
        NotYet: with a hint.
    """
    for seed, (m, n, rank) in enumerate(((3, 5, 1), (4, 2, 3))):
        call = f"lowrank_variance(M, N, {rank}) for matrices of shape ({m}, {n})"
        M, N = normal(2, m, n, seed=seed)
        rows = (M.reshape(1, -1), N.reshape(1, -1))
        expected = pair_variance(*rows, directions=LowRank(rank), shapes=[(m, n)])
        inner, product = float((M * N).sum()), M.mT @ N
        excess = expected - float(M.square().sum() * N.square().sum()) - inner**2
        squares = float(product.square().sum() - (product * product.mT).sum())
        slips = [
            (
                expected + inner**2,
                "this is the second moment; subtract the squared mean, (M : N)^2",
            ),
            (expected - excess, "this is Gaussian's variance; the terms with 1/r are missing"),
            (expected - excess + rank * excess, "the excess is divided by r"),
            (expected - excess / 2, "each of the three terms of the excess carries a 2"),
            (
                expected + 2 * squares / rank,
                "tr((M^T N)^2) multiplies the matrix M^T N by itself; it is not its squared norm",
            ),
        ]
        answer = ask(student, call, M.clone(), N.clone(), rank)
        compare_number(call, answer, expected, slips, hint="compare the theorem term by term")
    correct("Gaussian's variance, and three terms over r.")


def check_seconds_needed(student: Callable[[float, float, float], Any]) -> None:
    """Check a function from (C^2, seconds per direction, relative error) to seconds in all.

    Args:
        student: takes C^2, the seconds that one direction takes, and the error; returns seconds.

    Raises:
        NotYet: with a hint.
    """
    for squared, seconds, error in ((7.0, 0.03, 0.3), (13.0, 0.01, 0.5), (4.0, 2.0, 0.25)):
        call = f"seconds_needed({squared:g}, {seconds:g}, {error:g})"
        slips = [
            (
                squared * seconds / error,
                "the error falls as 1 over the root of their number: divide by error squared",
            ),
            (
                squared**2 * seconds / error**2,
                "what you are given is C^2 already; do not square it again",
            ),
            (squared / error**2, "this is the number of directions; each takes some seconds"),
            (
                math.ceil(squared / error**2) * seconds,
                "do not round: the number of directions is a mean over steps",
            ),
        ]
        hint = "first find the number of directions from C^2 / P = error^2, and do not round it"
        answer = ask(student, call, squared, seconds, error)
        compare_number(call, answer, squared * seconds / error**2, slips, hint=hint)
    correct("C^2 x seconds / error^2; the families differ in the product only.")


def check_expected_square(student: Callable[[Tensor, int, float], Any]) -> None:
    """Check a function from (g, P, kurtosis) to E[g_hat_k^2] of each coordinate.

    Args:
        student: takes g (d,), P and the kurtosis; returns (d,).

    Raises:
        NotYet: with a hint.
    """
    g = normal(6, seed=1)
    squared = g.square().sum()
    for P, kurtosis in ((1, 1.0), (1, 3.0), (4, 3.0), (8, 1.0)):
        call = f"expected_square(g, {P}, {kurtosis:g})"
        answer = tensor(call, ask(student, call, g.clone(), P, kurtosis), g)
        if answer.shape != g.shape:
            raise NotYet(
                f"{call}: return a tensor with one number for each coordinate, shaped as g"
            )
        expected = (squared + (P + kurtosis - 2) * g.square()) / P
        slips = [
            (
                expected - g.square(),
                "this is the variance; the second moment has the squared mean, g_k^2, in addition",
            ),
            (
                (squared + (kurtosis - 1) * g.square()) / P,
                "this is one direction's over P: find E[(u . g)^2 u_k^2], then average P of them",
            ),
            (squared + (P + kurtosis - 2) * g.square(), "divide by P"),
            (
                (squared + (P + 1) * g.square()) / P,
                "this is for Gaussian directions: E[u_k^4] is the kurtosis",
            ),
            (
                (squared + (P - 1) * g.square()) / P,
                "this is for random signs: E[u_k^4] is the kurtosis",
            ),
        ]
        compare_tensor(call, answer, expected, slips)
    correct("(|g|^2 + (P + kurtosis - 2) g_k^2) / P.")

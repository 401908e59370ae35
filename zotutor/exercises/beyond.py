"""Checkers for the exercises of the chapter on what lies beyond independent entries."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zotutor.directions import LowRank
from zotutor.laws import pair_variance


def check_rank_needed(rank_needed: Callable[[float], int]) -> None:
    """Check a function from a factor over Gaussian's variance to the rank that guarantees it.

    Raises:
        AssertionError: with a hint.
    """
    for factor in (1.1, 1.5, 2.5, 4.0):
        exact = 3 / (factor - 1)
        given, expected = rank_needed(factor), math.ceil(exact - 1e-9)
        assert given is not None, "your function returned nothing; end it with return"
        assert given == expected or given != math.ceil(3 / factor), (
            "the bound is 1 + 3/r, not 3/r: what remains for 3/r is factor - 1"
        )
        assert given == expected, (
            f"for a factor of {factor} the rank is {expected}, and your function says {given}; "
            "solve 1 + 3/r <= factor for r, and round up to an int"
        )
    print("Correct: r = 3 / (factor - 1), rounded up, whatever the model.")


def check_lowrank_variance(lowrank_variance: Callable[[Tensor, Tensor, int], float]) -> None:
    """Check a function from (M, N, rank) to Var[(u : M)(u : N)] for u of that rank.

    Raises:
        AssertionError: with a hint.
    """
    generator = torch.Generator().manual_seed(0)
    for m, n, rank in ((3, 5, 1), (4, 2, 3)):
        M, N = torch.randn(2, m, n, generator=generator, dtype=torch.float64)
        answer = lowrank_variance(M, N, rank)
        assert answer is not None, "your function returned nothing; end it with return"
        given = float(answer)
        expected = pair_variance(
            M.reshape(1, -1), N.reshape(1, -1), directions=LowRank(rank), shapes=[(m, n)]
        )
        inner = float((M * N).sum())
        excess = expected - float(M.square().sum() * N.square().sum()) - inner**2
        slips = [
            (
                expected + inner**2,
                "this is the second moment; subtract the squared mean, (M : N)^2",
            ),
            (expected - excess, "this is Gaussian's variance; the terms with 1/r are missing"),
            (expected - excess + rank * excess, "the excess is divided by r"),
            (expected - excess / 2, "each of the three terms of the excess carries a 2"),
            (
                expected + 2 * (float((M.mT @ N).square().sum()) - _trace_of_square(M, N)) / rank,
                "tr((M^T N)^2) multiplies the matrix M^T N by itself; it is not its squared norm",
            ),
        ]
        if math.isclose(given, expected, rel_tol=1e-6):
            continue
        for value, hint in slips:
            assert not math.isclose(given, value, rel_tol=1e-6), hint
        raise AssertionError(
            f"for matrices of shape ({m}, {n}) and r = {rank} the variance is {expected:.4f}, and "
            f"your function says {given:.4f}; compare the theorem term by term"
        )
    print("Correct: Gaussian's variance, and three terms over r.")


def _trace_of_square(M: Tensor, N: Tensor) -> float:
    product = M.mT @ N
    return float((product * product.mT).sum())


def check_seconds_needed(seconds_needed: Callable[[float, float, float], float]) -> None:
    """Check a function from (C^2, seconds a direction, relative error) to seconds in all.

    Raises:
        AssertionError: with a hint.
    """
    for squared, seconds, error in ((7.0, 0.03, 0.1), (13.0, 0.01, 0.5), (4.0, 2.0, 0.25)):
        given, expected = seconds_needed(squared, seconds, error), squared * seconds / error**2
        assert given is not None, "your function returned nothing; end it with return"
        assert not math.isclose(given, squared * seconds / error, rel_tol=1e-9), (
            "the error falls with the root of the number of directions: divide by error squared"
        )
        assert not math.isclose(given, squared**2 * seconds / error**2, rel_tol=1e-9), (
            "what you are given is C^2 already; do not square it again"
        )
        assert math.isclose(given, expected, rel_tol=1e-9), (
            f"C^2 = {squared}, {seconds} s a direction and an error of {error} need "
            f"{expected:.4g} s, and your function says {given:.4g}; first find the number of "
            "directions from C^2 / P = error^2, and do not round it"
        )
    print("Correct: C^2 x seconds / error^2; the families differ in the product only.")


def check_expected_square(expected_square: Callable[[Tensor, int, float], Tensor]) -> None:
    """Check a function from (g, P, kurtosis) to E[g_hat_k^2] of each coordinate.

    Raises:
        AssertionError: with a hint.
    """
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(6, generator=generator, dtype=torch.float64)
    squared = g.square().sum()
    for P, kurtosis in ((1, 1.0), (1, 3.0), (4, 3.0), (8, 1.0)):
        given = expected_square(g, P, kurtosis)
        right_shape = isinstance(given, Tensor) and given.shape == g.shape
        assert right_shape, "return a tensor with one number for each coordinate, shaped as g"
        expected = (squared + (P + kurtosis - 2) * g.square()) / P
        variance = (squared + (kurtosis - 2) * g.square()) / P
        assert not torch.allclose(given, variance), (
            "this is the variance; the second moment has the squared mean, g_k^2, in addition"
        )
        assert torch.allclose(given, expected), (
            f"at P = {P} and kurtosis {kurtosis} yours is {[round(x, 4) for x in given.tolist()]}, "
            f"expected {[round(x, 4) for x in expected.tolist()]}; for one direction compute "
            "E[(u . g)^2 u_k^2] first, then average P of them"
        )
    print("Correct: (|g|^2 + (P + kurtosis - 2) g_k^2) / P.")

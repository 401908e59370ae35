"""Checkers for *The Johnson-Lindenstrauss lemma*."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zotutor.bounds import jl_min_perturbations, jl_rate
from zotutor.directions import Gaussian

from .answers import (
    NotYet,
    ask,
    compare_number,
    correct,
    normal,
    number,
)

__all__ = ["check_norm_variance", "check_perturbations_for_distances", "check_tail_probability"]


def check_tail_probability(student: Callable[[int, float], float]) -> None:
    """Check a function that bounds the chance of an inner product being off by more than epsilon.

    Args:
        student: takes P and epsilon, returns the bound for Gaussian directions and both tails.

    Raises:
        NotYet: with a hint.
    """
    for P, epsilon in ((100, 0.3), (1000, 0.05)):
        expected = 2 * math.exp(-P * jl_rate(epsilon))
        slips = [
            (expected / 2, "This is one tail; the error can be of either sign."),
            (
                2 * math.exp(-P * epsilon**2 / 4),
                (
                    "epsilon^2 / 4 is the limit for small epsilon and slightly too large, so that "
                    "this is no bound; use [epsilon - ln(1 + epsilon)] / 2."
                ),
            ),
            (
                2 * math.exp(-2 * P * jl_rate(epsilon)),
                "The exponent lacks its 1/2: r = [epsilon - ln(1 + epsilon)] / 2.",
            ),
            (2 * math.exp(-jl_rate(epsilon)), "P is missing: the exponents of P draws add up."),
        ]
        call = f"tail_probability({P}, {epsilon})"
        compare_number(call, ask(student, call, P, epsilon), expected, slips)
    correct("2 exp(-P r(epsilon)), one tail on each side.")


def check_norm_variance(student: Callable[[Tensor, int], float | Tensor]) -> None:
    """Check a function that returns Var |U^T a|^2 for Rademacher directions.

    Args:
        student: takes a vector a (d,) and P, returns the variance.

    Raises:
        NotYet: with a hint.
    """
    for P, a in ((1, normal(5, seed=0)), (7, normal(9, seed=1))):
        norm, fourth = float(a @ a), float((a**4).sum())
        expected = 2 * (norm**2 - fourth) / P
        slips = [
            (2 * norm**2 / P, "This is the Gaussian's variance; kappa - 3 = -2 for signs."),
            (2 * norm**2 / P - fourth / P, "The last term has the factor kappa - 3 = -2."),
            (expected * P, "This is the variance for one direction; the mean of P has 1/P of it."),
            (math.sqrt(expected), "This is the standard deviation, not the variance."),
            (
                expected / 2,
                "Put a = b into the law: |a|^2 |a|^2 and (a . a)^2 are two equal terms.",
            ),
        ]
        name = f"norm_variance(a, {P})"
        compare_number(name, ask(student, name, a.clone(), P), expected, slips)
    axis = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)
    name = "norm_variance([0, 3, 0], 2)"
    along = number(name, ask(student, name, axis, 2))
    if abs(along) > 1e-9:
        raise NotYet(
            f"norm_variance([0, 3, 0], 2): returned {along:.6g}; what is the square of a sign, and "
            "can it vary?"
        )
    correct("signs lose nothing of a vector along one axis, and are Gaussian for spread ones.")


def check_perturbations_for_distances(student: Callable[[int, float, float], int]) -> None:
    """Check a function that says how many perturbations keep all squared distances of n points.

    Args:
        student: takes n, epsilon and delta, returns the smallest P that the Gaussian tail allows.

    Raises:
        NotYet: with a hint.
    """
    for n, epsilon, delta in ((20, 0.1, 0.01), (1000, 0.3, 0.2)):
        rate = jl_rate(epsilon)
        expected = math.ceil(math.log(n * (n - 1) / delta) / rate)
        good = math.ceil(4 * math.log(n) / (epsilon**2 / 2 - epsilon**3 / 3))
        slips = [
            (
                good,
                (
                    "This is scikit-learn's formula: delta does not appear in it, since its proof "
                    "shows a chance of success of 1/n only. Solve n (n - 1) exp(-P r) <= delta."
                ),
            ),
            (
                jl_min_perturbations(n, epsilon, delta=delta, directions=Gaussian()),
                "This counts n^2 events; n points have n (n - 1) / 2 distances with two tails.",
            ),
            (
                math.ceil(math.log(n * (n - 1) / 2 / delta) / rate),
                "Each distance has two tails, a longer and a shorter side.",
            ),
            (math.log(n * (n - 1) / delta) / rate, "P is a whole number: round up."),
            (
                math.floor(math.log(n * (n - 1) / delta) / rate),
                "Rounded down, P does not reach delta any more: round up.",
            ),
        ]
        name = f"perturbations_for_distances({n}, {epsilon}, {delta})"
        compare_number(name, ask(student, name, n, epsilon, delta), expected, slips, whole=True)
    correct("n (n - 1) / 2 distances, two tails each, and delta where you can see it.")

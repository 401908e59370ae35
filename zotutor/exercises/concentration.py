"""Checkers for *The Johnson-Lindenstrauss lemma* and *Kernel fidelity*.

Each compares the student's function with the formula at a few arguments, or, where an estimate is
asked for, its mean over many draws with what it estimates. If they differ, common slips are tried
in turn, and the one that reproduces the wrong answer becomes the hint.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zotutor.bounds import jl_min_perturbations, jl_rate
from zotutor.directions import Gaussian

from .gradients import _compare, _correct

__all__ = [
    "check_alignment_from_error",
    "check_alignment_from_responses",
    "check_law_from_kernels",
    "check_norm_variance",
    "check_perturbations_for_distances",
    "check_tail_probability",
]


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def check_tail_probability(student: Callable[[int, float], float]) -> None:
    """Check a function that bounds the chance of an inner product being off by more than epsilon.

    Args:
        student: takes P and epsilon, returns the bound for Gaussian directions and both tails.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> from math import exp
        >>> check_tail_probability(lambda P, epsilon: 2 * exp(-P * jl_rate(epsilon)))
        Correct: 2 exp(-P r(epsilon)), one tail on each side.
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
        answer = student(P, epsilon)
        _compare(f"tail_probability({P}, {epsilon})", answer, expected, slips, rtol=1e-9)
    _correct("2 exp(-P r(epsilon)), one tail on each side.")


def check_norm_variance(student: Callable[[Tensor, int], float | Tensor]) -> None:
    """Check a function that returns Var |U^T a|^2 for Rademacher directions.

    Args:
        student: takes a vector a (d,) and P, returns the variance.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_norm_variance(lambda a, P: 2 * (float(a @ a) ** 2 - float((a**4).sum())) / P)
        Correct: signs lose nothing of a vector along one axis, and are Gaussian for spread ones.
    """
    for P, a in ((1, _random(5, seed=0)), (7, _random(9, seed=1))):
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
        _compare(name, student(a.clone(), P), expected, slips, rtol=1e-9)
    axis = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)
    along = float(student(axis, 2))
    if abs(along) > 1e-9:
        raise AssertionError(
            f"norm_variance([0, 3, 0], 2): returned {along:.6g}, expected 0; the square of a sign "
            "is always 1"
        )
    _correct("signs lose nothing of a vector along one axis, and are Gaussian for spread ones.")


def check_perturbations_for_distances(student: Callable[[int, float, float], int]) -> None:
    """Check a function that says how many perturbations keep all squared distances of n points.

    Args:
        student: takes n, epsilon and delta, returns the smallest P that the Gaussian tail allows.

    Raises:
        AssertionError: with a hint.
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
        _compare(name, student(n, epsilon, delta), expected, slips, rtol=0.0)
    _correct("n (n - 1) / 2 distances, two tails each, and delta where you can see it.")


def check_alignment_from_error(student: Callable[[float, int], float]) -> None:
    """Check a function that reads the alignment off a relative error.

    Args:
        student: takes a relative error and P, returns a for Gaussian directions.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_alignment_from_error(lambda error, P: 1 / (P * error**2 - 1))
        Correct: one relative error tells the alignment, and so the error at every other P.
    """
    for error, P in ((0.338, 125), (2.0, 3)):
        expected = 1 / (P * error**2 - 1)
        slips = [
            (1 / (P * error**2), "The law has 1/a + 1; the 1 is missing."),
            (1 / (P * error**2 + 1), "Solve P r^2 = 1/a + 1: the 1 changes sides."),
            (1 / (P * error - 1), "The law is for the square of the error."),
            (1 / (error**2 / P - 1), "The error is sqrt((1/a + 1) / P): multiply by P."),
            (P * error**2 - 1, "This is 1/a."),
        ]
        call = f"alignment_from_error({error}, {P})"
        _compare(call, student(error, P), expected, slips, rtol=1e-9)
    _correct("one relative error tells the alignment, and so the error at every other P.")


def check_law_from_kernels(
    student: Callable[[Tensor, Tensor, Tensor, int], float | Tensor],
) -> None:
    """Check a function that returns E norm(K_U - K)_F^2 from three kernel blocks.

    Args:
        student: takes K_oo, K_uu and K_ou (V, V) and P, returns the law for Gaussian directions.

    Raises:
        AssertionError: with a hint.

    Example:
        >>> check_law_from_kernels(
        ...     lambda K_oo, K_uu, K_ou, P: (K_oo.trace() * K_uu.trace() + K_ou.square().sum()) / P
        ... )
        Correct: traces and one norm: the exact law without a Jacobian.
    """
    J_o, J_u, P = _random(3, 9, seed=2), _random(3, 9, seed=3), 5
    K_oo, K_uu, K_ou = J_o @ J_o.T, J_u @ J_u.T, J_o @ J_u.T
    traces, size = float(K_oo.trace() * K_uu.trace()), float(K_ou.square().sum())
    expected = (traces + size) / P
    slips = [
        (traces / P, "The second term of the law is missing, norm(K)_F^2."),
        (traces + size, "Divide by P."),
        ((traces + size**0.5) / P, "The second term is the squared norm of K."),
        (
            float(K_oo.norm() * K_uu.norm() + size) / P,
            "norm(J)_F^2 is the trace of the kernel of an input with itself, not its norm.",
        ),
        (
            float(K_oo.square().sum() * K_uu.square().sum() + size) / P,
            "norm(J)_F^2 is the trace of the kernel of an input with itself, not its squared norm.",
        ),
        (math.sqrt(expected), "The law is for the square; take no root."),
        (expected / size, "This is relative to norm(K)_F^2; the law asked for is not."),
    ]
    answer = student(K_oo, K_uu, K_ou, P)
    _compare(f"law_from_kernels(K_oo, K_uu, K_ou, {P})", answer, expected, slips, rtol=1e-9)
    _correct("traces and one norm: the exact law without a Jacobian.")


def check_alignment_from_responses(student: Callable[[Tensor, Tensor], float | Tensor]) -> None:
    """Check an estimate of the alignment from the responses J_o u_p and J_u u_p alone.

    Its mean over 4,000 draws at P = 16 must be within 7 % of the alignment, and it must be a
    symmetric function of the directions, so that none is preferred.

    Args:
        student: takes v_o and v_u (V, P), returns the estimate.

    Raises:
        AssertionError: with a hint.
    """
    P, draws = 16, 4000
    J_o = _random(4, 40, seed=4)
    J_u = 0.6 * J_o + _random(4, 40, seed=5)
    a = float((J_o @ J_u.T).square().sum() / (J_o.square().sum() * J_u.square().sum()))
    u = _random(draws, 40, P, seed=6)
    v_o, v_u = J_o @ u, J_u @ u  # (draws, V, P)
    first = student(v_o[0].clone(), v_u[0].clone())
    if first is None:
        raise AssertionError("alignment_from_responses: returned None; does it end with `return`?")
    answers = [float(student(left, right)) for left, right in zip(v_o, v_u, strict=True)]
    mean = sum(answers) / draws
    K_U = v_o @ v_u.mT / P
    sizes = [v.square().sum((1, 2)) / P for v in (v_o, v_u)]
    plain = float((K_U.square().sum((1, 2)) / (sizes[0] * sizes[1])).mean())
    call = f"alignment_from_responses, mean over {draws} draws at P = {P}"
    if math.isclose(mean, plain, rel_tol=0.05):
        raise AssertionError(
            f"{call}: {mean:.4f}, expected {a:.4f}. Not yet: the norm of K_U counts the noise as "
            "well; leave out the products of a direction with itself."
        )
    scales = {P: "divided by P once too seldom", 1 / P: "divided by P once too often"}
    for scale, what in scales.items():
        if math.isclose(mean, scale * a, rel_tol=0.1):
            raise AssertionError(f"{call}: {mean:.4g}, expected {a:.4f}: {what}.")
    if not math.isclose(mean, a, rel_tol=0.07):
        raise AssertionError(
            f"{call}: {mean:.4g}, expected {a:.4f}, the ratio is {mean / a:.3g}; check numerator "
            "and denominator one by one: their means are norm(K)_F^2 and norm(J_o)_F^2 "
            "norm(J_u)_F^2"
        )
    _correct("pairs of different directions know the kernel without its noise.")

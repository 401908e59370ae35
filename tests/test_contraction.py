"""The T P law on quadratic losses: against every draw of signs, and against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from naive_jacobians import normal
from torch import Tensor

import zotutor as zo
from zotutor.contraction import contracted_constant, quadratic_deviation

D = 3


def quadratic() -> tuple[Tensor, Tensor, Tensor]:
    root = normal(D, D, seed=3)
    return normal(2, D, seed=4), normal(1, D, seed=5)[0], root @ root.T


def by_enumeration(steps: int, P: int, lr: float) -> float:
    """The same from all runs of signs."""
    B, g, H = quadratic()
    start = torch.linalg.solve(H, g)
    all_signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=D)), dtype=torch.float64)
    draws = [all_signs[list(n)] for n in itertools.product(range(len(all_signs)), repeat=P)]
    fo = start.clone()
    for _ in range(steps):
        fo = fo - lr * H @ fo
    squares = []
    for run in itertools.product(draws, repeat=steps):
        theta = start.clone()
        for u in run:
            theta = theta - lr * u.T @ (u @ (H @ theta)) / P
        squares.append((B @ (theta - fo)).square().sum())
    return float(torch.stack(squares).mean().sqrt() / (B @ (fo - start)).norm())


@pytest.mark.parametrize(("steps", "P"), [(1, 1), (3, 1), (4, 1), (2, 2)])
def test_the_recursion_is_the_mean_over_all_runs(steps: int, P: int) -> None:
    B, g, H = quadratic()
    found = quadratic_deviation(B, g, H=H, lr=0.1, steps=steps, P=P)
    assert math.isclose(found, by_enumeration(steps, P, 0.1), rel_tol=1e-10)


def test_a_short_run_has_the_frozen_constant() -> None:
    B, g, H = quadratic()
    law = zo.dynamics_error_law(torch.eye(2).double(), B, g, P=1, lr=1.0)
    frozen = math.sqrt(law / (B @ g).square().sum().item())
    found = contracted_constant(B, g, H=H, distance=1e-9, steps=7)
    assert math.isclose(found, frozen, rel_tol=1e-6)


@pytest.mark.parametrize("x", [0.1, 0.5, 1.0, 2.0])
def test_equal_curvatures_have_a_closed_form(x: float) -> None:
    """C(x) / C(0) = x / (e^x - 1) for H = I, in the limit of many steps."""
    B, g, _ = quadratic()
    H, steps = torch.eye(D).double(), 4000
    short = contracted_constant(B, g, H=H, distance=1e-9, steps=1)
    found = contracted_constant(B, g, H=H, distance=x, steps=steps)
    assert math.isclose(found / short, x / math.expm1(x), rel_tol=1e-3)


@pytest.mark.parametrize("distance", [0.5, 2.0, 8.0])
def test_the_frozen_constant_is_no_upper_bound(distance: float) -> None:
    """A gradient along the only bent direction, seen in theta: with signs one other coordinate
    moves, by lr |g_t| in each step, and stays. Relative to the change, which slows down, it grows.
    """
    H, steps = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)), 10
    at_start, found = (
        contracted_constant(torch.eye(2), H[0], H=H, distance=reach, steps=steps)
        for reach in (1e-9, distance)
    )
    sizes = [(1 - distance / steps) ** t for t in range(steps)]
    assert math.isclose(found**2, steps * sum(f * f for f in sizes) / sum(sizes) ** 2)
    assert found > at_start


def test_the_constant_is_the_limit_of_the_exact_deviation() -> None:
    B, g, H = quadratic()
    for family in (zo.Gaussian(), zo.Rademacher()):
        C = contracted_constant(B, g, H=H, distance=0.3, steps=20, directions=family)
        exact = quadratic_deviation(
            B, g, H=H, lr=0.3 / 20, steps=20, P=10**6, directions=family
        ) * math.sqrt(20 * 10**6)
        assert math.isclose(C, exact, rel_tol=1e-5)


def test_arguments() -> None:
    B, g, H = quadratic()
    with pytest.raises(ValueError, match="B, g, H"):
        contracted_constant(B, g, H=H[:2], distance=1.0, steps=1)
    with pytest.raises(ValueError, match="nan at"):
        contracted_constant(B, g * math.nan, H=H, distance=1.0, steps=1)
    with pytest.raises(ValueError, match="descent changes B theta by 0"):
        quadratic_deviation(0 * B, g, H=H, lr=0.1, steps=2, P=1)
    with pytest.raises(ValueError, match="distance"):
        contracted_constant(B, g, H=H, distance=0.0, steps=1)
    with pytest.raises(ValueError, match="independent entries"):
        quadratic_deviation(B, g, H=H, lr=0.1, steps=1, P=1, directions=zo.Sphere())

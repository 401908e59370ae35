"""The distribution of one step's error, and its tail: against drawn directions."""

from __future__ import annotations

import math

import pytest
import torch
from naive_jacobians import normal
from torch import Tensor

import zotutor as zo
from zotutor.tails import change_error_bound, change_error_draws

DRAWS = 4000


def setting() -> tuple[Tensor, Tensor]:
    return normal(5, 12, seed=6), normal(1, 12, seed=7)[0]


def from_directions(P: int) -> Tensor:
    B, g = setting()
    theta = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    u = zo.Gaussian().dense([theta], P=DRAWS * P, seed=0, step=0).T.reshape(DRAWS, P, 12)
    g_hat = torch.einsum("npi,npj,j->ni", u, u, g) / P
    return ((g_hat - g) @ B.T).norm(dim=1) / (B @ g).norm()


@pytest.mark.parametrize("P", [1, 3, 20])
def test_draws_have_the_distribution_of_real_steps(P: int) -> None:
    """Kolmogorov and Smirnov at a level of 0.1 %."""
    B, g = setting()
    one = from_directions(P)
    other = change_error_draws(B, g, P=P, draws=DRAWS, seed=1)
    both = torch.cat([one, other]).sort().values
    below = [torch.searchsorted(sample.sort().values, both, right=True) for sample in (one, other)]
    distance = (below[0] - below[1]).abs().max().item() / DRAWS
    assert distance < 1.95 * math.sqrt(2 / DRAWS)


@pytest.mark.parametrize("P", [1, 8])
def test_draws_have_the_exact_mean_square(P: int) -> None:
    B, g = setting()
    squares = change_error_draws(B, g, P=P, draws=100_000, seed=2).square()
    law = (
        zo.dynamics_error_law(torch.eye(5).double(), B, g, P=P, directions=zo.Gaussian(), lr=1.0)
        / (B @ g).square().sum().item()
    )
    error = squares.std().item() / math.sqrt(len(squares))
    assert abs(squares.mean().item() - law) < 4 * error


@pytest.mark.parametrize("P", [1, 4, 100])
@pytest.mark.parametrize("delta", [0.5, 0.1, 0.01])
def test_the_bound_holds_and_is_of_the_size_of_the_quantile(P: int, delta: float) -> None:
    B, g = setting()
    errors = change_error_draws(B, g, P=P, draws=20_000, seed=3)
    bound = change_error_bound(B, g, P=P, delta=delta)
    failed = (errors > bound).double().mean().item()
    assert failed <= delta
    if delta < 0.5:  # a union of three events says little about the median
        assert bound < 5 * errors.quantile(1 - delta).item()


def test_the_quantiles_of_chi_square_are_those_of_the_normal_and_the_exponential() -> None:
    from zotutor.tails import _chi_square

    normal_quantile = torch.special.ndtri(torch.tensor(0.975, dtype=torch.float64)).item()
    assert math.isclose(_chi_square(1, 0.95), normal_quantile**2, rel_tol=1e-9)
    assert math.isclose(_chi_square(2, 0.9), math.log(10), rel_tol=1e-9)


def test_arguments() -> None:
    B, g = setting()
    with pytest.raises(ValueError, match="delta"):
        change_error_bound(B, g, P=1, delta=1.0)
    with pytest.raises(ValueError, match="B g is 0"):
        change_error_bound(B, torch.zeros(12), P=1, delta=0.1)
    with pytest.raises(ValueError, match="nan at"):
        change_error_bound(B, g * math.nan, P=1, delta=0.1)
    with pytest.raises(ValueError, match="given shapes"):
        change_error_draws(B, g[:3], P=1, draws=2, seed=0)

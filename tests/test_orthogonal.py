"""Orthogonal directions: their law against draws, and against every draw of signed ones."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from naive_jacobians import normal

import zotutor as zo
from zotutor.orthogonal import orthogonal_directions, orthogonal_error_law


@pytest.mark.parametrize("P", [1, 2, 5, 6])
def test_the_law_is_the_mean_of_draws(P: int) -> None:
    d, draws = 6, 4000
    J_o, J_u = normal(2, d, seed=1), normal(3, d, seed=2) + 0.4
    K, found = J_o @ J_u.T, []
    for seed in range(draws):
        u = orthogonal_directions(d, P, seed=seed)
        found.append(((J_o @ u) @ (J_u @ u).T / P - K).square().sum())
    values = torch.stack(found)
    error = values.std().item() / math.sqrt(draws)
    assert abs(values.mean().item() - orthogonal_error_law(J_o, J_u, P=P)) <= 4 * error + 1e-9


def test_one_direction_is_the_sphere_and_all_are_exact() -> None:
    J_o, J_u = normal(2, 6, seed=1), normal(3, 6, seed=2)
    sphere = zo.kernel_error_law(J_o, J_u, P=1, directions=zo.Sphere())
    assert math.isclose(orthogonal_error_law(J_o, J_u, P=1), sphere, rel_tol=1e-12)
    assert orthogonal_error_law(J_o, J_u, P=6) == 0.0


@pytest.mark.parametrize("P", [1, 2, 3, 4])
def test_signs_can_be_orthogonal_as_well(P: int) -> None:
    """Rows of a Hadamard matrix with random signs: E|g_hat - g|^2 = (d/P - 1)|g|^2, every draw."""
    g = normal(1, 4, seed=3)[0]
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    rows, found = torch.kron(two, two), []
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        flips = torch.tensor(signs, dtype=torch.float64)
        for chosen in itertools.combinations(range(4), P):
            u = rows[list(chosen)] * flips
            found.append((u.T @ (u @ g) / P - g).square().sum())
    mean = torch.stack(found).mean().item()
    assert math.isclose(mean, (4 / P - 1) * g.square().sum().item(), abs_tol=1e-12)
    law = orthogonal_error_law(torch.eye(4), g[None], P=P)
    assert math.isclose(mean, law, abs_tol=1e-12)


def test_more_directions_than_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="P"):
        orthogonal_directions(3, 4, seed=0)
    with pytest.raises(ValueError, match="P"):
        orthogonal_error_law(torch.eye(3), torch.eye(3), P=4)

"""The law of batches and directions: against every batch and every draw of signs, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from naive_jacobians import normal
from torch import Tensor

import zotutor as zo
from zotutor.batches import noise_terms

D, EXAMPLES, ROWS = 4, 3, 2


def setting() -> tuple[Tensor, Tensor]:
    return normal(ROWS, D, seed=1), normal(EXAMPLES, D, seed=2) + 0.5


def by_enumeration(B: Tensor, gradients: Tensor, P: int, batch_size: int) -> tuple[float, float]:
    """E |B (g_hat - g_batch)|^2 and E |B (g_hat - g)|^2 over all batches and all signs."""
    all_signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=D)), dtype=torch.float64)
    g, from_own, from_full = gradients.mean(0), [], []
    for rows in itertools.product(range(len(gradients)), repeat=batch_size):
        batch = gradients[list(rows)].mean(0)
        for numbers in itertools.product(range(len(all_signs)), repeat=P):
            u = all_signs[list(numbers)]  # (P, d)
            moved = u.T @ (u @ batch) / P
            from_own.append((B @ (moved - batch)).square().sum())
            from_full.append((B @ (moved - g)).square().sum())
    return float(torch.stack(from_own).mean()), float(torch.stack(from_full).mean())


@pytest.mark.parametrize(("P", "batch_size"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_the_law_is_the_mean_over_all_batches_and_signs(P: int, batch_size: int) -> None:
    B, gradients = setting()
    terms = noise_terms(B, gradients)
    own, full = by_enumeration(B, gradients, P, batch_size)
    found = terms.from_directions(P=P, batch_size=batch_size)
    assert math.isclose(found, own, rel_tol=1e-12)
    assert math.isclose(found + terms.from_batch(batch_size=batch_size), full, rel_tol=1e-12)


@pytest.mark.parametrize(
    "family", [zo.Gaussian(), zo.Rademacher(), zo.Sparse(0.5)], ids=lambda f: str(f)
)
def test_the_identity_gives_the_losss_view(family: zo.directions.Directions) -> None:
    _, gradients = setting()
    g = gradients.mean(0)
    sigma = (gradients - g).square().sum(1).mean().item()
    terms = noise_terms(torch.eye(D), gradients, directions=family)
    for P, size in ((1, 16), (8, 2)):
        factor = (D + family.kurtosis - 2) / P
        expected = factor * (g.square().sum().item() + sigma / size) + sigma / size
        found = terms.from_directions(P=P, batch_size=size) + terms.from_batch(batch_size=size)
        assert math.isclose(found, expected, rel_tol=1e-12)


def test_the_full_batch_is_the_law_without_batches() -> None:
    B, gradients = setting()
    terms, g = noise_terms(B, gradients), gradients.mean(0)
    law = zo.dynamics_error_law(torch.eye(ROWS).double(), B, g, P=3, lr=1.0)
    assert math.isclose(terms.from_directions(P=3), law, rel_tol=1e-12)
    assert terms.from_batch() == 0.0
    C = math.sqrt(law * 3 / terms.signal)
    assert math.isclose(terms.deviation(steps=5, P=2), C / math.sqrt(10), rel_tol=1e-12)


def test_at_a_fixed_budget_one_direction_is_best_and_the_best_P_is_a_minimum() -> None:
    terms = noise_terms(*setting())
    ends = [terms.deviation(steps=64 // P, P=P, batch_size=2) for P in (1, 2, 4, 8, 64)]
    assert ends == sorted(ends)
    assert terms.best_perturbations(batch_size=2, overhead=0.0) == 0.0

    def noise_for_a_cost(P: float) -> float:  # steps are in proportion to 1 / (overhead + P)
        both = (terms.directions + terms.amplified / 2) / P + terms.batch / 2
        return both * (5.0 + P)

    best = terms.best_perturbations(batch_size=2, overhead=5.0)
    assert noise_for_a_cost(best) < min(
        noise_for_a_cost(0.98 * best), noise_for_a_cost(1.02 * best)
    )


def test_arguments() -> None:
    B, gradients = setting()
    with pytest.raises(ValueError, match=r"gradients: given shape \(4,\)"):
        noise_terms(B, gradients[0])
    with pytest.raises(ValueError, match=r"given shapes \(2, 3\) and \(3, 4\)"):
        noise_terms(B[:, :3], gradients)
    with pytest.raises(ValueError, match="nan at"):
        noise_terms(B, gradients * math.nan)
    with pytest.raises(ValueError, match="B g is 0"):
        noise_terms(0 * B, gradients).deviation(steps=1, P=1)
    with pytest.raises(ValueError, match="shapes"):
        noise_terms(B, gradients, directions=zo.LowRank(1), shapes=[(3, 3)])
    terms = noise_terms(B, gradients)
    with pytest.raises(ValueError, match="batch_size"):
        terms.from_batch(batch_size=0)
    with pytest.raises(ValueError, match="steps"):
        terms.deviation(steps=0, P=1)
    same = noise_terms(B, gradients[:1].repeat(3, 1))
    with pytest.raises(ValueError, match="no noise of batches"):
        same.best_perturbations(batch_size=2, overhead=1.0)

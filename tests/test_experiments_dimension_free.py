"""Measurements of *Dimension-free*, against dense versions on networks that are small enough."""

from __future__ import annotations

import math

import pytest
import torch

import zotutor as zo
from zotutor.experiments import dimension_free as free

X = zo.datasets.digits().x_test[[4, 19, 14]]
Y = torch.tensor([4, 4, 9])
SELF = torch.eye(3, dtype=torch.bool)


def network() -> torch.nn.Module:
    return zo.models.mlp(12, 1, seed=0)


def test_facts_are_those_of_the_jacobian() -> None:
    facts, J = free.kernel_facts(network(), X), zo.jacobian(network(), X)
    torch.testing.assert_close(facts.K, zo.entk(network(), X, X), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(facts.norms, J.square().sum((1, 2)))
    columns = J.square().sum(1)
    torch.testing.assert_close(facts.overlaps, columns @ columns.T)


def test_a_drawn_kernel_is_the_packages() -> None:
    g = zo.models.gradient(network(), X, y=Y)
    K_U, error = free.zo_kernel(network(), X, g, P=3, seed=5)
    torch.testing.assert_close(K_U, zo.zo_entk(network(), X, X, P=3, seed=5), rtol=1e-4, atol=1e-4)
    u = zo.Rademacher().dense(network(), P=3, seed=5, step=0)
    assert error == pytest.approx(float((u @ (u.T @ g) / 3 - g).norm() / g.norm()), rel=1e-4)


@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian()])
def test_the_pooled_law_is_a_sum_over_pairs(family: zo.directions.Directions) -> None:
    facts, J = free.kernel_facts(network(), X), zo.jacobian(network(), X)
    for pairs in (SELF, ~SELF):
        which = pairs.nonzero().tolist()
        total = sum(zo.kernel_error_law(J[n], J[m], P=7, directions=family) for n, m in which)
        expected = math.sqrt(total / float(facts.K[pairs].square().sum()))
        found = free.relative_law(facts, pairs, P=7, kurtosis=family.kurtosis)
        assert found == pytest.approx(expected, rel=1e-4)


def test_errors_of_a_network_are_those_of_each_seed() -> None:
    kinds = {"itself": SELF, "other": ~SELF}
    found = free.measure(network(), X, y=Y, kinds=kinds, P=4, seeds=(3, 8))
    K = zo.entk(network(), X, X)
    assert found.d == sum(p.numel() for p in network().parameters())
    for i, seed in enumerate((3, 8)):
        off = zo.zo_entk(network(), X, X, P=4, seed=seed) - K
        for kind, pairs in kinds.items():
            expected = float(off[pairs].norm() / K[pairs].norm())
            assert found.errors[kind][i] == pytest.approx(expected, rel=1e-3)
    assert len(found.errors["gradient"]) == 2


def test_the_law_for_a_number_of_outputs_is_the_packages() -> None:
    found = free.measure_outputs(X[:2], V=4, d=900, P=8, draws=200)
    assert found.hidden == round(896 / 69)
    J_o, J_u = zo.jacobian(zo.models.mlp(found.hidden, 1, outputs=4, seed=0), X[:2])
    b, g = found.rows
    for (left, right), law in zip(
        ((J_u, J_u), (J_o, J_u), (b[None], g[None])), found.laws, strict=True
    ):
        exact = math.sqrt(zo.kernel_error_law(left, right, P=8)) / float((left @ right.T).norm())
        assert law == pytest.approx(exact, rel=1e-3)
    assert found.rank == pytest.approx(float(zo.effective_rank(J_u @ J_u.T)), rel=1e-4)
    for (error, bar), law in zip(found.errors, found.laws, strict=True):
        assert abs(error - law) < 5 * bar + 0.02 * law


def test_draws_from_inner_products_have_the_law() -> None:
    J_o, J_u = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)).double()
    rows = torch.cat([J_o, J_u])
    found = free.draws_from_gram(rows @ rows.T, P=6, draws=4000, seed=0)
    law = zo.kernel_error_law(J_o, J_u, P=6, directions=zo.Gaussian())
    squares = found.square() * (J_o @ J_u.T).square().sum()
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - law) < 4 * error  # one seed in 16,000 would fail

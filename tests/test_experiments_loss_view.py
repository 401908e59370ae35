"""Measurements of *The loss's view*, against dense versions on networks that are small enough."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import zotutor as zo
from zotutor.experiments import loss_view as view

X = zo.datasets.digits().x_test[[4, 19, 14]]
Y = torch.tensor([4, 4, 9])


def network() -> torch.nn.Module:
    return zo.models.mlp(12, 1, seed=0)


def test_curvatures_are_those_of_the_gauss_newton_matrix() -> None:
    model = network()
    J, pi = zo.jacobian(model, X).double(), model(X).softmax(1).detach().double()
    S = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None]
    H = torch.einsum("nid,nij,nje->de", J, S, J) / 3
    exact = torch.linalg.eigvalsh(H)[-30:]
    found = view.curvatures(model, X)
    torch.testing.assert_close(found, exact.clamp_min(0), rtol=1e-3, atol=1e-5)
    sampled = view.intrinsic_dimension_by_passes(model, X, signs=400, rounds=30)
    assert sampled == pytest.approx(float(found.sum() / found[-1]), rel=0.15)


def test_the_loss_around_has_its_minimum_at_the_model() -> None:
    theta, loss_at = view.loss_around(network(), X)
    slope, loss = torch.func.grad_and_value(loss_at)(theta)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
    assert float(slope.norm()) < 1e-6
    moved = theta + 0.1
    logits, start = zo.models.mlp(12, 1, seed=0), network()(X).softmax(1)
    torch.nn.utils.vector_to_parameters(moved, logits.parameters())
    expected = F.kl_div(logits(X).log_softmax(1), start, reduction="batchmean")
    torch.testing.assert_close(loss_at(moved), expected.detach())


@pytest.mark.parametrize("P", [1, 5, 40])
def test_the_largest_stable_step_has_spectral_radius_one(P: int) -> None:
    h = torch.tensor([3.0, 2.0, 0.5, 0.1], dtype=torch.float64)
    lr = view.max_stable_lr(h, P)
    D = 1 - 2 * lr * h + (1 + 1 / P) * lr**2 * h**2
    M = torch.diag(D) + lr**2 / P * h.square()[None]
    assert float(torch.linalg.eigvals(M).abs().max()) == pytest.approx(1.0, abs=1e-9)


def test_a_bracket_holds_where_runs_change_from_rest_to_growth() -> None:
    model = zo.models.train(network(), X, y=Y, lr=0.3, steps=300)
    limit = view.max_stable_lr(view.curvatures(model, X), 4)
    low, high = view.stable_bracket(model, X, P=4, limit=limit, factors=(0.1, 0.5, 2.5, 8.0))
    assert low <= 1 <= high
    with pytest.raises(ValueError, match="smaller or larger"):
        view.stable_bracket(model, X, P=4, limit=limit, factors=(0.1, 0.2))


def bowl() -> torch.Tensor:
    root = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return root @ root.T


@pytest.mark.parametrize("P", [1, 2])
def test_second_moments_are_the_mean_over_all_signs(P: int) -> None:
    H, lr = bowl(), 0.1
    theta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    found = []
    for chosen in itertools.product(range(8), repeat=P):
        u = signs[list(chosen)]
        moved = theta - lr * u.T @ (u @ (H @ theta)) / P
        found.append(torch.outer(moved, moved))
    step = view.second_moment_step(torch.outer(theta, theta), H, lr=lr, P=P, kurtosis=1.0)
    torch.testing.assert_close(torch.stack(found).mean(0), step)


def test_the_border_is_the_theorems_for_normals_and_higher_for_signs() -> None:
    H = bowl()
    for P in (1, 4):
        theorem = view.max_stable_lr(torch.linalg.eigvalsh(H), P)
        assert view.stable_border(H, P=P, kurtosis=3.0) == pytest.approx(theorem, rel=1e-3)
        assert view.stable_border(H, P=P, kurtosis=1.0) > theorem


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_drift_along_a_valley_is_that_of_all_signs_at_once(noise: float) -> None:
    # One step at P = 1 from (v, w) = (2, 1): the four directions and two labels, written out.
    lr, eps, ends = 0.1, 0.5, []
    for a, b, label in itertools.product((-1, 1), (-1, 1), (1 - noise, 1 + noise)):
        above, below = (((2 + c * a) * (1 + c * b) - label) ** 2 / 2 for c in (eps, -eps))
        slope = (above - below) / (2 * eps)
        ends.append((2 - lr * slope * a) ** 2 - (1 - lr * slope * b) ** 2)
    assert sum(ends) / 8 == pytest.approx(3 * (1 - 2 * lr * eps**2))  # the theorem
    found = view.valley_balance(
        (2.0, 1.0),
        lr=lr,
        eps=eps,
        P=1,
        steps=1,
        runs=4000,
        directions=zo.Rademacher(),
        seed=0,
        label_noise=noise,
    )
    for end in found.end.unique():
        assert min(abs(float(end) - possible) for possible in ends) < 1e-9
    assert abs(found.end.mean() - sum(ends) / 8) < 4 * found.end.std() / 4000**0.5
    met = {round(3 * (2 - label) ** 2, 9) for label in (1 - noise, 1 + noise)}
    assert {round(float(m), 9) for m in found.met.unique()} == met

"""Slopes, curvatures and rounding from losses: against exact ones, over many seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zotutor as zo
from zotutor.curvature import measure
from zotutor.step_size import Moments, moments

D, N, EXAMPLES = 24, 4, 4000


class Quadratics:
    """L_n = (theta - t_n)^T H_n (theta - t_n) / 2 with H_n = h_n h_n^T, drawn for each example."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(0)
        scale = torch.arange(1, D + 1, dtype=torch.float64) ** -0.5
        turned = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
        self.h = (torch.randn(EXAMPLES, D, generator=generator, dtype=torch.float64) * scale) @ (
            turned
        )
        self.t = torch.randn(EXAMPLES, D, generator=generator, dtype=torch.float64) * 0.3
        self.theta = torch.nn.Parameter(torch.full((D,), 0.5, dtype=dtype))
        self.seed = 0

    def losses(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + number % 1000)
        rows = torch.randint(EXAMPLES, (N,), generator=generator)
        h, t = self.h[rows].to(self.theta), self.t[rows].to(self.theta)
        return ((self.theta - t) * h).sum(1).square() / 2

    def exact(self, batch_size: int) -> dict[str, float]:
        """Over all examples, by linear algebra."""
        each = ((self.theta.detach().double() - self.t) * self.h).sum(1)[:, None] * self.h
        g, H = each.mean(0), self.h.T @ self.h / EXAMPLES
        square = float(H.square().sum())
        spread = float(self.h.square().sum(1).square().mean()) - square  # E |H_n|^2 - |H|^2
        return {
            "signal": float(g.square().sum()),
            "noise": float((each - g).square().sum(1).mean()) / batch_size,
            "trace": float(H.trace()),
            "square": square,
            "batch_square": square + spread / batch_size,
        }


def over_seeds(problem: Quadratics, seeds: int, batch_size: int, **options: Any) -> list[Moments]:
    found = []
    for seed in range(seeds):
        problem.seed = seed
        given = measure(problem.losses, [problem.theta], seed=seed, **options)
        found.append(moments(given, given.rows, batch_size=batch_size))
    return found


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.Rademacher()])
def test_means_over_directions_and_batches_are_those_of_all_examples(family: Any) -> None:
    """Within four standard errors over 40 seeds, or a tenth for what signs do not see."""
    problem = Quadratics()
    found = over_seeds(problem, 40, 16, directions=family, samples=32)
    for name, exact in problem.exact(16).items():
        values = np.array([float(np.ravel(getattr(one, name))[0]) for one in found])
        error = 4 * values.std(ddof=1) / math.sqrt(len(values))
        # signs leave out the diagonal's 2 sum_k H_kk^2, some percent in a random basis
        bias = 0.25 * exact if "square" in name and family == zo.Rademacher() else 0.0
        assert abs(values.mean() - exact) < error + bias, (name, values.mean(), exact)


def test_the_noise_of_batches_is_no_signal() -> None:
    """At the minimum of the mean, where examples have gradients, |g|^2 is 0 within its error."""
    problem = Quadratics()
    H = problem.h.T @ problem.h
    right = torch.einsum("nd,ne,ne->d", problem.h, problem.h, problem.t)
    with torch.no_grad():
        problem.theta.copy_(torch.linalg.solve(H, right))
    found, noise = [], problem.exact(N)["noise"]
    for seed in range(40):
        problem.seed = seed
        given = measure(problem.losses, [problem.theta], samples=16, seed=seed)
        found.append(np.mean([row.slope**2 - row.slope_variance for row in given.rows]))
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(40)
    assert np.std(found) / math.sqrt(40) < 0.2 * noise  # and that could fail


@pytest.mark.parametrize("quantum", [1e-4, 1e-6])
def test_rounding_is_measured(quantum: float) -> None:
    """A loss in steps of q has rounding errors of q / sqrt(12); within a factor 1.5 over seeds."""
    problem = Quadratics()

    def losses(number: int) -> Tensor:
        return (problem.losses(number).mean() / quantum).round() * quantum

    found = [
        measure(losses, [problem.theta], eps=1e-2, samples=4, seed=seed).rounding
        for seed in range(20)
    ]
    rms = math.sqrt(float(np.mean(np.square(found))))
    assert 1 / 1.5 < rms / (quantum / math.sqrt(12)) < 1.5


def test_curvature_clears_rounding_in_bfloat16() -> None:
    """Within four standard errors and a tenth, where at the default eps it would be noise."""
    problem = Quadratics(torch.bfloat16)

    def losses(number: int) -> Tensor:
        return problem.losses(number).float()

    found, near = [], []
    for seed in range(24):
        problem.seed = seed
        given = measure(losses, [problem.theta], samples=32, seed=seed)
        found.append(float(np.mean([row.curvature[0] for row in given.rows])))
        near.append(given.distances[0])
    trace = Quadratics().exact(N)["trace"]
    assert min(near) > 0.01  # the default eps of bfloat16
    error = 4 * np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found) - trace) < error + 0.1 * trace
    assert error < 0.5 * trace


def test_parameters_are_left_alone_and_numbers_repeat() -> None:
    problem = Quadratics()
    before = problem.theta.detach().clone()
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"samples": 4, "seed": 3}
    first = measure(
        problem.losses, [problem.theta], **options, progress=lambda *at: seen.append(at)
    )
    assert measure(problem.losses, [problem.theta], **options) == first
    assert torch.equal(before, problem.theta)
    assert seen[-1] == (first.evaluations, first.evaluations)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("losses", "error", "says"),
    [
        (lambda theta: theta, TypeError, r"losses: returned shape \(2, 3\), expected the losses"),
        (lambda theta: 1.0, TypeError, "losses: returned 1.0, expected the losses"),
        (lambda theta: torch.ones(3), ValueError, "losses: they read none of the parameters"),
        (lambda theta: theta.sum() * math.nan, zo.NonFiniteLossError, "one is NaN"),
        (lambda theta: theta.sum() * 0 + 1, ValueError, "has not risen by half"),
        (lambda theta: (theta * torch.randn(3)).sum(), ValueError, "drew random numbers"),
    ],
)
def test_losses_that_cannot_be_measured_are_refused(
    losses: Callable[[Tensor], Any], error: type[Exception], says: str
) -> None:
    theta = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(error, match=says):
        measure(lambda _: losses(theta), [theta], samples=4, seed=0)


def test_batches_of_different_sizes_are_refused() -> None:
    theta = torch.ones(5, requires_grad=True)
    with pytest.raises(ValueError, match="expected batches of one size"):
        measure(lambda k: theta.square()[: 2 + k % 2], [theta], samples=4, seed=0)

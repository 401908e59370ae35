"""Each figure of the chapter on ZO-SGD draws, from tensors and from arrays, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo

DOWN = [2.0, 1.5, 1.2, 1.0, 0.9]

DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.steps_by_dimension(
        [16, 64], [40, 150], torch.tensor([50, 60]), [8, 9], np.array([37.0, 147.0])
    ),
    lambda: zo.figures.expected_change(
        [0.1, 1.0],
        {"FO": [-1.0, -2.0], "P = 1": torch.tensor([-0.5, 1.0])},
        {"ZO, P = 1": ([0.1], [-0.4], [0.1]), "ZO, P = 4": ([0.1], [-0.4], np.array([0.1]))},
        low=-2,
        high=1,
    ),
    lambda: zo.figures.steps_by_width(
        torch.tensor([10, 100]), [DOWN, DOWN], [DOWN, DOWN], [4, 5], [2, 2], target=1.0, window=2
    ),
    lambda: zo.figures.loss_and_accuracy(
        {"FO-SGD": DOWN, "ZO-SGD": torch.tensor(DOWN)},
        {"FO-SGD": ([1, 5], [0.1, 0.9]), "ZO-SGD": ([1, 5], [0.1, 0.8])},
        window=2,
        goal=0.9,
    ),
    lambda: zo.figures.loss_against_eps([1e-3, 1e-2], torch.tensor([1.0, 2.0]), untrained=2.3),
    lambda: zo.figures.loss_after_budget(
        [0.01, 0.1], {1: [1.0, 2.0], 4: [1.0, float("nan")]}, {1: 0.05, 4: 0.04}, untrained=2.3
    ),
    lambda: zo.figures.runs_on_quadratic(
        np.ones((2, 5)), DOWN, torch.tensor(DOWN), title="two runs"
    ),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in drawn(draw).axes)


def test_losses_are_averaged_over_the_window() -> None:
    figure = zo.figures.loss_and_accuracy(
        {"ZO": [4.0, 2.0, 0.0]}, {"ZO": ([3], [0.5])}, window=2, goal=0.9
    )
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[2, 3.0], [3, 1.0]])  # type: ignore[arg-type]

"""Each figure of the chapter on trajectories draws, shows what it is given, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo

CELLS = torch.tensor([[2.0, 1.0], [1.0, 0.5]])
CHANGE = torch.tensor([[0.1, -0.2], [0.3, -0.1]])

DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.deviation_law([4, 16], [1, 4], CELLS, 4.0),
    lambda: zo.figures.law_constants([4, 16], [1, 4], 2 * CELLS, 0.1 * CELLS, 4.0),
    lambda: zo.figures.temperature([0.1, 0.05, 0.01], [1.2, 0.9, 0.4], [1, 1, 4], 4.0),
    lambda: zo.figures.breakdown([0.1, 1.0], [4.0, 8.0], [0.1, 0.4], [0.1, 2.0], 3.9),
    lambda: zo.figures.random_walk(torch.tensor([0, 2, 4]), torch.rand(3, 3), 4.0, P=2),
    lambda: zo.figures.random_walk([0, 4], np.ones((2, 2)), 4.0, P=1),  # type: ignore[arg-type]
    lambda: zo.figures.summed_theory(CHANGE, CHANGE, CHANGE, 1.1 * CHANGE),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    figure = drawn(draw)
    assert all(ax.get_ylabel() for ax in figure.axes)
    assert figure.axes[-1].get_xlabel()


def test_random_walk_shows_the_root_mean_square_and_the_law() -> None:
    figure = zo.figures.random_walk([0, 9], torch.tensor([[0.0, 1.0], [0.0, 7.0]]), 6.0, P=4)
    *_, squares, law = figure.axes[0].get_lines()
    np.testing.assert_allclose(squares.get_xydata(), [[0, 0], [9, 5]])  # type: ignore[arg-type]
    assert np.asarray(law.get_ydata())[-1] == pytest.approx(6 / np.sqrt(9 * 4))


def test_deviation_law_falls_as_the_root_of_the_product() -> None:
    figure = zo.figures.deviation_law([4, 16], [1, 4], CELLS, 4.0)
    law, *points = figure.axes[0].get_lines()
    x, y = np.asarray(law.get_xdata()), np.asarray(law.get_ydata())
    np.testing.assert_allclose(np.asarray(y) * np.sqrt(x), 4.0)
    np.testing.assert_allclose(points[1].get_xdata(), [16, 64])  # type: ignore[arg-type]

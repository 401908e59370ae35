"""Each figure of *Fine-tuning* draws, also of a run that has hardly begun, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import zotutor as zo

HALF, BETTER = (zo.llm.Accuracy(p, p - 0.05, p + 0.04, 100) for p in (0.5, 0.9))

DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.run_curves([1.0 / (k + 1) for k in range(100)], [(0, HALF), (100, BETTER)]),
    lambda: zo.figures.run_curves([0.7], [(0, HALF)]),
    lambda: zo.figures.run_curves([], []),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn = draw()
    drawn.canvas.draw()
    assert isinstance(drawn, Figure)
    assert not plt.get_fignums()
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in drawn.axes)


def test_run_curves_averages_a_twentieth_of_the_run() -> None:
    left, right = zo.figures.run_curves(
        [float(k) for k in range(100)], [(0, HALF), (100, BETTER)]
    ).axes
    each, mean = left.get_lines()
    assert np.size(each.get_xdata()) == 100
    # of a straight line, the line itself
    np.testing.assert_allclose(np.asarray(mean.get_xdata()), np.asarray(mean.get_ydata()))
    assert [line.get_linestyle() for line in right.get_lines()].count("--") == 1

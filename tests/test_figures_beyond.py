"""Each figure of the last chapter draws, shows what it is given, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo

DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.excess_by_density(
        [0.01, 0.1, 1.0], {"a": [3, 1.2, 1], "b": [9, 2, 1]}, {"a": [(0.1, 1.3, 0.1)]}
    ),
    lambda: zo.figures.excess_by_rank([1, 2, 4], {"a": [2, 1.5, 1.2], "b": [1.3, 1.2, 1.1]}),
    lambda: zo.figures.factors_by_matrix(["q", "v"], [1.5, 1.1], [0.7, 0.3], rank=2),
    lambda: zo.figures.fidelity_per_second(["a", "b"], [0.1, 0.2], [8.0, 7.0], title="model"),
    lambda: zo.figures.momentum_window([1, 10, 20], [0.9, 0.4, 0.1], momentum=0.9),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    assert all(ax.get_xlabel() for ax in drawn(draw).axes)


def test_fidelity_per_second_counts_the_product_and_draws_its_lines() -> None:
    figure = zo.figures.fidelity_per_second(["a", "b"], [0.1, 0.2], [8.0, 7.0], title="model")
    ax = figure.axes[0]
    _, labels = ax.get_legend_handles_labels()
    assert [text for text in labels if ":" in text] == ["a: 1", "b: 1.8"]
    best = ax.get_lines()[0]
    product = np.asarray(best.get_xdata()) * np.asarray(best.get_ydata())
    np.testing.assert_allclose(product, 0.8)


def test_the_bound_of_low_rank_is_drawn() -> None:
    figure = zo.figures.excess_by_rank([1, 3], {"a": [2, 1.5]})
    bound = figure.axes[0].get_lines()[0]
    assert np.asarray(bound.get_ydata())[[0, -1]] == pytest.approx([4, 2])

"""Each figure of *Fine-tuning* draws, also of a run that has hardly begun, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo
from zotutor.tables import Costs

HALF, BETTER = (zo.llm.Accuracy(p, p - 0.05, p + 0.04, 100) for p in (0.5, 0.9))

DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.run_curves([1.0 / (k + 1) for k in range(100)], [(0, HALF), (100, BETTER)]),
    lambda: zo.figures.run_curves([0.7], [(0, HALF)]),
    lambda: zo.figures.run_curves([], []),
    lambda: zo.figures.projected_gradients([-1, 2], {"a": [-2, 2], "b": [-1, 2.1]}, quantum=2.0),
    lambda: zo.figures.projected_gradients([-1, 2], {"a": [-1, 2]}, quantum=1e-6),
    lambda: zo.figures.rounded_walks(torch.zeros(9), torch.arange(9.0).expand(10, 9) / 4, 0.25),
    lambda: zo.figures.accuracy_against_costs(
        {"AdamW, LoRA": Costs((0.8, 0.7, 0.9), 3, 30, 100.0, 3.1)}, baseline=0.5
    ),
    lambda: zo.figures.accuracies({"zero-shot": HALF, "ZO, P = 1": BETTER}, baseline=0.5),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    assert all(ax.get_xlabel() for ax in drawn(draw).axes)


def test_run_curves_averages_a_twentieth_of_the_run() -> None:
    left, right = zo.figures.run_curves(
        [float(k) for k in range(100)], [(0, HALF), (100, BETTER)]
    ).axes
    each, mean = left.get_lines()
    assert np.size(each.get_xdata()) == 100
    # of a straight line, the line itself
    np.testing.assert_allclose(np.asarray(mean.get_xdata()), np.asarray(mean.get_ydata()))
    assert [line.get_linestyle() for line in right.get_lines()].count("--") == 1


def test_ticks_are_the_values_that_a_rounded_loss_allows() -> None:
    rounded, other = zo.figures.projected_gradients(
        [0.3, -3.9], {"rounded": [0.0, -4.0], "other": [0.2, -3.8]}, quantum=2.0
    ).axes
    assert rounded.get_yticks().tolist() == [-4.0, -2.0, 0.0, 2.0, 4.0]
    assert other.get_title() == "other"

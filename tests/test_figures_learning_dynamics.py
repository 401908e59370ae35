"""Each figure of *Learning dynamics* draws, from tensors and from arrays, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo


def values(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, int(np.prod(shape)), dtype=torch.float64).view(shape)


DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.digit_row(values(3, 1, 8, 8), ["a", "b", "c"]),
    lambda: zo.figures.log_prob_changes(
        values(2, 1, 8, 8), ["a", "b"], values(2, 4), values(2, 4).numpy(), order="ZO"
    ),
    lambda: zo.figures.three_factors(values(4, 4), values(4, 4), values(4), values(4)),
    lambda: zo.figures.power_laws(
        [1, 10, 100],
        {"FO": [1, 2, 3], "ZO": [3, 2, 1], "other": [2, 2, 2]},
        {"theory": np.array([1.0, 2.0, 3.0])},
        xlabel="x",
        ylabel="y",
    ),
    lambda: zo.figures.power_laws([1, 10], {"FO": [1, 2]}, xlabel="x", ylabel="y"),
    lambda: zo.figures.agreement(
        {"FO": (values(3, 4), values(3, 4)), "ZO": (values(3, 4), 2 * values(3, 4))}
    ),
    lambda: zo.figures.agreement({"entries": ([1, 2], [2, 3])}, log=True),
    lambda: zo.figures.class_map(values(4, 4), xlabel="x", ylabel="y", title="t", signed=True),
    lambda: zo.figures.class_map(
        values(4, 4).abs(), xlabel="x", ylabel="y", title="t", signed=False
    ),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn(draw)


def test_first_order_is_blue_and_zeroth_vermilion() -> None:
    figure = zo.figures.power_laws([1, 2], {"ZO": [1, 2], "FO": [1, 2]}, xlabel="x", ylabel="y")
    zeroth, first = figure.axes[0].lines
    assert (first.get_color(), zeroth.get_color()) == ("#0072B2", "#D55E00")
    assert first.get_marker() != zeroth.get_marker()

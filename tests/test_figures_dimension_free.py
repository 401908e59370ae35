"""Each figure of *Dimension-free* draws, from tensors and from arrays, and is closed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import zotutor as zo


def bars(ax: Any) -> Any:
    """The first line with error bars."""
    return ax.containers[0]


def sweep(*, ticks: bool) -> Figure:
    return zo.figures.error_and_cause(
        [10, 30, 1000],
        {"K, one": ([1.0, 1.1, 1.0], [0.1, 0.1, 0.1]), "g": (torch.ones(3), np.ones(3) / 9)},
        {"K, one": [1, 1, 1], "g": [1, 1, 1]},
        {"one, at the start": [0.1, 0.2, 0.1], "one, trained": [0.1, 0.1, math.nan]},
        guides={"ceiling": [1, 1, 1]},
        xlabel="d",
        ylabel="error",
        cause="a",
        cause_limits=(0.01, 1.0) if ticks else None,
        ticks=ticks,
    )


DRAWN: list[Callable[[], Figure]] = [
    lambda: sweep(ticks=True),
    lambda: sweep(ticks=False),
    lambda: zo.figures.error_distributions(
        {"a": torch.rand(20), "b": np.linspace(0.5, 2, 9)}, title="t"
    ),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in drawn(draw).axes)


def test_a_cause_has_the_color_of_its_error() -> None:
    left, right = sweep(ticks=True).axes
    error = to_hex(bars(left).lines[0].get_color())
    start, trained = right.get_lines()[:2]
    assert to_hex(start.get_color()) == to_hex(trained.get_color()) == error
    assert to_hex(trained.get_markerfacecolor()) == "#ffffff"
    assert [label.get_text() for label in right.get_xticklabels()] == ["10", "30", "1,000"]

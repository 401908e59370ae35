"""Each figure of *A gradient from two function values* draws, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo


def values(*shape: int) -> torch.Tensor:
    return torch.linspace(0.01, 1, int(np.prod(shape)), dtype=torch.float64).view(shape)


DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.loss_along_line(
        values(5), values(5) ** 2, eps=0.5, above=0.3, below=0.1, middle=0.15, slope=0.2
    ),
    lambda: zo.figures.error_against_eps(
        [0.1, 0.2, 0.3],
        {"two-point": values(3), "bfloat16": [np.nan, 1.0, 2.0]},
        {"theory": values(3)},
        ylabel="error",
    ),
    lambda: zo.figures.moments(
        [10, 100], {"one": [10, 100], "two": [12, 102]}, [10], {"law": [10]}, [1, 4], [2, 1], [2, 1]
    ),
    lambda: zo.figures.gradient_and_estimate(values(8, 8), values(8, 8).numpy(), title="P = 1"),
    lambda: zo.figures.drift([1, 10], {"float32": [1e-8, 1e-7]}, {"law": [1e-8, 3e-8]}),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn(draw)

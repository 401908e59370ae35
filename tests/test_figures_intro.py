"""Each figure of the introduction draws, from tensors and from arrays, and is closed."""

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
    lambda: zo.figures.accuracy_while_fine_tuning(
        [0, 1, 2], {"small": values(3), "large": values(3).numpy()}, {"expected": values(3)}
    ),
    lambda: zo.figures.predicted_distributions(
        values(1, 8, 8), "a 3", {"before": values(10), "after": values(10).numpy()}
    ),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn(draw)

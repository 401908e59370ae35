"""Each figure of *The kernel emerges* draws, from tensors and from arrays, and is closed."""

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
    lambda: zo.figures.kernel_blocks(
        {
            "one": {"K": values(4, 4), "P = 1": 2 * values(4, 4)},
            "two": {"K": values(4, 4), "P": values(4, 4)},
        }
    ),
    lambda: zo.figures.entries(values(4, 4), {"P = 1": values(4, 4)}),
    lambda: zo.figures.entries(
        values(4, 4), {"P = 1": values(4, 4)}, {"P = 1": values(4, 4).abs()}
    ),
    lambda: zo.figures.block_and_entries(values(4, 4), values(4, 4), title="t"),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn(draw)

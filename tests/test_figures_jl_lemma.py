"""Each figure of *The Johnson-Lindenstrauss lemma* draws, and is closed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import drawn
from matplotlib.figure import Figure

import zotutor as zo


def values(*shape: int) -> torch.Tensor:
    return torch.linspace(0.1, 1, int(np.prod(shape)), dtype=torch.float64).view(shape)


P = [1, 10, 100]

DRAWN: list[Callable[[], Figure]] = [
    lambda: zo.figures.kept_inner_products(
        {4: values(50), 16: values(50).numpy()}, 0.5, epsilon=0.1, xlabel="x"
    ),
    lambda: zo.figures.curves(P, {"a": [1, float("nan"), 3]}, xlabel="x", ylabel="y"),
    lambda: zo.figures.curves(
        P, {"a": values(3)}, {"t": values(3)}, xlabel="x", ylabel="y", xlog=True, ylog=True
    ),
    lambda: zo.figures.one_pair_projected(values(50), 0.5, 0.2, title="t"),
    lambda: zo.figures.one_pair_projected([0.5, 0.5], 0.5, 0.2, title="no spread"),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn(draw)


def test_title_counts_what_lies_in_the_band() -> None:
    figure = zo.figures.kept_inner_products({7: [0.0, 0.0, 1.0, 1.0]}, 0.0, epsilon=0.5, xlabel="x")
    assert figure.axes[0].get_title() == "$P = 7$\n50% in the band"

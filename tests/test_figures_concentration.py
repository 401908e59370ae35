"""Each figure draws, from tensors and from arrays, and is closed."""

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
    lambda: zo.figures.error_against_perturbations(
        P,
        {"Gaussian": {"a": (values(3), values(3)), "b": (values(3).numpy(), values(3))}},
        {"Gaussian": {"a": values(3), "b": values(3)}},
    ),
    lambda: zo.figures.measures_against_perturbations(
        P, {"one": (-0.5, {"a": values(3)}), "two": (-1.0, {"a": values(3), "b": values(3)})}
    ),
    lambda: zo.figures.bound_and_law(
        P, [values(4), values(5), values(6)], values(3), {"bound": values(3), "sharp": values(3)}
    ),
    lambda: zo.figures.error_against_alignment({"a": (values(5), values(5)), "b": ([0.2], [3.0])}),
    lambda: zo.figures.spectra(values(2, 1, 8, 8), values(4), values(3, 4), title="t"),
]


@pytest.mark.parametrize("draw", DRAWN)
def test_draws_and_leaves_nothing_open(draw: Callable[[], Figure]) -> None:
    drawn(draw)


def test_title_counts_what_lies_in_the_band() -> None:
    figure = zo.figures.kept_inner_products({7: [0.0, 0.0, 1.0, 1.0]}, 0.0, epsilon=0.5, xlabel="x")
    assert figure.axes[0].get_title() == "$P = 7$\n50% in the band"

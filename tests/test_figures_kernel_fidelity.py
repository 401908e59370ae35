"""Each figure of *Kernel fidelity* draws, from tensors and from arrays, and is closed."""

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


def test_spread_over_pairs_shows_medians_bands_and_the_law() -> None:
    quantiles = torch.tensor([[0.5, 1.0, 2.0], [0.25, 0.5, 1.0]])
    kinds = {"4 and 9": {"Gaussian": quantiles, "Uniform": 2 * quantiles}}
    figure = drawn(
        lambda: zo.figures.spread_over_pairs(
            [1, 4], {"relative": kinds}, {"relative": {"4 and 9": [1.1, 0.55]}}
        )
    )
    (ax,) = figure.axes
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    np.testing.assert_allclose(lines["4 and 9, Uniform"].get_ydata(), [2.0, 1.0])  # type: ignore[arg-type]
    assert [1.1, 0.55] in [np.asarray(line.get_ydata()).tolist() for line in ax.get_lines()]
    band = np.asarray(ax.collections[0].get_paths()[0].vertices)[:, 1]
    assert (band.min(), band.max()) == (0.25, 2.0)

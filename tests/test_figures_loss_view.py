"""The figure of *The loss's view* draws, from tensors and from arrays, and is closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from drawing import drawn

import zotutor as zo


def test_draws_and_leaves_nothing_open() -> None:
    figure = drawn(
        lambda: zo.figures.stable_steps(
            [1, 10, 100],
            {"a": [0.1, 0.5, 1.0]},
            {"a": ([1, 10], [0.09, 0.4], torch.tensor([0.2, 0.6]))},
            {"for all": [1e-3, 1e-2, 1e-1]},
        )
    )
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)


def test_brackets_reach_from_the_last_rest_to_the_first_blow_up() -> None:
    figure = zo.figures.stable_steps(
        [1, 10], {"a": [0.1, 0.5]}, {"a": ([1], [0.1], [0.4])}, {"b": [0.1, 0.2]}
    )
    bars: Any = figure.axes[0].containers[0]
    segment = bars.lines[2][0].get_segments()[0]
    assert np.allclose(segment[:, 1], [0.1, 0.4])

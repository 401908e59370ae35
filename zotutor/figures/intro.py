"""Figures of the introduction: fine-tuning, and what two networks make of a picture."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import (
    Values,
    array,
)
from .style import CYCLE, FO, THEORY, THEORY_DASHES, ZO, figure


@figure
def accuracy_while_fine_tuning(
    steps: Values, accuracies: Mapping[str, Values], expected: Mapping[str, Values]
) -> Figure:
    """Test accuracy against ZO-SGD steps, one line a run.

    Args:
        steps: (M,), shared.
        accuracies: a run's name and its accuracies (M,), between 0 and 1.
        expected: the same for runs that do what a theory recommends; black and dashed.
    """
    fig, ax = plt.subplots()
    for position, (name, values) in enumerate(accuracies.items()):
        color, marker = ((CYCLE[2], "^"), (ZO, "s"))[position % 2]
        ax.plot(array(steps), 100 * array(values), color=color, marker=marker, label=name)
    for position, (name, values) in enumerate(expected.items()):
        dash = THEORY_DASHES[position % len(THEORY_DASHES)]
        ax.plot(array(steps), 100 * array(values), color=THEORY, linestyle=dash, lw=1.5, label=name)
    ax.set_ylim(0, 100)
    ax.set_xlabel("ZO-SGD steps")
    ax.set_ylabel("test accuracy (%)")
    ax.legend(fontsize=9, loc="lower right")
    return fig


@figure
def predicted_distributions(image: Values, title: str, probs: Mapping[str, Values]) -> Figure:
    """A picture, and the probability of each class that several networks give it.

    Args:
        image: (1, H, W) or (H, W).
        title: what the picture is.
        probs: a network's name and its probabilities (V,).
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.6), width_ratios=[1, 2.6])
    left.imshow(array(image).squeeze(), cmap="gray_r", interpolation="nearest")
    left.set_title(title)
    left.set_xticks([])
    left.set_yticks([])
    left.grid(False)
    left.spines[:].set_visible(True)
    width = 0.8 / len(probs)
    looks = ((FO, None), (ZO, "//"), (CYCLE[2], ".."))
    for position, (name, values) in enumerate(probs.items()):
        p = array(values)
        color, hatch = looks[position % len(looks)]
        middle = np.arange(len(p)) + (position - (len(probs) - 1) / 2) * width
        right.bar(
            middle, 100 * p, width, color=color, hatch=hatch, edgecolor="white", lw=0, label=name
        )
    right.set_xticks(range(len(next(iter(probs.values())))))
    right.grid(False, axis="x")
    right.set_ylim(0, 100)
    right.set_xlabel("class")
    right.set_ylabel("probability (%)")
    right.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return fig

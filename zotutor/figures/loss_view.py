"""Figures of *The loss's view*."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import Values, array, zo_look
from .style import DASHES, THEORY, figure


@figure
def stable_steps(
    P: Values,
    predicted: Mapping[str, Values],
    measured: Mapping[str, tuple[Values, Values, Values]],
    worst: Mapping[str, Values],
) -> Figure:
    """The largest stable learning rate of ZO-SGD, as a share of gradient descent's, against P.

    Args:
        P: numbers of perturbations at which the formulas were evaluated, (n,).
        predicted: for each network its share, (n,).
        measured: for each network numbers of perturbations, the largest share at which runs came
            to rest and the smallest at which they did not, (m,) each.
        worst: for each network the share that holds for all losses with the same top curvature.
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.8))
    counts = array(P)
    for position, values in enumerate(predicted.values()):
        label = r"predicted from the spectrum" if position == 0 else None
        ax.plot(counts, array(values), color=THEORY, linestyle="--", linewidth=1.1, label=label)
    for position, (name, (where, low, high)) in enumerate(measured.items()):
        below, above = array(low), array(high)
        middle = np.sqrt(below * above)
        aside = 1.1 ** (position - (len(measured) - 1) / 2)  # so that none hides another
        ax.errorbar(
            array(where) * aside,
            middle,
            [middle - below, above - middle],
            linestyle="none",
            capsize=3,
            label=f"measured, {name}",
            **zo_look(position),
        )
    for position, (name, values) in enumerate(worst.items()):
        color, dash = zo_look(position)["color"], DASHES[2 + position % 3]
        ax.plot(counts, array(values), color=color, linestyle=dash, lw=1.2, label=name)
    ax.axhline(1.0, color="#666666", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("number of perturbations $P$")
    ax.set_ylabel("largest stable $\\eta$, as a share of $2/\\lambda$")
    ax.legend(fontsize=9)
    return fig

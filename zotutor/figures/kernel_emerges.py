"""Figures of *The kernel emerges*: blocks of K and of K_U, and their entries."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import (
    Values,
    array,
    class_ticks,
    heat,
)
from .style import THEORY, ZO, figure


@figure
def kernel_blocks(rows: Mapping[str, Mapping[str, Values]]) -> Figure:
    """Kernel blocks as heat maps: a row a pair of inputs, a column FO or ZO with some P.

    Each row has one color scale, that of its first block, so that blocks of a row can be compared;
    a value beyond the scale is shown in its last color.

    Args:
        rows: pair's name -> (column's title -> block (V, V)); first column first order.
    """
    columns = len(next(iter(rows.values())))
    fig, axes = plt.subplots(
        len(rows), columns, figsize=(1.75 * columns + 0.5, 1.85 * len(rows) + 0.4), squeeze=False
    )
    for r, (name, blocks) in enumerate(rows.items()):
        limit = float(np.abs(array(next(iter(blocks.values())))).max())
        for ax, (title, block) in zip(axes[r], blocks.items(), strict=True):
            shown = heat(ax, np.clip(array(block), -limit, limit), limit)
            ax.set_xticks([])
            ax.set_yticks([])
            if r == 0:
                ax.set_title(title, fontsize=10)
        axes[r, 0].set_ylabel(name, fontsize=10)
        fig.colorbar(shown, ax=list(axes[r]), shrink=0.85).ax.tick_params(labelsize=7)
    return fig


@figure
def entries(
    K: Values, drawn: Mapping[str, Values], spread: Mapping[str, Values] | None = None
) -> Figure:
    """Each entry of a drawn K_U against the same entry of K, a panel a column, one scale for all.

    Args:
        K: the first-order block, (V, V).
        drawn: title -> K_U (V, V).
        spread: title -> standard deviation of each entry by theory (V, V), drawn as a bar of two
            of them each way around K.
    """
    exact = array(K).ravel()
    fig, axes = plt.subplots(
        1, len(drawn), figsize=(2.5 * len(drawn) + 0.4, 3.0), sharey=True, squeeze=False
    )
    ends = [float(exact.min()), float(exact.max())]
    for ax, (title, block) in zip(axes[0], drawn.items(), strict=True):
        if spread is not None:
            bars = 2 * array(spread[title]).ravel()
            ax.errorbar(exact, exact, yerr=bars, fmt="none", ecolor="#bbbbbb", elinewidth=0.8)
        ax.plot(exact, array(block).ravel(), "s", color=ZO, ms=3)
        ax.plot(ends, ends, color=THEORY, linestyle="--", linewidth=1.1)
        ax.set_title(title)
    axes[0, 0].set_ylabel("entry of $K_U$")
    fig.supxlabel("the same entry of $K$", fontsize=11)
    return fig


@figure
def block_and_entries(K: Values, K_U: Values, *, title: str) -> Figure:
    """One pair of inputs: K, a drawn K_U on the same color scale, and entry against entry.

    Args:
        K: first order, (V, V).
        K_U: zeroth order, (V, V).
        title: which pair, which P.
    """
    exact, drawn = array(K), array(K_U)
    fig, axes = plt.subplots(1, 3, figsize=(8.2, 2.8), width_ratios=[1, 1, 1.1])
    limit = float(np.abs(exact).max())
    for ax, name, block in zip(axes[:2], ("FO: $K$", "ZO: $K_U$"), (exact, drawn), strict=True):
        shown = heat(ax, np.clip(block, -limit, limit), limit)
        class_ticks(ax, *block.shape)
        ax.set_title(name)
    fig.colorbar(shown, ax=list(axes[:2]), shrink=0.7).ax.tick_params(labelsize=7)
    axes[2].plot(exact.ravel(), drawn.ravel(), "s", color=ZO, ms=3)
    ends = [float(exact.min()), float(exact.max())]
    axes[2].plot(ends, ends, color=THEORY, linestyle="--", linewidth=1.1)
    axes[2].set_xlabel("entry of $K$")
    axes[2].set_ylabel("entry of $K_U$")
    fig.suptitle(title, fontsize=11)
    return fig

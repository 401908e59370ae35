"""Figures of *The Johnson-Lindenstrauss lemma*: inner products that survive projection."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import (
    Values,
    array,
    look,
    value_ticks,
)
from .style import THEORY, THEORY_DASHES, ZO, figure


def _bins(samples: np.ndarray) -> int:
    """As many bins as the number of samples fills."""
    return int(np.clip(np.sqrt(samples.size), 8, 60))


@figure
def kept_inner_products(
    samples: Mapping[int, Values], exact: float, *, epsilon: float, xlabel: str
) -> Figure:
    """Histograms of projected inner products, one panel for each P, with the exact value.

    Args:
        samples: P -> projected inner products (draws,).
        exact: the inner product before projection.
        epsilon: half-width of the gray band around it.
        xlabel: what is counted.
    """
    fig, axes = plt.subplots(
        1, len(samples), figsize=(2.4 * len(samples) + 0.4, 2.9), sharex=True, squeeze=False
    )
    for ax, (P, values) in zip(axes[0], samples.items(), strict=True):
        found = array(values)
        ax.hist(found, bins=_bins(found), color=ZO, density=True)
        ax.axvspan(exact - epsilon, exact + epsilon, color="#bbbbbb", alpha=0.5, zorder=0)
        ax.axvline(exact, color=THEORY, linestyle="--", linewidth=1.2)
        inside = float((np.abs(found - exact) <= epsilon).mean())
        ax.set_title(f"$P = {P:,}$\n{inside:.0%} in the band", fontsize=10)
        ax.set_yticks([])
    width = 4.2 * float(array(next(iter(samples.values()))).std())
    axes[0, 0].set_xlim(exact - width, exact + width)
    fig.supxlabel(xlabel, fontsize=11)
    return fig


@figure
def curves(
    x: Values,
    measured: Mapping[str, Values],
    theory: Mapping[str, Values] | None = None,
    *,
    xlabel: str,
    ylabel: str,
    xlog: bool = False,
    ylog: bool = False,
) -> Figure:
    """Measured values as markers and formulas as black dashes over a shared axis.

    Args:
        x: (M,).
        measured: a line's name and its values (M,); NaN leaves a point out.
        theory: a formula's name and its values (M,).
        xlabel: in the field's words.
        ylabel: in the field's words.
        xlog: logarithmic x axis.
        ylog: logarithmic y axis.
    """
    fig, ax = plt.subplots()
    for position, (name, values) in enumerate(measured.items()):
        ax.plot(array(x), array(values), linestyle="", label=name, **look(position))
    for position, (name, values) in enumerate((theory or {}).items()):
        dash = THEORY_DASHES[position % len(THEORY_DASHES)]
        ax.plot(array(x), array(values), color=THEORY, linestyle=dash, lw=1.3, label=name)
    if xlog:
        ax.set_xscale("log")
    if ylog:
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        if high < 100 * low:
            value_ticks(ax)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=9)
    return fig


@figure
def one_pair_projected(samples: Values, exact: float, bound: float, *, title: str) -> Figure:
    """Projected inner products of one pair: their histogram, a normal, and where the bound is.

    Args:
        samples: (draws,).
        exact: the inner product before projection.
        bound: epsilon; dotted lines are at exact +- epsilon.
        title: which pair, which P.
    """
    found = array(samples)
    fig, ax = plt.subplots(figsize=(6.0, 3.4))
    ax.hist(found, bins=_bins(found), color=ZO, density=True, label="drawn")
    spread = float(found.std())
    if spread > 0:
        grid = np.linspace(found.min(), found.max(), 200)
        normal = np.exp(-0.5 * ((grid - exact) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        ax.plot(grid, normal, color=THEORY, linestyle="--", label="normal of the same spread")
    for side in (-1, 1):
        label = "kept within the bound" if side == 1 else None
        ax.axvline(exact + side * bound, color=THEORY, linestyle=":", label=label)
    ax.set_xlabel("projected inner product")
    ax.set_yticks([])
    ax.set_title(title)
    ax.legend(fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")
    return fig

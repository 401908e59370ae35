"""Figures of the chapter on what lies beyond independent entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .style import CYCLE, MARKERS, THEORY, ZO, figure


@figure
def excess_by_density(
    densities: Sequence[float],
    factors: Mapping[str, Sequence[float]],
    measured: Mapping[str, Sequence[tuple[float, float, float]]],
) -> Figure:
    """How many times the variance of Gaussian directions Sparse has, against the density.

    Args:
        densities: of the law's curves.
        factors: by name of the model, the law at each density.
        measured: by name, for some of them, triples of density, factor from draws, and its
            standard error.
    """
    drawn, ax = plt.subplots()
    for number, (name, values) in enumerate(factors.items()):
        dashes, color = ("--", "-.", ":")[number % 3], CYCLE[number]
        ax.plot(densities, values, ls=dashes, color=color, label=f"{name}: law")
        if name in measured:
            x, y, error = np.asarray(measured[name], dtype=float).T
            label = f"{name}: draws"
            ax.errorbar(
                x, y, yerr=2 * error, color=color, fmt=MARKERS[number], capsize=3, label=label
            )
    ax.axhline(1, color=THEORY, lw=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="density of the directions",
        ylabel="variance over that of Gaussian",
    )
    ax.legend()
    return drawn


@figure
def excess_by_rank(ranks: Sequence[int], factors: Mapping[str, Sequence[float]]) -> Figure:
    """How many times the variance of Gaussian directions LowRank has, and the bound 1 + 3/r.

    Args:
        ranks: r.
        factors: by name of what is observed, the law at each rank.
    """
    drawn, ax = plt.subplots()
    grid = np.geomspace(min(ranks), max(ranks))
    ax.plot(grid, 1 + 3 / grid, "--", color=THEORY, label="bound for any model, $1 + 3/r$")
    for number, (name, values) in enumerate(factors.items()):
        ax.plot(ranks, values, MARKERS[number] + "-", color=CYCLE[number], label=name)
    ax.set(
        xscale="log",
        ylim=(0, None),
        xlabel="rank $r$ of the directions",
        ylabel="variance over that of Gaussian",
    )
    ax.set_xticks(list(ranks), [str(r) for r in ranks])
    ax.minorticks_off()
    ax.legend()
    return drawn


@figure
def factors_by_matrix(
    names: Sequence[str], factors: Sequence[float], shares: Sequence[float], *, rank: int
) -> Figure:
    """The factor over Gaussian within each matrix, and the share of the gradient it holds.

    Args:
        names: of the matrices.
        factors: variance over that of Gaussian, were the matrix alone.
        shares: of the squared gradient that lies in the matrix.
        rank: r, for the bound and the title.
    """
    drawn, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(6.8, 0.24 * len(names) + 1.4), width_ratios=(2, 1)
    )
    rows = range(len(names))
    left.barh(rows, factors, color=ZO)
    left.axvline(1, color=THEORY, lw=1)
    left.axvline(1 + 3 / rank, color=THEORY, ls="--")
    left.set_yticks(list(rows), list(names), fontsize=8)
    left.invert_yaxis()
    left.set(
        xlim=(0, 4.2), xlabel="variance over that of Gaussian", title=f"r = {rank}; dashed: bound"
    )
    right.barh(rows, shares, color=CYCLE[5])
    right.set(xlim=(0, 1), xlabel="share of $|g|^2$")
    return drawn


@figure
def fidelity_per_second(
    names: Sequence[str], seconds: Sequence[float], variances: Sequence[float], *, title: str
) -> Figure:
    """The variance of one direction against the seconds it takes; lower left is better.

    Dashed lines join equal products, hence equal error for equal time; the lowest one that meets a
    point is drawn heavier.

    Args:
        names: of the families.
        seconds: for one direction, both signs and the update.
        variances: relative variance of one direction, C^2.
        title: model and batch.
    """
    drawn, ax = plt.subplots(figsize=(6.8, 3.8))
    x, y = np.asarray(seconds, dtype=float), np.asarray(variances, dtype=float)
    low, high = x.min() / 1.6, x.max() * 1.6
    grid = np.geomspace(low, high)
    best = (x * y).min()
    for multiple in (1, 2, 4, 8):
        ax.plot(grid, best * multiple / grid, "--", color=THEORY, lw=1.8 if multiple == 1 else 0.6)
    for number, name in enumerate(names):
        ax.plot(
            x[number],
            y[number],
            MARKERS[number % len(MARKERS)],
            color=CYCLE[number % len(CYCLE)],
            ms=8,
            label=f"{name}: {x[number] * y[number] / best:.2g}",
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(y.min() / 2, y.max() * 2),
        title=title,
        xlabel="seconds for one direction",
        ylabel="relative variance\nof one direction, $C^2$",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    drawn.legend(
        title="seconds to a given error,\nthe best being 1",
        loc="outside right center",
        fontsize=9,
        title_fontsize=9,
    )
    return drawn


@figure
def momentum_window(
    windows: Sequence[int], deviations: Sequence[float], *, momentum: float
) -> Figure:
    """How far momentum from the last k steps' numbers is from momentum with a buffer.

    Args:
        windows: k.
        deviations: distance of the final parameters over the distance gone.
        momentum: m; the dashed line is m^k.
    """
    drawn, ax = plt.subplots()
    grid = np.linspace(min(windows), max(windows))
    ax.plot(grid, momentum**grid, "--", color=THEORY, label="weight left out, $m^k$")
    ax.plot(windows, deviations, "s", color=ZO, label="measured")
    ax.set(
        yscale="log",
        xlabel="steps remembered, $k$",
        ylabel="deviation over\nthe distance gone",
    )
    ax.legend()
    return drawn

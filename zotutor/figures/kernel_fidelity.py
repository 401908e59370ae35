"""Figures of *Kernel fidelity*: how close K_U is to K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import (
    Values,
    array,
    count_ticks,
    look,
    value_ticks,
)
from .style import CYCLE, FO, MARKERS, THEORY, THEORY_DASHES, ZO, figure


@figure
def error_against_perturbations(
    P: Values,
    panels: Mapping[str, Mapping[str, tuple[Values, Values]]],
    laws: Mapping[str, Mapping[str, Values]],
) -> Figure:
    """Relative error of K_U against P, a panel for each family, a color for each kind of pair.

    Args:
        P: (M,), numbers of perturbations.
        panels: family -> kind of pair -> (measured, standard error), each (M,).
        laws: family -> kind of pair -> the law (M,), drawn dashed.
    """
    fig, axes = plt.subplots(
        1, len(panels), figsize=(4.1 * len(panels), 3.8), sharey=True, squeeze=False
    )
    counts = array(P)
    for ax, (family, kinds) in zip(axes[0], panels.items(), strict=True):
        for position, (kind, (values, errors)) in enumerate(kinds.items()):
            bars = 2 * array(errors)
            marks = look(position)
            ax.errorbar(counts, array(values), yerr=bars, linestyle="", label=kind, **marks)
        for position, values in enumerate(laws[family].values()):
            name = "law" if position == 0 else None
            ax.plot(counts, array(values), color=THEORY, linestyle="--", lw=1.1, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        count_ticks(ax, counts)
        value_ticks(ax)
        ax.set_title(family)
        ax.set_xlabel("number of perturbations $P$")
    axes[0, 0].set_ylabel("relative error of $K_U$")
    axes[0, -1].legend(fontsize=9)
    return fig


@figure
def spread_over_pairs(
    P: Values,
    panels: Mapping[str, Mapping[str, Mapping[str, Values]]],
    laws: Mapping[str, Mapping[str, Values]],
) -> Figure:
    """Errors against P for many pairs of a kind: the median, and the middle 80 % of the pairs.

    Args:
        P: (M,), numbers of perturbations.
        panels: title -> kind of pair -> family -> the 10 %, 50 % and 90 % quantiles, (M, 3). The
            band is that of the first family.
        laws: panel -> kind of pair -> median of the law (M,), dashed; not all panels need one.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.9), squeeze=False)
    counts = array(P)
    for ax, (title, kinds) in zip(axes[0], panels.items(), strict=True):
        for position, (kind, families) in enumerate(kinds.items()):
            color = CYCLE[position % len(CYCLE)]
            band = array(next(iter(families.values())))
            ax.fill_between(counts, band[:, 0], band[:, 2], color=color, alpha=0.18, lw=0)
            for number, (family, quantiles) in enumerate(families.items()):
                shift = 1.1 ** (number - (len(families) - 1) / 2)  # side by side
                ax.plot(
                    counts * shift,
                    array(quantiles)[:, 1],
                    MARKERS[number],
                    color=color,
                    label=f"{kind}, {family}",
                )
            if title in laws:
                ax.plot(counts, array(laws[title][kind]), color=THEORY, ls="--", lw=1.1)
        ax.set_xscale("log")
        ax.set_yscale("log")
        count_ticks(ax, counts)
        value_ticks(ax)
        ax.set_title(title)
        ax.set_xlabel("number of perturbations $P$")
    axes[0, 0].set_ylabel("error of $K_U$, median over pairs")
    axes[0, 0].plot([], [], color=THEORY, ls="--", lw=1.1, label="law")
    axes[0, 0].legend(fontsize=8)
    return fig


@figure
def measures_against_perturbations(
    P: Values, panels: Mapping[str, tuple[float, Mapping[str, Values]]]
) -> Figure:
    """Several measures of the error against P, each with the slope it should have.

    Args:
        P: (M,), numbers of perturbations.
        panels: name of the measure -> (slope, kind of pair -> values (M,)).
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(3.0 * len(panels), 3.5), squeeze=False)
    counts = array(P)
    for ax, (name, (slope, kinds)) in zip(axes[0], panels.items(), strict=True):
        for position, (kind, values) in enumerate(kinds.items()):
            ax.loglog(counts, array(values), linestyle="", label=kind, **look(position))
        last = np.exp(np.mean([np.log(array(values)[-1]) for values in kinds.values()]))
        line = last * (counts / counts[-1]) ** slope
        ax.loglog(counts, line, color=THEORY, linestyle="--", lw=1.1)
        count_ticks(ax, counts)
        ax.set_title(f"{name}\ndashed: slope ${slope:g}$", fontsize=10)
        ax.tick_params(labelsize=8)
    axes[0, 0].legend(fontsize=8)
    fig.supxlabel("number of perturbations $P$", fontsize=11)
    return fig


@figure
def bound_and_law(
    P: Values, drawn: Sequence[Values], law: Values, bounds: Mapping[str, Values]
) -> Figure:
    """Every drawn error, the law through them, and the bounds above them.

    Args:
        P: (M,), numbers of perturbations.
        drawn: M arrays of relative errors, one an entry of P.
        law: (M,).
        bounds: name -> (M,).
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.2))
    counts = array(P)
    for position, (count, values) in enumerate(zip(counts, drawn, strict=True)):
        found = array(values).ravel()
        label = "ZO: each draw" if position == 0 else None
        ax.plot(np.full(found.shape, count), found, "_", color=ZO, ms=9, alpha=0.4, label=label)
    ax.plot(counts, array(law), color=THEORY, linestyle="--", lw=1.3, label="exact law")
    for position, (name, values) in enumerate(bounds.items()):
        marks = look(position + 2)
        ax.plot(
            counts,
            array(values),
            lw=1.3,
            linestyle=THEORY_DASHES[position + 1],
            label=name,
            **marks,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    count_ticks(ax, counts)
    ax.set_xlabel("number of perturbations $P$")
    ax.set_ylabel("relative error of $K_U$")
    ax.legend(fontsize=9)
    return fig


@figure
def error_against_alignment(series: Mapping[str, tuple[Values, Values]]) -> Figure:
    """Each pair's relative error times sqrt(P) against its alignment, and sqrt(1/a + 1).

    Args:
        series: name -> (alignments, errors times sqrt(P)), of equal shape.
    """
    fig, ax = plt.subplots()
    low, high = np.inf, 0.0
    for position, (name, (a, error)) in enumerate(series.items()):
        x = array(a).ravel()
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        ax.plot(x, array(error).ravel(), linestyle="", alpha=0.7, label=name, **look(position))
    grid = np.geomspace(low, high, 100)
    name = r"$\sqrt{1/a + 1}$"
    ax.plot(grid, np.sqrt(1 / grid + 1), color=THEORY, linestyle="--", label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    value_ticks(ax)
    ax.set_xlabel("alignment $a$ of the pair")
    ax.set_ylabel(r"relative error $\times\ \sqrt{P}$")
    ax.legend(fontsize=9)
    return fig


@figure
def spectra(images: Values, exact: Values, drawn: Values, *, title: str) -> Figure:
    """Two inputs, and the singular values of their block: of K, and of K_U in each draw.

    Args:
        images: the two inputs, (2, 1, H, W).
        exact: singular values of K (V,), falling.
        drawn: those of K_U, (draws, V).
        title: which pair, which P.
    """
    pictures, values = array(images), array(drawn)
    fig = plt.figure(figsize=(7.2, 3.4))
    grid = fig.add_gridspec(2, 2, width_ratios=[1, 4])
    for row, name in enumerate(("$x_o$", "$x_u$")):
        ax = fig.add_subplot(grid[row, 0])
        ax.imshow(pictures[row].squeeze(), cmap="gray_r", interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[:].set_visible(True)
        ax.set_ylabel(name, rotation=0, labelpad=12)
    ax = fig.add_subplot(grid[:, 1])
    numbers = np.arange(1, len(array(exact)) + 1)
    for draw, row_values in enumerate(values):
        label = "ZO: each draw" if draw == 0 else None
        ax.plot(numbers, row_values, color=ZO, alpha=0.35, lw=1.0, label=label)
    ax.plot(numbers, array(exact), "o--", color=FO, label="FO")
    ax.set_xticks(numbers)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("number of the singular value")
    ax.set_ylabel("singular value of the block")
    ax.set_title(title)
    ax.legend(fontsize=9)
    return fig

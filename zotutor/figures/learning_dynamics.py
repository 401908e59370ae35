"""Figures of *Learning dynamics*: one step, predicted and measured, and its three factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .parts import (
    Values,
    array,
    class_ticks,
    heat,
    order_look,
    picture,
)
from .style import THEORY, figure


@figure
def digit_row(images: Values, titles: Sequence[str]) -> Figure:
    """A row of pictures, each under its title.

    Args:
        images: (N, 1, H, W) or (N, H, W).
        titles: N of them.
    """
    pictures = array(images)
    fig, axes = plt.subplots(1, len(titles), figsize=(1.5 * len(titles), 1.9), squeeze=False)
    for ax, image, title in zip(axes[0], pictures, titles, strict=True):
        picture(ax, image, title)
    return fig


@figure
def log_prob_changes(
    images: Values,
    titles: Sequence[str],
    predicted: Values,
    measured: Values,
    *,
    order: Literal["FO", "ZO"] = "FO",
) -> Figure:
    """The change of log pi(. | x_o), class by class: measured as bars, predicted as black ticks.

    Args:
        images: the observed inputs, (N, 1, H, W).
        titles: what each of them is.
        predicted: (N, V).
        measured: (N, V).
        order: of the step that was taken, which decides the color.
    """
    pictures, guess, truth = array(images), array(predicted), array(measured)
    count, classes = truth.shape
    fig, axes = plt.subplots(
        count, 2, figsize=(6.4, 1.45 * count + 0.5), width_ratios=[1, 6], squeeze=False
    )
    top = 1.15 * max(np.abs(truth).max(), np.abs(guess).max())
    for n in range(count):
        picture(axes[n, 0], pictures[n], titles[n])
        ax = axes[n, 1]
        ax.bar(
            range(classes),
            truth[n],
            color=order_look(order, 0)["color"],
            width=0.7,
            label="measured",
        )
        ax.plot(range(classes), guess[n], "_", color=THEORY, ms=16, mew=2, label="predicted")
        ax.axhline(0.0, color="#666666", linewidth=0.8)
        ax.set_ylim(-top, top)
        ax.set_xticks(range(classes))
        ax.grid(False, axis="x")
    axes[0, 1].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9)
    axes[-1, 1].set_xlabel("class $i$")
    fig.supylabel("change of $\\log \\pi_i(x_o)$", fontsize=11)
    return fig


@figure
def three_factors(A: Values, K: Values, G: Values, change: Values) -> Figure:
    """A, K and G of one pair of inputs as heat maps, and the change -A K G they make.

    Args:
        A: (V, V).
        K: (V, V).
        G: (V,).
        change: -A K G, (V,).
    """
    parts = [
        ("$A(x_o)$", array(A)),
        ("$K(x_o, x_u)$", array(K)),
        ("$G(x_u, y_u)$", array(G)[:, None]),
        ("$-A\\,K\\,G$", array(change)[:, None]),
    ]
    fig, axes = plt.subplots(1, 4, figsize=(8.6, 2.9), width_ratios=[10, 10, 2.6, 2.6])
    for ax, (title, values) in zip(axes, parts, strict=True):
        shown = heat(ax, values, float(np.abs(values).max()))
        class_ticks(ax, *values.shape)
        ax.set_title(title)
        ax.set_aspect("auto")
        bar = fig.colorbar(shown, ax=ax, shrink=0.9, aspect=30, ticks=MaxNLocator(5))
        bar.ax.tick_params(labelsize=7)
    axes[0].set_ylabel("class")
    return fig


@figure
def power_laws(
    x: Values,
    measured: Mapping[str, Values],
    theory: Mapping[str, Values] | None = None,
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Measured values (markers) and what a formula says (dashed) on doubly logarithmic axes.

    Args:
        x: (M,), shared.
        measured: a line's name and its values (M,); a name that starts with FO or ZO gets that
            color.
        theory: a formula's name and its values (M,).
        xlabel: in the field's words.
        ylabel: in the field's words.
    """
    fig, ax = plt.subplots()
    for position, (name, values) in enumerate(measured.items()):
        ax.loglog(array(x), array(values), linestyle="", label=name, **order_look(name, position))
    dashes = [(0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1))]
    for position, (name, values) in enumerate((theory or {}).items()):
        style = dashes[position % len(dashes)]
        ax.loglog(array(x), array(values), color=THEORY, linestyle=style, lw=1.3, label=name)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=9)
    return fig


@figure
def agreement(
    series: Mapping[str, tuple[Values, Values]],
    *,
    xlabel: str = "predicted change of $\\log \\pi_i(x_o)$",
    ylabel: str = "measured change of $\\log \\pi_i(x_o)$",
    log: bool = False,
) -> Figure:
    """Predicted against measured, one point a number, with the line on which they are equal.

    Args:
        series: a name (FO..., ZO..., or any) and its pair (predicted, measured), of equal shapes.
        xlabel: what was predicted.
        ylabel: what was measured.
        log: logarithmic axes, for values above 0.
    """
    fig, ax = plt.subplots(figsize=(5.2, 4.6))
    pairs = {name: (array(p).ravel(), array(m).ravel()) for name, (p, m) in series.items()}
    # the widest cloud first, so that a narrow one stays visible on top of it
    widest = sorted(pairs, key=lambda name: -float(np.ptp(pairs[name][1])))
    for name in widest:
        p, m = pairs[name]
        look = order_look(name, list(pairs).index(name))
        # as dots of a picture where a drawing would weigh a megabyte
        many = len(p) > 1000
        ax.scatter(p, m, s=11, alpha=0.55, linewidths=0, label=name, rasterized=many, **look)
    every = np.concatenate([np.concatenate(pair) for pair in pairs.values()])
    ends = [float(every.min()), float(every.max())]
    ax.plot(ends, ends, color=THEORY, linestyle="--", linewidth=1.1, label="equal")
    if log:
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(markerscale=2, fontsize=9)
    return fig


@figure
def class_map(values: Values, *, xlabel: str, ylabel: str, title: str, signed: bool) -> Figure:
    """A square map, one cell for each pair of classes, with the numbers written in.

    Args:
        values: (C, C); row: observed class, column: class of the updated-on input.
        xlabel: what a column is.
        ylabel: what a row is.
        title: what a cell says, and its unit.
        signed: whether 0 is the middle (blue to red) or the bottom (white to blue) of the scale.
    """
    cells = array(values)
    fig, ax = plt.subplots(figsize=(6.0, 5.2))
    top = float(np.abs(cells).max())
    if signed:
        shown = heat(ax, cells, top)
    else:
        shown = ax.imshow(cells, cmap="Blues", vmin=0.0, vmax=top)
        ax.grid(False)
        ax.spines[:].set_visible(True)
    for (row, column), value in np.ndenumerate(cells):
        dark = abs(value) > 0.6 * top
        ax.text(
            column,
            row,
            f"{round(value)}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )
    ax.set_xticks(range(cells.shape[1]))
    ax.set_yticks(range(cells.shape[0]))
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    fig.colorbar(shown, ax=ax, shrink=0.85)
    return fig

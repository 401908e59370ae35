"""Figures of *Dimension-free*: error and alignment side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .parts import (
    Values,
    array,
    zo_look,
)
from .style import DASHES, THEORY, figure


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _ticks_at(ax: Axes, x: np.ndarray) -> None:
    ax.set_xticks(x, [_plain(value) for value in x])
    ax.xaxis.set_minor_locator(NullLocator())


def _readable(ax: Axes) -> None:
    """Plain numbers at 1, 2, 5, where the axis spans too little for powers of ten."""
    low, high = ax.get_ylim()
    if math.log10(high / low) < 2.1:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(_plain))
        ax.yaxis.set_minor_formatter(NullFormatter())


@figure
def error_and_cause(
    x: Values,
    errors: Mapping[str, tuple[Values, Values]],
    laws: Mapping[str, Values],
    causes: Mapping[str, Values],
    *,
    guides: Mapping[str, Values] | None = None,
    xlabel: str,
    ylabel: str,
    cause: str,
    cause_limits: tuple[float, float] | None = None,
    ticks: bool = False,
) -> Figure:
    """Left: measured errors with error bars on the lines of the law. Right: what the law names.

    Args:
        x: what was swept, (n,).
        errors: for each line root mean square errors and their standard errors, (n,) each.
        laws: for each line what the law says, (n,); drawn black and dashed, without a label each.
        causes: for the right panel, for each line (n,); NaN where it was not computed. A line whose
            name up to its first comma occurs in the name of an error has the color of that error;
            the second of a color is drawn thin, with hollow markers.
        guides: formulas for the right panel, (n,) each.
        xlabel: what was swept, in the field's words.
        ylabel: which error.
        cause: what the right panel shows.
        cause_limits: ends of the right panel's vertical axis.
        ticks: whether to label the horizontal axes at x instead of at powers of ten.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.9))
    where = array(x)
    for position, (name, (mean, bar)) in enumerate(errors.items()):
        look = zo_look(position)
        left.errorbar(
            where, array(mean), array(bar), linestyle="none", capsize=3, label=name, **look
        )
    for position, values in enumerate(laws.values()):
        label = "law" if position == 0 else None
        left.plot(where, array(values), color=THEORY, linestyle="--", linewidth=1.1, label=label)
    taken: list[int] = []
    for position, (name, values) in enumerate(causes.items()):
        base = name.split(",")[0]
        same = [i for i, error in enumerate(errors) if base in error]
        chosen = same[0] if same else len(errors) + position
        again: dict[str, Any] = {"linestyle": (0, (1, 1)), "markerfacecolor": "white", "lw": 1.2}
        extra = again if chosen in taken else {"linestyle": DASHES[len(taken) % len(DASHES)]}
        taken.append(chosen)
        right.plot(where, array(values), label=name, **zo_look(chosen), **extra)
    for position, (name, values) in enumerate((guides or {}).items()):
        dash = ("--", ":")[position % 2]
        right.plot(where, array(values), color=THEORY, linestyle=dash, linewidth=1.1, label=name)
    if cause_limits is not None:
        right.set_ylim(*cause_limits)
    for ax, label in ((left, ylabel), (right, cause)):
        ax.set_xscale("log")
        ax.set_yscale("log")
        _readable(ax)
        if ticks:
            _ticks_at(ax, where)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(label)
        ax.legend(fontsize=9)
    return fig


@figure
def error_distributions(samples: Mapping[str, Values], *, title: str) -> Figure:
    """The share of draws whose relative error is below a value, one curve for each sample.

    Args:
        samples: for each curve the errors of many draws, (n,).
        title: what was drawn.
    """
    fig, ax = plt.subplots()
    for position, (name, values) in enumerate(samples.items()):
        errors = np.sort(array(values))
        share = (np.arange(len(errors)) + 1) / len(errors)
        color = zo_look(position)["color"]
        ax.plot(errors, share, color=color, linestyle=DASHES[position % len(DASHES)], label=name)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(r"relative error of $K_U$, $\|K_U - K\|_F / \|K\|_F$")
    ax.set_ylabel("share of draws below")
    ax.set_title(title)
    ax.legend(fontsize=9, loc="upper left")
    return fig

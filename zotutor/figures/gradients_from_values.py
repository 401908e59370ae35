"""Figures of *A gradient from two function values*."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import (
    Values,
    array,
)
from .style import CYCLE, FO, MARKERS, THEORY, THEORY_DASHES, ZO, figure


@figure
def loss_along_line(
    c: Values,
    losses: Values,
    *,
    eps: float,
    above: float,
    below: float,
    middle: float,
    slope: float,
) -> Figure:
    """The loss on the line theta + c u, its tangent at c = 0, and the two chords.

    Args:
        c: positions on the line, (M,).
        losses: the loss at each, (M,).
        eps: where the probes are, at +eps and -eps.
        above: the loss at +eps.
        below: the loss at -eps.
        middle: the loss at 0.
        slope: u . g, the slope of the tangent.
    """
    at, values = array(c), array(losses)
    central, forward = (above - below) / (2 * eps), (above - middle) / eps
    fig, ax = plt.subplots()
    ax.plot(at, values, color="#777777", lw=2.4, label="loss")
    ax.plot(
        at,
        middle + slope * at,
        color=FO,
        linestyle=(0, (5, 2)),
        label=f"tangent, slope {slope:.3f}",
    )
    ax.plot(
        at,
        (above + below) / 2 + central * at,
        color=ZO,
        lw=1.5,
        label=f"two-point, slope {central:.3f}",
    )
    ax.plot(
        at,
        middle + forward * at,
        color=CYCLE[2],
        linestyle=(0, (1, 1.5)),
        label=f"forward, slope {forward:.3f}",
    )
    ax.plot([-eps, eps], [below, above], "s", color=ZO, ms=7)
    ax.plot([0], [middle], "o", color=CYCLE[2], ms=7)
    spread = float(np.ptp(values))
    ax.set_ylim(values.min() - 0.35 * spread, values.max() + 0.1 * spread)
    ax.set_xlabel("c, the distance from $\\theta$ along u")
    ax.set_ylabel("$L(\\theta + c\\,u)$")
    ax.legend(fontsize=9, loc="upper center")
    return fig


@figure
def error_against_eps(
    eps: Values, measured: Mapping[str, Values], theory: Mapping[str, Values], *, ylabel: str
) -> Figure:
    """The error of a finite difference against its step, on doubly logarithmic axes.

    Args:
        eps: the steps, (M,).
        measured: what was measured and its errors (M,); NaN where there is none.
        theory: a formula's name and its values (M,).
        ylabel: what error this is.
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.2))
    shown = [array(values) for values in measured.values()]
    for position, (name, errors) in enumerate(zip(measured, shown, strict=True)):
        color = CYCLE[(position + 1) % len(CYCLE)]
        marker = MARKERS[(position + 1) % len(MARKERS)]
        ax.loglog(array(eps), errors, linestyle="", marker=marker, color=color, label=name)
    for position, (name, values) in enumerate(theory.items()):
        dash = THEORY_DASHES[position % len(THEORY_DASHES)]
        ax.loglog(array(eps), array(values), color=THEORY, linestyle=dash, lw=1.2, label=name)
    everything = np.concatenate(shown)
    found = everything[np.isfinite(everything) & (everything > 0)]
    ax.set_ylim(found.min() / 3, found.max() * 3)
    ax.set_xlabel("finite-difference step $\\varepsilon$")
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=8, ncols=2)
    return fig


@figure
def moments(
    d: Values,
    measured: Mapping[str, Values],
    grid: Values,
    theory: Mapping[str, Values],
    P: Values,
    error: Values,
    expected: Values,
) -> Figure:
    """Left: the second moment at P = 1 against d. Right: the squared error at one d against P.

    Args:
        d: numbers of parameters, (M,).
        measured: a family of directions and E|g_hat|^2 / |g|^2 at each d, (M,).
        grid: numbers of parameters at which the law is drawn, (L,).
        theory: a law's name and what it says there, (L,).
        P: numbers of perturbations, (N,).
        error: measured E|g_hat - g|^2 / |g|^2 at each P, (N,).
        expected: what the law says, (N,).
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.8))
    for position, (name, values) in enumerate(measured.items()):
        color, marker = CYCLE[(position + 1) % len(CYCLE)], MARKERS[(position + 1) % len(MARKERS)]
        left.loglog(
            array(d),
            array(values),
            linestyle="",
            marker=marker,
            ms=11 - 2 * position,
            mfc="none",
            mew=1.6,
            color=color,
            label=name,
        )
    for position, (name, values) in enumerate(theory.items()):
        dash = THEORY_DASHES[position % len(THEORY_DASHES)]
        left.loglog(array(grid), array(values), color=THEORY, linestyle=dash, lw=1.2, label=name)
    left.set_xlabel("number of parameters d")
    left.set_ylabel("$E|\\hat g|^2\\, /\\, |g|^2$ at P = 1")
    left.legend(fontsize=8)
    right.loglog(array(P), array(error), "s", color=ZO, ms=7, label="measured")
    right.loglog(array(P), array(expected), color=THEORY, linestyle=THEORY_DASHES[0], label="law")
    right.axhline(1.0, color="#777777", lw=1.0)
    right.text(array(P)[0], 1.15, "as large as the gradient", fontsize=8, color="#555555")
    right.set_xlabel("perturbations P")
    right.set_ylabel("$E|\\hat g - g|^2\\, /\\, |g|^2$")
    right.legend(fontsize=8)
    return fig


@figure
def gradient_and_estimate(g: Values, g_hat: Values, *, title: str) -> Figure:
    """A gradient and its estimate as pictures on one color scale, and entry against entry.

    Args:
        g: the gradient in the weights that read one image, (H, W).
        g_hat: its estimate, (H, W).
        title: which class, which P, which error.
    """
    exact, estimate = array(g), array(g_hat)
    fig, axes = plt.subplots(1, 3, figsize=(8.2, 3.0), width_ratios=[1, 1, 1.15])
    limit = float(np.abs(exact).max())
    for ax, name, picture in zip(
        axes[:2], ("FO: gradient $g$", "ZO: estimate $\\hat g$"), (exact, estimate), strict=True
    ):
        ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(name)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[:].set_visible(True)
    axes[2].plot(exact.ravel(), estimate.ravel(), "s", color=ZO, ms=3.5)
    ends = np.array([exact.min(), exact.max()])
    axes[2].plot(ends, ends, color=THEORY, linestyle=THEORY_DASHES[0], lw=1.2)
    axes[2].locator_params(nbins=5)
    axes[2].set_xlabel("entry of $g$")
    axes[2].set_ylabel("entry of $\\hat g$")
    fig.suptitle(title, fontsize=11)
    return fig


@figure
def drift(cycles: Values, changes: Mapping[str, Values], theory: Mapping[str, Values]) -> Figure:
    """How far weights have wandered after cycles of +eps, -2 eps, +eps, by dtype.

    Args:
        cycles: (M,).
        changes: a dtype's name and the root mean square change of a weight (M,).
        theory: a law's name, "law, dtype", and its values (M,).
    """
    fig, ax = plt.subplots()
    for position, (name, values) in enumerate(changes.items()):
        color, marker = CYCLE[position % len(CYCLE)], MARKERS[position % len(MARKERS)]
        ax.loglog(
            array(cycles), array(values), color=color, marker=marker, linestyle="", label=name
        )
    for position, (name, values) in enumerate(theory.items()):
        label = name.split(",")[0] if position == 0 else None
        ax.loglog(
            array(cycles),
            array(values),
            color=THEORY,
            linestyle=THEORY_DASHES[0],
            lw=1.1,
            label=label,
        )
    ax.set_xlabel("cycles of $+\\varepsilon$, $-2\\varepsilon$, $+\\varepsilon$")
    ax.set_ylabel("RMS change of a weight")
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig

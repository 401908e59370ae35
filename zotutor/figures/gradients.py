"""Figures of the introduction and of *A gradient from two function values*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .style import CYCLE, FO, MARKERS, THEORY, ZO, figure

Values = np.ndarray | Tensor | Sequence[float]

_DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)))


def _array(values: Values) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=float)


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
        ax.plot(_array(steps), 100 * _array(values), color=color, marker=marker, label=name)
    for position, (name, values) in enumerate(expected.items()):
        dash = _DASHES[position % len(_DASHES)]
        ax.plot(
            _array(steps), 100 * _array(values), color=THEORY, linestyle=dash, lw=1.5, label=name
        )
    ax.set_ylim(0, 100)
    ax.set_xlabel("ZO-SGD steps")
    ax.set_ylabel("test accuracy (%)")
    ax.legend(fontsize=9, loc="lower right")
    return fig


@figure
def opinions(image: Values, title: str, probs: Mapping[str, Values]) -> Figure:
    """A picture, and the probability of each class that several networks give it.

    Args:
        image: (1, H, W) or (H, W).
        title: what the picture is.
        probs: a network's name and its probabilities (V,).
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.6), width_ratios=[1, 2.6])
    left.imshow(_array(image).squeeze(), cmap="gray_r", interpolation="nearest")
    left.set_title(title)
    left.set_xticks([])
    left.set_yticks([])
    left.grid(False)
    left.spines[:].set_visible(True)
    width = 0.8 / len(probs)
    looks = ((FO, None), (ZO, "//"), (CYCLE[2], ".."))
    for position, (name, values) in enumerate(probs.items()):
        p = _array(values)
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
    at, values = _array(c), _array(losses)
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
    shown = [_array(values) for values in measured.values()]
    for position, (name, errors) in enumerate(zip(measured, shown, strict=True)):
        color = CYCLE[(position + 1) % len(CYCLE)]
        marker = MARKERS[(position + 1) % len(MARKERS)]
        ax.loglog(_array(eps), errors, linestyle="", marker=marker, color=color, label=name)
    for position, (name, values) in enumerate(theory.items()):
        dash = _DASHES[position % len(_DASHES)]
        ax.loglog(_array(eps), _array(values), color=THEORY, linestyle=dash, lw=1.2, label=name)
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
            _array(d),
            _array(values),
            linestyle="",
            marker=marker,
            ms=11 - 2 * position,
            mfc="none",
            mew=1.6,
            color=color,
            label=name,
        )
    for position, (name, values) in enumerate(theory.items()):
        dash = _DASHES[position % len(_DASHES)]
        left.loglog(_array(grid), _array(values), color=THEORY, linestyle=dash, lw=1.2, label=name)
    left.set_xlabel("number of parameters d")
    left.set_ylabel("$E|\\hat g|^2\\, /\\, |g|^2$ at P = 1")
    left.legend(fontsize=8)
    right.loglog(_array(P), _array(error), "s", color=ZO, ms=7, label="measured")
    right.loglog(_array(P), _array(expected), color=THEORY, linestyle=_DASHES[0], label="law")
    right.axhline(1.0, color="#777777", lw=1.0)
    right.text(_array(P)[0], 1.15, "as large as the gradient", fontsize=8, color="#555555")
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
    exact, estimate = _array(g), _array(g_hat)
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
    axes[2].plot(ends, ends, color=THEORY, linestyle=_DASHES[0], lw=1.2)
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
            _array(cycles), _array(values), color=color, marker=marker, linestyle="", label=name
        )
    for position, (name, values) in enumerate(theory.items()):
        label = name.split(",")[0] if position == 0 else None
        ax.loglog(
            _array(cycles), _array(values), color=THEORY, linestyle=_DASHES[0], lw=1.1, label=label
        )
    ax.set_xlabel("cycles of $+\\varepsilon$, $-2\\varepsilon$, $+\\varepsilon$")
    ax.set_ylabel("RMS change of a weight")
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig

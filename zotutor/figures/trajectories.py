"""Figures of the chapter on trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from .style import CYCLE, FO, MARKERS, THEORY, ZO, figure


def _plain_numbers(ax: Axes) -> None:
    """Label a logarithmic vertical axis 0.1, 0.2, 0.5, 1 and so on."""
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


@figure
def deviation_law(
    steps: Sequence[int], P: Sequence[int], deviation: Tensor, constant: float
) -> Figure:
    """Deviation against T P for every cell of a grid, and C / sqrt(T P).

    Args:
        steps: numbers of steps T.
        P: numbers of perturbations.
        deviation: root mean square over seeds, (len(steps), len(P)).
        constant: C, predicted.
    """
    drawn, ax = plt.subplots()
    products = np.geomspace(min(steps) * min(P) / 1.5, max(steps) * max(P) * 1.5)
    ax.plot(products, constant / np.sqrt(products), "--", color=THEORY, label="$C/\\sqrt{TP}$")
    for column, count in enumerate(P):
        ax.plot(
            [T * count for T in steps],
            deviation[:, column].tolist(),
            MARKERS[column],
            color=CYCLE[column],
            label=f"P = {count}",
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="number of steps times perturbations, $T P$",
        ylabel="deviation of ZO from FO\nover the total change",
    )
    _plain_numbers(ax)
    ax.legend()
    return drawn


@figure
def law_constants(
    steps: Sequence[int], P: Sequence[int], constants: Tensor, errors: Tensor, predicted: float
) -> Figure:
    """Measured constants with two standard errors, and the predicted one.

    Args:
        steps: numbers of steps T.
        P: numbers of perturbations.
        constants: (len(steps), len(P)).
        errors: their standard errors, of the same shape.
        predicted: C from the start of the run.
    """
    drawn, ax = plt.subplots()
    ax.axhline(predicted, ls="--", color=THEORY, label="predicted, no fit")
    for column, count in enumerate(P):
        shifted = [T * 1.08 ** (column - (len(P) - 1) / 2) for T in steps]
        ax.errorbar(
            shifted,
            constants[:, column].tolist(),
            yerr=(2 * errors[:, column]).tolist(),
            fmt=MARKERS[column],
            color=CYCLE[column],
            capsize=3,
            label=f"P = {count}",
        )
    ax.set(xscale="log", xlabel="number of steps $T$", ylabel="deviation $\\times \\sqrt{TP}$")
    ax.set_xticks(list(steps), [str(T) for T in steps])
    ax.minorticks_off()
    ax.set_ylim(0, 1.6 * predicted)
    ax.legend(ncols=2, loc="lower right")
    return drawn


@figure
def temperature(
    ratio: Sequence[float],
    spread: Sequence[float],
    P: Sequence[int],
    constant: float,
) -> Figure:
    """Deviation times the root of the distance against lr / P: one line for all P.

    Args:
        ratio: lr / P of each cell.
        spread: root mean square deviation times sqrt(lr T) of each cell.
        P: of each cell.
        constant: C, predicted; the law is C sqrt(lr / P).
    """
    drawn, ax = plt.subplots()
    grid = np.geomspace(min(ratio) / 1.5, max(ratio) * 1.5)
    ax.plot(grid, constant * np.sqrt(grid), "--", color=THEORY, label="$C\\sqrt{\\eta/P}$")
    for number, count in enumerate(sorted(set(P))):
        mine = [k for k, p in enumerate(P) if p == count]
        ax.plot(
            [ratio[k] for k in mine],
            [spread[k] for k in mine],
            MARKERS[number],
            color=CYCLE[number],
            label=f"P = {count}",
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="temperature $\\eta / P$",
        ylabel="deviation $\\times \\sqrt{\\eta T}$",
    )
    _plain_numbers(ax)
    ax.legend()
    return drawn


@figure
def breakdown(
    horizons: Sequence[float],
    constants: Sequence[float],
    drift_fo: Sequence[float],
    drift_zo: Sequence[float],
    predicted: float,
) -> Figure:
    """Where the law ends: measured constant and kernel drift against the distance gone.

    Args:
        horizons: lr times T of each run.
        constants: measured, root mean square.
        drift_fo: norm(K_T - K_0)_F / norm(K_0)_F of the FO run.
        drift_zo: the same of the ZO run.
        predicted: C.
    """
    drawn, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5.0))
    top.axhline(predicted, ls="--", color=THEORY, label="predicted, $C$")
    top.plot(horizons, constants, "s-", color=ZO, label="measured")
    top.set(ylim=(0, None), ylabel="deviation $\\times \\sqrt{TP}$")
    top.legend()
    bottom.plot(horizons, drift_zo, "s-", color=ZO, label="ZO")
    bottom.plot(horizons, drift_fo, "o--", color=FO, label="FO")
    bottom.set(
        xscale="log",
        yscale="log",
        xlabel="distance gone, $\\eta T$",
        ylabel="kernel drift\n(relative Frobenius)",
    )
    _plain_numbers(bottom)
    bottom.set_xticks(list(horizons), [f"{h:g}" for h in horizons])
    bottom.minorticks_off()
    bottom.legend()
    return drawn


@figure
def random_walk(
    steps: Sequence[int] | Tensor, deviation: Tensor, constant: float, *, P: int
) -> Figure:
    """Deviation of ZO from FO along the run, for several seeds, and C sqrt(t / P) / T.

    Args:
        steps: recorded steps, (R,), the last one T.
        deviation: over the total change, (S, R), one row a seed.
        constant: C, predicted.
        P: number of perturbations.
    """
    drawn, ax = plt.subplots()
    recorded = np.asarray(steps)
    values = np.asarray(deviation)
    T = int(recorded[-1])
    for number, row in enumerate(values):
        label = "ZO, one seed each" if number == 0 else None
        ax.plot(recorded, row, color=ZO, alpha=0.35, lw=1, label=label)
    rms = np.sqrt((values**2).mean(0))
    ax.plot(recorded, rms, "s", color=ZO, label="root mean square")
    grid = np.linspace(0, T, 200)
    ax.plot(grid, constant * np.sqrt(grid / P) / T, "--", color=THEORY, label="theory, no fit")
    ax.set(
        title=f"T = {T}, P = {P}",
        xlabel="step $t$",
        ylabel="deviation of ZO from FO\nover the total change",
    )
    ax.legend()
    return drawn


@figure
def summed_theory(
    predicted_fo: Tensor, measured_fo: Tensor, predicted_zo: Tensor, measured_zo: Tensor
) -> Figure:
    """The one-step predictions summed over a run, against the run.

    Args:
        predicted_fo: summed predictions of FO, any shape.
        measured_fo: measured change of the log-probabilities, of that shape.
        predicted_zo: the same for ZO.
        measured_zo: the same for ZO.
    """
    drawn, axes = plt.subplots(1, 2, figsize=(6.8, 3.4))
    pairs = (("FO", FO, "o", predicted_fo, measured_fo), ("ZO", ZO, "s", predicted_zo, measured_zo))
    for ax, (name, color, marker, predicted, measured) in zip(axes, pairs, strict=True):
        x, y = predicted.flatten().numpy(), measured.flatten().numpy()
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(ends, ends, "--", color=THEORY)
        ax.plot(x, y, marker, color=color, ms=3, alpha=0.6)
        ax.set(
            title=name,
            xlabel="summed predictions",
            ylabel="measured change of $\\log \\pi$",
        )
    return drawn

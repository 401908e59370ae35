"""Figures of the chapter on trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .style import CYCLE, FO, MARKERS, THEORY, ZO, figure


@figure
def deviation_law(
    steps: Sequence[int], P: Sequence[int], deviation: Tensor, constant: float
) -> Figure:
    """Deviation against T P for every cell of a grid, beside C / sqrt(T P).

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
    ax.legend()
    return drawn


@figure
def law_constants(
    steps: Sequence[int], P: Sequence[int], constants: Tensor, errors: Tensor, predicted: float
) -> Figure:
    """Measured constants with two standard errors, beside the predicted one.

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
def temperature(ratio: Sequence[float], deviation: Sequence[float], P: Sequence[int]) -> Figure:
    """Deviation against lr / P: one curve for all P.

    Args:
        ratio: lr / P of each cell.
        deviation: of each cell.
        P: of each cell.
    """
    drawn, ax = plt.subplots()
    for number, count in enumerate(sorted(set(P))):
        mine = [k for k, p in enumerate(P) if p == count]
        ax.plot(
            [ratio[k] for k in mine],
            [deviation[k] for k in mine],
            MARKERS[number],
            color=CYCLE[number],
            label=f"P = {count}",
        )
    scale = np.median(np.asarray(deviation) / np.sqrt(np.asarray(ratio)))
    grid = np.geomspace(min(ratio) / 1.5, max(ratio) * 1.5)
    ax.plot(grid, scale * np.sqrt(grid), "--", color=THEORY, label="slope 1/2")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="temperature $\\eta / P$",
        ylabel="deviation of ZO from FO\nover the total change",
    )
    ax.legend()
    return drawn


@figure
def breakdown(
    horizons: Sequence[float],
    constants: Sequence[float],
    drift: Sequence[float],
    predicted: float,
) -> Figure:
    """Where the law ends: measured constant and kernel drift against the distance gone.

    Args:
        horizons: lr times T of each run.
        constants: measured, root mean square.
        drift: norm(K_T - K_0)_F / norm(K_0)_F of the ZO run.
        predicted: C.
    """
    drawn, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5.0))
    top.axhline(predicted, ls="--", color=THEORY, label="predicted")
    top.plot(horizons, constants, "s-", color=ZO, label="measured")
    top.set(yscale="log", ylabel="deviation $\\times \\sqrt{TP}$")
    top.legend()
    bottom.plot(horizons, drift, "s-", color=ZO)
    bottom.axhline(0.3, ls=":", color="gray")
    bottom.set(
        xscale="log",
        yscale="log",
        xlabel="distance gone, $\\eta T$",
        ylabel="kernel drift\n(relative Frobenius)",
    )
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
        told, seen = predicted.flatten().numpy(), measured.flatten().numpy()
        ends = [min(told.min(), seen.min()), max(told.max(), seen.max())]
        ax.plot(ends, ends, "--", color=THEORY)
        ax.plot(told, seen, marker, color=color, ms=3, alpha=0.6)
        ax.set(title=name, xlabel="summed predictions")
    axes[0].set_ylabel("measured change of $\\log \\pi$")
    return drawn

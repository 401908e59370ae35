"""Figures of the chapter *ZO-SGD*: what a step gains, what d costs, and training on digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .parts import Values, array
from .style import CYCLE, DASHES, FO, MARKERS, THEORY, ZO, figure

__all__ = [
    "expected_change",
    "loss_after_budget",
    "loss_against_eps",
    "loss_and_accuracy",
    "runs_on_quadratic",
    "steps_by_dimension",
    "steps_by_width",
]


def _smooth(losses: Values, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the last ``window`` steps, and the step at which each mean is known."""
    smooth = np.convolve(array(losses), np.full(window, 1 / window), mode="valid")
    return np.arange(window, window + len(smooth)), smooth


@figure
def steps_by_dimension(
    d: Values, round_bowl: Values, valley: Values, valley_fo: Values, theory: Values
) -> Figure:
    """Steps to a tenth of the loss against d, for two families of quadratics.

    Args:
        d: dimensions, (n,).
        round_bowl: ZO-SGD steps on the round bowl, (n,).
        valley: ZO-SGD steps in the valley, (n,).
        valley_fo: gradient descent steps in the valley, (n,).
        theory: expected ZO-SGD steps on the round bowl, (n,).
    """
    fig, ax = plt.subplots()
    sizes = array(d)
    ax.plot(sizes, array(theory), color=THEORY, linestyle="--", label=r"$d \ln 10$")
    ax.plot(
        sizes, array(round_bowl), color=ZO, marker="D", linestyle="none", label="ZO, round bowl"
    )
    ax.plot(sizes, array(valley), color=ZO, marker="s", label="ZO, valley")
    ax.plot(
        sizes,
        array(valley_fo),
        color=FO,
        marker="o",
        linestyle=(0, (6, 1.5)),
        label="FO, valley",
    )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    ax.set_xlabel("parameters $d$")
    ax.set_ylabel("steps to a tenth of the loss")
    ax.legend(loc="upper left", fontsize=9)
    return fig


@figure
def expected_change(
    lr: Values,
    theory: Mapping[str, Values],
    measured: Mapping[str, tuple[Values, Values, Values]],
    *,
    low: float,
    high: float,
) -> Figure:
    """The mean change of the loss in one step against the learning rate.

    Args:
        lr: learning rates at which the formula was evaluated, (n,).
        theory: for each line its change by the formula, (n,); "FO" is drawn blue.
        measured: for each line learning rates, means over draws and their standard errors, (m,).
        low: lower end of the vertical axis.
        high: upper end.
    """
    fig, ax = plt.subplots()
    rates = array(lr)
    for name, change in theory.items():
        if name.startswith("FO"):
            ax.plot(rates, array(change), color=FO, label=name)
        else:
            ax.plot(rates, array(change), color=THEORY, linestyle="--", linewidth=1.1)
    for i, (name, (where, mean, error)) in enumerate(measured.items()):
        # blue is for first order
        color, marker = CYCLE[1:][i % (len(CYCLE) - 1)], MARKERS[1:][i % (len(MARKERS) - 1)]
        ax.errorbar(
            array(where),
            array(mean),
            array(error),
            color=color,
            marker=marker,
            linestyle="none",
            capsize=2,
            label=name,
        )
    ax.plot([], [], color=THEORY, linestyle="--", linewidth=1.1, label="theorem")
    ax.axhline(0.0, color="#666666", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_ylim(low, high)
    ax.set_xlabel(r"learning rate $\eta$")
    ax.set_ylabel("mean change of the loss in one step")
    ax.legend(loc="lower left", fontsize=9)
    return fig


@figure
def steps_by_width(
    d: Values,
    zo_losses: Sequence[Values],
    fo_losses: Sequence[Values],
    zo_steps: Values,
    fo_steps: Values,
    *,
    target: float,
    window: int,
) -> Figure:
    """Left: training curves of networks of several widths. Right: steps to a target loss against d.

    Args:
        d: number of parameters of each network, (n,).
        zo_losses: n curves, the mini-batch loss of each ZO step.
        fo_losses: n curves, the mini-batch loss of each FO step.
        zo_steps: ZO steps that each network took to the target, (n,).
        fo_steps: FO steps that each network took to the target, (n,).
        target: the target loss.
        window: number of steps over which losses are averaged.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8))
    sizes = array(d)
    for i, (size, curve, first) in enumerate(zip(sizes, zo_losses, fo_losses, strict=True)):
        dash = DASHES[i % len(DASHES)]
        left.plot(*_smooth(first, window), color=FO, linestyle=dash, linewidth=1.1)
        left.plot(*_smooth(curve, window), color=ZO, linestyle=dash, label=f"ZO, d = {size:,.0f}")
    left.plot([], [], color=FO, linewidth=1.1, label="FO, the same networks")
    left.axhline(target, color="#666666", linewidth=0.8)
    left.set_xlabel("step")
    left.set_ylabel("training loss")
    left.set_ylim(bottom=0)
    left.legend(fontsize=9)

    ZO_steps, FO_steps = array(zo_steps), array(fo_steps)
    right.plot(sizes, ZO_steps, color=ZO, marker="s", label="ZO-SGD, one perturbation")
    right.plot(sizes, FO_steps, color=FO, marker="o", label="FO-SGD")
    right.plot(
        sizes,
        ZO_steps[0] * sizes / sizes[0],
        color=THEORY,
        linestyle="--",
        label="in proportion to $d$",
    )
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("parameters $d$")
    right.set_ylabel(f"steps to a training loss of {target:g}")
    right.legend(fontsize=9)
    return fig


@figure
def loss_and_accuracy(
    losses: Mapping[str, Values],
    accuracy: Mapping[str, tuple[Values, Values]],
    *,
    window: int,
    goal: float,
) -> Figure:
    """Left: the training loss against steps. Right: the test accuracy.

    Args:
        losses: for each run the mini-batch loss of each step; "FO..." is blue, "ZO..." vermilion.
        accuracy: for each run the steps at which it was tested, and the accuracy there, in [0, 1].
        window: number of steps over which losses are averaged.
        goal: an accuracy to mark with a line.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.6))
    for name, curve in losses.items():
        color, _, dash = _look(name)
        left.plot(*_smooth(curve, window), color=color, linestyle=dash, label=name)
    for name, (steps, share) in accuracy.items():
        color, marker, dash = _look(name)
        right.plot(
            array(steps), array(share), color=color, marker=marker, linestyle=dash, label=name
        )
    right.axhline(goal, color="#666666", linewidth=0.8)
    left.set_ylim(bottom=0)
    left.set_ylabel("training loss")
    right.set_ylabel("test accuracy")
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for ax in (left, right):
        ax.set_xlabel("step")
    left.legend(loc="upper right")
    right.legend(loc="lower right")
    return fig


def _look(name: str) -> tuple[str, str, str]:
    return (FO, "o", "-") if name.startswith("FO") else (ZO, "s", "-")


@figure
def loss_against_eps(eps: Values, losses: Values, *, untrained: float) -> Figure:
    """The loss after training against the finite-difference step.

    Args:
        eps: the finite-difference steps that networks were trained with, (n,).
        losses: their training loss at the end, (n,).
        untrained: the loss before the first step, marked with a line.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    ax.plot(array(eps), array(losses), color=ZO, marker="s", label="after ZO-SGD")
    _level(ax, untrained, "before training")
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel(r"finite-difference step $\varepsilon$")
    ax.set_ylabel("training loss")
    ax.legend(loc="lower right")
    return fig


def _level(ax: Axes, value: float, label: str) -> None:
    ax.axhline(value, color="#666666", linestyle=":", linewidth=1.2, label=label)


@figure
def loss_after_budget(
    lr_per_P: Values, losses: Mapping[int, Values], limits: Mapping[int, float], *, untrained: float
) -> Figure:
    """The loss after a fixed number of loss values, against eta / P, one line for each P.

    Args:
        lr_per_P: values of eta / P, (n,).
        losses: for each P the training loss at the end, (n,); NaN where the run diverged.
        limits: for each P the largest eta / P that the descent theorem recommends.
        untrained: the loss before the first step, marked with a line.
    """
    fig, ax = plt.subplots()
    rates = array(lr_per_P)
    for i, (P, curve) in enumerate(losses.items()):
        color, marker = CYCLE[1:][i % (len(CYCLE) - 1)], MARKERS[1:][i % (len(MARKERS) - 1)]
        ax.plot(
            rates, array(curve), color=color, marker=marker, linestyle=DASHES[i], label=f"P = {P}"
        )
        ax.axvline(limits[P], color=color, linestyle=DASHES[i], linewidth=1.0)
    _level(ax, untrained, "before training")
    ax.set_xscale("log")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    ax.set_ylim(0, 2 * untrained)
    ax.set_xlabel(r"learning rate per perturbation $\eta / P$")
    ax.set_ylabel("training loss at the end")
    ax.legend(fontsize=9, title="equal numbers of loss values", title_fontsize=9)
    return fig


@figure
def runs_on_quadratic(
    zo_losses: Values, expected: Values, fo_losses: Values, *, title: str
) -> Figure:
    """Runs of ZO-SGD on one quadratic, their expected loss, and gradient descent.

    Args:
        zo_losses: the loss of each run at each step, relative to the start, (runs, steps).
        expected: the expected relative loss at each step, (steps,).
        fo_losses: gradient descent's relative loss at each step, (steps,).
        title: what the quadratic is.
    """
    fig, ax = plt.subplots()
    runs = np.atleast_2d(array(zo_losses))
    for i, run in enumerate(runs):
        ax.plot(run, color=ZO, linewidth=0.8, alpha=0.7, label="ZO-SGD" if i == 0 else None)
    ax.plot(array(expected), color=THEORY, linestyle="--", label="ZO-SGD, expected")
    ax.plot(array(fo_losses), color=FO, linestyle=(0, (6, 1.5)), label="FO, gradient descent")
    ax.set_yscale("log")
    ax.set_ylim(1e-3, 1.5)
    ax.set_xlabel("step")
    ax.set_ylabel(r"$L(\theta_t) / L(\theta_0)$")
    ax.set_title(title)
    ax.legend(loc="upper right", fontsize=9)
    return fig

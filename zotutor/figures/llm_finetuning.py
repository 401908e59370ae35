"""Figures of the chapter on fine-tuning a language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .style import CYCLE, FO, MARKERS, THEORY, ZO, figure


@figure
def run_curves(losses: Sequence[float], evaluations: Sequence[tuple[int, Any]]) -> Figure:
    """A run: the loss of each step with its running mean, and the accuracies on dev.

    Args:
        losses: of steps 0, 1, ...; empty before the first.
        evaluations: pairs of a number of steps and the :class:`~zotutor.llm.Accuracy` after them.
    """
    drawn, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    values = np.asarray(losses, dtype=float)
    left.plot(values, ".", color=ZO, ms=3, alpha=0.35, label="each step")
    width = max(1, len(values) // 20)
    if len(values) > width > 1:
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        middle = np.arange(len(mean)) + (width - 1) / 2
        left.plot(middle, mean, color=ZO, label=f"mean of {width} steps")
        left.legend()
    left.set(xlabel="step", ylabel="loss of the batch")
    steps = [step for step, _ in evaluations]
    found = np.array([(a.value, a.low, a.high) for _, a in evaluations]).reshape(-1, 3).T * 100
    right.errorbar(
        steps,
        found[0],
        yerr=[found[0] - found[1], found[2] - found[0]],
        fmt="o-",
        color=FO,
        capsize=3,
    )
    if len(steps):
        right.axhline(found[0, 0], ls="--", lw=1, color=THEORY)
    right.set(xlabel="step", ylabel="accuracy on dev, %")
    return drawn


@figure
def projected_gradients(
    exact: Sequence[float], found: Mapping[str, Sequence[float]], *, quantum: float
) -> Figure:
    """Projected gradients measured in half precision against those of float32.

    Args:
        exact: one for each direction, (S,).
        found: name and values (S,).
        quantum: distance between the values that the first of them can take: grid lines.
    """
    drawn, axes = plt.subplots(1, len(found), figsize=(3.5 * len(found), 3.5), sharey=True)
    ends = [min(exact), max(exact)]
    reach = max(abs(value) for values in (exact, *found.values()) for value in values)
    for k, (name, values) in enumerate(found.items()):
        ax = np.atleast_1d(axes)[k]
        ax.plot(ends, ends, "--", color=THEORY)
        ax.plot(exact, values, MARKERS[k], color=CYCLE[k])
        ax.set(title=name, xlabel="$g$ in float32")
        if k == 0:
            ax.set_ylabel("$g$ as measured")
            if reach < 30 * quantum:
                most = math.ceil(reach / quantum)
                ax.set_yticks([quantum * step for step in range(-most, most + 1)])
                ax.yaxis.set_major_formatter("{x:.1f}")
    return drawn


@figure
def rounded_walks(nearest: Tensor, stochastic: Tensor, fraction: float) -> Figure:
    """A weight that is given the same small update again and again, in units of its spacing.

    Args:
        nearest: how far it has moved with rounding to nearest, (T + 1,), in spacings.
        stochastic: the same with stochastic rounding, one row a weight, (S, T + 1).
        fraction: the update, in spacings.
    """
    drawn, ax = plt.subplots()
    steps = np.arange(len(nearest))
    rows = np.asarray(stochastic)
    spread = 2 * np.sqrt(steps * fraction * (1 - fraction))
    ax.fill_between(
        steps, fraction * steps - spread, fraction * steps + spread, color="#dddddd", lw=0
    )
    for number, row in enumerate(rows[:8]):
        label = "stochastic, a weight each" if number == 0 else None
        ax.plot(steps, row, color=ZO, lw=0.9, alpha=0.6, drawstyle="steps-post", label=label)
    ax.plot(steps, rows.mean(0), color=ZO, lw=2.4, label=f"mean of {len(rows)}")
    ax.plot(steps, np.asarray(nearest), color=FO, ls="-.", label="to nearest")
    ax.plot(steps, fraction * steps, "--", color=THEORY, label="without rounding")
    ax.set(
        title=f"update: 1/{1 / fraction:g} of a spacing",
        xlabel="updates",
        ylabel="movement, in spacings",
    )
    ax.legend(loc="upper left")
    return drawn


@figure
def accuracies(found: Mapping[str, Any], *, baseline: float) -> Figure:
    """An accuracy with its interval for each of several runs, and a baseline.

    Args:
        found: a name and an :class:`~zotutor.llm.Accuracy` each; drawn from the top.
        baseline: the accuracy that they began with.
    """
    drawn, ax = plt.subplots(figsize=(6.4, 0.8 + 0.42 * len(found)))
    ax.axvline(100 * baseline, ls="--", color=THEORY)
    for row, (name, accuracy) in enumerate(found.items()):
        value, low, high = (100 * x for x in accuracy[:3])
        zeroth = "ZO" in name
        ax.errorbar(
            [value],
            [row],
            xerr=[[value - low], [high - value]],
            fmt="s" if zeroth else "o",
            color=ZO if zeroth else FO,
            capsize=3,
        )
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.set(xlabel="accuracy on dev, %, with 95 % intervals", ylabel="")
    return drawn


@figure
def accuracy_against_costs(found: Mapping[str, Any], *, baseline: float) -> Figure:
    """Accuracy with its interval, against the time and against the memory that it took.

    Args:
        found: a name and its :class:`~zotutor.tables.Costs`; zeroth order has "ZO" in its name.
        baseline: the accuracy that all began with.
    """
    drawn, axes = plt.subplots(1, 2, figsize=(7.6, 3.8), sharey=True)
    for ax, key in zip(axes, ("seconds", "memory"), strict=True):
        ax.axhline(100 * baseline, ls="--", color=THEORY)
        for k, (name, costs) in enumerate(found.items()):
            value, low, high = (100 * x for x in costs.accuracy)
            ax.errorbar(
                [getattr(costs, key)],
                [value],
                yerr=[[value - low], [high - value]],
                fmt=MARKERS[k % len(MARKERS)],
                ms=7,
                mfc="white" if "LoRA" in name else None,
                color=ZO if "ZO" in name else FO,
                capsize=3,
                label=name,
            )
    axes[0].set(xlim=(0, None), xlabel="seconds of one core", ylabel="accuracy, %")
    axes[1].set(xlim=(0, None), xlabel="peak memory, GB")
    axes[1].legend(loc="center right")
    return drawn

"""Figures of the chapter on fine-tuning a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .style import FO, THEORY, ZO, figure


@figure
def run_curves(losses: Sequence[float], evaluations: Sequence[tuple[int, Any]]) -> Figure:
    """A run: the loss of each step with its running mean, and the accuracies on dev.

    Args:
        losses: of steps 0, 1, ...; empty before the first.
        evaluations: pairs of a number of steps and the :class:`~zotutor.llm.Accuracy` behind them.
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
    right.set(xlabel="step", ylabel="accuracy on dev, % (95 % interval)")
    return drawn

"""Figures of the chapter on the learning dynamics of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .parts import Values, array, count_ticks, look, value_ticks
from .style import CYCLE, FO, THEORY, ZO, figure

__all__ = ["next_token_changes", "run_deviations", "similarity_maps", "similarity_of_pairs"]


@figure
def next_token_changes(
    texts: Sequence[Sequence[str]],
    predicted: Sequence[Values],
    measured: Sequence[Values],
    *,
    order: Literal["FO", "ZO"],
    title: str,
) -> Figure:
    """The change of log pi(next token | tokens before it), token by token, one row per text.

    Measured as bars, predicted as black ticks; all rows share one scale.

    Args:
        texts: the tokens of each text that are predicted.
        predicted: for each text one number a token.
        measured: the same.
        order: of the step that was taken, which decides the color.
        title: which step.
    """
    predictions, changes = [array(p) for p in predicted], [array(m) for m in measured]
    fig, axes = plt.subplots(len(texts), 1, figsize=(7.4, 1.75 * len(texts) + 0.5), squeeze=False)
    top = max(np.abs(values).max() for values in [*predictions, *changes])
    low = min(0.0, *(values.min() for values in [*predictions, *changes]))
    widest = max(map(len, texts))
    for ax, tokens, guess, truth in zip(axes[:, 0], texts, predictions, changes, strict=True):
        where = range(len(tokens))
        color = FO if order == "FO" else ZO
        ax.bar(where, truth, color=color, width=0.7, label="measured")
        ax.plot(where, guess, "_", color=THEORY, ms=16, mew=2, label="predicted")
        ax.axhline(0.0, color="#666666", linewidth=0.8)
        ax.set_ylim(1.15 * low - 0.05 * top, 1.15 * top)
        ax.set_xlim(-0.7, widest - 0.3)
        ax.set_xticks(where, tokens, rotation=35, ha="right", fontsize=9)
        ax.grid(False, axis="x")
    axes[0, 0].set_title(title, loc="left")
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9)
    fig.supylabel("change of $\\log \\pi$ of the token", fontsize=11)
    return fig


@figure
def similarity_maps(maps: Mapping[str, Values], names: Sequence[str], *, split: int) -> Figure:
    """Cosines between sentences, a map a model, with the numbers written in.

    Args:
        maps: for each title the cosines (n, n), in [-1, 1].
        names: of the n sentences, shown once, at the left.
        split: how many sentences belong to the first group; a line is drawn after them.
    """
    count = len(names)
    fig, axes = plt.subplots(1, len(maps), figsize=(9.6, 3.5), squeeze=False)
    for ax, (title, values) in zip(axes[0], maps.items(), strict=True):
        cells = array(values)
        shown = ax.imshow(cells, vmin=-1.0, vmax=1.0, cmap="RdBu_r", interpolation="nearest")
        for (row, column), value in np.ndenumerate(cells):
            color = "white" if abs(value) > 0.7 else "black"
            text = f"{value:.1f}".replace("-0.0", "0.0")
            ax.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
        ax.axhline(split - 0.5, color="black", linewidth=1.2)
        ax.axvline(split - 0.5, color="black", linewidth=1.2)
        ax.set_xticks(range(count), [str(n + 1) for n in range(count)])
        ax.set_yticks([])
        ax.tick_params(length=0)
        ax.grid(False)
        ax.set_title(title)
    labels = [f"{name}  {n + 1}" for n, name in enumerate(names)]
    axes[0, 0].set_yticks(range(count), labels, fontsize=9)
    axes[0, 0].set_ylabel("observed")
    fig.supxlabel("sentence the step is taken on", fontsize=11)
    fig.colorbar(shown, ax=list(axes[0]), shrink=0.85)
    return fig


@figure
def similarity_of_pairs(
    panels: Mapping[str, tuple[Values, Values]], *, xlabel: str, names: tuple[str, str]
) -> Figure:
    """How a similarity is distributed over two kinds of pairs, a panel a model.

    Args:
        panels: for each title the similarities of the pairs of the two kinds, (n,) and (m,).
        xlabel: which similarity.
        names: of the two kinds.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(7.4, 3.1), sharex=True, squeeze=False)
    every = np.concatenate([array(v).ravel() for pair in panels.values() for v in pair])
    bins = np.linspace(every.min(), every.max(), 50)
    for ax, (title, pair) in zip(axes[0], panels.items(), strict=True):
        for values, name, color, style in zip(
            pair, names, (CYCLE[2], CYCLE[3]), ("-", "--"), strict=True
        ):
            cells = array(values).ravel()
            ax.hist(cells, bins, density=True, histtype="stepfilled", color=color, alpha=0.25)
            ax.hist(
                cells,
                bins,
                density=True,
                histtype="step",
                color=color,
                linestyle=style,
                linewidth=1.6,
                label=name,
            )
        ax.set_title(title)
        ax.set_yticks([])
        ax.set_ylabel("density of pairs")
    axes[0, -1].legend(loc="upper right", fontsize=9)
    fig.supxlabel(xlabel, fontsize=11)
    return fig


@figure
def run_deviations(models: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How far runs of ZO-SGD are from the run of SGD: against P at the end, and against the step.

    A row a model. Each run is a point on the left; dashed is the law, which is not fitted. On the
    right are the runs with signs, a color for each P, and the change that SGD makes.

    Args:
        models: for each title the entry of a model in the table ``study``.
    """
    fig, axes = plt.subplots(len(models), 2, figsize=(9.0, 3.4 * len(models)), squeeze=False)
    for (left, right), (title, model) in zip(axes, models.items(), strict=True):
        runs = [run for run in model["runs"] if run["family"] == "rademacher"]
        others = [run for run in model["runs"] if run["family"] != "rademacher"]
        counts = np.unique([run["P"] for run in model["runs"]])
        for position, (name, group) in enumerate((("signs", runs), ("Gaussian", others)), 1):
            x = array([run["P"] for run in group]) * 1.06 ** (2 * position - 3)  # side by side
            y = [run["deviation"][-1] for run in group]
            left.plot(x, y, ls="", label=name if group else None, **look(position))
        ends = model["law"]["rademacher"][-1] / np.sqrt(counts)
        left.plot(counts, ends, color=THEORY, ls="--", marker="_", ms=12, label="law")
        left.set_xlim(counts.min() / 1.5, counts.max() * 1.5)
        left.set_xscale("log")
        left.set_yscale("log")
        count_ticks(left, counts)
        value_ticks(left)
        left.set_xlabel("number of perturbations $P$")
        left.set_ylabel("RMS deviation of a logit")
        left.set_title(f"{title}, after {model['record'][-1]} steps")
        left.legend(fontsize=9)
        right.plot(model["record"], model["sgd_change"], color=FO, label="change by SGD")
        for position, P in enumerate(np.unique([run["P"] for run in runs]), 1):
            color = CYCLE[position % len(CYCLE)]
            for run in runs:
                if run["P"] == P:
                    right.plot(model["record"], run["deviation"], color=color, lw=0.8)
            law = array(model["law"]["rademacher"]) / np.sqrt(P)
            right.plot(model["record"], law, color=color, ls="--", label=f"law, $P = {P}$")
        right.set_ylim(0.0, 1.25 * right.get_ylim()[1])  # room for the legend
        right.set_xlabel("step")
        right.set_ylabel("RMS over the logits")
        right.set_title("deviation of each run (thin)")
        right.legend(fontsize=8, ncols=2, loc="upper left")
    return fig

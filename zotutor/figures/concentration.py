"""Figures of part III: inner products that survive projection, and how near K_U is to K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .style import CYCLE, FO, MARKERS, THEORY, ZO, figure

Values = np.ndarray | Tensor | Sequence[float]
DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)))


def _array(values: Values) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=float)


def _look(position: int) -> dict[str, Any]:
    return {"color": CYCLE[position % len(CYCLE)], "marker": MARKERS[position % len(MARKERS)]}


def _count_ticks(ax: Axes, counts: np.ndarray) -> None:
    """Name the very numbers that were measured on a logarithmic axis."""
    ax.set_xticks(counts, [f"{int(count):,}" for count in counts])
    ax.minorticks_off()


def _value_ticks(ax: Axes) -> None:
    """1, 2 and 5 in each decade of a logarithmic axis that spans few of them."""
    low, high = ax.get_ylim()
    steps = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    ax.set_yticks(inside, [f"{step:g}" for step in inside])
    ax.minorticks_off()


def _bins(samples: np.ndarray) -> int:
    """As many bins as the number of samples fills."""
    return int(np.clip(np.sqrt(samples.size), 8, 60))


@figure
def kept_inner_products(
    samples: Mapping[int, Values], exact: float, *, epsilon: float, xlabel: str
) -> Figure:
    """Histograms of projected inner products, one panel for each P, with the exact value.

    Args:
        samples: P -> projected inner products (draws,).
        exact: the inner product before projection.
        epsilon: half-width of the gray band around it.
        xlabel: what is counted.
    """
    fig, axes = plt.subplots(
        1, len(samples), figsize=(2.4 * len(samples) + 0.4, 2.9), sharex=True, squeeze=False
    )
    for ax, (P, values) in zip(axes[0], samples.items(), strict=True):
        found = _array(values)
        ax.hist(found, bins=_bins(found), color=ZO, density=True)
        ax.axvspan(exact - epsilon, exact + epsilon, color="#bbbbbb", alpha=0.5, zorder=0)
        ax.axvline(exact, color=THEORY, linestyle="--", linewidth=1.2)
        inside = float((np.abs(found - exact) <= epsilon).mean())
        ax.set_title(f"$P = {P:,}$\n{inside:.0%} in the band", fontsize=10)
        ax.set_yticks([])
    width = 4.2 * float(_array(next(iter(samples.values()))).std())
    axes[0, 0].set_xlim(exact - width, exact + width)
    fig.supxlabel(xlabel, fontsize=11)
    return fig


@figure
def curves(
    x: Values,
    measured: Mapping[str, Values],
    theory: Mapping[str, Values] | None = None,
    *,
    xlabel: str,
    ylabel: str,
    xlog: bool = False,
    ylog: bool = False,
) -> Figure:
    """Measured values as markers and formulas as black dashes over a shared axis.

    Args:
        x: (M,).
        measured: a line's name and its values (M,); NaN leaves a point out.
        theory: a formula's name and its values (M,).
        xlabel: in the field's words.
        ylabel: in the field's words.
        xlog: logarithmic x axis.
        ylog: logarithmic y axis.
    """
    fig, ax = plt.subplots()
    for position, (name, values) in enumerate(measured.items()):
        ax.plot(_array(x), _array(values), linestyle="", label=name, **_look(position))
    for position, (name, values) in enumerate((theory or {}).items()):
        dash = DASHES[position % len(DASHES)]
        ax.plot(_array(x), _array(values), color=THEORY, linestyle=dash, lw=1.3, label=name)
    if xlog:
        ax.set_xscale("log")
    if ylog:
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        if high < 100 * low:
            _value_ticks(ax)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=9)
    return fig


@figure
def one_pair_projected(samples: Values, exact: float, bound: float, *, title: str) -> Figure:
    """Projected inner products of one pair: their histogram, a normal, and where the bound is.

    Args:
        samples: (draws,).
        exact: the inner product before projection.
        bound: epsilon; dotted lines stand at exact +- epsilon.
        title: which pair, which P.
    """
    found = _array(samples)
    fig, ax = plt.subplots(figsize=(6.0, 3.4))
    ax.hist(found, bins=_bins(found), color=ZO, density=True, label="drawn")
    spread = float(found.std())
    if spread > 0:
        grid = np.linspace(found.min(), found.max(), 200)
        normal = np.exp(-0.5 * ((grid - exact) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        ax.plot(grid, normal, color=THEORY, linestyle="--", label="normal of the same spread")
    for side in (-1, 1):
        label = "kept within the bound" if side == 1 else None
        ax.axvline(exact + side * bound, color=THEORY, linestyle=":", label=label)
    ax.set_xlabel("projected inner product")
    ax.set_yticks([])
    ax.set_title(title)
    ax.legend(fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")
    return fig


@figure
def error_against_perturbations(
    P: Values,
    panels: Mapping[str, Mapping[str, tuple[Values, Values]]],
    laws: Mapping[str, Mapping[str, Values]],
) -> Figure:
    """Relative error of K_U against P, a panel for each family, a color for each kind of pair.

    Args:
        P: (M,), numbers of perturbations.
        panels: family -> kind of pair -> (measured, standard error), each (M,).
        laws: family -> kind of pair -> the law (M,), drawn dashed.
    """
    fig, axes = plt.subplots(
        1, len(panels), figsize=(4.1 * len(panels), 3.8), sharey=True, squeeze=False
    )
    counts = _array(P)
    for ax, (family, kinds) in zip(axes[0], panels.items(), strict=True):
        for position, (kind, (values, errors)) in enumerate(kinds.items()):
            bars = 2 * _array(errors)
            look = _look(position)
            ax.errorbar(counts, _array(values), yerr=bars, linestyle="", label=kind, **look)
        for position, values in enumerate(laws[family].values()):
            name = "law" if position == 0 else None
            ax.plot(counts, _array(values), color=THEORY, linestyle="--", lw=1.1, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        _count_ticks(ax, counts)
        _value_ticks(ax)
        ax.set_title(family)
        ax.set_xlabel("number of perturbations $P$")
    axes[0, 0].set_ylabel("relative error of $K_U$")
    axes[0, -1].legend(fontsize=9)
    return fig


@figure
def measures_against_perturbations(
    P: Values, panels: Mapping[str, tuple[float, Mapping[str, Values]]]
) -> Figure:
    """Several measures of the error against P, each beside the slope it should have.

    Args:
        P: (M,), numbers of perturbations.
        panels: name of the measure -> (slope, kind of pair -> values (M,)).
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(3.0 * len(panels), 3.5), squeeze=False)
    counts = _array(P)
    for ax, (name, (slope, kinds)) in zip(axes[0], panels.items(), strict=True):
        for position, (kind, values) in enumerate(kinds.items()):
            ax.loglog(counts, _array(values), linestyle="", label=kind, **_look(position))
        last = np.exp(np.mean([np.log(_array(values)[-1]) for values in kinds.values()]))
        line = last * (counts / counts[-1]) ** slope
        ax.loglog(counts, line, color=THEORY, linestyle="--", lw=1.1)
        _count_ticks(ax, counts)
        ax.set_title(f"{name}\ndashed: slope ${slope:g}$", fontsize=10)
        ax.tick_params(labelsize=8)
    axes[0, 0].legend(fontsize=8)
    fig.supxlabel("number of perturbations $P$", fontsize=11)
    return fig


@figure
def bound_and_law(
    P: Values, drawn: Sequence[Values], law: Values, bounds: Mapping[str, Values]
) -> Figure:
    """Every drawn error, the law through them, and the bounds above them.

    Args:
        P: (M,), numbers of perturbations.
        drawn: M arrays of relative errors, one an entry of P.
        law: (M,).
        bounds: name -> (M,).
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.2))
    counts = _array(P)
    for position, (count, values) in enumerate(zip(counts, drawn, strict=True)):
        found = _array(values).ravel()
        label = "ZO: each draw" if position == 0 else None
        ax.plot(np.full(found.shape, count), found, "_", color=ZO, ms=9, alpha=0.4, label=label)
    ax.plot(counts, _array(law), color=THEORY, linestyle="--", lw=1.3, label="exact law")
    for position, (name, values) in enumerate(bounds.items()):
        look = _look(position + 2)
        ax.plot(counts, _array(values), lw=1.3, linestyle=DASHES[position + 1], label=name, **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _count_ticks(ax, counts)
    ax.set_xlabel("number of perturbations $P$")
    ax.set_ylabel("relative error of $K_U$")
    ax.legend(fontsize=9)
    return fig


@figure
def error_against_alignment(series: Mapping[str, tuple[Values, Values]]) -> Figure:
    """Each pair's relative error times sqrt(P) against its alignment, and sqrt(1/a + 1).

    Args:
        series: name -> (alignments, errors times sqrt(P)), of equal shape.
    """
    fig, ax = plt.subplots()
    low, high = np.inf, 0.0
    for position, (name, (a, error)) in enumerate(series.items()):
        x = _array(a).ravel()
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        ax.plot(x, _array(error).ravel(), linestyle="", alpha=0.7, label=name, **_look(position))
    grid = np.geomspace(low, high, 100)
    name = r"$\sqrt{1/a + 1}$"
    ax.plot(grid, np.sqrt(1 / grid + 1), color=THEORY, linestyle="--", label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _value_ticks(ax)
    ax.set_xlabel("alignment $a$ of the pair")
    ax.set_ylabel(r"relative error $\times\ \sqrt{P}$")
    ax.legend(fontsize=9)
    return fig


@figure
def spectra(images: Values, exact: Values, drawn: Values, *, title: str) -> Figure:
    """Two inputs, and the singular values of their block: of K, and of K_U in each draw.

    Args:
        images: the two inputs, (2, 1, H, W).
        exact: singular values of K (V,), falling.
        drawn: those of K_U, (draws, V).
        title: which pair, which P.
    """
    pictures, values = _array(images), _array(drawn)
    fig = plt.figure(figsize=(7.2, 3.4))
    grid = fig.add_gridspec(2, 2, width_ratios=[1, 4])
    for row, name in enumerate(("$x_o$", "$x_u$")):
        ax = fig.add_subplot(grid[row, 0])
        ax.imshow(pictures[row].squeeze(), cmap="gray_r", interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[:].set_visible(True)
        ax.set_ylabel(name, rotation=0, labelpad=12)
    ax = fig.add_subplot(grid[:, 1])
    numbers = np.arange(1, len(_array(exact)) + 1)
    for draw, row_values in enumerate(values):
        label = "ZO: each draw" if draw == 0 else None
        ax.plot(numbers, row_values, color=ZO, alpha=0.35, lw=1.0, label=label)
    ax.plot(numbers, _array(exact), "o--", color=FO, label="FO")
    ax.set_xticks(numbers)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("number of the singular value")
    ax.set_ylabel("singular value of the block")
    ax.set_title(title)
    ax.legend(fontsize=9)
    return fig

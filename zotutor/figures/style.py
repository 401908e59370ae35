"""One style for every figure: colors that the color-blind can distinguish, on white.

The background stays white in dark mode, so that colors chosen for white stay readable. Lines differ
in marker or dash as well as in color. Figures are returned, not shown: a notebook shows its cell's
last value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

try:
    import matplotlib.pyplot as plt
    from cycler import cycler
    from matplotlib.figure import Figure
except ImportError as error:  # pragma: no cover
    raise ImportError(
        'figures need matplotlib, which is not installed; run: pip install "zotutor[book]"'
    ) from error

FO = "#0072B2"
"""Color of first order (blue)."""
ZO = "#D55E00"
"""Color of zeroth order (vermilion)."""
THEORY = "#000000"
"""Color of formulas (black, dashed)."""
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, for anything else."""
MARKERS = ("o", "s", "^", "D", "v", "P")
"""One marker for each color of the cycle."""
DASHES: Any = ("-", (0, (6, 1.5)), (0, (3, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
"""Line styles of measurements, in order."""
THEORY_DASHES: Any = ((0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)))
"""Line styles of formulas, in order."""

STYLE: Any = {
    "figure.figsize": (6.4, 3.8),
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "image.cmap": "RdBu_r",
    "figure.constrained_layout.use": True,
}

Arguments = ParamSpec("Arguments")


def figure(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorator of every figure function: applies the style, and avoids a second display."""

    @wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            drawn = draw(*args, **kwargs)
        plt.close(drawn)
        return drawn

    return styled

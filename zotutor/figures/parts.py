"""Parts shared by figures: arrays from tensors, markers, ticks, pictures, heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from torch import Tensor

from .style import CYCLE, FO, MARKERS, ZO

Values = np.ndarray | Tensor | Sequence[float]


def array(values: Values) -> np.ndarray:
    """The numbers in double precision."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=float)


def look(position: int) -> dict[str, Any]:
    """Color and marker of the line at this position."""
    return {"color": CYCLE[position % len(CYCLE)], "marker": MARKERS[position % len(MARKERS)]}


def zo_look(position: int) -> dict[str, Any]:
    """Color and marker of the line at this position, except blue, which is first order's."""
    return look(1 + position % (len(CYCLE) - 1))


def order_look(name: str, position: int) -> dict[str, Any]:
    """Blue circles for first order, vermilion squares for zeroth order, else other colors."""
    if name.startswith("FO"):
        return {"color": FO, "marker": "o"}
    if name.startswith("ZO"):
        return {"color": ZO, "marker": "s"}
    rest = 2 + position % (len(CYCLE) - 2)  # the first two colors are taken
    return {"color": CYCLE[rest], "marker": MARKERS[rest]}


def count_ticks(ax: Axes, counts: np.ndarray) -> None:
    """Ticks at exactly the measured numbers of a logarithmic axis."""
    ax.set_xticks(counts, [f"{int(count):,}" for count in counts])
    ax.minorticks_off()


def value_ticks(ax: Axes) -> None:
    """1, 2 and 5 in each decade of a logarithmic axis that spans few of them."""
    low, high = ax.get_ylim()
    steps = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    ax.set_yticks(inside, [f"{step:g}" for step in inside])
    ax.minorticks_off()


def picture(ax: Axes, image: np.ndarray, title: str) -> None:
    """Show a gray picture under its title."""
    ax.imshow(image.squeeze(), cmap="gray_r", interpolation="nearest")
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(True)


def heat(ax: Axes, values: np.ndarray, limit: float) -> Any:
    """Show signed values, white at 0; returns the image, for a color bar."""
    norm = TwoSlopeNorm(0.0, -limit, limit)
    shown = ax.imshow(values, norm=norm, cmap="RdBu_r", interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(True)
    return shown


def class_ticks(ax: Axes, rows: int, columns: int) -> None:
    """Number rows and columns, where there is more than one."""
    ax.set_yticks(range(rows) if rows > 1 else [])
    ax.set_xticks(range(columns) if columns > 1 else [])
    ax.tick_params(labelsize=7, length=0)

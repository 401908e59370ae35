"""What every figure of the book must do."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def drawn(draw: Callable[[], Figure]) -> Figure:
    """The figure, which must render and not be left open for a notebook to show twice."""
    figure = draw()
    figure.canvas.draw()
    assert isinstance(figure, Figure)
    assert not plt.get_fignums()
    return figure

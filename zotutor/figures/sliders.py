"""Figures with sliders, where a kernel is live."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure


def explore(draw: Callable[..., Figure], **choices: list[Any]) -> Any:
    """A figure with one slider for each argument, redrawn whenever a slider moves.

    On the static site there is no kernel to move sliders with: there (the build sets the variable
    ``ZOTUTOR_STATIC``) the figure for the middle choices is returned instead.

    Args:
        draw: a figure function that takes the arguments by keyword.
        choices: the values each argument can take, in order.

    Returns:
        An ``ipywidgets`` widget, or a Figure.

    Raises:
        ImportError: without ipywidgets, unless ``ZOTUTOR_STATIC`` is set.
        ValueError: for no choices, or none for one of the arguments.
    """
    empty = sorted(name for name, values in choices.items() if not values)
    if empty or not choices:
        raise ValueError(
            f"explore: no values for {', '.join(empty) or 'any argument'}; give a list of at least "
            "one value for each argument of the figure, as in explore(draw, P=[1, 4, 16])"
        )
    if os.environ.get("ZOTUTOR_STATIC"):
        return draw(**{name: values[len(values) // 2] for name, values in choices.items()})
    try:
        import ipywidgets
        from IPython.display import display
    except ImportError as error:  # pragma: no cover
        raise ImportError(
            'sliders need ipywidgets, which is not installed; run: pip install "zotutor[book]"'
        ) from error
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=values,
            value=values[len(values) // 2],
            description=name,
            continuous_update=False,
        )
        for name, values in choices.items()
    }

    def show(**values: Any) -> Figure:
        drawn = draw(**values)
        display(drawn)  # `interactive` shows what is displayed, not what is returned
        return drawn

    return ipywidgets.interactive(show, **sliders)

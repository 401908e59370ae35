"""A run watched as it proceeds: is its step unstable, do its differences drown in rounding?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch

WINDOW = 20
"""Steps in a mean: those of a single batch differ too much."""


class Watch:
    """Compares the last steps of a run with its first, and says once what is wrong.

    Args:
        eps: finite-difference step.
        dtype: the coarsest used in computing the loss.
    """

    def __init__(self, *, eps: float, dtype: torch.dtype) -> None:
        self._eps, self._spacing = eps, torch.finfo(dtype).eps
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._drowned: deque[bool] = deque(maxlen=WINDOW)
        self._said: set[str] = set()

    def saw(self, loss: float, slopes: Sequence[float]) -> str | None:
        """What to warn of after a step with this loss and these projected gradients, if anything.

        >>> watch = Watch(eps=1e-3, dtype=torch.float32)
        >>> said = [watch.saw(loss, [1.0]) for loss in [1.0, 1.1] * 10 + [3.0, 3.1] * 10]
        >>> [text.partition(":")[0] for text in said if text]
        ['the loss has risen from 1.05 to 3.05']
        """
        difference = 2 * self._eps * math.sqrt(sum(g * g for g in slopes) / len(slopes))
        self._drowned.append(difference <= 4 * self._spacing * abs(loss))
        if len(self._first) < WINDOW:
            self._first.append(loss)
        else:
            self._last.append(loss)
        return self._once("rounding", self._rounding()) or self._once("loss", self._risen())

    def _once(self, what: str, text: str | None) -> str | None:
        if text is None or what in self._said:
            return None
        self._said.add(what)
        return text

    def _rounding(self) -> str | None:
        if len(self._drowned) < WINDOW or 2 * sum(self._drowned) <= WINDOW:
            return None
        return (
            f"most differences of losses were within four spacings of the loss in the last "
            f"{WINDOW} steps (eps is {self._eps:g}), so that steps follow rounding: take a larger "
            "eps, or compute the loss in float32; zotutor doctor says how large"
        )

    def _risen(self) -> str | None:
        if len(self._last) < WINDOW // 2:
            return None
        before, after = (torch.tensor([*part]) for part in (self._first, self._last))
        rise = float(after.mean() - before.mean())
        error = math.sqrt(float(before.var()) / len(before) + float(after.var()) / len(after))
        if rise <= 0.5 * abs(float(before.mean())) or rise <= 3 * error:
            return None
        return (
            f"the loss has risen from {float(before.mean()):.3g} to {float(after.mean()):.3g}: the "
            "learning rate is too large for this run; start again with half of it, or with lr=None "
            "(--lr auto), which measures one"
        )

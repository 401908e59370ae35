"""Slopes, curvatures and rounding of a loss, from its values along random directions.

At theta + c u the losses of the N examples of a batch are N numbers. Three of them a direction give
slopes s_n = [L_n(c) - L_n(-c)] / (2 c) and curvatures q_n = [L_n(c) - 2 L_n(0) + L_n(-c)] / c^2 of
each example. Over directions E[q] = tr(H) and E[s^2] = |g|^2, since E[u u^T] = I; Var[q] =
2 norm(H)_F^2 for normal directions, and for signs in all but a few coordinates. What examples add
is removed without another batch: the square of a mean, less the variance of that mean, is unbiased.

Curvatures at two distances are kept: at c, near enough for a parabola and far enough to be heard
above rounding, and where the loss has risen by half. No backward pass is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .checks import check_integer, is_finite
from .closure import NonFiniteLossError, no_random_numbers
from .directions import Directions, check_draw
from .estimators import resolve_eps
from .parameters import Parameters, ParametersLike, resolve
from .probe import Substitution, probing, toward

Losses = Callable[[int], Tensor]
"""The losses of the examples of batch ``number``, (N,), or one loss of all of them, 0-d."""

RISE = 0.5
"""The far distance: where the mean loss has risen by this share of itself."""
_FIRST = 1 << 40
"""Number of the first step whose directions are drawn here: no run takes that many steps."""
_STENCIL = (-3, -2, -1, 0, 1, 2, 3)


class Row(NamedTuple):
    """What one direction shows on one batch of N examples: means, and their variances."""

    loss: float
    loss_variance: float
    slope: float
    slope_variance: float
    curvature: tuple[float, ...]
    """At each distance."""
    curvature_variance: tuple[float, ...]


class Measured(NamedTuple):
    """The result of :func:`measure`."""

    rows: tuple[Row, ...]
    """One per direction."""
    distances: tuple[float, ...]
    """At which curvatures were measured: c, and where the loss has risen by half."""
    rounding: float
    """Standard deviation of the rounding error of a batch's mean loss."""
    near: float
    """Root mean square slope at eps, of the directions that rounding was measured on."""
    examples: int
    """N, or 1 for a loss of all examples."""
    d: int
    evaluations: int
    """How many times the losses were computed."""
    eps: float


class _Prober:
    """The losses of a batch along a direction, and how many were computed."""

    def __init__(self, losses: Losses, params: Parameters, mode: Substitution) -> None:
        self._losses, self._params, self._mode = losses, params, mode
        self.count, self.size = 0, 0

    def line(
        self, family: Directions, k: int, seed: int
    ) -> Callable[[float], np.ndarray[Any, Any]]:
        """A function from c to the losses (N,) of batch k at theta + c u_k."""
        direction = family.at(self._params, seed=seed, step=_FIRST + k)

        def at(c: float) -> np.ndarray[Any, Any]:
            with toward(self._mode, direction, c):
                found = self._losses(k)
            values = self._checked(found)
            if self._mode.reads == 0:
                raise ValueError(
                    "losses: they read none of the parameters given; compute them from these "
                    "parameters"
                )
            self.count += 1
            return values

        return at

    def _checked(self, found: Any) -> np.ndarray[Any, Any]:
        if (
            not isinstance(found, Tensor)
            or found.is_meta
            or found.dim() > 1
            or found.numel() == 0
            or not found.is_floating_point()
        ):
            given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
            raise TypeError(
                f"losses: returned {given}, expected the losses of a batch's examples, a "
                'floating-point tensor (N,); give reduction="none" to the loss'
            )
        self.size = self.size or found.numel()
        if found.numel() != self.size:
            raise ValueError(
                f"losses: returned {found.numel()} losses after {self.size} for another batch, "
                "expected batches of one size; leave out the last batch of an epoch"
            )
        if not is_finite(found):
            raise NonFiniteLossError(
                "losses: one is NaN or infinite; look for it in the inputs and the weights"
            )
        return found.detach().double().cpu().reshape(-1).numpy()


def measure(
    losses: Losses,
    params: ParametersLike,
    *,
    directions: Directions | None = None,
    eps: float | None = None,
    samples: int = 32,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Slopes, curvatures and rounding of a loss, from values alone; see the module.

    Args:
        losses: computes the losses of the examples of batch ``number``, (N,), N the same for all
            batches, without backward; or one loss of all examples, 0-d. Batches are drawn by their
            number, each independent of the others.
        params: a model, or its parameters.
        directions: family of u; Rademacher by default.
        eps: finite-difference step of the run; None for the default of the dtype.
        samples: directions, each on a batch of its own, at least 4; five losses each.
        seed: of the directions, 0 <= seed < 2^64.
        progress: called with the number of evaluations made, and about how many there will be.

    Returns:
        Named tuple (rows, distances, rounding, near, examples, d, evaluations, eps).

    Raises:
        TypeError: for losses of another shape or dtype.
        ValueError: for losses that do not change along directions, or read no parameter.
        NonFiniteLossError: for a loss that is NaN or infinite.

    Example:
        >>> import torch
        >>> theta = torch.ones(40, requires_grad=True)
        >>> found = measure(lambda _: theta.square().sum() / 2, [theta], samples=4, seed=0)
        >>> [round(q) for q in found.rows[0].curvature]
        [40, 40]
    """
    samples = check_integer("samples", samples, low=4)
    family = check_draw(directions, P=1, seed=seed, step=0)
    found = resolve(params)
    eps = resolve_eps(eps, found)
    told = progress or _silent
    with probing(found) as mode, no_random_numbers():
        prober = _Prober(losses, found, mode)
        lines = [prober.line(family, samples + k, seed) for k in range(2)]
        rounding, near, bend = _rounding(lines, eps)
        told(prober.count, prober.count + 6 * samples)
        loss = abs(float(np.mean([line(0.0) for line in lines])))
        far = _far(lines, loss, bend, eps)
        total = prober.count + 5 * samples
        # halfway, on a logarithmic scale, from where a parabola drowns in rounding to `far`
        c = min(max(eps, far * (rounding / loss) ** 0.25 if loss else eps), far / 4)
        rows = []
        for k in range(samples):
            rows.append(_row(prober.line(family, k, seed), (c, far)))
            told(prober.count, total)
    return Measured(tuple(rows), (c, far), rounding, near, prober.size, found.d, prober.count, eps)


def _silent(done: int, total: int) -> None:
    """No report of progress."""


def _rounding(
    lines: Sequence[Callable[[float], np.ndarray[Any, Any]]], eps: float
) -> tuple[float, float, float]:
    """Rounding of a mean loss, RMS slope and RMS curvature, from seven losses within eps.

    The fifth and sixth differences of a smooth function are tiny, those of its rounding errors are
    not: E (Delta^k e)^2 = binom(2 k, k) times their variance (More and Wild, 2011).
    """
    squares, slopes, bends = [], [], []
    for line in lines:
        f = np.array([float(line(k * eps / 3).mean()) for k in _STENCIL])
        for order in (5, 6):
            squares += [*(np.diff(f, order) ** 2 / math.comb(2 * order, order))]
        slopes.append(float((f[6] - f[0]) / (2 * eps)))
        bends.append(float((f[6] - 2 * f[3] + f[0]) / eps**2))
    rounding = math.sqrt(float(np.mean(squares)))
    slope, bend = (math.sqrt(float(np.mean(np.square(v)))) for v in (slopes, bends))
    return rounding, slope, bend


def _far(
    lines: Sequence[Callable[[float], np.ndarray[Any, Any]]], loss: float, bend: float, eps: float
) -> float:
    """About the distance at which the mean loss has risen by half."""

    def rise(c: float) -> float:
        try:
            return float(np.mean([(line(c) + line(-c)).mean() / 2 for line in lines])) - loss
        except NonFiniteLossError:
            return math.inf

    goal = RISE * loss
    c = math.sqrt(2 * goal / bend) if bend and loss else 64 * eps
    here = rise(c)
    factor = 0.5 if here > goal else 2.0
    for _ in range(16):
        there = rise(c * factor)
        if (there > goal) != (here > goal):  # between: as a power of the distance
            least = goal * 1e-3
            low, high = sorted(max(r, least) for r in (here, there))
            power = math.log(goal / low) / math.log(high / low) if math.isfinite(high) else 0.0
            return float(min(c, c * factor) * 2**power)
        c, here = c * factor, there
    raise ValueError(
        f"losses: along random directions the mean loss, {loss:.3g} here, has not risen by half "
        f"at a distance of {c:.2g} from each parameter; look whether the parameters given have an "
        "influence on it, and whether it is one that falls where the model is right"
    )


def _row(line: Callable[[float], np.ndarray[Any, Any]], distances: Sequence[float]) -> Row:
    here = line(0.0)
    pairs = [(line(c), line(-c)) for c in distances]
    c = distances[0]
    s = (pairs[0][0] - pairs[0][1]) / (2 * c)
    qs = [(a - 2 * here + b) / c**2 for (a, b), c in zip(pairs, distances, strict=True)]
    return Row(
        *_mean(here), *_mean(s), tuple(_mean(q)[0] for q in qs), tuple(_mean(q)[1] for q in qs)
    )


def _mean(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The mean over examples and the variance of that mean, 0 for a single number."""
    n = len(values)
    return float(values.mean()), float(values.var(ddof=1) / n) if n > 1 else 0.0

"""How large a step may be, from measured losses: the border of divergence, and the step to take.

thm-stable-step is about a quadratic loss and steps without end. Fine-tuning has another loss, fresh
batches, and T steps. What decides in all of them is how far noise takes a run. Let x be the mean
square displacement of a parameter by it. A step on a batch adds eta^2 E|g_b - g|^2 / P; where
the run is displaced the slopes are larger by x E norm(H_b)_F^2; and curvature takes part of x back:

    dx/dt = eta^2 / P [sigma^2 / B + (1 + (P + 1) / n^(3/4)) E norm(H_b)_F^2 x] - 2 eta lambda x,

with n = tr(H)^2 / norm(H)_F^2 equal eigenvalues in place of the spectrum, and lambda = tr(H) / n
times the share of norm(H)_F^2 in E norm(H_b)_F^2. A run diverges if x reaches, within T steps, the
value at which the loss has risen by half of itself. Without noise of batches and for T without end
that is eta > 2 P / (tr(H) (1 + (P + 1) / n^(3/4))), between the two values in thm-stable-step: they
have 1/n and, with the largest eigenvalue at most norm(H)_F, 1/n^(1/2).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .curvature import RISE, Measured, Row

Array = np.ndarray[Any, Any]


class Moments(NamedTuple):
    """Means over directions, for batches of one size."""

    loss: float
    signal: float
    """|g|^2, of the mean over all examples."""
    noise: float
    """sigma^2 / batch_size; the mean square slope is signal + noise."""
    trace: Array
    """tr(H) at each distance."""
    square: Array
    """norm(H)_F^2 at each distance, of the mean over all examples."""
    batch_square: Array
    """E norm(H_b)_F^2 at each distance, H_b that of a batch."""


def moments(measured: Measured, rows: tuple[Row, ...], *, batch_size: int) -> Moments:
    """What some rows say of |g|^2, the noise of batches, and the Hessian."""
    slopes = np.array([row.slope for row in rows])
    bends = np.array([row.curvature for row in rows])
    share = measured.examples / batch_size
    noise = float(np.mean([row.slope_variance for row in rows]))
    bend_noise = np.mean([row.curvature_variance for row in rows], axis=0)
    cs, rounding = np.array(measured.distances), measured.rounding**2
    signal = float(np.mean(slopes**2)) - noise - rounding / (2 * cs[0] ** 2)
    square = (bends.var(0, ddof=1) - bend_noise - 6 * rounding / cs**4) / 2
    # Cauchy-Schwarz; signs do not see the diagonal, which is all of it for H = I
    square = np.maximum(square, bends.mean(0) ** 2 / measured.d)
    return Moments(
        float(np.mean([row.loss for row in rows])),
        max(signal, 0.0),
        noise * share,
        bends.mean(0),
        square,
        square + bend_noise * share / 2,
    )


def border(found: Moments, distances: tuple[float, ...], *, P: int, steps: int) -> float:
    """The learning rate beyond which a run of ``steps`` diverges; see the module."""
    x = _wandered(found, distances)  # (k,) ascending; the last is where the loss has risen by half
    logs = np.log(x) / 2
    at = np.log(distances)
    trace, square, batch = (
        np.interp(logs, at, values) for values in (found.trace, found.square, found.batch_square)
    )
    n = np.maximum(1.0, trace**2 / np.maximum(square, 1e-300))
    bend = np.where(trace > 0, square / np.maximum(trace, 1e-300), 0.0)
    bend = np.minimum(bend, np.sqrt(square)) * square / np.maximum(batch, 1e-300)
    # between the two values of thm-stable-step: largest eigenvalue tr / n, or tr / sqrt(n)
    gain = found.noise + (1 + (P + 1) * n**-0.75) * batch * x

    def wanders_there(lr: float) -> bool:
        speed = lr**2 / P * gain - 2 * lr * bend * x
        if speed.min() <= 0:
            return False
        return bool(np.trapezoid(1 / speed, x) + x[0] / speed[0] < steps)

    low, high = 1e-30, 1e30
    for _ in range(100):
        lr = math.sqrt(low * high)
        low, high = (low, lr) if wanders_there(lr) else (lr, high)
    return low


def _wandered(found: Moments, distances: tuple[float, ...]) -> Array:
    """Mean square displacements up to where the loss has risen by half."""
    r = distances[-1] * np.geomspace(1e-2, 4, 400)
    rise = np.interp(np.log(r), np.log(distances), found.trace) * r**2 / 2
    over = np.nonzero(rise > RISE * found.loss)[0]
    return r[: (max(over[0], 1) if len(over) else len(r) - 1) + 1] ** 2

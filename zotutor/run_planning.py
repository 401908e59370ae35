"""A run of ZO-SGD planned from losses alone: learning rate, P, eps, steps, and what they cost."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from .checks import check_integer
from .columns import Table
from .curvature import Losses, Measured, measure
from .deprecation import a_model_first_meant
from .directions import Directions
from .parameters import ParametersLike, resolve
from .planning import Estimated, plan_perturbations
from .step_size import Moments, border, moments

SHARE = 0.25
"""The learning rate to take, as a share of the border.

With exact gradients a step gains most at half the border (cor-slowdown); noise of batches moves
that down, to |g|^2 / (|g|^2 + sigma^2/B) of it. A quarter gains three quarters of the most in the
first case, and is right where half of a slope is noise. It is also the P / (2 tr H) of *ZO-SGD*.
"""
DROWNED = 0.1
"""Rounding above this share of a slope makes :func:`plan` take a larger eps."""


class Plan(NamedTuple):
    """The result of :func:`plan`; ``print`` it."""

    lr: float
    P: int
    eps: float
    steps: int
    batch_size: int
    forward_passes: int
    hours: float
    memory: float
    """In GB: the peak of this process while it measured."""
    deviation: Estimated
    """From first order with the same batches, of the changes of examples' losses, relative."""
    border: Estimated
    """The learning rate beyond which the run diverges."""
    loss: Estimated
    slope: Estimated
    """Root mean square of u . g, of a batch."""
    signal: Estimated
    """|g|^2 of the mean over all examples, as a share of the mean square slope."""
    trace: tuple[Estimated, ...]
    """tr(H) at each distance."""
    distances: tuple[float, ...]
    rounding: float
    """Of a slope at eps, as a share of it."""
    evaluations: int
    """How many forward passes this plan took."""

    def __str__(self) -> str:
        """The plan as a table."""
        rows = self._rows()
        wide = [max(len(row[k]) for row in rows) for k in range(2)]
        lines = [f"{a:{wide[0]}}  {b:>{wide[1]}}  {c}" for a, b, c in rows]
        return "\n".join([*lines, f"from {self.evaluations} forward passes, no backward pass"])

    def _repr_markdown_(self) -> str:
        table = Table("", "value", "")
        for row in self._rows():
            table.add(*row)
        passes = f"From {self.evaluations} forward passes, no backward pass."
        return f"{table.markdown()}\n\n{passes}"

    def _rows(self) -> list[tuple[str, str, str]]:
        near, far = self.distances[0], self.distances[-1]
        return [
            ("learning rate", f"{self.lr:.2g}", f"{SHARE:g} of the border of divergence"),
            ("border", _with_error(self.border), f"of a run of {self.steps:,} steps"),
            ("perturbations P", f"{self.P}", "1 is best for a given number of forward passes"),
            ("eps", f"{self.eps:.2g}", f"rounding is {self.rounding:.2g} of a difference"),
            ("steps", f"{self.steps:,}", f"batches of {self.batch_size}"),
            ("forward passes", f"{self.forward_passes:,}", "2 P per step"),
            ("hours", f"{self.hours:.2g}", "measured, on this machine as it is now"),
            ("memory", f"{self.memory:.2g} GB", "measured, peak of this process"),
            ("off first order", _with_error(self.deviation), "at most, C / sqrt(T P)"),
            ("loss", _with_error(self.loss), "at the start"),
            ("slope u.g", _with_error(self.slope), "of a batch, root mean square"),
            ("|g|^2 / slope^2", _with_error(self.signal), "the rest is noise of batches"),
            ("tr(H), near", _with_error(self.trace[0]), f"at a distance of {near:.2g}"),
            ("tr(H), far", _with_error(self.trace[-1]), f"at {far:.2g}: the loss up by half"),
        ]


def _with_error(found: Estimated) -> str:
    if not math.isfinite(found.value):
        return "unknown"
    return f"{found.value:.2g} ± {found.std_error:.1g}"


@a_model_first_meant(plan_perturbations)
def plan(
    losses: Losses,
    params: ParametersLike,
    *,
    steps: int | None = None,
    budget: int | None = None,
    P: int = 1,
    batch_size: int | None = None,
    directions: Directions | None = None,
    eps: float | None = None,
    samples: int = 32,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    enlarge: bool = True,
) -> Plan:
    """A learning rate for ZO-SGD and what a run will cost, from losses alone: no backward pass.

    Each of ``samples`` random directions takes five losses (see :mod:`zotutor.curvature`): slopes,
    tr(H) and norm(H)_F^2 near theta and where the loss has risen by half, with the noise of batches
    and of rounding measured and removed. From these :mod:`zotutor.step_size` predicts the learning
    rate at which a run of that many steps diverges; a quarter of it is the one to take. The book
    compares the prediction with measured borders in *The loss's view*.

    Args:
        losses: computes the losses of the examples of batch ``number``, (N,), without backward;
            or one loss of all examples, 0-d. Batches are drawn by their number.
        params: a model, or its parameters.
        steps: of the run.
        budget: forward passes, 2 P per step, in place of ``steps``.
        P: perturbations per step.
        batch_size: examples per step, N by default.
        directions: family of u; Rademacher by default.
        eps: finite-difference step; None for the default of the dtype.
        samples: directions, at least 4.
        seed: of the directions, 0 <= seed < 2^64.
        progress: called with the number of evaluations made, and about how many there will be.
        enlarge: plan with a larger eps if rounding is above a tenth of a difference at this one.

    Returns:
        Named tuple (lr, P, eps, steps, ...), numbers that were measured with their standard
        errors. Its text is a table.

    Raises:
        TypeError, ValueError: for arguments out of range; see :func:`~zotutor.curvature.measure`.
        NonFiniteLossError: for a loss that is NaN or infinite.

    For the perturbations that make one step accurate use :func:`~zotutor.plan_perturbations`.

    Example:
        >>> from zotutor import Gaussian
        >>> theta = torch.ones(50, requires_grad=True)
        >>> def losses(number):
        ...     return theta.square().sum() / 2
        >>> found = plan(losses, [theta], budget=20_000, directions=Gaussian(), seed=0)
        >>> found.steps, 0.8 < found.border.value / (2 / 52) < 1.25  # thm-stable-step
        (10000, True)
    """
    P = check_integer("P", P, low=1)
    steps = steps_of(steps, budget, P=P)
    started = time.perf_counter()
    given = {"directions": directions, "eps": eps, "samples": samples, "seed": seed}
    found = measure(losses, params, **given, progress=progress)  # type: ignore[arg-type]
    seconds = (time.perf_counter() - started) / found.evaluations
    size = found.examples if batch_size is None else check_integer("batch_size", batch_size, low=1)
    if found.examples == 1:
        size = 1
    return from_measured(
        found, steps=steps, P=P, batch_size=size, seed=seed, enlarge=enlarge
    )._replace(
        hours=2 * P * steps * seconds * max(1.0, size / found.examples) / 3600,
        memory=_peak(resolve(params).device),
    )


def steps_of(steps: int | None, budget: int | None, *, P: int) -> int:
    """The number of steps, given or that a budget of forward passes allows.

    >>> steps_of(None, 20_000, P=4)
    2500
    """
    if (steps is None) == (budget is None):
        raise ValueError(
            f"steps, budget: given {steps} and {budget}, expected one of them; give budget=20_000 "
            "for that number of forward passes"
        )
    if budget is not None:
        return check_integer("budget", budget, low=2 * P) // (2 * P)
    return check_integer("steps", steps, low=1)  # type: ignore[arg-type]


def from_measured(
    found: Measured,
    *,
    steps: int,
    P: int,
    batch_size: int,
    seed: int,
    enlarge: bool = True,
    draws: int = 60,
) -> Plan:
    """The plan that measurements lead to, without its hours and memory.

    Args:
        found: of :func:`~zotutor.curvature.measure`.
        steps: of the run.
        P: perturbations per step.
        batch_size: examples per step.
        seed: of the resampling of directions that standard errors come from.
        enlarge: whether eps may be enlarged.
        draws: how often directions are resampled.
    """
    rows = found.rows

    def quantities(at: Moments) -> list[float]:
        slope = at.signal + at.noise
        limit = border(at, found.distances, P=P, steps=steps)
        example = at.signal + at.noise * batch_size  # E |g_n|^2
        C = math.sqrt(example / at.signal + 1) if at.signal > 0 else math.inf
        off = C / math.sqrt(steps * P)
        share = at.signal / slope if slope else 0.0
        return [limit, off, at.loss, math.sqrt(slope), share, *at.trace]

    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        again = tuple(rows[k] for k in generator.integers(len(rows), size=len(rows)))
        drawn.append(quantities(moments(found, again, batch_size=batch_size)))
    values = quantities(moments(found, rows, batch_size=batch_size))
    with np.errstate(invalid="ignore"):
        errors = np.std(np.array(drawn), axis=0)
    errors[~np.isfinite(errors)] = math.inf  # in some of the resamples there is no signal
    limit, off, loss, slope, share, *trace = (
        Estimated(v, float(e)) for v, e in zip(values, errors, strict=True)
    )
    eps, near = found.eps, found.near
    rounding = found.rounding / (math.sqrt(2) * eps * near) if near else math.inf
    if enlarge and rounding > DROWNED and found.distances[0] > eps:
        eps = float(f"{found.distances[0]:.1g}")
        rounding *= found.eps / eps
    lr = float(f"{SHARE * limit.value:.2g}")
    return Plan(
        lr, P, eps, steps, batch_size, 2 * P * steps, math.nan, math.nan, off, limit, loss,
        slope, share, tuple(trace), found.distances, rounding, found.evaluations,
    )  # fmt: skip


def _peak(device: torch.device) -> float:
    """The peak of memory so far, in GB: of the GPU if the parameters are there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # on Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

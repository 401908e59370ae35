"""How many perturbations are enough for a given model and data, without forming a Jacobian.

Every law is a sum, over rows a_i of J_o and b_j of J_u, of terms that are quadratic in each. With
few rows, as for the label words of a task, each takes one backward pass, and the sum is exact. With
many, as for a vocabulary, it is estimated: for random signs w and w', a = J_o^T w and b = J_u^T w'
are two vector-Jacobian products, and the law for the single pair (a, b) is an unbiased estimate of
the whole sum (E[w w^T] = I, as in Hutchinson's estimator of a trace).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .calling import finite_logits, refuse_nonfinite, resolve_model
from .checks import check_batch, check_integer, check_real
from .deprecation import moved, seed_was_optional
from .directions import Directions, check_draw
from .dynamics import change_of_log_probs_at, loss_gradient_at
from .jacobians import Pullback, jvp_at
from .laws import PairTerms, needed, sum_pairs
from .parameters import Parameters
from .streams import Stream, signs

_HELD = 1 << 29
"""Entries of J_u held at a time where all rows are formed: 2 GB in float32."""

_FORMED = 1 << 24
"""Entries of J_o held at a time, in addition: many rows of a small model per product."""


class Estimated(NamedTuple):
    """An unbiased estimate and its standard error."""

    value: float
    std_error: float


class PerturbationPlan(NamedTuple):
    """The result of :func:`plan_perturbations`; ``print`` it."""

    alignment: float
    P: int
    errors: dict[int, float]
    steps: int
    forward_passes: int
    target: str
    std_error: float = 0.0
    """Of P; 0 where every row was formed."""
    samples: int = 0
    """How many random signs were drawn; 0 where every row was formed."""

    def __str__(self) -> str:
        """The plan in words."""
        errors = ", ".join(f"{error:.2g} at P = {P}" for P, error in self.errors.items())
        certain = "exactly, for these inputs"
        if self.samples:
            certain = f"standard error {self.std_error:.2g}, from {self.samples} random samples"
        return (
            f"Alignment {self.alignment:.3g}. Relative error of {self.target}: {errors}.\n"
            f"P = {self.P} perturbations ({certain}) reach the relative error wanted, in one step "
            f"of {self.forward_passes} forward passes.\n"
            f"{self.steps} steps at P = 1 with the learning rate divided by {self.steps} do the "
            f"same: {2 * self.steps} forward passes in all."
        )


class Progress(NamedTuple):
    """The state of :func:`refine` after each piece of work."""

    plan: PerturbationPlan | None
    """From the measurements so far; None while they are all 0."""
    done: int
    total: int


def random_signs(shape: tuple[int, ...], seed: int, *number: int, like: Tensor) -> Tensor:
    """Signs for estimates, from streams that no direction uses (five integers, not four)."""
    flat = signs(
        Stream.of(seed, *number, 0, 0), slice(0, math.prod(shape)), like.dtype, like.device
    )
    return flat.view(shape)


def summary(samples: list[float]) -> Estimated:
    """The mean of independent samples, and its standard error."""
    values = torch.tensor(samples, dtype=torch.float64)
    return Estimated(float(values.mean()), float(values.std() / math.sqrt(len(samples))))


# ---- the sums over rows -------------------------------------------------------------------------


class _Sums(NamedTuple):
    """Sums over pairs of rows: over a part of the pairs, or an unbiased estimate over all."""

    variance: float
    squared_kernel: float
    squared_norms: float


def _sums(terms: PairTerms, squared_kernel: float | None = None) -> _Sums:
    """The sums from a law's terms; ``squared_kernel`` replaces (a . b)^2, which varies more."""
    kernel = terms.aligned if squared_kernel is None else squared_kernel
    return _Sums(terms.norms + kernel + terms.excess, kernel, terms.norms)


def _sampled_kernel(
    params: Parameters, x_o: Tensor, x_u: Tensor, family: Directions, samples: int, seed: int
) -> Iterator[_Sums]:
    """Two backward passes and one forward-mode pass for each sample."""
    back_o, back_u = Pullback(params, x_o), Pullback(params, x_u)
    for s in range(samples):
        w, w_u = (
            random_signs(tuple(back.logits.shape), seed, s, number, like=back.logits)
            for number, back in enumerate((back_o, back_u))
        )
        a = refuse_nonfinite(back_o(w), params, x_o, "x_o")
        b = refuse_nonfinite(back_u(w_u), params, x_u, "x_u")
        # |J_o b|^2 has the mean of (a . b)^2, norm(K)_F^2, without the noise of w
        moved = float(jvp_at(params, x_o, b, "x_o").double().square().sum())
        yield _sums(sum_pairs(a[None], b[None], family, params.shapes), moved)


def _sampled_dynamics(
    params: Parameters,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    family: Directions,
    samples: int,
    seed: int,
) -> Iterator[_Sums]:
    """One backward pass for each sample, and some at the start; |B g|^2 is exact."""
    g = loss_gradient_at(params, x_u, y_u, "x_u", "y_u").g
    moved = float(change_of_log_probs_at(params, x_o, g).double().square().sum())
    back = Pullback(params, x_o)
    pi = finite_logits(params, x_o, "x_o").softmax(-1)
    for s in range(samples):
        w = random_signs(tuple(pi.shape), seed, s, 0, like=pi)
        b = back(w - pi * w.sum(-1, keepdim=True))  # A^T w = w - pi (1 . w)
        refuse_nonfinite(b, params, x_o, "x_o")
        yield _sums(sum_pairs(b[None], g[None], family, params.shapes), moved)


def rows_in_blocks(
    params: Parameters, x: Tensor, size: int, *, log_probs: bool = False, name: str = "x"
) -> Iterator[Tensor]:
    """The rows of J(x), or of A J(x), in blocks of up to ``size`` rows: (size, d) each.

    One backward pass for each output of each input; no more than one block is held.
    """
    block: list[Tensor] = []
    for x_n in x.split(1):
        back = Pullback(params, x_n)
        z = back.logits
        for e_i in torch.eye(z.shape[1]).to(z):
            g = e_i - z[0].softmax(-1) if log_probs else e_i  # row i of A, or of the identity
            block.append(refuse_nonfinite(back(g[None]), params, x_n, name))
            if len(block) == size:
                yield torch.stack(block)
                block.clear()
    if block:
        yield torch.stack(block)


def _exact_kernel(
    params: Parameters, x_o: Tensor, x_u: Tensor, family: Directions
) -> Iterator[tuple[int, _Sums]]:
    """For each pair of blocks: the number of J_o's rows in it, and the sums over its pairs."""
    for block in rows_in_blocks(params, x_u, max(1, _HELD // params.d), name="x_u"):
        for rows in rows_in_blocks(params, x_o, max(1, _FORMED // params.d), name="x_o"):
            yield len(rows), _sums(sum_pairs(rows, block, family, params.shapes))


def exact_dynamics(
    params: Parameters, x_o: Tensor, g: Tensor, family: Directions
) -> Iterator[tuple[int, PairTerms]]:
    """For each block of B = A J_o: its number of rows, and the law's terms for it and g."""
    size = max(1, _FORMED // params.d)
    for rows in rows_in_blocks(params, x_o, size, log_probs=True, name="x_o"):
        yield len(rows), sum_pairs(rows, g[None], family, params.shapes)


# ---- estimates ----------------------------------------------------------------------------------


@seed_was_optional
def estimate_kernel_error(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int,
) -> Estimated:
    """An unbiased estimate of :func:`~zotutor.kernel_error_law` that never forms a Jacobian.

    Per sample, at any V: two backward passes J^T w for random signs w, and one forward-mode pass.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        samples: draws of the signs w, at least 2; the standard error falls as 1/sqrt(samples).
        seed: of the signs w, 0 <= seed < 2^64.

    Returns:
        The mean of norm(K_U - K)_F^2, summed over all N_o N_u blocks, and its standard error.

    Raises:
        TypeError, ValueError: for bad batches, P or samples.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> estimate_kernel_error(nn.Linear(2, 1), x, x, P=36, seed=0).value
        1.0
    """
    family = _check(x_o, x_u, P, directions, samples, seed)
    found = _sampled_kernel(resolve_model(model), x_o, x_u, family, samples, seed)
    return summary([sample.variance / P for sample in found])


@seed_was_optional
def estimate_dynamics_error(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    *,
    P: int,
    lr: float,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int,
) -> Estimated:
    """An unbiased estimate of :func:`~zotutor.dynamics_error_law` that never forms a Jacobian.

    E |Delta_ZO - Delta_FO|^2 of the predicted change of log pi(. | x_o), for one step on the mean
    cross-entropy of (x_u, y_u). One backward pass per sample, B^T w for random signs w.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,).
        P: number of perturbations, at least 1.
        lr: learning rate eta.
        directions: family of u; Rademacher by default.
        samples: draws of random signs w over the logits of x_o, at least 2.
        seed: of the signs w, 0 <= seed < 2^64.

    Returns:
        The mean square error, summed over the N_o V log-probabilities, and its standard error.

    Raises:
        TypeError, ValueError: for bad batches, labels, P, lr or samples.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> y, model = torch.tensor([0]), nn.Linear(2, 3)
        >>> found = estimate_dynamics_error(model, x, x, y, P=1, lr=0.1, seed=0)
        >>> found.value > 0
        True
    """
    family = _check(x_o, x_u, P, directions, samples, seed)
    lr = check_real("lr", lr, low=0.0)
    params = resolve_model(model)
    found = _sampled_dynamics(params, x_o, x_u, y_u, family, samples, seed)
    return summary([lr**2 * sample.variance / P for sample in found])


def _check(
    x_o: Tensor, x_u: Tensor, P: int, directions: Directions | None, samples: int, seed: int
) -> Directions:
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_integer("samples", samples, low=2)
    return check_draw(directions, P=P, seed=seed, step=0)


# ---- the planner --------------------------------------------------------------------------------


@seed_was_optional
def plan_perturbations(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor | None = None,
    *,
    error: float = 0.1,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int,
) -> PerturbationPlan:
    r"""How many perturbations a model and data need for a given relative error.

    The relative error of the kernel is

    .. math:: \sqrt{\operatorname E \lVert K_U - K \rVert_F^2} \,/\, \lVert K \rVert_F

    over all pairs of x_o and x_u; it falls as 1/sqrt(P), so that one measurement gives it for every
    P. With labels y_u it is the relative error of the learning dynamics, the change of
    log pi(. | x_o) in one step on (x_u, y_u); then ``alignment`` is a' = |B g|^2 / (norm(B)_F^2
    |g|^2). Over T steps at lr / T the noise averages out as it does over directions, so that T
    steps at P = 1 reach the error of one step at P = T.

    If one backward pass for each output of each input costs less than ``samples`` samples, as for a
    few label words, P is exact for these inputs, computed from blocks of the Jacobians (2 GB in
    float32 at most). Otherwise it is estimated from random signs, with its standard error. Nothing
    of size V x V is formed.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,), to plan for the learning dynamics; None for the kernel.
        error: the relative error wanted, above 0.
        directions: family of u; Rademacher by default.
        samples: draws of random signs, at least 2; the standard error falls as 1/sqrt(samples).
        seed: of the signs, 0 <= seed < 2^64.

    Returns:
        Named tuple: alignment, P, errors {1: .., 8: .., 64: ..}, steps at P = 1, forward_passes
        (2 P) of one step, target, std_error (of P; 0 where it is exact) and samples. Its text is
        the plan in words.

    Raises:
        TypeError, ValueError: for bad batches, labels, error or samples; ValueError if the kernel
            is 0, when a relative error means nothing, or where NaN or infinity comes out.

    For a whole run (learning rate, steps, cost) use :func:`~zotutor.plan`. If you have J use
    :func:`~zotutor.kernel_error_law`, which is exact; to follow the estimate as
    it improves, :func:`~zotutor.planning.refine`.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> plan_perturbations(nn.Linear(2, 1), x, x, error=0.5, seed=0).P
        4
    """
    options = {"directions": directions, "samples": samples, "seed": seed}
    *_, last = refine(model, x_o, x_u, y_u, error=error, **options)  # type: ignore[arg-type]
    return last_plan(last)


def last_plan(last: Progress | None) -> PerturbationPlan:
    """The plan that :func:`refine` ends with, or a ValueError if there is none."""
    if last is None or last.plan is None:
        raise ValueError(
            "model: its kernel block is 0 here, so that a relative error means nothing; choose "
            "x_o and x_u that share parameters, or use estimate_kernel_error"
        )
    return last.plan


def refine(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor | None = None,
    *,
    error: float = 0.1,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int,
) -> Iterator[Progress]:
    """:func:`plan_perturbations` as it improves: after each piece of work, the plan so far.

    Arguments, errors: as :func:`plan_perturbations`.

    Yields:
        Named tuples (plan, done, total). Where P is exact, a plan before the last covers only the
        rows of the Jacobian formed so far, one for each input and output.

    Example:
        >>> x = torch.eye(2)
        >>> [(p.done, p.total) for p in refine(nn.Linear(2, 1), x, x, samples=64, seed=0)]
        [(2, 2)]
    """
    error = check_real("error", error, low=0.0, open_low=True)
    if not 1e-9 <= error <= 1e9:
        raise ValueError(f"error: given {error}, which no P is for; give one nearer to 1")
    family = _check(x_o, x_u, 1, directions, samples, seed)
    params = resolve_model(model)
    V = finite_logits(params, x_o, "x_o").shape[1]
    n_o, n_u = len(x_o), len(x_u)
    if y_u is not None:
        target, passes = "the change of log-probabilities", V * n_o
        exact = samples >= V
    else:
        blocks = -(-V * n_u // max(1, _HELD // params.d))
        target, passes = "the kernel", blocks * V * n_o
        exact = passes + V * n_u <= samples * (2.5 * n_o + n_u)  # forward mode counts as 1.5
    pieces: Iterator[tuple[int, _Sums]]
    if exact and y_u is not None:
        g = loss_gradient_at(params, x_u, y_u, "x_u", "y_u").g
        pieces = ((k, _sums(terms)) for k, terms in exact_dynamics(params, x_o, g, family))
    elif exact:
        pieces = _exact_kernel(params, x_o, x_u, family)
    elif y_u is not None:
        found = _sampled_dynamics(params, x_o, x_u, y_u, family, samples, seed)
        pieces, passes = ((1, sample) for sample in found), samples
    else:
        found = _sampled_kernel(params, x_o, x_u, family, samples, seed)
        pieces, passes = ((1, sample) for sample in found), samples
    done, seen = 0, []
    for count, sums in pieces:
        done += count
        seen.append(sums)
        yield Progress(_planned(seen, error, target, exact), done, passes)


def _planned(seen: list[_Sums], error: float, target: str, exact: bool) -> PerturbationPlan | None:
    variances, kernels, norms = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*seen, strict=True)
    )
    kernel = float(kernels.sum())
    if kernel <= 0.0:
        return None
    ratio = float(variances.sum()) / kernel
    P = needed(ratio, error)
    errors = {p: math.sqrt(ratio / p) for p in (1, 8, 64)}
    alignment = kernel / float(norms.sum())
    if exact:
        return PerturbationPlan(alignment, P, errors, P, 2 * P, target)
    n, off = len(seen), variances - ratio * kernels  # a ratio of means: to first order in both
    spread = float(off.square().sum().sqrt()) / kernel * (math.sqrt(n / (n - 1)) if n > 1 else 0)
    std_error = spread / error**2 if n > 1 else math.inf
    return PerturbationPlan(alignment, P, errors, P, 2 * P, target, std_error, n)


__getattr__ = moved(
    __name__,
    {
        "estimate_moments": "zotutor.moments",
        "plan": "zotutor.planning:plan_perturbations",
        "Plan": "zotutor.planning:PerturbationPlan",
    },
)

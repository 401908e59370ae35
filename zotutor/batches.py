"""Batches and directions together: one law for the noise of a zeroth-order step on a fresh batch.

A step on a batch has two sources of noise. The batch's gradient differs from the full gradient;
and the P directions act on all of the batch's gradient, so that they amplify its noise as much as
its mean. A matrix B selects the quantities whose noise is computed, one per row: the identity for
the parameters, A J_o for log-probabilities, a root of the Hessian for the loss. (thm-batches;
thm-batch-noise is the case B = I.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from .checks import check_floats, check_integer, check_real
from .directions import Directions, check_family
from .laws import Shapes, pair_terms


class NoiseTerms(NamedTuple):
    """The terms of E |B (g_hat - g)|^2, see :func:`noise_terms`.

    ``signal`` = |B g|^2; ``directions`` = W(g), the variance from one direction applied to the full
    gradient; ``amplified`` = E W(g_n - g), that from one direction applied to the noise of one
    example; ``batch`` = tr(B S B^T), the noise of one example itself.
    """

    signal: float
    directions: float
    amplified: float
    batch: float

    def from_directions(self, *, P: int, batch_size: int | None = None) -> float:
        """E |B (g_hat - g_batch)|^2: how far ZO is from SGD on the same batch.

        (directions + amplified / batch_size) / P; ``batch_size`` None is the full batch.

        Raises:
            TypeError, ValueError: for P or batch_size below 1.
        """
        check_integer("P", P, low=1)
        amplified = 0.0 if batch_size is None else self.amplified / _checked(batch_size)
        return (self.directions + amplified) / P

    def from_batch(self, *, batch_size: int | None = None) -> float:
        """E |B (g_batch - g)|^2 = batch / batch_size. SGD has it too; it does not depend on P."""
        return 0.0 if batch_size is None else self.batch / _checked(batch_size)

    def deviation(self, *, steps: int, P: int, batch_size: int | None = None) -> float:
        """|deviation from full-batch descent| / |total change| after T lazy steps, RMS.

        sqrt([from_directions + from_batch] / T) / |B g|. Without a batch it is C / sqrt(T P).

        Raises:
            TypeError, ValueError: for steps, P or batch_size below 1.
            ValueError: if B g is 0, when a relative deviation means nothing.
        """
        check_integer("steps", steps, low=1)
        if self.signal == 0.0:
            raise ValueError(
                "deviation: B g is 0, so that a deviation relative to it means nothing; use "
                "from_directions and from_batch, or look at something that descent changes"
            )
        noise = self.from_directions(P=P, batch_size=batch_size)
        noise += self.from_batch(batch_size=batch_size)
        return math.sqrt(noise / steps / self.signal)

    def best_perturbations(self, *, batch_size: int, overhead: float) -> float:
        """The P of least deviation for a given cost, where a step costs ``overhead`` + P.

        sqrt(overhead (batch_size directions + amplified) / batch), as a real number: round it, and
        take at least 1. Without overhead it is 0: P = 1 is best.

        Args:
            batch_size: examples in a batch, at least 1.
            overhead: what a step costs besides its directions, in units of one direction: 1 for
                forward differences, which share one evaluation of the loss among all directions.

        Raises:
            TypeError, ValueError: for arguments out of range.
            ValueError: for examples that do not differ, where more directions are always better.
        """
        overhead = check_real("overhead", overhead, low=0.0)
        # T ~ from_directions(P=1) / P + from_batch at a given deviation; this P minimizes the cost
        # T (overhead + P)
        if self.batch <= 1e-24 * self.directions:  # 0 up to rounding
            raise ValueError(
                "best_perturbations: the gradients of all examples look the same through B, so "
                "that there is no noise of batches; any overhead is best shared by many directions"
            )
        noise = _checked(batch_size) * self.directions + self.amplified
        return math.sqrt(overhead * noise / self.batch)


def _checked(batch_size: int) -> int:
    return check_integer("batch_size", batch_size, low=1)


def noise_terms(
    B: Tensor,
    gradients: Tensor,
    *,
    directions: Directions | None = None,
    shapes: Shapes | None = None,
) -> NoiseTerms:
    """The terms of the law for a step on a batch drawn with replacement and P directions.

    With g the mean of the gradients g_n of single examples, S their covariance and W(v) =
    norm(B)_F^2 |v|^2 + |B v|^2 + (kappa - 3) sum_k (sum_i B[i,k]^2) v[k]^2 (independent entries)

        E |B (g_hat - g)|^2 = [W(g) + E W(g_n - g) / batch_size] / P + tr(B S B^T) / batch_size.

    With B = I it is the error of the estimate as a vector, ((d + kappa - 2)/P) (|g|^2 +
    sigma^2/batch_size) + sigma^2/batch_size with sigma^2 = tr(S). With B = A J_o it is the error of
    a step's change of log-probabilities, and with B a root of the Hessian the curvature along a
    step, less that along g.

    Args:
        B: derivatives of the observed quantities, a row for each, (m, d).
        gradients: the gradient of each example's loss, (n, d); all examples, each once.
        directions: family of u; Rademacher by default.
        shapes: shapes of the trainable parameters; for LowRank only.

    Returns:
        Named tuple (signal, directions, amplified, batch), computed in float64.

    Raises:
        TypeError, ValueError: for shapes that do not fit, or numbers that are not finite.

    For the full batch alone use :func:`~zotutor.dynamics_error_law`.

    References:
        Malladi et al. (2023) have the batch term in the loss's view.

    Example:
        >>> import torch
        >>> terms = noise_terms(torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
        >>> terms.from_directions(P=1), terms.from_directions(P=1, batch_size=2)
        (1.0, 1.5)
        >>> terms.from_batch(batch_size=2)
        0.25
    """
    family = check_family(directions)
    check_floats("B", B, dims=(2,), expected="(m, d)")
    check_floats("gradients", gradients, dims=(2,), expected="(n, d), a row for each example")
    if B.shape[1] != gradients.shape[1]:
        raise ValueError(
            f"B, gradients: given shapes {tuple(B.shape)} and {tuple(gradients.shape)}, expected "
            "(m, d) and (n, d): a row for each quantity looked at, and one for each example"
        )
    gradients = gradients.double()
    g = gradients.mean(0, keepdim=True)
    full = pair_terms(B, g, directions=family, shapes=shapes)
    single = pair_terms(B, gradients - g, directions=family, shapes=shapes)  # summed over examples
    n = gradients.shape[0]
    return NoiseTerms(full.aligned, sum(full), sum(single) / n, single.aligned / n)

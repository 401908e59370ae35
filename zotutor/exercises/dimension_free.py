"""Checkers for *Dimension-free*."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zotutor.checks import trainable
from zotutor.datasets import digits
from zotutor.jacobians import jacobian

from .answers import (
    NotYet,
    ask,
    compare_tensor,
    correct,
    normal,
    tensor,
)

__all__ = ["check_copies", "check_growing_family"]


def check_copies(student: Callable[[Tensor, int], Tensor]) -> None:
    """Check the Jacobian of a model in which each parameter is replaced by m of them.

    Args:
        student: takes J (V, d) and m; returns (V, m d) with copies of one parameter side by side,
            each the original over sqrt(m).

    Raises:
        NotYet: with a hint.
    """
    J, m = normal(3, 5, seed=0), 4
    answer = tensor("copies", ask(student, "copies(J, 4)", J.clone(), m), J)
    if answer.shape != (3, 5 * m):
        raise NotYet(
            f"copies: for J of shape (3, 5) and m = 4 returned shape {tuple(answer.shape)}, "
            "expected (3, 20): every parameter becomes four, and the outputs stay"
        )
    K = J @ J.T
    found = answer @ answer.T
    hints = [
        (K * m, "Each copy moves the sum, which is divided by sqrt(m): divide the Jacobian by it."),
        (K / m, "You divide by m; the sum is divided by sqrt(m)."),
        (K / m**2, "Divide by sqrt(m) once: the chain rule gives each copy 1 / sqrt(m)."),
    ]
    compare_tensor("K = J J^T of the copies, by the chain rule", found, K, hints)
    expected = J.repeat_interleave(m, dim=1) / math.sqrt(m)
    order = (
        "the right numbers in another order: copies of one parameter are neighbors, as "
        "repeat_interleave has them"
    )
    try:
        compare_tensor("copies", answer, expected, [(J.repeat(1, m) / math.sqrt(m), order)])
    except NotYet as found_wrong:
        if order in str(found_wrong):
            raise
        raise NotYet(
            "copies: K is right, but the columns are not copies; every parameter is to become m "
            "that all matter alike, not one of them and m - 1 zeros"
        ) from None
    correct("m times the parameters, and the same K.")


def _count_and_alignment(build: Callable[[int], nn.Module], size: int) -> tuple[int, float]:
    """d, and the alignment of different images, over the pairs of eight."""
    images = digits().x_test[[0, 1, 2, 3, 4, 14, 19, 28]]
    different = ~torch.eye(len(images), dtype=torch.bool)
    model = ask(build, f"build({size})", size)
    if not isinstance(model, nn.Module):
        raise NotYet(f"build({size}): returned {type(model).__name__}, expected a torch.nn.Module")
    with torch.no_grad():
        shape = tuple(ask(model, f"build({size})(images)", images).shape)
    if shape != (len(images), 10):
        raise NotYet(
            f"build({size}): logits of shape {shape} for {len(images)} digits, expected "
            f"({len(images)}, 10)"
        )
    J = ask(jacobian, f"jacobian(build({size}), images)", model, images).double()  # (N, V, d)
    norms = J.square().sum((1, 2))
    rows = J.flatten(0, 1)
    K = (rows @ rows.T).view(len(images), 10, len(images), 10)
    squared = K.square().sum((1, 3))
    scale = (norms[:, None] * norms)[different].sum()
    if float(scale) == 0.0:
        raise NotYet(
            f"build({size}): the Jacobian is 0; initialize so that a step moves the logits"
        )
    return sum(p.numel() for p in trainable(model)), float(squared[different].sum() / scale)


def check_growing_family(
    build: Callable[[int], nn.Module], *, sizes: tuple[int, ...] = (100, 400, 1600)
) -> None:
    """Check a family of models whose alignment between different images falls as 1/d or faster.

    Args:
        build: takes a size, returns a model for digits, (N, 1, 8, 8) to (N, 10).
        sizes: sizes to try, in ascending order; their parameters must grow.

    Raises:
        NotYet: with a hint.
    """
    counts, alignments = zip(*(_count_and_alignment(build, size) for size in sizes), strict=True)
    if counts[-1] < 4 * counts[0]:
        raise NotYet(
            f"build: d is {counts}, and hardly grows; let the trainable parameters grow with size "
            "(frozen features are buffers, and do not count)"
        )
    if min(alignments) <= 0.0:
        raise NotYet(
            "build: different images share nothing at all, so that K is 0 and a relative error "
            "means nothing; keep a small part that they share"
        )
    slope = math.log(alignments[-1] / alignments[0]) / math.log(counts[-1] / counts[0])
    shown = ", ".join(f"{a:.1e} at d = {d:,}" for a, d in zip(alignments, counts, strict=True))
    if slope > -0.3:
        raise NotYet(
            f"build: the alignment is {shown}: it does not fall. The parameters you add move "
            "different images alike, or do not move them; let each image have an address of its own"
        )
    if slope > -0.7:
        raise NotYet(
            f"build: the alignment is {shown}: it falls as d to the power {slope:.2f}, expected "
            "-1 or less. Addresses that are random and independent give an inner product of "
            "sqrt(d) against squared lengths of d"
        )
    correct(f"the alignment falls as d to the power {slope:.2f}.")

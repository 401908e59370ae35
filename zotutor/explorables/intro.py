"""Explorables of the introduction."""

from __future__ import annotations

from torch import Tensor

from zotutor.checks import check_floats, check_labels

from .page import Explorable, Table, rounded


def before_and_after(pictures: Tensor, y: Tensor, *, before: Tensor, after: Tensor) -> Explorable:
    """Pictures, and the probabilities that a network gave their classes before and after.

    Args:
        pictures: (N, h, w), or (N, 1, h, w).
        y: their classes (N,).
        before: probabilities (N, V) before fine-tuning.
        after: the same after it.

    Raises:
        TypeError, ValueError: for shapes that do not fit each other.

    Example:
        >>> import torch
        >>> p = torch.full((1, 2), 0.5)
        >>> before_and_after(torch.ones(1, 8, 8), torch.tensor([1]), before=p, after=p)
        <explorable intro.before_and_after>
    """
    check_floats("pictures", pictures, dims=[3, 4], expected="(N, h, w) or (N, 1, h, w)")
    count = len(pictures)
    for name, value in (("before", before), ("after", after)):
        check_floats(name, value, dims=[2], expected="(N, V)")
        if value.shape != (count, before.shape[1]):
            raise ValueError(
                f"{name}: given shape {tuple(value.shape)}, expected {(count, before.shape[1])}; "
                "give one row per picture"
            )
    y = check_labels("y", y, count=count, classes=before.shape[1])
    pairs = zip(y.tolist(), before.tolist(), after.tolist(), strict=True)
    return Explorable(
        "intro",
        "before_and_after",
        "Before and after fine-tuning with loss values only",
        {
            "pictures": rounded(pictures.flatten(1).unflatten(1, pictures.shape[-2:]), 2),
            "labels": y.tolist(),
            "before": rounded(before, 4),
            "after": rounded(after, 4),
        },
        Table(
            "Probability of the right class",
            ["picture", "class", "before", "after"],
            [
                [f"{n + 1}", f"{label}", f"{old[label]:.2f}", f"{new[label]:.2f}"]
                for n, (label, old, new) in enumerate(pairs)
            ],
        ),
    )

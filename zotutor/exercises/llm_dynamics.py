"""Checkers for the chapter on the learning dynamics of language models."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .answers import (
    Slip,
    ask,
    compare_number,
    compare_tensor,
    correct,
    normal,
)

__all__ = ["check_change_from_passes", "check_perturbations_to_tell_apart", "check_text_change"]


def check_text_change(student: Callable[[Tensor, Tensor, int, float], float]) -> None:
    """Check the change of a whole text's log-probability, from two gradients.

    Args:
        student: takes g_o and g_u (d,), gradients of the mean loss a token of the observed text and
            of the one that the step is taken on, the number of tokens of the observed text, and lr;
            returns the first-order change of log pi of the observed text.

    Raises:
        NotYet: with a hint.
    """
    for seed, (tokens, lr) in enumerate(((5, 0.1), (12, 0.03))):
        g_o, g_u = normal(7, seed=seed), normal(7, seed=seed + 10)
        product = float(g_o @ g_u)
        expected = lr * tokens * product
        slips = [
            (-expected, "The loss is minus the log-probability: where losses agree, both fall."),
            (lr * product, "This is the change of the mean log-probability a token; sum them up."),
            (tokens * product, "The learning rate is missing."),
            (
                lr * product / tokens,
                "g_o belongs to the mean loss: multiply by the number of tokens, do not divide.",
            ),
        ]
        call = "text_change(g_o, g_u, tokens, lr)"
        answer = ask(student, call, g_o.clone(), g_u.clone(), tokens, lr)
        compare_number(call, answer, expected, slips)
    correct("two gradients of losses, one inner product.")


def check_perturbations_to_tell_apart(
    student: Callable[[Tensor, Tensor, Tensor, float], int],
) -> None:
    """Check how many Gaussian perturbations show whether a step tells two labels apart.

    Args:
        student: takes B (N, d), the gradient of each text's log-odds of label 1, labels y (N,) of
            -1 and 1, the loss's gradient g (d,) and a relative error; returns P for the mean change
            of the log-odds of the right label.

    Raises:
        NotYet: with a hint.
    """
    for seed, error in ((0, 0.5), (1, 0.2)):
        H, g = normal(6, 9, seed=seed), normal(9, seed=seed + 10)
        t = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)

        def needed(row: Tensor, g: Tensor = g, error: float = error, *, more: float = 1.0) -> int:
            squared = float((row @ g) ** 2 / (row @ row) / (g @ g))
            return math.ceil((1 / squared + more) / error**2)

        b = t @ H / len(t)
        norms = float(H.square().sum() * (g @ g))
        pooled = norms / float((H @ g).square().sum())
        cosine = math.sqrt(float((b @ g) ** 2 / (b @ b) / (g @ g)))
        expected = needed(b)
        slips = [
            (
                needed(H.mean(0)),
                "This is for the mean change towards label 1: multiply each row with its label.",
            ),
            (needed(b, more=0.0), "The 1 in 1/cos^2 + 1 is missing."),
            (
                math.ceil((1 / cosine + 1) / error**2),
                "The alignment of one row is the cosine squared.",
            ),
            (math.ceil(math.sqrt(1 / cosine**2 + 1) / error), "Square the error: it falls as 1/P."),
            (
                math.ceil((pooled + 1) / error**2),
                "This is for N changes, each by itself; their signed mean is one, with one row b.",
            ),
        ]
        call = "perturbations(B, y, g, error)"
        answer = ask(student, call, H.clone(), t.clone(), g.clone(), error)
        compare_number(call, answer, expected, slips, whole=True)
    correct("one row, one cosine, one P.")


def check_change_from_passes(student: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check a ZO step predicted from the numbers that forward passes give.

    Args:
        student: takes c (P,), the derivative of the loss along each u_p, r (P, N, V), that of each
            observed log-probability, and lr; returns the predicted change (N, V).

    Raises:
        NotYet: with a hint.
    """
    c, r, lr = normal(4, seed=0), normal(4, 3, 5, seed=1), 0.1
    total = torch.einsum("p,pnv->nv", c, r)
    expected = -lr * total / 4
    slips = [
        Slip(-expected, "A step goes against the gradient: mind the sign."),
        Slip(-lr * total, "U has a factor 1/sqrt(P), U U^T therefore 1/P."),
        Slip(-lr * c.mean() * r.mean(0), "Multiply for each direction first, then take the mean."),
    ]
    answer = ask(student, "change(c, r, lr)", c.clone(), r.clone(), lr)
    compare_tensor("change(c, r, lr)", answer, expected, slips)
    correct("two numbers a direction for each prediction, and no gradient.")

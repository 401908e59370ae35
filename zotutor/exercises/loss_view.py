"""Checkers for *The loss's view*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .answers import ask, compare_number, correct

__all__ = ["check_best_perturbations", "check_perturbations_for_share"]


def _stable(h: Tensor, share: float, P: int) -> bool:
    lr = 2 * share / float(h.max())
    slack = 2 - (1 + 1 / P) * lr * h
    return bool(slack.min() > 0) and float((lr / P * (h / slack)).sum()) <= 1


def check_perturbations_for_share(student: Callable[[Tensor, float], Any]) -> None:
    """Check a function that says how many perturbations allow a share of gradient descent's step.

    Args:
        student: takes eigenvalues h (a 1-d tensor) and a share below 1; returns the smallest whole
            P whose largest stable learning rate is at least share * 2 / max(h).

    Raises:
        NotYet: with a hint.
    """
    spectra = (
        torch.linspace(0.01, 5.0, 40, dtype=torch.float64),
        torch.tensor([3.0, 3.0, 2.5, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64),
        torch.tensor([1.0, 0.5, 0.25, 0.1, 0.01], dtype=torch.float64),
    )
    for h in spectra:
        for share in (0.3, 0.5, 0.9):
            expected = 1
            while not _stable(h, share, expected):
                expected += 1
            name = f"perturbations_for_share(h, {share}) with {len(h)} eigenvalues"
            answer = ask(student, name, h.clone(), share)
            r = float(h.sum() / h.max())
            bound = math.ceil(share / (1 - share) * (1 + r))
            slips = [
                (expected - 1, "One more is needed: round up, or count on until the step fits."),
                (expected + 1, "One fewer will do: the left side may be equal to 1."),
                (bound, "That is the bound by the effective rank, exact for equal eigenvalues."),
                (
                    math.ceil(share / (1 - share) * (1 + len(h))),
                    "That counts all eigenvalues alike: it is the worst case.",
                ),
                (
                    math.ceil(share * r),
                    "That is the limit of small P, 2 P / tr(H): the term (1 + 1/P) is missing.",
                ),
            ]
            hint = (
                "Put eta = share * 2 / max(h) into the equation, and look for the smallest P with "
                "a left side of at most 1"
            )
            compare_number(name, answer, expected, slips, whole=True, hint=hint)
    correct("the smallest P for every spectrum and share.")


def _progress(P: int, d_H: float, machines: int) -> float:
    return P / (P + 1 + d_H) / (math.ceil(P / machines) + 1)


def check_best_perturbations(student: Callable[[float, int], Any]) -> None:
    """Check a function that says how many perturbations a step should use on several machines.

    Args:
        student: takes the intrinsic dimension d_H and the number of machines; returns the whole P
            from 1 to 64 with the largest progress per second, where a step is as long as
            P / (P + 1 + d_H) and takes one second per direction on a machine, and one more.

    Raises:
        NotYet: with a hint.
    """
    for d_H, machines in ((10.0, 1), (10.0, 8), (100.0, 4), (3.0, 16)):
        values = {P: _progress(P, d_H, machines) for P in range(1, 65)}
        expected = max(values, key=values.__getitem__)
        alone = max(range(1, 65), key=lambda P: _progress(P, d_H, 1))
        hint_alone = "That is the best for one machine: several share the directions of a step."
        slips = [
            (alone, hint_alone),
            (64, "That step is the longest, and takes the most seconds: divide by them."),
            (1, "P = 1 wastes the second per step that does not depend on P, or idle machines."),
        ]
        slips = [(wrong, text) for wrong, text in slips if wrong != expected]
        name = f"best_perturbations({d_H:g}, {machines})"
        answer = ask(student, name, d_H, machines)
        hint = "Compare P / (P + 1 + d_H) / (ceil(P / machines) + 1) for P from 1 to 64"
        compare_number(name, answer, expected, slips, whole=True, hint=hint)
    correct("the best number for each model and set of machines.")

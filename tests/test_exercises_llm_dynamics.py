"""The checkers of the chapter on language models: right answers pass, wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zotutor as zo


def needed(b: Tensor, g: Tensor, error: float, more: float = 1.0) -> int:
    return math.ceil((float((b @ b) * (g @ g) / (b @ g) ** 2) + more) / error**2)


def cosine(H: Tensor, t: Tensor, g: Tensor) -> float:
    b = t @ H
    return abs(float(b @ g / b.norm() / g.norm()))


def change(c: Tensor, r: Tensor, lr: float) -> Tensor:
    return -lr / len(c) * torch.einsum("p,pnv->nv", c, r)


def test_right_answers_pass(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_text_change(lambda g_o, g_u, tokens, lr: lr * tokens * (g_o @ g_u).item())
    zo.exercises.check_text_change(lambda g_o, g_u, tokens, lr: lr * tokens * (g_o @ g_u))  # type: ignore[arg-type, return-value]
    zo.exercises.check_perturbations_to_tell_apart(
        lambda H, t, g, error: needed(t @ H / len(t), g, error)
    )
    zo.exercises.check_change_from_passes(change)
    assert capsys.readouterr().out.count("Correct") == 4


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda g_o, g_u, tokens, lr: -lr * tokens * g_o @ g_u, "minus the log-probability"),
        (lambda g_o, g_u, tokens, lr: lr * g_o @ g_u, "sum them up"),
        (lambda g_o, g_u, tokens, lr: tokens * g_o @ g_u, "learning rate is missing"),
        (lambda g_o, g_u, tokens, lr: lr * g_o @ g_u / tokens, "do not divide"),
        (lambda g_o, g_u, tokens, lr: 12.0, "the ratio is"),
        (lambda g_o, g_u, tokens, lr: None, "return"),
    ],
)
def test_text_change(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_text_change(student)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda H, t, g, error: needed(H.mean(0), g, error), "with its label"),
        (lambda H, t, g, error: needed(t @ H, g, error, more=0.0), "1 in 1/cos"),
        (lambda H, t, g, error: math.ceil((1 / cosine(H, t, g) + 1) / error**2), "squared"),
        (
            lambda H, t, g, error: math.ceil(math.sqrt(1 / cosine(H, t, g) ** 2 + 1) / error),
            "Square the error",
        ),
        (
            lambda H, t, g, error: math.ceil(
                float(H.square().sum() * (g @ g) / (H @ g).square().sum() + 1) / error**2
            ),
            "one row b",
        ),
        (lambda H, t, g, error: None, "return"),
    ],
)
def test_tell_apart(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_perturbations_to_tell_apart(student)


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda c, r, lr: -change(c, r, lr), "against the gradient"),
        (lambda c, r, lr: change(c, r, lr) * len(c), "1/P"),
        (lambda c, r, lr: -lr * c.mean() * r.mean(0), "for each direction first"),
        (lambda c, r, lr: change(c, r, lr).T, "shape"),
        (lambda c, r, lr: None, "return"),
    ],
)
def test_change_from_passes(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_change_from_passes(student)

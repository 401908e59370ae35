"""The checkers of *Dimension-free*: right answers pass, plausible wrong ones get a hint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zotutor as zo


def copies(J: Tensor, m: int) -> Tensor:
    return J.repeat_interleave(m, dim=1) / math.sqrt(m)


def padded(J: Tensor, m: int) -> Tensor:
    return torch.cat([J, J.new_zeros(len(J), J.shape[1] * (m - 1))], 1)


def test_copies_right(capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_copies(copies)
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("student", "hint"),
    [
        (lambda J, m: J.repeat_interleave(m, dim=1), "divide the Jacobian"),
        (lambda J, m: J.repeat_interleave(m, dim=1) / m, "You divide by m"),
        (lambda J, m: J.repeat_interleave(m, dim=1) / m**1.5, "chain rule gives each copy"),
        (lambda J, m: J.repeat_interleave(m, dim=1) * 7, "by the chain rule.*ratio of 196"),
        (lambda J, m: J.repeat(1, m) / math.sqrt(m), "another order"),
        (lambda J, m: J.repeat(m, 1), "the outputs stay"),
        (padded, "zeros"),
        (lambda J, m: None, "return"),
    ],
)
def test_copies_wrong(student: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_copies(student)


class Table(nn.Module):
    """A shared network, and a table read through keys of a given length."""

    def __init__(self, size: int, *, strange: bool = True, shared: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.shared = zo.models.mlp(16, 1, seed=0) if shared else None
        self.table = nn.Parameter(torch.zeros(10, size))
        self.scale = 20.0 if strange else 0.01
        self.waves = torch.randn(64, size, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        logits = (self.scale * x.flatten(1) @ self.waves + 1.0).cos() @ self.table.T
        return logits if self.shared is None else logits + self.shared(x)


class FrozenTable(Table):
    """A table without trainable parameters: d does not grow."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.table.requires_grad_(False)


class Shelf(nn.Module):
    """Images that share nothing at all: each reads a row of its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(8, 10 * size))

    def forward(self, x: Tensor) -> Tensor:
        images = zo.datasets.digits().x_test[[0, 1, 2, 3, 4, 14, 19, 28]]
        own = (x.flatten(1)[:, None] == images.flatten(1)[None]).all(2).to(x.dtype)  # (N, 8)
        return (own @ self.table).unflatten(1, (10, -1)).sum(2)


@pytest.mark.parametrize("shared", [True, False])
def test_growing_family_right(shared: bool, capsys: pytest.CaptureFixture[str]) -> None:
    zo.exercises.check_growing_family(lambda size: Table(size, shared=shared))
    assert "Correct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("build", "hint"),
    [
        (lambda size: zo.models.mlp(size, 1, seed=0), "does not fall"),
        (lambda size: Table(size, strange=False), "does not fall"),
        (FrozenTable, "hardly grows"),
        (Shelf, "share nothing"),
        (lambda size: zo.models.mlp(size, 1, outputs=3, seed=0), r"expected \(8, 10\)"),
        (lambda size: size, "expected a torch.nn.Module"),
    ],
)
def test_growing_family_wrong(build: Callable[[int], Any], hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        zo.exercises.check_growing_family(build)

"""Alignment, rank and law of every pair, from the model: as from its Jacobians."""

from __future__ import annotations

from typing import Any

import naive_jacobians as naive
import pytest
import torch
from naive_jacobians import CASES, untouched
from torch import Tensor, nn

import zotutor as zo
from zotutor import factors, laws

cases = pytest.mark.parametrize("case", ["mlp", "conv", "tied", "shared", "lstm", "attention"])
tables = pytest.mark.parametrize("table", [1, 1 << 24])


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def made(case: str) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    model, x_o = CASES[case](3)
    _, x_u = CASES[case](2, seed=2)
    return model, x_o, x_u, naive.jacobian(model, x_o), naive.jacobian(model, x_u)


@cases
@tables
def test_alignments_are_those_of_the_jacobians(
    case: str, table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "_TABLE", table)
    model, x_o, x_u, J_o, J_u = made(case)
    with untouched(model, x_o, x_u):
        found = zo.alignments(model, x_o, x_u)
    close(found, zo.alignment(J_o[:, None], J_u[None]))
    assert zo.alignments(model, x_o, x_o).max() <= 1


@cases
@tables
def test_effective_ranks_are_those_of_the_kernels(
    case: str, table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "_TABLE", table)
    model, x, _, J, _ = made(case)
    ranks = zo.effective_ranks(model, x)
    close(ranks, zo.effective_rank(J @ J.mT))
    close(ranks, 1 / zo.alignments(model, x, x).diagonal())


@cases
@tables
@pytest.mark.parametrize("family", [None, zo.Gaussian(), zo.Sparse(0.3), zo.Sphere()], ids=repr)
def test_laws_are_those_of_the_jacobians(
    case: str, table: int, family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "_TABLE", table)
    model, x_o, x_u, J_o, J_u = made(case)
    found = zo.kernel_error_laws(model, x_o, x_u, P=7, directions=family)
    expected = [[laws.kernel_error_law(a, b, P=7, directions=family) for b in J_u] for a in J_o]
    close(found, torch.tensor(expected, dtype=torch.float64))


def test_low_rank_directions_need_the_jacobians() -> None:
    model, x_o, x_u, _, _ = made("mlp")
    with pytest.raises(ValueError, match=r"given LowRank.*take zo.jacobian of both inputs"):
        zo.kernel_error_laws(model, x_o, x_u, P=1, directions=zo.LowRank(1))


def test_an_input_that_no_step_moves() -> None:
    model = nn.Linear(2, 3, bias=False)
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="x: the Jacobian at input 1 is 0, expected one with a n"):
        zo.effective_ranks(model, x)
    for given, name in [((x, x[:1]), "x_o"), ((x[:1], x), "x_u")]:
        with pytest.raises(ValueError, match=f"{name}: the Jacobian at input 1 is 0"):
            zo.alignments(model, *given)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, x: zo.alignments(model, x[:0], x), "x_o: given shape"),
        (lambda model, x: zo.alignments(model, x, x[:0]), "x_u: given shape"),
        (lambda model, x: zo.effective_ranks(model, x[:0]), "x: given shape"),
        (lambda model, x: zo.kernel_error_laws(model, x, x, P=0), "P: given 0"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(call: Any, words: str) -> None:
    model = naive.Counted()
    with pytest.raises(ValueError, match=words):
        call(model, naive.normal(2, 4, seed=0))
    assert model.calls == 0

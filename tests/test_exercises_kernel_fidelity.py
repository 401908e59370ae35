"""The checkers of *Kernel fidelity*: right answers pass, wrong ones get a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zotutor as zo


def alignment_from_error(error: float, P: int) -> float:
    return 1 / (P * error**2 - 1)


def law_from_kernels(K_oo: Tensor, K_uu: Tensor, K_ou: Tensor, P: int) -> Tensor:
    return (K_oo.trace() * K_uu.trace() + K_ou.square().sum()) / P


def alignment_from_responses(v_o: Tensor, v_u: Tensor) -> Tensor:
    n_o, n_u = v_o.square().sum(0), v_u.square().sum(0)
    kernel = (v_o @ v_u.T).square().sum() - (n_o * n_u).sum()
    return kernel / (n_o.sum() * n_u.sum() - (n_o * n_u).sum())


def alignment_from_halves(v_o: Tensor, v_u: Tensor) -> Tensor:
    """Another right answer: two halves of the directions, independent of each other."""
    half = v_o.shape[1] // 2
    first, second = (v_o[:, cut] @ v_u[:, cut].T for cut in (slice(half), slice(half, None)))
    norm_o, norm_u = v_o[:, :half].square().sum(), v_u[:, half:].square().sum()
    return (first * second).sum() / (norm_o * norm_u)


def plain_alignment(v_o: Tensor, v_u: Tensor) -> Tensor:
    return (v_o @ v_u.T).square().sum() / (v_o.square().sum() * v_u.square().sum())


Case = tuple[Callable[..., None], Callable[..., Any]]

RIGHT: list[Case] = [
    (zo.exercises.check_alignment_from_error, alignment_from_error),
    (zo.exercises.check_law_from_kernels, law_from_kernels),
    (zo.exercises.check_alignment_from_responses, alignment_from_responses),
    (zo.exercises.check_alignment_from_responses, alignment_from_halves),
]

WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (
        zo.exercises.check_alignment_from_error,
        lambda error, P: 1 / (P * error**2),
        "the 1 is missing",
    ),
    (zo.exercises.check_alignment_from_error, lambda error, P: P * error**2 - 1, "1/a"),
    (zo.exercises.check_alignment_from_error, lambda error, P: "a", "one number"),
    (
        zo.exercises.check_law_from_kernels,
        lambda K_oo, K_uu, K_ou, P: K_oo.trace() * K_uu.trace() / P,
        "second term",
    ),
    (
        zo.exercises.check_law_from_kernels,
        lambda K_oo, K_uu, K_ou, P: (K_oo.norm() * K_uu.norm() + K_ou.square().sum()) / P,
        "trace",
    ),
    (
        zo.exercises.check_law_from_kernels,
        lambda K_oo, K_uu, K_ou, P: 3 * law_from_kernels(K_oo, K_uu, K_ou, P),
        "ratio is 3",
    ),
    (zo.exercises.check_alignment_from_responses, plain_alignment, "counts the noise"),
    (
        zo.exercises.check_alignment_from_responses,
        lambda v_o, v_u: 16 * alignment_from_responses(v_o, v_u),
        "too seldom",
    ),
    (
        zo.exercises.check_alignment_from_responses,
        lambda v_o, v_u: 2 * alignment_from_responses(v_o, v_u),
        "one by one",
    ),
    (zo.exercises.check_alignment_from_responses, lambda v_o, v_u: None, "return"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda f: getattr(f, "__name__", ""))
def test_a_right_answer_passes(
    check: Callable[..., None], answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Correct: ")


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_a_hint(
    check: Callable[..., None], answer: Callable[..., Any], hint: str
) -> None:
    with pytest.raises(AssertionError, match=hint):
        check(answer)


def test_law_from_kernels_is_the_law_of_the_package() -> None:
    """What the exercise asks for is what the package computes from Jacobians."""
    J_o = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
    J_u = J_o.flip(1).square()
    found = law_from_kernels(J_o @ J_o.T, J_u @ J_u.T, J_o @ J_u.T, 7)
    assert float(found) == pytest.approx(
        zo.kernel_error_law(J_o, J_u, P=7, directions=zo.Gaussian())
    )

"""The fidelity study agrees with the functions that it batches, and with the law."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import zotutor as zo
from zotutor.directions import Directions
from zotutor.fidelity import kernel_fidelity, mean_over_pairs, pair_law, pairs_of_classes

PAIRS = torch.tensor([[0, 1], [2, 0], [1, 1]])


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return zo.models.mlp(8, 1, seed=1).double()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return zo.datasets.digits().x_test[:3].double()


@pytest.fixture(scope="module")
def J(model: torch.nn.Module, x: Tensor) -> Tensor:
    return zo.jacobian(model, x)


def test_each_draw_is_that_of_an_optimizer_step(
    model: torch.nn.Module, x: Tensor, J: Tensor
) -> None:
    found = kernel_fidelity(J, PAIRS, model, P=7, draws=3, seed=5)
    for step in range(3):
        K_U, K = zo.zo_entk(model, x, x, P=7, seed=5, step=step), zo.entk(model, x, x)
        for m, (o, u) in enumerate(PAIRS.tolist()):
            drawn, exact = K_U[o, u], K[o, u]
            error = zo.relative_frobenius(drawn, exact)
            distance = zo.spectral_wasserstein(drawn, exact) / torch.linalg.svdvals(exact).mean()
            torch.testing.assert_close(found.relative_frobenius[step, m], error)
            torch.testing.assert_close(found.cka[step, m], zo.cka(drawn, exact))
            torch.testing.assert_close(found.wasserstein[step, m], distance)


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.Rademacher(), zo.Sparse(0.2)], ids=repr)
def test_pair_law_is_the_law_of_each_pair(J: Tensor, family: Directions) -> None:
    laws = pair_law(J, PAIRS, directions=family)
    for law, (o, u) in zip(laws, PAIRS.tolist(), strict=True):
        one = zo.kernel_error_law(J[o], J[u], P=1, directions=family)
        assert float(law) == pytest.approx(one / float((J[o] @ J[u].T).square().sum()), rel=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize("family", [zo.Gaussian(), zo.Rademacher()], ids=repr)
def test_errors_follow_the_law(model: torch.nn.Module, J: Tensor, family: Directions) -> None:
    """400 draws of P = 10, within 4.5 standard errors, each below a tenth of the law."""
    found = kernel_fidelity(J, PAIRS, model, P=10, directions=family, draws=400, seed=0)
    squares = found.relative_frobenius.square()
    law = pair_law(J, PAIRS, directions=family) / 10
    std_error = squares.std(0) / 20
    assert bool((std_error < 0.1 * law).all())
    assert bool(((squares.mean(0) - law).abs() < 4.5 * std_error).all())


@pytest.mark.statistical
def test_standard_error_over_draws_counts_shared_draws_once() -> None:
    """Two columns that are copies are no more certain than one."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(20_000, 1, generator=generator).square() + 1
    value, std_error = mean_over_pairs(errors)
    assert mean_over_pairs(errors.repeat(1, 2)) == pytest.approx((value, std_error), rel=1e-6)
    # E e^2 = 6 and Var e^2 = E e^4 - 36 = 232 - 36 for e = 1 + chi^2 with one degree of freedom
    assert value == pytest.approx(math.sqrt(6), abs=5 * std_error)
    assert std_error == pytest.approx(math.sqrt(196 / 20_000) / (2 * math.sqrt(6)), rel=0.2)


def test_pairs_within_a_class_stand_once() -> None:
    y = torch.tensor([4, 9, 4, 4])
    found = pairs_of_classes(y, {"same": (4, 4), "other": (9, 4)})
    assert found["same"].tolist() == [[0, 2], [0, 3], [2, 3]]
    assert found["other"].tolist() == [[1, 0], [1, 2], [1, 3]]


Call = Callable[[Tensor, torch.nn.Module], object]
BAD: list[tuple[Call, str]] = [
    (lambda J, model: kernel_fidelity(J[0], PAIRS, model, P=1, seed=0), "J: given shape"),
    (lambda J, model: kernel_fidelity(J, PAIRS[0], model, P=1, seed=0), "pairs: given shape"),
    (lambda J, model: kernel_fidelity(J, PAIRS[:0], model, P=1, seed=0), "pairs: given shape"),
    (lambda J, model: kernel_fidelity(J, PAIRS + 9, model, P=1, seed=0), "rows of J"),
    (lambda J, model: kernel_fidelity(J, PAIRS, model, P=1, draws=0, seed=0), "draws: given 0"),
    (lambda J, model: kernel_fidelity(J, PAIRS, model, P=0, seed=0), "P: given 0"),
    (lambda J, model: pair_law(J, PAIRS, directions=zo.Sphere()), "kernel_error_law for each"),
    (lambda J, model: pairs_of_classes(torch.tensor([1, 2]), {"a": (1, 1)}), "groups: given 'a'"),
    (lambda J, model: pairs_of_classes(torch.tensor([1, 2]), {"a": (1, 3)}), "two different"),
    (lambda J, model: mean_over_pairs(J[0, :1]), "errors: given shape"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(
    J: Tensor, model: torch.nn.Module, call: Call, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(J, model)

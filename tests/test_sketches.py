"""Sketches from forward passes: J U and U^T grad, against rows written out and directions drawn."""

from __future__ import annotations

import math
from typing import Any

import naive_jacobians as naive
import pytest
import torch
from naive_jacobians import CASES, normal, untouched
from torch import Tensor, nn
from torch.nn import functional as F

import zotutor as zo
from zotutor import kernels

FAMILIES = [zo.Rademacher(), zo.Gaussian(), zo.Sphere(), zo.Sparse(0.3), zo.LowRank(2)]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)


def close(actual: Tensor, expected: Tensor, rtol: float) -> None:
    error = float((actual - expected).norm() / expected.norm())
    assert error < rtol, f"off by {error:.2g} of the norm"


def drawn(model: nn.Module, family: Any, P: int) -> Tensor:
    """U (d, P)."""
    return family.dense(model, P=P, seed=5, step=2) / math.sqrt(P)


@each_family
@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "frozen", "scalars", "lstm", "object"])
def test_a_sketch_is_J_times_the_drawn_U(case: str, family: Any) -> None:
    """In float64: the error of differences at 1e-5 is 1e-10 times third derivatives, and 1e-11."""
    model, x_o = CASES[case](3)
    _, x_u = CASES[case](2, seed=2)
    given: dict[str, Any] = {"P": 4, "directions": family, "seed": 5, "step": 2}
    with untouched(model, x_o, x_u):
        S = zo.sketch(model, x_o, **given)
        K_U = zo.zo_entk(model, x_o, x_u, **given, eps=1e-5)
    J = naive.jacobian(model, x_o)
    close(S, J @ drawn(model, family, 4), 1e-6)
    close(K_U, zo.zo_entk(model, x_o, x_u, **given), 1e-6)


@pytest.mark.parametrize("eps", [1e-2, 1e-3])
def test_the_error_is_of_second_order_in_eps(eps: float) -> None:
    model, x = CASES["mlp"](3)
    exact = naive.jacobian(model, x) @ drawn(model, zo.Rademacher(), 4)
    coarse, fine = (
        float((zo.sketch(model, x, P=4, seed=5, step=2, eps=e) - exact).norm())
        for e in (eps, eps / 2)
    )
    assert coarse / fine == pytest.approx(4.0, rel=0.05)


def test_float32_at_its_default_eps() -> None:
    model, x = CASES["mlp"](3)
    exact = zo.zo_entk(model, x, x, P=8, seed=5)
    model, x = model.float(), x.float()
    K_U = zo.zo_entk(model, x, x, P=8, seed=5, eps=1e-3)
    assert K_U.dtype == torch.float32
    close(K_U.double(), exact, 2e-3)


def test_no_jacobian_is_formed_and_2P_passes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "jacobian_at", None)
    model, x = naive.Counted(), normal(2, 4, seed=0)
    for P, calls in [(1, []), (9, [])]:
        model.calls = 0
        zo.zo_entk(model, x, x, P=P, seed=0, eps=1e-5)
        calls.append(model.calls)
        assert calls[0] <= 2 * P + 4  # and a few to check it
        assert calls[0] >= 2 * P


@each_family
def test_losses_are_projected_as_their_gradients(family: Any) -> None:
    model, x = CASES["mlp"](5)
    y = torch.tensor([0, 1, 2, 1, 0])

    def losses() -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    with untouched(model, x):
        found = zo.sketch_losses(losses, model, P=4, directions=family, seed=5, step=2)
    rows = []
    for loss in losses():
        parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    close(found, torch.stack(rows) @ drawn(model, family, 4), 1e-6)
    tensors = list(model.parameters())
    again = zo.sketch_losses(losses, tensors, P=4, directions=family, seed=5, step=2)
    assert torch.equal(found, again)


def test_losses_that_are_a_parameter_itself() -> None:
    theta = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    found = zo.sketch_losses(lambda: theta, [theta], P=1, seed=0)
    torch.testing.assert_close(found.abs(), torch.ones(2, 1, dtype=torch.float64))


def test_a_model_that_reads_parameters_unseen_is_refused() -> None:
    """A copy made before does not move with theta: its slopes would be 0 without a word."""
    model, x = CASES["mlp"](2)
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    view = layer.weight.data

    def losses() -> Tensor:
        return (x @ view.T).sum(1) + model(x).sum(1)

    with pytest.raises((ValueError, RuntimeError), match="closure: "):
        zo.sketch_losses(losses, model, P=2, seed=0)
    with pytest.raises(ValueError, match="read none of the parameters"):
        zo.sketch_losses(lambda: x.sum(1), model, P=2, seed=0)


X = normal(2, 4, seed=0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"P": 0}, ValueError, "P: given 0, expected at least 1"),
        ({"seed": -1}, ValueError, "seed: given -1, expected at least 0"),
        ({"step": -1}, ValueError, "step: given -1, expected at least 0"),
        ({"eps": 0.0}, ValueError, "eps: given 0.0, expected a finite number above 0.0"),
        ({"eps": 1e-17}, ValueError, "eps: given 1e-17, too small for torch.float64"),
        ({"directions": "gaussian"}, TypeError, "directions: given 'gaussian', expected"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = naive.Counted()
    options: dict[str, Any] = {"P": 2, "seed": 0} | change
    calls = [
        lambda: zo.sketch(model, X, **options),
        lambda: zo.sketch_losses(lambda: model(X).sum(1), model, **options),
        lambda: zo.zo_entk(model, X, X, **{"eps": 1e-5} | options),
    ]
    for call in calls:
        with pytest.raises(error, match=words):
            call()
    assert model.calls == 0


@pytest.mark.parametrize("losses", [lambda m: m(X), lambda m: m(X).sum(), lambda m: [1.0]])
def test_losses_of_another_shape(losses: Any) -> None:
    model = naive.Counted()
    with pytest.raises(ValueError, match=r"losses: returned .* expected real numbers of shape"):
        zo.sketch_losses(lambda: losses(model), model, P=1, seed=0)


def test_losses_that_are_not_finite() -> None:
    model = naive.Counted()
    with pytest.raises(zo.NonFiniteLossError, match="the loss is nan"):
        zo.sketch_losses(lambda: model(X).sum(1) * math.nan, model, P=1, seed=0)
    with pytest.raises(ValueError, match=r"x: .*(nan|NaN)"):
        zo.sketch(model, X * math.nan, P=1, seed=0)

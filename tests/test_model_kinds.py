"""Every public function on every kind of model, against rows that are backward passes, one by one.

The reference is float64. Where a model computes in float32 whatever it is given (rotary positions,
a softmax that is upcast), rounding of float32 remains; in bfloat16 that of bfloat16.
"""

from __future__ import annotations

import contextlib
from typing import Any

import model_kinds
import pytest
import torch
from model_kinds import KINDS, naive_rows, normal
from torch import Tensor, nn

import zotutor as zo
from zotutor import jacobians
from zotutor.calling import resolve_model
from zotutor.dynamics import change_of_log_probs
from zotutor.jacobians import Pullback
from zotutor.parameters import Parameters

pytest.importorskip("transformers", reason="the extra `llm` is not installed")

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Of the norm of a difference over the norm; rounding grows with depth, by less than this."""

kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


pytestmark = pytest.mark.usefixtures("quiet")


class Made:
    """A model of a kind in a dtype, inputs, and J from float64."""

    def __init__(self, kind: str, dtype: torch.dtype, N: int = 2) -> None:
        made = KINDS[kind]
        if dtype == torch.float64 and not made.exact:
            pytest.skip("does not run in float64")
        self.model = model_kinds.in_precision(made.model(), kind, dtype)
        self.x = made.x(N, dtype=dtype)
        exact = made.reference()
        self.J = naive_rows(exact, made.x(N))  # (N, V, d)
        with torch.no_grad():
            self.z = model_kinds.logits(exact, made.x(N)).double()
        self.d = self.J.shape[2]
        self.rtol = TOLERANCE[dtype]

    def close(self, actual: Tensor, expected: Tensor, scale: float = 1.0) -> None:
        error = float((actual.double() - expected).norm() / expected.norm())
        assert error < scale * self.rtol, f"off by {error:.2g} of the norm"


@kinds
@dtypes
def test_jacobian_vjp_and_jvp_are_those_of_the_rows(kind: str, dtype: torch.dtype) -> None:
    made = Made(kind, dtype)
    made.close(zo.jacobian(made.model, made.x), made.J)
    g, v = normal(*made.J.shape[:2], seed=2), normal(made.d, seed=3)
    made.close(zo.vjp(made.model, made.x, g), torch.einsum("nv,nvd->d", g, made.J))
    made.close(zo.jvp(made.model, made.x, v), made.J @ v)


@kinds
@dtypes
def test_kernels_are_products_of_the_rows(kind: str, dtype: torch.dtype) -> None:
    made = Made(kind, dtype)
    expected = torch.einsum("oid,ujd->ouij", made.J, made.J)
    made.close(zo.entk(made.model, made.x, made.x), expected)
    U = zo.Rademacher().dense(made.model, P=5, seed=1, step=2).double() / 5**0.5
    projected = made.J @ U
    expected = torch.einsum("oip,ujp->ouij", projected, projected)
    K_U, _ = zo.zo_entk_with_std(made.model, made.x, made.x, P=5, seed=1, step=2)
    made.close(K_U, expected)
    assert torch.equal(zo.zo_entk(made.model, made.x, made.x, P=5, seed=1, step=2), K_U)


@kinds
@pytest.mark.parametrize("P", [None, 2])
def test_a_step_does_what_is_predicted(kind: str, P: int | None) -> None:
    """To first order in the learning rate: in float64, or float32 where there is no more."""
    made = Made(kind, torch.float64 if KINDS[kind].exact else torch.float32)
    y, V = torch.tensor([0, 1]), made.J.shape[1]
    pi = made.z.softmax(-1)
    G = pi - nn.functional.one_hot(y, V)
    g = torch.einsum("nv,nvd->d", G, made.J) / 2
    u = zo.Rademacher().dense(made.model, P=2, seed=0, step=0).double()
    seen = g if P is None else u @ (u.T @ g) / 2
    moved = made.J @ seen
    expected = -(moved - (pi * moved).sum(-1, keepdim=True))
    lr = 1e-3 / float(expected.abs().max())
    for step in (zo.one_step, zo.step_change):
        found: Any = step(made.model, made.x, made.x, y, lr=lr, P=P, seed=0)
        made.close(found.predicted, lr * expected)
        if kind != "stopped gradient":  # of which the real step moves what counts as constant
            assert found.residual.norm() < 0.05 * found.measured.norm()
    made.close(change_of_log_probs(made.model, made.x, -seen), expected)


@kinds
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("samples", [2, 64])
def test_a_plan_is_that_of_the_rows(kind: str, labelled: bool, samples: int) -> None:
    """64 samples cost more than all rows, so that P is exact; two say how uncertain they are."""
    made = Made(kind, torch.float32)
    y = torch.tensor([0, 1])
    pi = made.z.softmax(-1)
    rows, columns = made.J.flatten(0, 1), made.J.flatten(0, 1)
    if labelled:
        rows = (made.J - (pi[..., None] * made.J).sum(1, keepdim=True)).flatten(0, 1)
        G = pi - nn.functional.one_hot(y, made.J.shape[1])
        columns = torch.einsum("nv,nvd->d", G, made.J)[None] / 2
    kernel = (rows @ columns.T).square().sum()
    norms = rows.square().sum() * columns.square().sum()
    overlap = rows.square().sum(0) @ columns.square().sum(0)
    ratio = float((norms + kernel - 2 * overlap) / kernel)
    found = zo.plan_perturbations(
        made.model, made.x, made.x, y if labelled else None, error=0.1, samples=samples, seed=0
    )
    assert found.samples in ((0,) if samples == 64 else (0, 2))
    if found.samples:
        assert found.std_error > 0
        return
    assert found.std_error == 0.0
    assert pytest.approx(ratio / 0.1**2, rel=1e-3, abs=1) == found.P
    assert found.alignment == pytest.approx(float(kernel / norms), rel=1e-3)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_trajectories_run_on_it(kind: str, dtype: torch.dtype) -> None:
    """Two steps of FO are gradient descent on the reference, at a step that bfloat16 loses."""
    made = Made(kind, dtype)
    y = torch.tensor([0, 1])
    lr = 1e-2 if dtype == torch.bfloat16 else 1e-3
    run = zo.trajectory(
        made.model, (made.x, y), observe=made.x, steps=2, lr=lr, P=1, seed=0, record=[0, 2]
    )
    assert run.log_probs_fo.dtype in (torch.float32, torch.float64)
    assert all(part.isfinite().all() for part in run[1:-1])
    made.close(run.log_probs_fo[0].exp(), made.z.softmax(-1))
    grid = zo.deviation_grid(
        made.model, (made.x, y), observe=made.x, horizon=0.1, steps=[1], P=[1], seeds=[0]
    )
    assert grid.deviation.isfinite().all()
    assert grid.constant > 0


NO_HESSIAN = {
    "once differentiable": "has no second derivative",
    "embedding bag": "_embedding_bag_backward",
}


@kinds
def test_moments_need_a_second_derivative(kind: str) -> None:
    made = Made(kind, torch.float32)
    call = {"P": 1, "samples": 2, "seed": 0}
    if kind in NO_HESSIAN:
        with pytest.raises((ValueError, RuntimeError), match=NO_HESSIAN[kind]):
            zo.estimate_moments(made.model, made.x, torch.tensor([0, 1]), **call)  # type: ignore[arg-type]
        return
    found, _ = zo.estimate_moments(made.model, made.x, torch.tensor([0, 1]), **call)  # type: ignore[arg-type]
    g = zo.dynamics.loss_gradient(made.model, made.x, torch.tensor([0, 1])).g.double()
    assert found.squared_norm == pytest.approx(made.d * float(g @ g), rel=1e-4)


# ---- which way is taken, and that no way is silently wrong ---------------------------------------

ways = pytest.mark.parametrize("way", ["_forward_mode", "_twice_backward"])


@kinds
@ways
def test_every_way_to_J_v_is_right_or_says_that_it_is_not(kind: str, way: str) -> None:
    """Each alone: an error, None for a derivative that was lost, or the right numbers."""
    made = Made(kind, torch.float64 if KINDS[kind].exact else torch.float32)
    v = normal(made.d, seed=3)
    found = None
    with contextlib.suppress(NotImplementedError):  # what torch raises where it has no rule
        found = getattr(jacobians, way)(resolve_model(made.model), made.x, v)
    if found is not None:
        made.close(found, made.J @ v)


def test_a_derivative_that_autograd_loses_is_noticed() -> None:
    """Through a function that is once differentiable, J^T u is a constant to autograd."""
    made = Made("once differentiable", torch.float64)
    v = normal(made.d, seed=3)
    assert jacobians._twice_backward(resolve_model(made.model), made.x, v) is None
    made.close(zo.jvp(made.model, made.x, v), made.J @ v)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("linear", "_forward_mode"), ("weight norm", "_twice_backward"), ("embedding bag", "rows")],
)
def test_the_fastest_way_is_taken(
    kind: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, taken = Made(kind, torch.float32), []
    rows_of_one, forward, twice = (
        jacobians._row_by_row,
        jacobians._forward_mode,
        jacobians._twice_backward,
    )

    def first(*args: Any) -> Tensor:
        found = forward(*args)
        taken.append("_forward_mode")
        return found

    def second(*args: Any) -> Tensor | None:
        found = twice(*args)
        taken.append("_twice_backward")
        return found

    def third(params: Parameters, x_n: Tensor) -> Tensor:
        taken.append("rows")
        return rows_of_one(params, x_n)

    monkeypatch.setattr(jacobians, "_forward_mode", first)
    monkeypatch.setattr(jacobians, "_twice_backward", second)
    monkeypatch.setattr(jacobians, "_row_by_row", third)
    zo.jvp(made.model, made.x, normal(made.d, seed=3))
    assert set(taken) == {expected}


def test_a_pullback_keeps_its_forward_pass() -> None:
    made = Made("lstm", torch.float32)
    calls = 0

    def count(module: nn.Module, args: Any) -> None:
        nonlocal calls
        calls += 1

    made.model.register_forward_pre_hook(count)
    pullback = Pullback(resolve_model(made.model), made.x)
    for seed in range(3):
        g = normal(*made.J.shape[:2], seed=seed)
        made.close(pullback(g), torch.einsum("nv,nvd->d", g, made.J))
    assert calls == 1


def test_a_model_that_autograd_cannot_follow_is_refused() -> None:
    class Stopped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.layer(x)

    x = normal(2, 4, seed=0).float()
    for call in (
        lambda: zo.jacobian(Stopped(), x),
        lambda: zo.vjp(Stopped(), x, torch.ones(2, 3)),
    ):
        with pytest.raises(ValueError, match="its logits carry no derivative"):
            call()

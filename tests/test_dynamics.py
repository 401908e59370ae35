"""One step: A, K, G against autograd, predicted against measured, measured against optimizers."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import naive_jacobians as naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_jacobians import CASES, FAMILIES, normal, untouched
from torch import Tensor, nn

import zotutor as zo
from zotutor import directions, dynamics, parameters

quick = settings(derandomize=True, max_examples=30, deadline=None, database=None)

ORDERS: dict[str, dict[str, Any]] = {
    "FO": {},
    "ZO, P = 1": {"P": 1, "seed": 3},
    "ZO, P = 4": {"P": 4, "seed": 3, "step": 2},
    "ZO, Gaussian": {"P": 2, "directions": zo.Gaussian(), "seed": 5},
    "ZO, sphere": {"P": 2, "directions": zo.Sphere(), "seed": 5},
    "ZO, sparse": {"P": 3, "directions": zo.Sparse(0.3), "seed": 5},
    "ZO, low rank": {"P": 3, "directions": zo.LowRank(1), "seed": 5},
}
BOTH: list[dict[str, Any]] = [{}, {"P": 2, "seed": 4}]
each_order = pytest.mark.parametrize("order", ORDERS)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def batches(case: str, N_o: int = 3, N_u: int = 2) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A model, x_o, x_u and labels."""
    model, x_o = CASES[case](N_o)
    _, x_u = CASES[case](N_u, seed=2)
    V = naive.logits(model, x_u).shape[1]
    return model, x_o, x_u, torch.arange(N_u) * 2 % V


def log_probs(model: nn.Module, x: Tensor) -> Tensor:
    return naive.logits(model, x).log_softmax(-1).detach()


# ---- A and G ------------------------------------------------------------------------------------


@quick
@given(N=st.integers(1, 3), V=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_A_and_G_are_what_autograd_says(N: int, V: int, seed: int) -> None:
    z = 3 * normal(N, V, seed=seed)
    y = torch.randint(0, V, (N,), generator=naive.generator(seed + 1))
    A = torch.stack(
        [torch.autograd.functional.jacobian(lambda row: row.log_softmax(-1), row) for row in z]
    )
    G = torch.autograd.functional.jacobian(
        lambda rows: nn.functional.cross_entropy(rows, y, reduction="sum"), z
    )
    close(dynamics.log_softmax_jacobian(z), A)
    close(dynamics.cross_entropy_gradient(z, y), G)
    close(dynamics.cross_entropy_gradient(z, y).sum(-1), torch.zeros(N, dtype=torch.float64))
    # a common shift of the logits changes no log-probability, and A maps it to 0
    close(dynamics.log_softmax_jacobian(z).sum(-1), torch.zeros(N, V, dtype=torch.float64))


# ---- what is returned ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_A_K_G_of_a_first_order_step(case: str) -> None:
    model, x_o, x_u, y_u = batches(case)
    with untouched(model, x_o, x_u, y_u):
        seen = zo.one_step(model, x_o, x_u, y_u, lr=1e-3)
    z_o, z_u = naive.logits(model, x_o).detach(), naive.logits(model, x_u).detach()
    V = z_o.shape[1]
    one_hot = nn.functional.one_hot(y_u, V)
    A = torch.eye(V, dtype=torch.float64) - z_o.softmax(-1)[:, None, :].repeat(1, V, 1)
    close(seen.A, A)
    close(seen.G, z_u.softmax(-1) - one_hot)
    K = naive.kernel(naive.jacobian(model, x_o), naive.jacobian(model, x_u))
    close(seen.K, K)
    predicted = sum(
        -1e-3 / 2 * torch.stack([A[o] @ K[o, u] @ seen.G[u] for o in range(3)]) for u in range(2)
    )
    assert isinstance(predicted, Tensor)
    close(seen.predicted, predicted)
    close(seen.residual, seen.measured - seen.predicted)
    assert seen.A.shape == (3, V, V)
    assert seen.K.shape == (3, 2, V, V)
    assert seen.G.shape == (2, V)
    assert seen.predicted.shape == seen.measured.shape == seen.residual.shape == (3, V)
    assert not any(part.requires_grad for part in seen)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["ZO, P = 4", "ZO, Gaussian"])
def test_K_of_a_zeroth_order_step_is_that_of_the_drawn_directions(case: str, order: str) -> None:
    model, x_o, x_u, y_u = batches(case)
    options = ORDERS[order]
    with untouched(model, x_o, x_u, y_u):
        seen = zo.one_step(model, x_o, x_u, y_u, lr=1e-3, **options)
    family = options.get("directions", zo.Rademacher())
    P, seed, step = options["P"], options["seed"], options.get("step", 0)
    U = family.dense(model, P=P, seed=seed, step=step) / math.sqrt(P)
    K_U = naive.kernel(naive.jacobian(model, x_o), naive.jacobian(model, x_u), U)
    close(seen.K, K_U)
    first_order = zo.one_step(model, x_o, x_u, y_u, lr=1e-3)
    close(seen.A, first_order.A)
    close(seen.G, first_order.G)
    close(seen.predicted, -5e-4 * torch.einsum("oij,oujk,uk->oi", seen.A, K_U, seen.G))
    if seen.A.shape[1] > 1:
        assert (seen.predicted - first_order.predicted).norm() > 0.01 * seen.predicted.norm()


@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "shared", "frozen", "lstm", "scalars"])
@pytest.mark.parametrize("N_u", [1, 3])
def test_measured_is_a_real_step_of_sgd(case: str, N_u: int) -> None:
    model, x_o, x_u, y_u = batches(case, N_u=N_u)
    seen = zo.one_step(model, x_o, x_u, y_u, lr=0.3)
    before = log_probs(model, x_o)
    other = copy.deepcopy(model)
    optimizer = torch.optim.SGD(naive.trainable(other), lr=0.3)
    nn.functional.cross_entropy(naive.logits(other, x_u), y_u).backward()
    optimizer.step()
    change = log_probs(other, x_o) - before
    assert change.abs().max() > 1e-3
    close(seen.measured, change)


@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "shared", "frozen", "lstm", "object"])
@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_measured_is_a_real_step_of_zosgd(case: str, family: directions.Directions) -> None:
    model, x_o, x_u, y_u = batches(case, N_u=3)
    options: dict[str, Any] = {"P": 3, "eps": 1e-4, "directions": family, "seed": 9}
    seen = zo.one_step(model, x_o, x_u, y_u, lr=0.03, **options)
    before = log_probs(model, x_o)
    other = copy.deepcopy(model)
    optimizer = zo.ZOSGD(other.parameters(), lr=0.03, **options)
    optimizer.step(lambda: nn.functional.cross_entropy(naive.logits(other, x_u), y_u))
    change = log_probs(other, x_o) - before
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(seen.measured, change, rtol=1e-7, atol=1e-9)


def test_step_numbers_the_steps_of_zosgd() -> None:
    model, x_o, x_u, y_u = batches("mlp")
    other = copy.deepcopy(model)
    optimizer = zo.ZOSGD(other.parameters(), lr=0.03, P=2, seed=9)
    for step in range(3):
        before = log_probs(other, x_o)
        seen = zo.one_step(other, x_o, x_u, y_u, lr=0.03, P=2, seed=9, step=step)
        optimizer.step(lambda: nn.functional.cross_entropy(other(x_u), y_u))
        change = log_probs(other, x_o) - before
        torch.testing.assert_close(seen.measured, change, rtol=1e-6, atol=1e-9)


def test_eps_is_that_of_the_measured_step() -> None:
    """A larger eps bends the measured change by O(eps^2); the prediction does not know it."""
    model, x_o, x_u, y_u = batches("mlp")
    exact, a, b = (
        zo.one_step(model, x_o, x_u, y_u, lr=1e-6, P=2, seed=9, eps=eps)
        for eps in (1e-5, 0.05, 0.1)
    )
    assert torch.equal(exact.predicted, b.predicted)
    small, large = ((s.measured - exact.measured).norm() for s in (a, b))
    assert small > 1e-5 * exact.measured.norm()
    assert 3.6 < large / small < 4.4


# ---- predicted against measured -----------------------------------------------------------------


def slope(lrs: list[float], residuals: list[float]) -> float:
    """Of log residual against log lr, by least squares."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (lrs, residuals))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


@each_order
@pytest.mark.parametrize(("V", "N_o", "N_u"), [(2, 4, 1), (3, 1, 5), (5, 6, 3), (10, 2, 4)])
def test_the_residual_falls_as_the_square_of_the_learning_rate(
    order: str, V: int, N_o: int, N_u: int
) -> None:
    model = naive.mlp(4, V, width=6, seed=V)
    x_o, x_u = normal(N_o, 4, seed=1), normal(N_u, 4, seed=2)
    y_u = torch.randint(0, V, (N_u,), generator=naive.generator(3))
    lrs = [10 ** (-2 - k / 4) for k in range(9)]
    seen = [zo.one_step(model, x_o, x_u, y_u, lr=lr, **ORDERS[order]) for lr in lrs]
    assert abs(slope(lrs, [float(s.residual.norm()) for s in seen]) - 2) < 0.05
    assert abs(slope(lrs, [float(s.predicted.norm()) for s in seen]) - 1) < 1e-9
    assert seen[-1].residual.norm() < 1e-2 * seen[-1].predicted.norm()


@each_order
@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "shared", "object", "batch norm in eval"])
def test_predicted_and_measured_are_correlated(order: str, case: str) -> None:
    model, x_o, x_u, y_u = batches(case, N_o=8, N_u=3)
    seen = zo.one_step(model, x_o, x_u, y_u, lr=1e-3, **ORDERS[order])
    pair = torch.stack([seen.predicted.flatten(), seen.measured.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.99
    ratio = float((pair[0] @ pair[1]) / (pair[0] @ pair[0]))
    assert abs(ratio - 1) < 0.05


@each_order
def test_float32_and_the_models_of_the_book_reach_the_correlation_too(order: str) -> None:
    model = zo.models.mlp(16, 2, seed=1)
    x_o, x_u = (torch.rand(N, 1, 8, 8, generator=naive.generator(N)) for N in (20, 8))
    y_u = torch.arange(8)
    seen = zo.one_step(model, x_o, x_u, y_u, lr=1e-3, **ORDERS[order])
    assert all(part.dtype == torch.float32 for part in seen)
    pair = torch.stack([seen.predicted.flatten(), seen.measured.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.99


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("matrices", [True, False])
def test_half_precision_is_seen_in_float32(
    dtype: torch.dtype, matrices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the model itself is rounded: not the loss, the log-probabilities or the kernel."""
    model, x_o, x_u, y_u = batches("mlp")
    losses: list[Tensor] = []

    def spy(loss_fn: Any, *args: Any, **options: Any) -> Any:
        with torch.no_grad():
            losses.append(loss_fn())
        return zo.estimate_gradient(loss_fn, *args, **options)

    monkeypatch.setattr(dynamics, "estimate_gradient", spy)
    zeroth: dict[str, Any] = {"P": 3, "seed": 2, "eps": 0.02}
    function = zo.one_step if matrices else zo.step_change
    for options in ({}, zeroth):
        exact = zo.one_step(model, x_o, x_u, y_u, lr=0.5, **options)
        half = copy.deepcopy(model).to(dtype)
        seen = function(half, x_o.to(dtype), x_u.to(dtype), y_u, lr=0.5, **options)
        assert all(part.dtype == torch.float32 for part in seen)
        error = (seen.predicted - exact.predicted).norm() / exact.predicted.norm()
        assert error < 10 * torch.finfo(dtype).eps
        assert (seen.measured - exact.measured).norm() < 0.3 * exact.measured.norm()
        pi = half(x_o.to(dtype)).detach().float().softmax(-1)
        assert ((pi * seen.measured.exp()).sum(-1) - 1).abs().max() < 1e-5
    assert losses[-1].dtype == torch.float32


@quick
@given(
    V=st.integers(1, 5),
    N_o=st.integers(1, 4),
    N_u=st.integers(1, 4),
    P=st.none() | st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_probabilities_keep_their_sum(V: int, N_o: int, N_u: int, P: int | None, seed: int) -> None:
    """To first order sum_i pi_i Delta log pi_i = 0; measured, the new probabilities sum to 1."""
    model = naive.mlp(3, V, seed=seed)
    x_o, x_u = normal(N_o, 3, seed=seed + 1), normal(N_u, 3, seed=seed + 2)
    y_u = torch.randint(0, V, (N_u,), generator=naive.generator(seed))
    seen = zo.one_step(model, x_o, x_u, y_u, lr=1e-2, P=P, seed=seed)
    pi = model(x_o).softmax(-1).detach()
    scale = 1 + float(seen.predicted.abs().max())
    assert (pi * seen.predicted).sum(-1).abs().max() < 1e-12 * scale
    close((pi * seen.measured.exp()).sum(-1), torch.ones(N_o, dtype=torch.float64))
    close(seen.predicted, 2 * zo.one_step(model, x_o, x_u, y_u, lr=5e-3, P=P, seed=seed).predicted)


def test_the_loss_is_the_mean_so_that_a_repeated_batch_changes_nothing() -> None:
    model, x_o, x_u, y_u = batches("mlp")
    for options in BOTH:
        once = zo.one_step(model, x_o, x_u, y_u, lr=1e-2, **options)
        twice = zo.one_step(
            model, x_o, torch.cat([x_u, x_u]), torch.cat([y_u, y_u]), lr=1e-2, **options
        )
        close(once.predicted, twice.predicted)
        torch.testing.assert_close(once.measured, twice.measured, rtol=1e-6, atol=1e-9)


def test_a_single_output_never_changes() -> None:
    model, x_o, x_u, _ = batches("one output")
    for options in BOTH:
        seen = zo.one_step(model, x_o, x_u, torch.zeros(2, dtype=torch.int64), lr=1.0, **options)
        assert seen.predicted.abs().max() == 0
        assert seen.measured.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_may_be_of_any_integer_type(dtype: torch.dtype) -> None:
    model, x_o, x_u, y_u = batches("mlp")
    for options in BOTH:
        seen = zo.one_step(model, x_o, x_u, y_u.to(dtype), lr=1e-2, **options)
        close(seen.measured, zo.one_step(model, x_o, x_u, y_u, lr=1e-2, **options).measured)


# ---- errors -------------------------------------------------------------------------------------

X_O, X_U, Y_U = normal(3, 4, seed=0), normal(2, 4, seed=1), torch.tensor([2, 0])

BEFORE_ANY_CALL: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x_o": X_O[:0]}, ValueError, r"x_o: given shape \(0, 4\), expected a batch"),
    ({"x_u": X_U[:0]}, ValueError, r"x_u: given shape \(0, 4\), expected a batch"),
    ({"x_o": [1.0]}, TypeError, "x_o: given a list, expected a tensor"),
    ({"x_u": X_U[0, 0]}, ValueError, r"x_u: given shape \(\), expected a batch .* x\[None\]"),
    ({"lr": 0.0}, ValueError, "lr: given 0.0, expected a finite number above 0"),
    ({"lr": -1e-3}, ValueError, "lr: given -0.001, expected a finite number above 0"),
    ({"lr": math.inf}, ValueError, "lr: given inf, expected a finite number above 0"),
    ({"lr": math.nan}, ValueError, "lr: given nan, expected a finite number above 0"),
    ({"lr": "fast"}, TypeError, "lr: given 'fast', expected a number"),
    ({"P": 0}, ValueError, "P: given 0, expected at least 1"),
    ({"P": 1.5}, TypeError, "P: given 1.5 of type float, expected an int"),
    ({"P": 2, "eps": 0.0}, ValueError, "eps: given 0.0, expected a finite number above 0"),
    ({"P": 2, "eps": -1e-3}, ValueError, "eps: given -0.001, expected a finite number above 0"),
    ({"P": 2, "eps": 1e-17}, ValueError, "eps: given 1e-17, too small for torch.float64"),
    ({"P": 2, "seed": -1}, ValueError, "seed: given -1, expected at least 0"),
    ({"P": 2, "step": -1}, ValueError, "step: given -1, expected at least 0"),
    ({"P": 2, "directions": zo.Sphere}, TypeError, "directions: given the class Sphere, expect"),
    ({"eps": 1e-3}, ValueError, "given without P; give P for zeroth order"),
    ({"directions": zo.Gaussian()}, ValueError, "given without P; give P for zeroth order"),
    ({"y_u": torch.tensor([0, 1, 2])}, ValueError, r"y_u: given shape \(3,\), expected \(2,\)"),
    ({"y_u": Y_U[:, None]}, ValueError, r"y_u: given shape \(2, 1\), expected \(2,\): one label"),
    ({"y_u": Y_U.double()}, TypeError, "y_u: given torch.float64, expected a tensor of integer"),
    ({"y_u": Y_U > 0}, TypeError, "y_u: given torch.bool, expected a tensor of integer labels"),
    ({"y_u": [2, 0]}, TypeError, "y_u: given list, expected a tensor of integer labels"),
    (
        {"y_u": torch.tensor([-1, 0])},
        ValueError,
        "y_u: given labels from -1 to 0, expected at least 0",
    ),
]


@pytest.mark.parametrize(("change", "error", "words"), BEFORE_ANY_CALL)
def test_bad_arguments_are_refused_before_any_work(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = naive.Counted()
    arguments: dict[str, Any] = {"x_o": X_O, "x_u": X_U, "y_u": Y_U, "lr": 1e-2, "seed": 0} | change
    with pytest.raises(error, match=words):
        zo.one_step(model, **arguments)
    assert model.calls == 0


@pytest.mark.parametrize("P", [None, 2])
def test_labels_out_of_range_are_refused_before_a_jacobian(
    P: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many classes there are only a call of the model can tell."""
    model = naive.Counted()
    monkeypatch.delattr(dynamics, "jacobian_at")
    with pytest.raises(
        ValueError, match=r"y_u: given labels from 0 to 3, expected 0 to 2, since the model has 3"
    ):
        zo.one_step(model, X_O, X_U, torch.tensor([3, 0]), lr=1e-2, P=P, seed=0)
    assert model.calls <= 2


@pytest.mark.parametrize("P", [None, 2])
@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1)), ValueError, "module 1 is a Dropout in t"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), ValueError, "module 1 is a BatchNorm1"),
        (naive.FunctionalDropout(), ValueError, r"drew random numbers .*model.eval\(\)"),
        (nn.Linear(4, 3).requires_grad_(False), ValueError, "no trainable parameter"),
        (lambda x: x, TypeError, "model: given a function, expected a torch.nn.Module"),
        (nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (1, 3))), ValueError, "model: returned"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(
    model: Any, error: type[Exception], words: str, P: int | None
) -> None:
    if isinstance(model, nn.Module):
        model.double().train()
    with pytest.raises(error, match=words):
        zo.one_step(model, X_O, X_U, Y_U, lr=1e-2, P=P, seed=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_input_that_is_not_finite_is_named(bad: float) -> None:
    model = naive.Counted()
    x_u = X_U.clone()
    x_u[1, 2] = bad
    with untouched(model, X_O), pytest.raises(ValueError, match=rf"x_u: {bad} at \[1, 2\]"):
        zo.one_step(model, X_O, x_u, Y_U, lr=1e-2, P=2, seed=0)
    with pytest.raises(ValueError, match=rf"x_o: {bad} at \[1, 2\]"):
        zo.one_step(model, x_u, X_U, Y_U, lr=1e-2)


def test_a_loss_that_is_not_finite_at_a_probe_leaves_the_model_as_it_was() -> None:
    """Finite at theta, and not at theta + eps u: a square root at its end."""

    class Edge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3, dtype=torch.float64)
            self.edge = nn.Parameter(torch.full((1,), 1e-7, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.edge.sqrt()

    model = Edge()
    with untouched(model, X_O, X_U), pytest.raises(zo.NonFiniteLossError, match="the loss is"):
        zo.one_step(model, X_O, X_U, Y_U, lr=1e-2, P=2, seed=0)


@pytest.mark.parametrize("P", [None, 3])
@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_without_matrices_the_same_is_predicted_and_measured(
    P: int | None, family: zo.directions.Directions
) -> None:
    model = zo.models.mlp(8, 1, inputs=6, outputs=5, seed=0).double()
    x = torch.linspace(-1.0, 1.0, 30, dtype=torch.float64).view(5, 6)
    y = torch.tensor([4, 0])
    directions = None if P is None else family
    whole = zo.one_step(model, x[:3], x[3:], y, lr=0.1, P=P, directions=directions, seed=7, step=2)
    thin = zo.step_change(
        model, x[:3], x[3:], y, lr=0.1, P=P, directions=directions, seed=7, step=2
    )
    for name in thin._fields:
        torch.testing.assert_close(getattr(thin, name), getattr(whole, name), msg=name)


def test_what_version_0_1_allowed_still_works_and_names_what_replaces_it() -> None:
    model, x_o, x_u, y_u = batches("mlp")
    exact = zo.step_change(model, x_o, x_u, y_u, lr=0.1, P=2, seed=0)
    with pytest.warns(DeprecationWarning, match="use step_change for matrices=False"):
        seen: Any = zo.one_step(model, x_o, x_u, y_u, lr=0.1, P=2, seed=0, matrices=False)  # type: ignore[call-arg]
    assert isinstance(seen, dynamics.StepChange)
    assert torch.equal(seen.measured, exact.measured)
    with pytest.warns(DeprecationWarning, match="give seed=0 for what it did so far"):
        seen = zo.one_step(model, x_o, x_u, y_u, lr=0.1, P=2)
    assert torch.equal(seen.measured, exact.measured)
    zo.one_step(model, x_o, x_u, y_u, lr=0.1)  # first order draws nothing


@pytest.mark.parametrize("case", CASES)
def test_change_of_log_probs_is_A_J_v(case: str) -> None:
    model, x = CASES[case](3)
    J = naive.jacobian(model, x)
    v = normal(J.shape[2], seed=5)
    A = dynamics.log_softmax_jacobian(naive.logits(model, x).detach())
    with untouched(model, x, v):
        change = dynamics.change_of_log_probs(model, x, v)
    close(change, torch.einsum("nij,njd,d->ni", A, J, v))


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("chunk", [None, 7])
def test_random_projection_is_U_U_transposed_g(
    family: directions.Directions, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = CASES["frozen"](1)
    d = sum(p.numel() for p in naive.trainable(model))
    g = normal(d, seed=3)
    U = family.dense(model, P=4, seed=6, step=1) / 2
    if chunk is not None:
        monkeypatch.setattr(directions, "CHUNK", chunk)
    with untouched(model, g):
        projected = dynamics.random_projection(g, model, P=4, directions=family, seed=6, step=1)
    close(projected, U @ (U.T @ g))


CALLS: dict[str, Callable[[nn.Module], object]] = {
    "one_step": lambda model: zo.one_step(model, X_O, X_U, Y_U, lr=0.1, P=4, seed=0),
    "step_change": lambda model: zo.step_change(model, X_O, X_U, Y_U, lr=0.1, P=4, seed=0),
    "entk": lambda model: zo.entk(model, X_O, X_U),
    "zo_entk": lambda model: zo.zo_entk(model, X_O, X_U, P=2, seed=0),
    "jvp": lambda model: zo.jvp(model, X_O, torch.ones(15, dtype=torch.float64)),
    "plan": lambda model: zo.plan_perturbations(model, X_O, X_U, Y_U, seed=0),
    "sampled plan": lambda model: zo.plan_perturbations(model, X_O, X_U, Y_U, samples=2, seed=0),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_models_parameters_are_resolved_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, walks = parameters.resolve, []

    def count(params: Any) -> parameters.Parameters:
        if not isinstance(params, parameters.Parameters):
            walks.append(params)
        return resolve(params)

    for module in list(sys.modules.values()):
        if getattr(module, "resolve", None) is resolve:
            monkeypatch.setattr(module, "resolve", count)
    model = naive.Counted()
    CALLS[name](model)
    assert walks == [model]

"""FO and ZO side by side: against a float64 loop in the open, and the T P law against runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import naive_jacobians as naive
import pytest
import torch
from naive_jacobians import normal
from torch import Tensor, nn

import zotutor as zo
from zotutor.trajectories import DeviationGrid, Trajectory, deviation_grid, trajectory

FAMILIES = [*naive.FAMILIES[:-1], zo.LowRank(1)]


def network(seed: int = 0) -> nn.Module:
    return naive.filled(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), seed)


def batch() -> tuple[Tensor, Tensor]:
    return normal(6, 4, seed=1), torch.tensor([0, 1, 2, 0, 1, 2])


X_O = normal(5, 4, seed=2)


def log_probs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(X_O).log_softmax(-1)


def observed(model: nn.Module) -> Tensor:
    """B = A J_o by autograd, (N_o, V, d)."""
    J = naive.jacobian(model, X_O)
    pi = log_probs(model).exp()
    A = torch.eye(3, dtype=torch.float64) - pi[:, None, :]
    return A @ J


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(model(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def move(model: nn.Module, change: Tensor) -> None:
    params = list(model.parameters())
    with torch.no_grad():
        for p, part in zip(params, change.split([p.numel() for p in params]), strict=True):
            p.add_(part.view_as(p))


def kernel(model: nn.Module, count: int) -> Tensor:
    J = naive.jacobian(model, X_O[:count]).flatten(0, 1)
    return J @ J.T


def by_hand(steps: int, lr: float, P: int, directions: Any, seed: int) -> dict[str, list[Tensor]]:
    """Every step recorded; ZO steps from the dense directions, exact along them."""
    x, y = batch()
    start, fo, zeroth = network(), network(), network()
    found: dict[str, list[Tensor]] = {"fo": [], "zo": [], "told_fo": [], "told_zo": []}
    found |= {"drift_fo": [], "drift_zo": [], "alignment": []}
    told_fo = told_zo = torch.zeros(5, 3, dtype=torch.float64)
    K = kernel(start, 4)
    for t in range(steps + 1):
        found["fo"].append(log_probs(fo))
        found["zo"].append(log_probs(zeroth))
        found["told_fo"].append(told_fo)
        found["told_zo"].append(told_zo)
        found["drift_fo"].append((kernel(fo, 4) - K).norm() / K.norm())
        found["drift_zo"].append((kernel(zeroth, 4) - K).norm() / K.norm())
        B, g = observed(fo), gradient(fo, x, y)
        norms = B.square().sum() * g.square().sum()
        found["alignment"].append((B @ g).square().sum() / norms)
        told_fo = told_fo - lr * B @ g
        move(fo, -lr * g)
        u = directions.dense(zeroth, P=P, seed=seed, step=t)
        seen = u @ (u.T @ gradient(zeroth, x, y)) / P
        told_zo = told_zo - lr * observed(zeroth) @ seen
        move(zeroth, -lr * seen)
    return found


@pytest.mark.parametrize("directions", FAMILIES, ids=repr)
def test_trajectory_is_the_loop_in_the_open(directions: Any) -> None:
    model, data = network(), batch()
    with naive.untouched(model, *data, X_O):
        run = trajectory(
            model, data, observe=X_O, steps=4, lr=0.05, P=3, directions=directions, seed=7
        )
    expected = by_hand(4, 0.05, 3, directions, 7)
    assert run.steps.tolist() == [0, 1, 2, 3, 4]
    # FO does the same arithmetic; ZO's finite differences are off by about eps^2 = 1e-10
    for name, actual, rtol in (
        ("fo", run.log_probs_fo, 1e-10),
        ("told_fo", run.predicted_fo, 1e-10),
        ("drift_fo", run.kernel_drift_fo, 1e-9),
        ("alignment", run.alignment, 1e-9),
        ("zo", run.log_probs_zo, 1e-6),
        ("told_zo", run.predicted_zo, 1e-6),
        ("drift_zo", run.kernel_drift_zo, 1e-6),
    ):
        assert torch.allclose(actual, torch.stack(expected[name]), rtol=rtol, atol=rtol), name
    change = expected["fo"][-1] - expected["fo"][0]
    apart = (expected["zo"][-1] - expected["fo"][-1]).norm() / change.norm()
    torch.testing.assert_close(run.deviation()[-1], apart, rtol=1e-5, atol=1e-7)


def test_batches_are_the_same_for_both_orders_and_record_only_selects() -> None:
    options: dict[str, Any] = {
        "observe": X_O,
        "steps": 6,
        "lr": 0.05,
        "P": 2,
        "batch_size": 2,
        "seed": 0,
    }
    everything = trajectory(network(), batch(), **options, record=range(7))
    some = trajectory(network(), batch(), **options, record=[6, 0, 3])
    assert some.steps.tolist() == [0, 3, 6]
    torch.testing.assert_close(some.log_probs_zo, everything.log_probs_zo[[0, 3, 6]])
    torch.testing.assert_close(some.predicted_zo, everything.predicted_zo[[0, 3, 6]])
    other = trajectory(network(), batch(), **(options | {"seed": 1}))
    assert not torch.equal(other.log_probs_fo[-1], everything.log_probs_fo[-1])
    # at a tiny lr the summed predictions are exact, so ZO saw the batches its prediction saw
    tiny = trajectory(network(), batch(), **(options | {"lr": 1e-5}))
    change = tiny.log_probs_zo[-1] - tiny.log_probs_zo[0]
    torch.testing.assert_close(tiny.predicted_zo[-1], change, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("directions", [zo.Rademacher(), zo.Gaussian(), zo.Sparse(0.3)], ids=repr)
def test_constant_is_the_formula(directions: Any) -> None:
    model, (x, y) = network(), batch()
    B, g = observed(model).flatten(0, 1), gradient(model, x, y)
    total = (B @ g).square().sum()
    noise = B.square().sum() * g.square().sum() + total
    noise = noise + (directions.kurtosis - 3) * (B.square() @ g.square()).sum()
    run = trajectory(
        model, (x, y), observe=X_O, steps=1, lr=0.1, P=1, directions=directions, seed=0
    )
    grid = deviation_grid(
        model,
        (x, y),
        observe=X_O,
        horizon=0.1,
        steps=[1],
        P=[1],
        seeds=[0],
        directions=directions,
    )
    assert run.constant == pytest.approx(math.sqrt(noise / total), rel=1e-9)
    assert grid.constant == pytest.approx(run.constant, rel=1e-12)
    assert grid.alignment == pytest.approx(float(run.alignment[0]), rel=1e-9)


@pytest.mark.parametrize("directions", FAMILIES, ids=repr)
def test_law_holds_where_B_and_g_hold_still(directions: Any) -> None:
    """Over a short distance: within three standard errors of the constant, all cells together."""
    grid = deviation_grid(
        network(),
        batch(),
        observe=X_O,
        horizon=1e-3,
        steps=[2, 6],
        P=[1, 3],
        seeds=range(40),
        directions=directions,
    )
    squares = grid.constants().square()
    mean, spread = squares.mean(), squares.std() / math.sqrt(squares.numel())
    assert spread / mean < 0.2  # sharp enough to mean something
    assert abs(mean - grid.constant**2) < 3 * spread
    # in each cell more loosely: squares of a square are skewed, so a cell's own error is not known
    rms, _ = grid.rms_constants()
    assert ((rms / grid.constant - 1).abs() < 0.35).all(), (rms, grid.constant)


def test_deviation_grid_is_the_loop_in_the_open() -> None:
    data, seeds = batch(), [3, 8]
    with naive.untouched(model := network(), *data, X_O):
        grid = deviation_grid(
            model, data, observe=X_O, horizon=0.2, steps=[2, 3], P=[1, 2], seeds=seeds
        )
    assert grid.steps == (2, 3)
    assert grid.P == (1, 2)
    assert grid.deviation.shape == (2, 2, 2)
    cell = 0
    for i, T in enumerate(grid.steps):
        for j, P in enumerate(grid.P):
            cell += 1
            for k, seed in enumerate(seeds):
                found = by_hand(T, 0.2 / T, P, zo.Rademacher(), (cell << 32) + seed)
                apart = (found["zo"][T] - found["fo"][T]).norm()
                expected = apart / (found["fo"][T] - found["fo"][0]).norm()
                torch.testing.assert_close(grid.deviation[i, j, k], expected, rtol=1e-5, atol=0)


def test_constants_and_their_standard_error() -> None:
    deviation = torch.tensor([[[0.5, 1.0], [0.25, 0.75]]], dtype=torch.float64)  # T = 4; P = 1, 4
    grid = DeviationGrid((4,), (1, 4), deviation, 3.0, 0.1)
    expected = torch.tensor([[[1.0, 2.0], [1.0, 3.0]]], dtype=torch.float64)
    torch.testing.assert_close(grid.constants(), expected)
    rms, error = grid.rms_constants()
    torch.testing.assert_close(rms, expected.square().mean(-1).sqrt())
    # the error of a root: that of the mean square over twice the root
    by_rule = expected.square().std(-1) / math.sqrt(2) / (2 * rms)
    torch.testing.assert_close(error, by_rule)


def test_deviation_is_over_the_total_change_of_first_order() -> None:
    zero = torch.zeros(2)
    fo = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
    zeroth = torch.tensor([[[0.0, 1.0]], [[3.0, 14.0]]])
    run = Trajectory(zero, fo, zeroth, fo, fo, zero, zero, zero, 1.0)
    torch.testing.assert_close(run.deviation(), torch.tensor([0.2, 2.0]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"P": 0}, "P"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"kernel_inputs": 0}, "kernel_inputs"),
        ({"record": []}, "record"),
        ({"record": [5]}, "record"),
        ({"record": [-1]}, "record"),
        ({"observe": "x"}, "observe"),
        ({"data": (X_O, torch.tensor([0, 1, 2, 0, 3]))}, "data"),
        ({"data": (X_O, torch.tensor([0, 1]))}, "data"),
    ],
)
def test_trajectory_refuses(changed: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"observe": X_O, "steps": 4, "lr": 0.1, "P": 1, "seed": 0}
    options |= changed
    data = options.pop("data", batch())
    with pytest.raises((TypeError, ValueError), match=message):
        trajectory(network(), data, **options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"horizon": 0.0}, "horizon"),
        ({"steps": []}, "steps"),
        ({"steps": [0]}, "steps"),
        ({"P": []}, "P"),
        ({"P": [0]}, "P"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1 << 32]}, "seeds"),
        ({"seeds": [0.5]}, "seeds"),
        ({"observe": None}, "observe"),
    ],
)
def test_deviation_grid_refuses(changed: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"observe": X_O, "horizon": 0.1, "steps": [1], "P": [1], "seeds": [0]}
    with pytest.raises((TypeError, ValueError), match=message):
        deviation_grid(network(), batch(), **(options | changed))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    model = network()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match=r"its parameter 0.weight: nan at \[0, 0\], expected fin"):
        trajectory(model, batch(), observe=X_O, steps=2, lr=0.1, P=1, seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_half_precision_loses_no_update(dtype: torch.dtype) -> None:
    """64 steps, each far below half a spacing of bfloat16: FO gets where float64 gets.

    Weights near 1 are 1/128 apart in bfloat16, and each step moves them by 1e-4.
    """

    class Near1(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(1 + 0.01 * normal(4, 3, seed=3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w

    x, y = batch()
    options: dict[str, Any] = {"steps": 64, "lr": 3e-3, "P": 1, "seed": 0, "record": [0, 64]}
    exact = trajectory(Near1(), (x, y), observe=X_O, **options)
    half = Near1().to(dtype)
    run = trajectory(half, (x.to(dtype), y), observe=X_O.to(dtype), **options)
    change = exact.log_probs_fo[1] - exact.log_probs_fo[0]
    found = (run.log_probs_fo[1] - run.log_probs_fo[0]).double()
    assert (found - change).norm() < 0.15 * change.norm()
    assert run.log_probs_fo.dtype == torch.float32


def test_a_run_that_diverges_says_so() -> None:
    """The first step leads past the largest float64."""
    model, (x, y) = nn.Linear(4, 3).double(), batch()
    data = 1000 * x, y
    for call in (
        lambda: trajectory(model, data, observe=X_O, steps=2, lr=1e308, P=1, seed=0),
        lambda: deviation_grid(
            model, data, observe=X_O, horizon=1e308, steps=[2], P=[1], seeds=[0]
        ),
    ):
        with pytest.raises(zo.NonFiniteLossError, match=r"smaller learning rate|the loss is"):
            call()


def test_the_model_is_copied() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    trajectory(model, batch(), observe=X_O, steps=2, lr=0.5, P=1, seed=0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])

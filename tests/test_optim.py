"""ZOSGD: the textbook's algorithm, step by step, and an optimizer like any other of torch's.

Statistical tests have fixed seeds and compare a mean with its expectation at five of its own
standard errors, unless they say otherwise: one failure in 1.7 million a comparison.
"""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zotutor as zo
from zotutor.directions import Directions
from zotutor.estimators import projected_gradients

FAMILIES: list[Directions] = [
    zo.Rademacher(),
    zo.Gaussian(),
    zo.Uniform(),
    zo.Sphere(),
    zo.Sparse(0.5),
    zo.LowRank(2),
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

families = pytest.mark.parametrize("family", FAMILIES, ids=repr)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bits(tensor: Tensor) -> Tensor:
    """The bits of a floating-point tensor, so that -0.0 and NaN compare too."""
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()]
    return tensor.detach().contiguous().view(width).clone()


class Small(nn.Module):
    """d = 29: a matrix, vectors, a scalar, a matrix that is not contiguous, a tied one."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4, dtype=dtype)
        self.again = nn.Linear(3, 4, bias=False, dtype=dtype)
        self.again.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))
        self.last = nn.Parameter(torch.zeros(3, 4, dtype=dtype).t())
        with torch.no_grad():
            for i, theta in enumerate(self.parameters()):
                theta.copy_(normal(*theta.shape, seed=i) / 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.tanh(self.first(x)) + self.scale * self.again(x)
        return y @ self.last


def problem(dtype: torch.dtype = torch.float64) -> tuple[Small, Callable[[], Tensor]]:
    model = Small(dtype)
    x, y = normal(6, 3, seed=20).to(dtype), torch.tensor([0, 1, 2, 0, 1, 2])
    return model, lambda: F.cross_entropy(model(x), y)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def write(tensors: Sequence[Tensor], column: Tensor) -> None:
    parts = column.split([tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for theta, part in zip(tensors, parts, strict=True):
            theta.copy_(part.view(theta.shape))


# ---- against the textbook ------------------------------------------------------------------------


class Naive:
    """ZO-SGD as a textbook has it, on theta as one float64 vector."""

    def __init__(
        self,
        model: nn.Module,
        closure: Callable[[], Tensor],
        *,
        lr: float,
        eps: float,
        P: int,
        directions: Directions,
        seed: int,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.tensors = list(model.parameters())
        self.closure = closure
        self.lr, self.eps, self.P, self.seed = lr, eps, P, seed
        self.momentum, self.weight_decay = momentum, weight_decay
        self.directions = directions
        self.theta = flat(self.tensors)
        self.buffer = torch.zeros_like(self.theta)
        self.t = 0

    def loss_at(self, theta: Tensor) -> float:
        write(self.tensors, theta)
        with torch.no_grad():
            return float(self.closure())

    def step(self) -> float:
        U = self.directions.dense(self.tensors, P=self.P, seed=self.seed, step=self.t)
        g_hat, losses = torch.zeros_like(self.theta), []
        for u in U.T:
            above = self.loss_at(self.theta + self.eps * u)
            below = self.loss_at(self.theta - self.eps * u)
            g_hat += (above - below) / (2 * self.eps) * u / self.P
            losses += [above, below]
        g_hat += self.weight_decay * self.theta
        self.buffer = self.momentum * self.buffer + g_hat
        self.theta = self.theta - self.lr * self.buffer
        write(self.tensors, self.theta)
        self.t += 1
        return sum(losses) / len(losses)


@families
@pytest.mark.parametrize(
    "options",
    [
        {"P": 1},
        {"P": 3},
        {"P": 2, "momentum": 0.9},
        {"P": 2, "weight_decay": 0.1},
        {"P": 1, "momentum": 0.5, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_steps_equal_the_textbook_s(family: Directions, options: dict[str, Any]) -> None:
    model, closure = problem()
    other, other_closure = problem()
    both: dict[str, Any] = {"lr": 0.05, "eps": 1e-3, "directions": family, "seed": 11, **options}
    optimizer = zo.ZOSGD(model.parameters(), **both)
    naive = Naive(other, other_closure, **both)
    for _ in range(6):
        loss = optimizer.step(closure)
        assert loss.shape == ()
        assert loss.dtype == torch.float64
        assert float(loss) == pytest.approx(naive.step(), rel=1e-13)
        torch.testing.assert_close(
            flat(list(model.parameters())), naive.theta, rtol=1e-11, atol=1e-12
        )
    assert optimizer.steps_taken == 6


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_momentum_and_weight_decay_are_those_of_torch_s_sgd(
    momentum: float, weight_decay: float
) -> None:
    model, closure = problem()
    other, other_closure = problem()
    options: dict[str, Any] = {"lr": 0.05, "momentum": momentum, "weight_decay": weight_decay}
    ours = zo.ZOSGD(model.parameters(), P=2, seed=3, **options)
    theirs = torch.optim.SGD(other.parameters(), **options)
    one = lr_scheduler.ExponentialLR(ours, 0.8)
    two = lr_scheduler.ExponentialLR(theirs, 0.8)
    for step in range(5):
        ours.step(closure)
        estimate = zo.estimate_gradient(other_closure, other, P=2, seed=3, step=step)
        for theta, g in zip(other.parameters(), estimate, strict=True):
            theta.grad = g
        theirs.step()
        one.step()
        two.step()
        for theta, want in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(theta, want, rtol=1e-9, atol=1e-11)


def test_the_loss_falls() -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), lr=0.1, P=4, seed=0)
    losses = [float(optimizer.step(closure)) for _ in range(80)]
    assert losses[-1] < 0.5 * losses[0]


@families
def test_one_small_step_goes_downhill(family: Directions) -> None:
    for step in range(10):
        model, closure = problem()
        optimizer = zo.ZOSGD(model.parameters(), lr=1e-4, eps=1e-5, directions=family, seed=step)
        with torch.no_grad():
            before = float(closure())
            optimizer.step(closure)
            assert float(closure()) < before


@pytest.mark.parametrize("P", [1, 2, 7])
def test_the_closure_is_called_twice_for_each_direction(P: int) -> None:
    model, closure = problem()
    calls = itertools.count()

    def counted() -> Tensor:
        next(calls)
        return closure()

    optimizer = zo.ZOSGD(model.parameters(), 0.1, P=P, seed=0)
    optimizer.step(counted)
    assert next(calls) == 2 * P + 1  # once more to check it
    optimizer.step(counted)
    assert next(calls) == (2 * P + 1) + 1 + 2 * P


def test_theta_changes_only_after_the_last_call() -> None:
    model, closure = problem()
    before = [bits(theta) for theta in model.parameters()]
    alias = [theta.data_ptr() for theta in model.parameters()]

    def watching() -> Tensor:
        for theta, pointer in zip(model.parameters(), alias, strict=True):
            assert theta.data_ptr() == pointer
        return closure()

    zo.ZOSGD(model.parameters(), 0.0, P=3, seed=0).step(watching)
    assert all(torch.equal(bits(t), b) for t, b in zip(model.parameters(), before, strict=True))


# ---- the direction of the update -----------------------------------------------------------------


class Recorder:
    """A closure that notes what it is handed, with losses that make each projected gradient 1."""

    def __init__(self, tensors: Sequence[Tensor], eps: float) -> None:
        self.tensors = tensors
        self.eps = eps
        self.seen: list[list[Tensor]] = []

    def __call__(self) -> Tensor:
        self.seen.append([t.clone() for t in self.tensors])
        return torch.tensor(self.eps if len(self.seen) % 2 else -self.eps, dtype=torch.float64)


def spread_of_shapes(dtype: torch.dtype, large: bool) -> list[Tensor]:
    tensors = [
        torch.zeros((), dtype=dtype),
        torch.zeros(7, dtype=dtype),
        torch.zeros(30, 20, dtype=dtype).t(),
        torch.zeros(12, 6, dtype=dtype)[::2, 1:],
        torch.zeros(3, 2, 3, 3, dtype=dtype).to(memory_format=torch.channels_last),
        torch.zeros(0, 3, dtype=dtype),
    ]
    if large:
        tensors += [torch.zeros(400, 401, dtype=dtype), torch.zeros(2**20 + 5, dtype=dtype)]
    return [t.requires_grad_() for t in tensors]


@pytest.mark.usefixtures("trusted")
@families
@pytest.mark.parametrize(
    ("dtype", "momentum", "large"),
    [
        *((dtype, momentum, False) for dtype in DTYPES for momentum in (0.0, 0.5)),
        (torch.float32, 0.0, True),
        (torch.bfloat16, 0.0, True),
    ],
)
def test_the_update_goes_along_the_direction_probed(
    family: Directions, dtype: torch.dtype, momentum: float, large: bool
) -> None:
    eps = lr = 2.0**-5
    tensors = spread_of_shapes(dtype, large)
    closure = Recorder(tensors, eps)
    optimizer = zo.ZOSGD(tensors, lr, eps=eps, directions=family, momentum=momentum, seed=4)
    optimizer.step(closure)
    half = dtype in (torch.bfloat16, torch.float16)
    for i, (theta, probed) in enumerate(zip(tensors, closure.seen[0], strict=True)):
        # theta was 0 and g is 1, so that -theta now is lr u, and what was probed is eps u
        if not half:
            assert torch.equal(-theta.detach(), probed)
            continue
        # half precision rounds updates at random, to one of the two nearest numbers
        direction = family.at(tensors, seed=4, step=0).tensor(i).double() * lr
        unit = torch.finfo(dtype).eps
        error = (theta.detach().double() + direction).abs()
        assert bool((error <= unit * direction.abs() + 2.0**-24).all())
        assert bool(((-theta.detach() - probed).abs() <= unit * probed.abs() + 2.0**-24).all())


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("P", [1, 2, 4])
def test_an_update_of_signs_is_one_rounding(P: int) -> None:
    # P a power of two: then (lr / P) g_p are exact multiples of what one direction would give
    (theta,) = tensors = [normal(4000).float().requires_grad_()]
    before = theta.detach().clone()
    weights = [-3.7, 0.11, 5.3, -0.9][:P]
    values = iter([s * w for w in weights for s in (0.5, -0.5)])

    def closure() -> Tensor:
        theta.sum()
        return torch.tensor(next(values), dtype=torch.float64)

    lr, eps = 0.03, 0.5
    optimizer = zo.ZOSGD(tensors, lr, eps=eps, P=P, seed=8)
    optimizer.step(closure)
    U = zo.Rademacher().dense(tensors, P=P, seed=8, step=0).double()
    if P == 1:
        shift = torch.tensor(-lr * weights[0]).double()  # rounded once to float32
        want = (before.double() + shift * U[:, 0]).float()  # and their sum once
        assert torch.equal(theta.detach(), want)
    else:
        shift = -lr / P * U @ torch.tensor(weights, dtype=torch.float64)
        torch.testing.assert_close(theta.detach(), (before + shift).float(), rtol=3e-7, atol=3e-7)


@pytest.mark.usefixtures("trusted")
@pytest.mark.statistical
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_small_updates_are_not_lost_in_half_precision(dtype: torch.dtype, momentum: float) -> None:
    # each entry at 1, moved by a 50th of the spacing: lost if rounded to nearest
    n = 1 << 17
    theta = torch.ones(n, dtype=dtype, requires_grad=True)
    shift = torch.finfo(dtype).eps / 50
    eps = 2.0**-5
    closure = Recorder([theta], eps)
    zo.ZOSGD([theta], shift, eps=eps, momentum=momentum, seed=4).step(closure)
    u = zo.Rademacher().at([theta], seed=4, step=0).tensor(0).double()
    moved = -(theta.detach().double() - 1) * u
    error = 5 * float(moved.std()) / math.sqrt(n)
    assert float(moved.mean()) == pytest.approx(shift, abs=error)
    assert error < 0.2 * shift


@pytest.mark.statistical
def test_roundings_at_random_are_independent_of_one_another() -> None:
    n = 1 << 14
    tensors = [torch.full((n,), 1.5, dtype=torch.bfloat16, requires_grad=True) for _ in range(2)]
    optimizer = zo.ZOSGD(tensors, 2.0**-9, seed=4)  # a quarter of the spacing
    moved = []
    for _ in range(2):
        optimizer.replay([1.0])
        moved += [(theta != 1.5).double() for theta in tensors]
        for theta in tensors:
            theta.detach().fill_(1.5)
    u = zo.Rademacher().at(tensors, seed=4, step=0).tensor(0).double()
    rows = torch.stack([*(row - row.mean() for row in moved), u])
    correlation = torch.corrcoef(torch.cat([rows, rows[:4].roll(1, 1)])).fill_diagonal_(0)
    assert [float(row.mean()) for row in moved] == pytest.approx([0.25] * 4, abs=0.02)
    assert correlation.abs().max() < 5 / math.sqrt(n)


# ---- lr = 0 --------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_step_with_lr_0_changes_no_bit(
    dtype: torch.dtype, momentum: float, weight_decay: float
) -> None:
    info = torch.finfo(dtype)
    odd = [0.0, -0.0, 1.0, -1.0, info.tiny, -info.tiny / 4, info.max / 4, 1 / 3, info.eps, -2 / 7]
    tensors = [
        torch.tensor(odd, dtype=dtype).requires_grad_(),
        torch.tensor([odd, odd], dtype=dtype).t().requires_grad_(),
        torch.tensor(-0.0, dtype=dtype).requires_grad_(),
        normal(50, 40).to(dtype).requires_grad_(),
    ]
    before = [bits(theta) for theta in tensors]
    pointers = [theta.data_ptr() for theta in tensors]
    optimizer = zo.ZOSGD(tensors, lr=0.0, P=2, momentum=momentum, weight_decay=weight_decay, seed=0)
    for _ in range(3):
        optimizer.step(lambda: sum((t.double().tanh().sum() for t in tensors), torch.zeros(())))
    assert all(torch.equal(bits(t), b) for t, b in zip(tensors, before, strict=True))
    assert [theta.data_ptr() for theta in tensors] == pointers
    assert optimizer.steps_taken == 3


# ---- groups, frozen and tied parameters ----------------------------------------------------------


def test_groups_have_their_own_options() -> None:
    model, closure = problem()
    first, scale, last = list(model.first.parameters()), [model.scale], [model.last]
    groups = [
        {"params": first, "lr": 0.1, "momentum": 0.9},
        {"params": scale, "lr": 0.0},
        {"params": last, "weight_decay": 0.5},
    ]
    assert [name for name, _ in model.named_parameters()][:2] == ["scale", "last"]  # other order
    before = [p.detach().clone() for p in (*first, *scale, *last)]
    optimizer = zo.ZOSGD(groups, lr=0.02, P=2, model=model, seed=6)
    estimate = zo.estimate_gradient(closure, model, P=2, seed=6)
    g = dict(zip(model.parameters(), estimate, strict=True))
    optimizer.step(closure)
    for theta, old in zip(first, before, strict=False):
        torch.testing.assert_close(theta.detach(), old - 0.1 * g[theta])
    assert torch.equal(model.scale, before[2])
    torch.testing.assert_close(
        model.last.detach(), before[3] - 0.02 * (g[model.last] + 0.5 * before[3])
    )
    assert set(optimizer.state) == set(first)


@pytest.mark.parametrize("order", [1, -1])
def test_groups_and_order_do_not_matter_where_the_model_is_given(order: int) -> None:
    model, closure = problem()
    other, other_closure = problem()
    groups = [{"params": [p]} for p in model.parameters()][::order]
    one = zo.ZOSGD(groups, lr=0.1, P=2, model=model, seed=0)
    two = zo.ZOSGD(other.parameters(), lr=0.1, P=2, seed=0)
    for _ in range(3):
        assert one.step(closure) == two.step(other_closure)
    assert torch.equal(flat(list(model.parameters())), flat(list(other.parameters())))
    kernel = zo.Rademacher().dense(model, P=2, seed=0, step=3)
    drawn = one._drawn(one._resolved())
    assert torch.equal(
        kernel[:, 0],
        torch.cat(
            [
                drawn[0].entries(i, 0, theta.numel(), theta.dtype)
                for i, theta in enumerate(model.parameters())
            ]
        ),
    )


def test_parameters_whose_order_cannot_be_known_are_refused() -> None:
    model, _ = problem()
    groups = [{"params": [p]} for p in model.parameters()]
    with pytest.raises(ValueError, match=r"given 4 groups.*order.*model=model"):
        zo.ZOSGD(groups, lr=0.1, seed=0)
    with pytest.raises(ValueError, match=r"first.weight is in no group, nor are 1 others"):
        zo.ZOSGD(groups[:2], lr=0.1, model=model, seed=0)
    with pytest.raises(ValueError, match=r"4 of the tensors given are not parameters of model"):
        zo.ZOSGD(groups, lr=0.1, model=nn.Linear(2, 2), seed=0)
    with pytest.raises(TypeError, match=r"model: given a list"):
        zo.ZOSGD(groups, lr=0.1, model=groups, seed=0)  # type: ignore[arg-type]


def test_momentum_born_in_inference_mode_goes_on_outside_of_it() -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), lr=0.1, momentum=0.9, seed=0)
    other, other_closure = problem()
    plain = zo.ZOSGD(other.parameters(), lr=0.1, momentum=0.9, seed=0)
    with torch.inference_mode():
        optimizer.step(closure)
    optimizer.step(closure)
    for _ in range(2):
        plain.step(other_closure)
    assert torch.equal(flat(list(model.parameters())), flat(list(other.parameters())))


def test_a_group_may_join_later() -> None:
    model, closure = problem()
    for theta in (model.last, model.scale):
        theta.requires_grad_(False)
    optimizer = zo.ZOSGD(model.first.parameters(), lr=0.1, model=model, seed=0)
    optimizer.step(closure)
    last = model.last.detach().clone()
    model.last.requires_grad_(True)
    optimizer.add_param_group({"params": [model.last], "lr": 0.2})
    optimizer.step(closure)
    assert not torch.equal(model.last, last)
    assert optimizer.steps_taken == 2


def test_a_later_group_is_checked_like_the_first() -> None:
    theta = nn.Parameter(torch.zeros(3))
    model = nn.ParameterList([theta])
    optimizer = zo.ZOSGD([theta], lr=0.1, model=model, seed=0)
    coarse = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    unordered = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    model.append(coarse)
    with pytest.raises(ValueError, match=r"eps: given 0.001, too small for torch.bfloat16"):
        optimizer.add_param_group({"params": [coarse]})
    with pytest.raises(TypeError, match=r"complex64"):
        optimizer.add_param_group({"params": [unordered]})
    with pytest.raises(ValueError, match=r"momentum: given 1.5"):
        optimizer.add_param_group({"params": [coarse], "momentum": 1.5})
    assert len(optimizer.param_groups) == 1
    coarse.requires_grad_(False)
    optimizer.step(lambda: theta.sum())


def test_frozen_parameters_stay_and_take_no_place() -> None:
    model, closure = problem()
    model.scale.requires_grad_(False)
    before = model.scale.clone()
    trained = [p for p in model.parameters() if p.requires_grad]
    other, other_closure = problem()
    other.scale.requires_grad_(False)
    one = zo.ZOSGD(model.parameters(), lr=0.1, momentum=0.9, seed=0)
    two = zo.ZOSGD([p for p in other.parameters() if p.requires_grad], 0.1, momentum=0.9, seed=0)
    for _ in range(3):
        one.step(closure)
        two.step(other_closure)
    assert torch.equal(model.scale, before)
    assert torch.equal(flat(list(model.parameters())), flat(list(other.parameters())))
    assert set(one.state) == set(trained)
    model.scale.requires_grad_(True)  # and may be thawed
    one.step(closure)
    assert not torch.equal(model.scale, before)


@pytest.mark.parametrize("named", [False, True])
def test_names_do_not_matter(named: bool) -> None:
    model, closure = problem()
    params = model.named_parameters() if named else model.parameters()
    zo.ZOSGD(params, lr=0.1, seed=0).step(closure)
    other, other_closure = problem()
    zo.ZOSGD(list(other.parameters()), lr=0.1, seed=0).step(other_closure)
    assert torch.equal(flat(list(model.parameters())), flat(list(other.parameters())))


def test_a_tied_parameter_moves_once() -> None:
    model, closure = problem()
    assert len(list(model.parameters())) == 4
    before = flat(list(model.parameters()))
    (g,) = (flat(zo.estimate_gradient(closure, model, seed=0)),)
    zo.ZOSGD(model.parameters(), lr=0.1, seed=0).step(closure)
    torch.testing.assert_close(flat(list(model.parameters())), before - 0.1 * g)
    assert model.again.weight is model.first.weight


# ---- schedulers ----------------------------------------------------------------------------------


SCHEDULERS: dict[str, Callable[[Any], lr_scheduler.LRScheduler]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_move_the_learning_rate(name: str) -> None:
    rates: dict[str, list[tuple[float, float]]] = {}
    for kind in ("ours", "torch's"):
        model, closure = problem()
        optimizer: torch.optim.Optimizer
        if kind == "ours":
            optimizer = zo.ZOSGD(model.parameters(), lr=0.05, momentum=0.9, seed=0)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter")  # SequentialLR's own
            scheduler = SCHEDULERS[name](optimizer)
            rates[kind] = []
            for _ in range(5):
                optimizer.step(closure)
                group = optimizer.param_groups[0]
                rates[kind].append((group["lr"], group["momentum"]))
                scheduler.step()
    assert rates["ours"] == rates["torch's"]


def test_plateaus_take_the_returned_loss() -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), lr=0.05, seed=0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)
    for _ in range(3):
        scheduler.step(optimizer.step(closure))
    assert optimizer.param_groups[0]["lr"] < 0.05


def test_the_learning_rate_may_be_a_tensor() -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), lr=torch.tensor(0.05), seed=0)  # type: ignore[arg-type]
    optimizer.step(closure)
    other, other_closure = problem()
    zo.ZOSGD(other.parameters(), lr=float(torch.tensor(0.05)), seed=0).step(other_closure)
    assert torch.equal(flat(list(model.parameters())), flat(list(other.parameters())))


# ---- state ---------------------------------------------------------------------------------------


def run(
    dtype: torch.dtype, momentum: float, steps: int
) -> tuple[Small, Callable[[], Tensor], zo.ZOSGD]:
    model, closure = problem(dtype)
    optimizer = zo.ZOSGD(
        model.parameters(),
        lr=0.05,
        eps=2.0**-6,
        P=2,
        directions=zo.Gaussian(),
        momentum=momentum,
        seed=2**63 + 1,
    )
    for _ in range(steps):
        optimizer.step(closure)
    return model, closure, optimizer


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@dtypes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("carry", [through_a_file, copy.deepcopy, lambda state: state])
def test_a_run_resumes_bit_for_bit(
    dtype: torch.dtype, momentum: float, carry: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    whole, _, _ = run(dtype, momentum, 7)
    half, _, saved = run(dtype, momentum, 3)
    model, closure = problem(dtype)
    model.load_state_dict(half.state_dict())
    # eps and P are taken from the state, seed and directions must be the same
    resumed = zo.ZOSGD(
        model.parameters(), lr=9.0, directions=zo.Gaussian(), momentum=0.1, seed=2**63 + 1
    )
    resumed.load_state_dict(carry(saved.state_dict()))
    assert resumed.steps_taken == 3
    assert (resumed.eps, resumed.P) == (2.0**-6, 2)
    for _ in range(4):
        resumed.step(closure)
    for theta, want in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(bits(theta), bits(want))


def test_a_loaded_state_is_independent_of_where_it_came_from() -> None:
    _, closure, optimizer = run(torch.float64, 0.9, 2)
    model, other_closure = problem()
    other = zo.ZOSGD(
        model.parameters(), 0.05, directions=zo.Gaussian(), momentum=0.9, seed=2**63 + 1
    )
    state = optimizer.state_dict()
    other.load_state_dict(state)
    before = [s["momentum_buffer"].clone() for s in other.state.values()]
    optimizer.step(closure)
    after = [s["momentum_buffer"] for s in other.state.values()]
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
    assert state["zo"]["steps_taken"] == 2  # a snapshot
    other.step(other_closure)


@pytest.mark.parametrize(
    ("given", "here", "expected"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
    ],
)
def test_a_loaded_momentum_has_the_dtype_in_which_it_is_updated(
    given: torch.dtype, here: torch.dtype, expected: torch.dtype
) -> None:
    state = copy.deepcopy(run(torch.float32, 0.9, 2)[2].state_dict())
    for saved in state["state"].values():  # as after a checkpoint in another precision
        saved["momentum_buffer"] = saved["momentum_buffer"].to(given)
    model, closure = problem(here)
    other = zo.ZOSGD(
        model.parameters(), 0.05, directions=zo.Gaussian(), momentum=0.9, seed=2**63 + 1
    )
    other.load_state_dict(state)
    for number, theta in enumerate(model.parameters()):
        buffer = other.state[theta]["momentum_buffer"]
        assert buffer.dtype == expected
        # no bit of what was saved is lost on the way, though the parameter may be coarser
        assert torch.equal(buffer, state["state"][number]["momentum_buffer"].to(expected))
    other.step(closure)


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_and_pickles_go_on_the_same(carry: Callable[[Any], Any]) -> None:
    model, closure, optimizer = run(torch.float64, 0.9, 3)
    again_model, again = carry((model, optimizer))
    x, y = normal(6, 3, seed=20), torch.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(2):
        optimizer.step(closure)
        again.step(lambda: F.cross_entropy(again_model(x), y))
    assert again.steps_taken == 5
    assert torch.equal(flat(list(model.parameters())), flat(list(again_model.parameters())))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: zo.ZOSGD(p, 0.1, directions=zo.Gaussian(), seed=0), ["seed", str(2**63 + 1)]),
        (lambda p: zo.ZOSGD(p, 0.1, seed=2**63 + 1), ["directions", "Gaussian()", "Rademacher()"]),
        (
            lambda p: zo.ZOSGD([*p][:2], 0.1, directions=zo.Gaussian(), seed=2**63 + 1),
            ["parameter group"],
        ),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    make: Callable[[Any], zo.ZOSGD], words: list[str]
) -> None:
    _, _, optimizer = run(torch.float32, 0.9, 3)
    model, _ = problem(torch.float32)
    other = make(model.parameters())
    with pytest.raises(ValueError, match=r".") as caught:
        other.load_state_dict(optimizer.state_dict())
    for word in words:
        assert word in str(caught.value)
    assert other.steps_taken == 0
    assert not other.state


def test_states_of_other_optimizers_and_dtypes_are_refused() -> None:
    model, _ = problem(torch.float32)
    ours = zo.ZOSGD(model.parameters(), 0.1, seed=0)
    with pytest.raises(ValueError, match=r"state_dict: given one without 'zo'.*ZOSGD"):
        ours.load_state_dict(torch.optim.SGD(model.parameters(), 0.1).state_dict())
    coarse, _ = problem(torch.bfloat16)
    other = zo.ZOSGD(coarse.parameters(), 0.1, seed=0)
    with pytest.raises(ValueError, match=r"eps: given 0.001, too small for torch.bfloat16"):
        other.load_state_dict(ours.state_dict())
    assert other.eps == 1e-2


def test_the_state_holds_no_direction() -> None:
    _, _, optimizer = run(torch.float32, 0.0, 3)
    state = optimizer.state_dict()
    assert state["state"] == {}
    assert state["zo"] == {
        "steps_taken": 3,
        "eps": 2.0**-6,
        "P": 2,
        "seed": 2**63 + 1,
        "directions": "Gaussian()",
    }


# ---- replay --------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_replayed_from_its_scalars(dtype: torch.dtype, momentum: float) -> None:
    model, closure = problem(dtype)
    options: dict[str, Any] = {"P": 2, "momentum": momentum, "weight_decay": 0.1, "seed": 5}
    optimizer = zo.ZOSGD(model.parameters(), 0.05, **options)
    other, _ = problem(dtype)
    replayed = zo.ZOSGD(other.parameters(), 0.05, **options)
    for step in range(3):
        found = projected_gradients(closure, model, P=2, seed=5, step=step)
        loss = optimizer.step(closure)
        assert float(loss) == found.loss
        replayed.replay(found.coefficients)
    assert replayed.steps_taken == 3
    for theta, want in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(bits(theta), bits(want))


@pytest.mark.parametrize(
    "coefficients", [[], [1.0], [1.0, 2.0, 3.0], [1.0, math.nan], [math.inf, 0.0]]
)
def test_scalars_that_make_no_step_are_refused(coefficients: list[float]) -> None:
    model, _ = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.05, P=2, seed=5)
    before = flat(list(model.parameters()))
    with pytest.raises(ValueError, match=r"coefficients: given .*, expected 2 finite numbers"):
        optimizer.replay(coefficients)
    assert torch.equal(flat(list(model.parameters())), before)
    assert optimizer.steps_taken == 0


# ---- one batched forward -------------------------------------------------------------------------


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.hidden = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.output = nn.Linear(6, 11)
        with torch.no_grad():
            for i, theta in enumerate(self.parameters()):
                theta.copy_(normal(*theta.shape, seed=i) / 2)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.output(self.norm(torch.tanh(self.hidden(self.embedding(tokens)))))
        return y


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_batched_step_equals_the_sequential_one(momentum: float) -> None:
    tokens = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(1, 1)
    models = [Stack(), Stack()]
    options: dict[str, Any] = {"P": 3, "directions": zo.LowRank(2), "seed": 1, "lr": 0.02}
    one, two = (zo.ZOSGD(m.parameters(), momentum=momentum, **options) for m in models)

    def batched(copies: int) -> Tensor:
        logits = models[1](tokens.repeat(copies, 1))
        losses = F.cross_entropy(logits.mT, targets.repeat(copies, 1), reduction="none")
        return losses.view(copies, -1).mean(1)

    for _ in range(3):
        first = one.step(lambda: F.cross_entropy(models[0](tokens).mT, targets))
        second = two.step_batched(batched)
        assert float(first) == pytest.approx(float(second), rel=1e-9)
    for theta, want in zip(models[1].parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(theta, want, rtol=1e-6, atol=1e-9)
    assert two.steps_taken == 3


def test_a_batched_step_needs_directions_of_low_rank() -> None:
    model = Stack()
    before = flat(list(model.parameters()))
    optimizer = zo.ZOSGD(model.parameters(), 0.1, seed=0)
    with pytest.raises(ValueError, match=r"directions: given Rademacher\(\), expected LowRank"):
        optimizer.step_batched(lambda copies: torch.zeros(copies))
    with pytest.raises(TypeError, match=r"closure: given None"):
        optimizer.step_batched(None)  # type: ignore[arg-type]
    assert torch.equal(flat(list(model.parameters())), before)
    assert optimizer.steps_taken == 0


# ---- a step in two halves ------------------------------------------------------------------------


@families
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_measured_and_replayed_is_stepped(family: Directions, momentum: float) -> None:
    (one, closure), (two, other) = problem(), problem()
    options: dict[str, Any] = {"P": 3, "directions": family, "seed": 1, "momentum": momentum}
    stepped = zo.ZOSGD(one.parameters(), 0.05, **options)
    halved = zo.ZOSGD(two.parameters(), 0.05, **options)
    for _ in range(3):
        loss = stepped.step(closure)
        before = flat(list(two.parameters()))
        found = halved.measure(other)
        assert torch.equal(flat(list(two.parameters())), before), "theta stays"
        assert halved.measure(other) == found, "so does the step counter"
        assert float(loss) == found.loss
        halved.replay(found.coefficients)
        assert torch.equal(flat(list(one.parameters())), flat(list(two.parameters())))
    assert halved.steps_taken == stepped.steps_taken == 3


@families
def test_parts_of_the_perturbations_together_are_all(family: Directions) -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.05, P=5, directions=family, seed=1)
    whole = optimizer.measure(closure)
    parts = [optimizer.measure(closure, only=range(p, p + 1)) for p in range(5)]
    assert tuple(g for part in parts for g in part.coefficients) == whole.coefficients
    assert sum(part.loss for part in parts) / 5 == whole.loss
    every_other = optimizer.measure(closure, only=range(1, 5, 2))
    assert every_other.coefficients == whole.coefficients[1::2]


@pytest.mark.usefixtures("trusted")
def test_a_part_calls_the_closure_for_that_part_only() -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.05, P=4, seed=0)
    calls = itertools.count()

    def counted() -> Tensor:
        next(calls)
        return closure()

    optimizer.measure(counted, only=range(2, 4))
    assert next(calls) == 4


@pytest.mark.usefixtures("trusted")
def test_a_batched_measurement_in_parts() -> None:
    tokens = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))
    model = Stack()
    optimizer = zo.ZOSGD(model.parameters(), 0.02, P=3, directions=zo.LowRank(2), seed=1)
    copies_seen = []

    def losses(copies: int) -> Tensor:
        copies_seen.append(copies)
        logits = model(tokens.repeat(copies, 1))
        each = F.cross_entropy(logits.mT, tokens.repeat(copies, 1), reduction="none")
        return each.view(copies, -1).mean(1)

    whole = optimizer.measure_batched(losses)
    parts = [optimizer.measure_batched(losses, only=part) for part in (range(2), range(2, 3))]
    assert copies_seen == [6, 4, 2]
    together = [g for part in parts for g in part.coefficients]
    assert together == pytest.approx(list(whole.coefficients), rel=1e-6)
    assert optimizer.steps_taken == 0


@pytest.mark.parametrize("only", [range(0), range(3), range(-1, 1), [0], 1])
def test_a_part_that_is_none_is_refused(only: Any) -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.05, P=2, seed=0)
    with pytest.raises(ValueError, match=r"only: given .*, expected a range within the 2 pert"):
        optimizer.measure(closure, only=only)


def test_what_is_measured_is_replayed_along_the_directions_there_are_now() -> None:
    """Directions kept from a measurement are not those of another seed, family or model."""
    for change in ({"seed": 5}, {"directions": zo.Gaussian()}, {"steps_taken": 4}):
        (one, closure), (two, _) = problem(), problem()
        kept = zo.ZOSGD(one.parameters(), 0.05, P=2, seed=0)
        new = zo.ZOSGD(two.parameters(), 0.05, P=2, seed=0)
        coefficients = kept.measure(closure).coefficients
        for optimizer in (kept, new):
            for name, value in change.items():
                setattr(optimizer, name, value)
            optimizer.replay(coefficients)
        assert torch.equal(flat(list(one.parameters())), flat(list(two.parameters())))


# ---- failures leave everything as it was ---------------------------------------------------------


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", [0, 1, 4, 5])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_loss_that_is_not_finite_changes_nothing(
    value: float, call: int, momentum: float
) -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.05, P=3, momentum=momentum, seed=0)
    optimizer.step(closure)
    before = [bits(theta) for theta in model.parameters()]
    buffers = [copy.deepcopy(s) for s in optimizer.state.values()]
    calls = itertools.count()

    def failing() -> Tensor:
        return closure() + (value if next(calls) == call else 0.0)

    with pytest.raises(zo.NonFiniteLossError, match=r"the loss is .*as they were.*lr or eps"):
        optimizer.step(failing)
    assert all(torch.equal(bits(t), b) for t, b in zip(model.parameters(), before, strict=True))
    for state, old in zip(optimizer.state.values(), buffers, strict=True):
        assert torch.equal(state["momentum_buffer"], old["momentum_buffer"])
    assert optimizer.steps_taken == 1
    optimizer.step(closure)  # and the run can continue


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_in_the_closure_changes_nothing(error: type[BaseException]) -> None:
    model, closure = problem(torch.bfloat16)
    optimizer = zo.ZOSGD(model.parameters(), 0.05, P=2, seed=0)
    before = [bits(theta) for theta in model.parameters()]
    calls = itertools.count()

    def failing() -> Tensor:
        if next(calls) == 2:
            raise error
        return closure()

    with pytest.raises(error):
        optimizer.step(failing)
    assert all(torch.equal(bits(t), b) for t, b in zip(model.parameters(), before, strict=True))
    assert optimizer.steps_taken == 0
    assert torch.is_grad_enabled()


def test_a_closure_is_watched_anew_when_it_is_another() -> None:
    w, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = zo.ZOSGD([w, b], 0.1, seed=0)
    for _ in range(3):
        optimizer.step(lambda: w.square().sum() + b.sum())
    alias = w.detach()
    before = w.detach().clone()
    with pytest.raises(RuntimeError, match=r"reads the memory of a parameter"):
        optimizer.step(lambda: alias.square().sum() + b.sum())
    assert torch.equal(w, before)


def test_a_trusted_closure_is_looked_at_again_now_and_then() -> None:
    w, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    alias = w.detach()
    changed = False

    def closure() -> Tensor:
        return (alias if changed else w).square().sum() + b.sum()

    optimizer = zo.ZOSGD([w, b], 1e-3, seed=0)
    optimizer.step(closure)
    changed = True
    with pytest.raises(RuntimeError, match=r"reads the memory of a parameter"):
        deque((optimizer.step(closure) for _ in range(101)), maxlen=0)
    assert optimizer.steps_taken <= 100


# ---- memory --------------------------------------------------------------------------------------


class PeakMemory(TorchDispatchMode):
    """Bytes of storages made by operations and alive at the same time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                reference = torch.multiprocessing.reductions.StorageWeakRef(storage)
                self._alive[storage._cdata] = (reference, storage.nbytes())
        self._alive = {key: x for key, x in self._alive.items() if not x[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


MB = 2**20


def test_memory_does_not_grow_with_the_number_of_directions() -> None:
    peaks = {}
    for P in (1, 6):
        weights = [torch.ones(1024, 2048).requires_grad_() for _ in range(2)]  # 8 MB each
        optimizer = zo.ZOSGD(weights, 1e-3, P=P, seed=0)
        with PeakMemory() as memory:
            for _ in range(2):
                optimizer.step(lambda: weights[0].sum() + weights[1].sum())  # noqa: B023
        peaks[P] = memory.peak
    assert peaks[6] <= peaks[1] + MB / 4
    assert peaks[1] < (8 + 6) * MB  # one parameter, and chunks


def test_momentum_takes_one_buffer_of_the_size_of_the_model() -> None:
    model, closure = problem(torch.bfloat16)
    optimizer = zo.ZOSGD(model.parameters(), 1e-3, momentum=0.9, P=3, seed=0)
    optimizer.step(closure)
    optimizer.step(closure)
    held = [t for state in optimizer.state.values() for t in state.values()]
    assert [t.numel() for t in held] == [theta.numel() for theta in model.parameters()]
    assert {t.dtype for t in held} == {torch.float32}


# ---- an optimizer like any other -----------------------------------------------------------------


def test_hooks_and_zero_grad_and_repr_work() -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.1, seed=0)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.zero_grad()
    optimizer.step(closure)
    assert seen == ["before", "after"]
    assert "ZOSGD" in repr(optimizer)
    assert "lr: 0.1" in repr(optimizer)


def test_a_step_draws_nothing_from_the_global_generator_and_leaves_gradients_alone() -> None:
    model, closure = problem()
    model.scale.grad = torch.ones_like(model.scale)
    before = torch.get_rng_state()
    zo.ZOSGD(model.parameters(), 0.1, directions=zo.Sparse(0.5), seed=0).step(closure)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.scale.grad, torch.ones_like(model.scale))
    assert model.last.grad is None


def test_runs_with_another_seed_go_elsewhere() -> None:
    ends = set()
    for seed in range(4):
        model, closure = problem()
        zo.ZOSGD(model.parameters(), 0.1, seed=seed).step(closure)
        ends.add(float(model.scale.detach()))
    steps = set()
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), 0.0, directions=zo.Gaussian(), seed=0)
    for _ in range(4):
        steps.add(float(optimizer.step(closure)))
    assert len(ends) >= 2
    assert len(steps) == 4


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lr": -0.1}, ValueError, ["lr", "-0.1", "at least 0"]),
        ({"lr": math.nan}, ValueError, ["lr", "nan", "finite"]),
        ({"lr": math.inf}, ValueError, ["lr", "inf", "finite"]),
        ({"lr": "0.1"}, TypeError, ["lr", "'0.1'", "number"]),
        ({"lr": None}, TypeError, ["lr", "None", "number"]),
        ({"lr": torch.ones(2)}, TypeError, ["lr", "number"]),
        ({"P": 0}, ValueError, ["P", "0", "at least 1"]),
        ({"P": 1.0}, TypeError, ["P", "1.0", "int"]),
        ({"eps": 0.0}, ValueError, ["eps", "0.0", "above 0"]),
        ({"eps": -1.0}, ValueError, ["eps", "-1.0"]),
        ({"eps": 1e-9}, ValueError, ["eps", "1e-09", "float32", "1.19e-07", "leave it out"]),
        ({"momentum": 1.0}, ValueError, ["momentum", "1.0", "[0, 1)"]),
        ({"momentum": -0.1}, ValueError, ["momentum", "-0.1"]),
        ({"momentum": "0.9"}, TypeError, ["momentum", "'0.9'"]),
        ({"weight_decay": -1e-4}, ValueError, ["weight_decay", "-0.0001"]),
        ({"lr": 1e20, "weight_decay": 1e20}, ValueError, ["weight_decay", "float32"]),
        ({"weight_decay": math.nan}, ValueError, ["weight_decay", "nan"]),
        ({"seed": -1}, ValueError, ["seed", "-1"]),
        ({"seed": 1 << 64}, ValueError, ["seed", "below"]),
        ({"seed": 0.5}, TypeError, ["seed", "0.5", "int"]),
        ({"directions": "gaussian"}, TypeError, ["directions", "'gaussian'", "Gaussian()"]),
        ({"directions": zo.Gaussian}, TypeError, ["directions", "class Gaussian", "construct"]),
        ({"params": nn.Linear(2, 2)}, TypeError, ["params", "Linear", "model.parameters()"]),
        ({"params": []}, ValueError, ["params", "no trainable parameter"]),
        ({"params": [torch.zeros(2)]}, ValueError, ["params", "no trainable", "requires_grad"]),
        ({"params": [torch.zeros(2, dtype=torch.int64)]}, ValueError, ["no trainable"]),
        (
            {"params": [torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)], "eps": 1e-3},
            ValueError,
            ["eps", "bfloat16", "0.00781"],
        ),
    ],
)
def test_bad_arguments_are_named_at_construction(
    options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    arguments: dict[str, Any] = {"params": [torch.zeros(2, requires_grad=True)], "lr": 0.1}
    arguments |= {"seed": 0} | options
    with pytest.raises(error) as caught:
        zo.ZOSGD(arguments.pop("params"), arguments.pop("lr"), **arguments)
    for word in words:
        assert word in str(caught.value)


def test_seeds_must_be_given() -> None:
    with pytest.raises(TypeError, match=r"seed"):
        zo.ZOSGD([torch.zeros(2, requires_grad=True)], 0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("closure", "error", "words"),
    [
        (None, TypeError, ["closure", "None", "function"]),
        (3.0, TypeError, ["closure", "3.0", "function"]),
        (lambda w: None, TypeError, ["closure", "NoneType", "0-d tensor", "return loss"]),
        (lambda w: w * 2, TypeError, ["closure", "(3,)", ".mean()"]),
        (lambda w: (w > 0).sum(), TypeError, ["closure", "int64"]),
        (lambda w: torch.zeros(()), ValueError, ["closure", "read none"]),
        (lambda w: F.dropout(w).sum(), ValueError, ["closure", "random numbers", "eval()"]),
        (lambda w: w.sum() / 0, zo.NonFiniteLossError, ["closure", "inf", "as they were"]),
    ],
)
def test_bad_closures_are_named_and_change_nothing(
    closure: Any, error: type[Exception], words: list[str]
) -> None:
    w = torch.ones(3, requires_grad=True)
    optimizer = zo.ZOSGD([w], 0.1, momentum=0.9, seed=0)
    with pytest.raises(error) as caught:
        optimizer.step((lambda: closure(w)) if callable(closure) else closure)
    for word in words:
        assert word in str(caught.value)
    assert torch.equal(w, torch.ones(3))
    assert optimizer.steps_taken == 0
    assert not optimizer.state


def test_a_closure_that_calls_backward_is_told_so_by_torch() -> None:
    w = torch.ones(3, requires_grad=True)

    def closure() -> Tensor:
        loss = w.sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match=r"does not require grad"):
        zo.ZOSGD([w], 0.1, seed=0).step(closure)
    assert torch.equal(w, torch.ones(3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.clear(), "without 'zo'"),
        (lambda s: s["zo"].pop("eps"), "has no eps"),
        (lambda s: s["zo"].update(P=-1), "P: given -1"),
        (lambda s: s["zo"].update(P=0), "P: given 0"),
        (lambda s: s["zo"].update(steps_taken=-1), "steps_taken: given -1"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "lr: given -1.0"),
        (lambda s: s["state"][0]["momentum_buffer"].fill_(math.nan), "holds NaN"),
        (lambda s: s["state"][0].clear(), "no momentum_buffer"),
        (lambda s: s["state"][0].update(momentum_buffer=torch.zeros(99)), "99 numbers"),
    ],
)
def test_a_state_that_no_optimizer_can_be_in_is_refused(
    change: Callable[[Any], Any], words: str
) -> None:
    model, closure = problem()
    optimizer = zo.ZOSGD(model.parameters(), lr=0.1, momentum=0.9, seed=0)
    optimizer.step(closure)
    state = copy.deepcopy(optimizer.state_dict())
    change(state)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises((TypeError, ValueError), match=words):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["zo"] == before["zo"]
    assert after["param_groups"] == before["param_groups"]
    for key, saved in before["state"].items():
        assert torch.equal(after["state"][key]["momentum_buffer"], saved["momentum_buffer"])

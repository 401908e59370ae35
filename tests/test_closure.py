"""What a loss may be: each closure is probed rightly, or refused; nothing in between."""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zotutor as zo
from zotutor import closure, directions
from zotutor.closure import identity, scalar
from zotutor.estimators import Method, projected_gradients

Case = tuple[list[Tensor], Callable[[], Tensor | float]]
"""Parameters, and a closure that computes a loss from them."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameter(*shape: int, seed: int = 1) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


X = normal(5, 4, seed=7)
SEQUENCE = normal(2, 7, 4, seed=9)


def filled(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for i, theta in enumerate(model.parameters()):
            theta.copy_(normal(*theta.shape, seed=i) / 2)
    return model.eval()


def of(model: nn.Module, *inputs: Tensor) -> Case:
    """The mean square of a model's first output."""
    model = filled(model)

    def closure() -> Tensor:
        output = model(*inputs)
        return (output[0] if isinstance(output, tuple) else output).square().mean()

    return list(model.parameters()), closure


def tied() -> Case:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return of(nn.Sequential(first, nn.Tanh(), second), X)


class Raw(nn.Module):
    """A module with parameters of its own, in a list and alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.ParameterList([nn.Parameter(torch.zeros(4)) for _ in range(3)])
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.stack(list(self.rows)).t() * self.scale


class Parent(nn.Module):
    """Computes with the parameter of a child, and never calls the child."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.child.weight.t()) + self.child.bias


def raw_tensors() -> Case:
    w, s = parameter(3, 4), parameter(seed=2)
    return [w, s], lambda: (F.linear(X, w) * s).square().mean()


def alias_taken_before() -> Case:
    w, b = parameter(3, 4), parameter(3, seed=2)
    alias = w.detach()
    return [w, b], lambda: (X @ alias.t() + b).square().mean()


def scripted() -> Case:
    w, b = parameter(3, 4), parameter(3, seed=2)
    product: Any = torch.jit.trace(lambda x, w: torch.tanh(x @ w.t()), (X, w))
    return [w, b], lambda: (product(X, w) + b).square().mean()


def vmap_over_a_parameter() -> Case:
    w = parameter(6, 4)
    return [w], lambda: torch.vmap(lambda row: torch.tanh(X @ row))(w).square().mean()


def vmap_over_an_alias() -> Case:
    w = parameter(6, 4)
    alias = w.detach()
    return [w], lambda: torch.vmap(lambda row: torch.tanh(X @ row))(alias).square().mean()


class MultiplyBackward(torch.autograd.Function):
    """x w^T as a custom function, whose backward pass reads w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grads[0] @ w, grads[0].t() @ x


def custom_backward() -> Case:
    w = parameter(3, 4)

    def closure() -> Tensor:
        with torch.enable_grad():
            x = X.clone().requires_grad_()
            y = MultiplyBackward.apply(x, w)
            (slope,) = torch.autograd.grad(y.square().sum(), x)
        return slope.square().mean() + y.detach().square().mean()

    return [w], closure


def torch_functions_off() -> Case:
    w, b = parameter(3, 4), parameter(3, seed=2)

    def closure() -> Tensor:
        with torch._C.DisableTorchFunction():
            y = X @ w.t()
        return (y + b).square().mean()

    return [w, b], closure


def numpy_memory() -> Case:
    w, b = parameter(3, 4), parameter(3, seed=2)
    memory = w.detach().numpy()
    return [w, b], lambda: b.square().sum() + float((memory**2).sum())


def torch_func_over_a_parameter() -> Case:
    w = parameter(4)
    return [w], lambda: torch.func.grad(lambda t: (t**3).sum())(w).sum() + w.sum()


FOLLOWED: dict[str, Callable[[], Case]] = {
    "mlp": lambda: of(zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0), X),
    "tied": tied,
    "raw module": lambda: of(Raw(), X),
    "LSTM": lambda: of(nn.LSTM(4, 5, batch_first=True), SEQUENCE),
    "attention": lambda: of(nn.MultiheadAttention(4, 2, batch_first=True), *[SEQUENCE] * 3),
    "a parent reads a child's parameter": lambda: of(Parent(), X),
    "raw tensors": raw_tensors,
}
HIDDEN: dict[str, Callable[[], Case]] = {
    "an alias taken before": alias_taken_before,
    "a scripted function": scripted,
    "vmap over a parameter": vmap_over_a_parameter,
    "vmap over an alias": vmap_over_an_alias,
    "a custom backward pass": custom_backward,
    "torch functions off": torch_functions_off,
    "the memory in NumPy": numpy_memory,
    "torch.func over a parameter": torch_func_over_a_parameter,
}
"""Closures that read a parameter where a probe cannot perturb it."""

hidden = pytest.mark.parametrize("build", HIDDEN.values(), ids=HIDDEN.keys())
scripting = pytest.mark.filterwarnings("ignore:`torch.jit")


def bits(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().contiguous().view(torch.int32).clone() for t in tensors]


def moved_coefficient(case: Case, *, eps: float, seed: int) -> float:
    """The two-point coefficient with the parameters really moved, in float64 differences."""
    tensors, closure = case
    saved = [t.detach().clone() for t in tensors]
    u = zo.Rademacher().at(tensors, seed=seed, step=0)
    losses = []
    with torch.no_grad():
        for c in (eps, -eps):
            for i, (theta, old) in enumerate(zip(tensors, saved, strict=True)):
                theta.copy_(old + c * u.tensor(i))
            losses.append(float(closure()))
        for theta, old in zip(tensors, saved, strict=True):
            theta.copy_(old)
    return (losses[0] - losses[1]) / (2 * eps)


@pytest.mark.parametrize("build", FOLLOWED.values(), ids=FOLLOWED.keys())
@pytest.mark.parametrize("seed", range(3))
def test_closures_that_read_by_torch_functions_are_probed(
    build: Callable[[], Case], seed: int
) -> None:
    tensors, closure = build()
    before = bits(tensors)
    found = projected_gradients(closure, tensors, eps=0.01, seed=seed).coefficients[0]
    assert all(map(torch.equal, bits(tensors), before))
    # losses of order 1 have rounding errors of 1e-7 each: 1e-5 after division by 2 eps
    assert found == pytest.approx(moved_coefficient(build(), eps=0.01, seed=seed), abs=1e-4)
    assert abs(found) > 1e-3


@scripting
@hidden
@pytest.mark.parametrize("method", ["two-point", "forward", "one-point", "jvp"])
def test_closures_that_read_past_the_probe_are_refused(
    build: Callable[[], Case], method: Method
) -> None:
    tensors, closure = build()
    before = bits(tensors)
    with pytest.raises(RuntimeError, match=r"closure: .*"):
        zo.estimate_gradient(closure, tensors, seed=0, method=method)
    with pytest.raises(RuntimeError, match=r"closure: .* reads the memory of a parameter"):
        zo.ZOSGD(tensors, lr=0.1, seed=0).step(closure)
    assert all(map(torch.equal, bits(tensors), before))


@pytest.mark.parametrize(
    "take", [Tensor.detach, lambda w: w.data, lambda w: w.view(-1), nn.Parameter]
)
def test_an_alias_that_is_read_later_is_refused(take: Callable[[Tensor], Tensor]) -> None:
    """At each read, also of closures that were checked: it reads from the fourth step on."""
    w, b = parameter(3, 4), parameter(3, seed=2)
    alias, calls = take(w), 0
    optimizer = zo.ZOSGD([w, b], lr=0.01, seed=0)

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        read = w if optimizer.steps_taken < 3 else alias
        return (X @ read.view(3, 4).t() + b).square().mean()

    for _ in range(3):
        optimizer.step(closure)
    before = bits([w, b])
    with pytest.raises(RuntimeError, match=r"reads the memory of a parameter.*alias"):
        optimizer.step(closure)
    assert all(map(torch.equal, bits([w, b]), before))
    assert optimizer.steps_taken == 3


# ---- noise ---------------------------------------------------------------------------------------


def own_generator() -> Callable[[], float]:
    generator = torch.Generator().manual_seed(0)
    return lambda: float(torch.rand((), generator=generator))


def of_numpy() -> Callable[[], float]:
    source = np.random.default_rng(0)
    return lambda: float(source.normal())


def batches() -> Callable[[], float]:
    losses: Iterator[float] = iter(np.linspace(0.0, 1.0, 100).tolist())
    return lambda: next(losses)


def small_noise() -> Callable[[], float]:
    source = np.random.default_rng(0)
    return lambda: 1e-4 * float(source.normal())


NOISE: dict[str, Callable[[], Callable[[], float]]] = {
    "a generator of its own": own_generator,
    "NumPy": of_numpy,
    "random": lambda: random.Random(0).random,
    "next(iterator)": batches,
    "small noise": small_noise,
}


@pytest.mark.parametrize("build", NOISE.values(), ids=NOISE.keys())
@pytest.mark.parametrize("method", ["two-point", "forward", "one-point", "jvp"])
def test_noise_is_refused(build: Callable[[], Callable[[], float]], method: Method) -> None:
    w, noise = parameter(3), build()
    before = bits([w])
    with pytest.raises(ValueError, match=r"closure: it returned .* and then .* same parameters"):
        zo.estimate_gradient(lambda: w.square().sum() + noise(), [w], seed=0, method=method)
    with pytest.raises(ValueError, match=r"closure: it returned"):
        zo.ZOSGD([w], lr=0.1, seed=0).step(lambda: w.square().sum() + noise())
    assert all(map(torch.equal, bits([w]), before))


@pytest.mark.parametrize(
    "closure",
    [
        lambda w: F.dropout(w, 0.5).sum(),
        lambda w: (w + torch.randn(3)).sum(),
        lambda w: (w * torch.rand(3)).sum(),
        lambda w: w[torch.randperm(3)[0]],
    ],
)
def test_global_random_numbers_are_refused(closure: Callable[[Tensor], Tensor]) -> None:
    w = parameter(3)
    with pytest.raises(ValueError, match=r"closure: it drew random numbers.*eval"):
        zo.estimate_gradient(lambda: closure(w), [w], seed=0)


def test_global_random_numbers_drawn_later_are_refused() -> None:
    w, calls = parameter(3), []
    optimizer = zo.ZOSGD([w], lr=0.1, seed=0)

    def closure() -> Tensor:
        calls.append(1)
        return F.dropout(w, 0.5, training=len(calls) > 3).sum()

    optimizer.step(closure)
    before = bits([w])
    with pytest.raises(ValueError, match=r"drew random numbers"):
        optimizer.step(closure)
    assert all(map(torch.equal, bits([w]), before))


def test_random_numbers_of_a_gpu_are_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, w = torch.zeros(1), parameter(3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", drawn.clone)
    zo.estimate_gradient(lambda: w.sum(), [w], seed=0)

    def closure() -> Tensor:
        drawn.add_(1)
        return w.sum()

    with pytest.raises(ValueError, match=r"drew random numbers"):
        zo.estimate_gradient(closure, [w], seed=0)


def test_random_numbers_put_back_are_accepted() -> None:
    w = parameter(3)

    def closure() -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return F.dropout(w, 0.5).square().sum()

    zo.estimate_gradient(closure, [w], seed=0)


# ---- the parameters are as they were -------------------------------------------------------------


class Odd(nn.Module):
    """Parameters of all dtypes and strides; one empty, one 0-d; a NaN, zeros of both signs."""

    def __init__(self) -> None:
        super().__init__()
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            name = str(dtype).rpartition(".")[2]
            self.register_parameter(f"of_{name}", nn.Parameter(normal(3, 4).to(dtype)))
        self.strided = nn.Parameter(normal(6, 5).t()[1:4])
        self.scalar = nn.Parameter(torch.tensor(-0.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.special = nn.Parameter(torch.tensor([0.0, -0.0, torch.nan, torch.inf, 1e-45]))

    def loss(self) -> Tensor:
        return torch.stack([p.float().nan_to_num(0.0, 0.0).sum() for p in self.parameters()]).sum()


def raw(model: nn.Module) -> list[tuple[bytes, int, int]]:
    return [
        (
            p.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes(),
            p.data_ptr(),
            p._version,
        )
        if p.numel()
        else (b"", 0, p._version)
        for p in model.parameters()
    ]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("chunk", [2, directions.CHUNK], ids=["large", "small"])
def test_the_check_leaves_every_bit(
    error: type[BaseException] | None, call: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the closure fails at one of its calls; the second is the one on flipped bits.

    A model larger than a chunk is perturbed where its parameters are used, into other memory.
    """
    monkeypatch.setattr(directions, "CHUNK", chunk)
    model = Odd()
    before, calls = raw(model), []

    def closure() -> Tensor:
        calls.append(1)
        if error is not None and len(calls) == call:
            raise error
        return model.loss()

    if error is None:
        zo.estimate_gradient(closure, model, eps=0.01, seed=0)
    else:
        # an error of one call alone is noise
        with pytest.raises((error, ValueError, RuntimeError)):
            zo.estimate_gradient(closure, model, eps=0.01, seed=0)
    assert raw(model) == before


@pytest.mark.parametrize("number", range(1, 9))
def test_an_interrupt_while_bits_are_flipped_leaves_every_bit(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after each of the flips of four parameters, there and back."""
    model = zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0)
    before, flips = raw(model), []
    flip = Tensor.bitwise_not_

    def interrupted(tensor: Tensor) -> Tensor:
        result = flip(tensor)
        flips.append(1)
        if len(flips) == number:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Tensor, "bitwise_not_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zo.estimate_gradient(lambda: model(X).square().sum(), model, seed=0)
    assert raw(model) == before


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "mul_": lambda w: w.mul_(0.9),
    ".data": lambda w: w.data.mul_(0.9),
    "a view": lambda w: w.view(-1).mul_(0.9),
    "renormalized": lambda w: nn.utils.vector_to_parameters(w.flatten() / w.norm(), [w]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_model_that_writes_its_own_weights_is_refused(write: Callable[[Tensor], Any]) -> None:
    w = parameter(3, 4)
    before = bits([w])

    def closure() -> Tensor:
        write(w)
        return w.square().sum()

    with pytest.raises(RuntimeError, match=r"closure: .* writes to a parameter"):
        zo.ZOSGD([w], lr=0.1, seed=0).step(closure)
    assert all(map(torch.equal, bits([w]), before))


def test_a_write_past_the_probe_is_found_by_the_bits() -> None:
    w = parameter(3, 4)

    def closure() -> Tensor:
        with torch._C.DisableTorchFunction():
            w.mul_(0.9)
        return w.square().sum()

    with pytest.raises(RuntimeError, match=r"closure: it writes to parameter 0"):
        zo.ZOSGD([w], lr=0.1, seed=0).step(closure)


# ---- once ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_checking_a_large_parameter_leaves_no_memory_behind(dtype: torch.dtype) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    large = torch.zeros(1 << 25, dtype=dtype)
    closure._fingerprint([large])  # what the allocator keeps anyway
    before = resident()
    found = closure._fingerprint([large] * 4)
    # 1 GB in all was summed in 64 bits, in pieces that can each be reused
    assert resident() - before < 64e6
    assert [int(total) for total in found] == [0] * 4


def test_a_closure_made_for_each_batch_is_checked_once() -> None:
    model, calls = filled(nn.Linear(4, 3)), []
    optimizer = zo.ZOSGD(model.parameters(), lr=0.1, seed=0)

    def loss(x: Tensor) -> Tensor:
        calls.append(1)
        return model(x).square().mean()

    counts = []
    for k in range(4):
        batch = normal(5, 4, seed=k)
        optimizer.step(lambda: loss(batch))  # noqa: B023
        optimizer.step(functools.partial(loss, batch))
        counts.append(len(calls))
    assert counts == [3 + 3, 6 + 4, 10 + 4, 14 + 4]


def test_another_model_behind_the_same_line_is_another_closure() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)

    def made(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
        return lambda: model(x).sum()

    assert identity(made(one, X)) == identity(made(one, X + 1))
    assert identity(made(one, X)) != identity(made(other, X))
    assert identity(functools.partial(made, one)) == identity(functools.partial(made, one))
    assert identity(functools.partial(made, one)) != identity(functools.partial(made, other))
    assert identity(one.forward) != identity(other.forward)
    assert isinstance(hash(identity(print)), int)


def test_a_closure_that_refers_to_itself_has_an_identity() -> None:
    def made(model: nn.Module) -> Callable[..., Tensor]:
        def loss(halvings: int = 2) -> Tensor:
            return loss(halvings - 1) / 2 if halvings else model(X).sum()

        return loss

    one, other = nn.Linear(4, 2), nn.Linear(4, 2)
    assert identity(made(one)) == identity(made(one))
    assert identity(made(one)) != identity(made(other))


# ---- the value -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (None, TypeError, ["NoneType", "0-d tensor", "return loss"]),
        ("0.5", TypeError, ["str", "0-d tensor"]),
        (True, TypeError, ["bool"]),
        (torch.ones(1), TypeError, ["(1,)", "0-d", ".mean()"]),
        (torch.ones(2, 3), TypeError, ["(2, 3)", "0-d", ".mean()"]),
        (torch.tensor(1), TypeError, ["int64", "floating-point"]),
        (torch.tensor(1j), TypeError, ["complex64", "floating-point"]),
        (torch.tensor(1.0, device="meta"), TypeError, ["on meta", "with a value"]),
        (torch.tensor(float("nan")), zo.NonFiniteLossError, ["nan", "as they were", "lr or eps"]),
        (torch.tensor(float("inf")), zo.NonFiniteLossError, ["inf", "as they were"]),
        (float("-inf"), zo.NonFiniteLossError, ["-inf", "as they were"]),
        (torch.tensor(1e38).bfloat16() * 10, zo.NonFiniteLossError, ["inf"]),
    ],
)
def test_a_loss_that_cannot_be_used_is_named(
    returned: Any, error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        scalar(returned)
    assert "closure" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "dtype"),
    [
        (torch.tensor(0.3, dtype=torch.float64), torch.float64),
        (torch.tensor(0.3), torch.float32),
        (torch.tensor(0.3, dtype=torch.bfloat16), torch.float32),
        (torch.tensor(0.3, dtype=torch.float16), torch.float32),
        (0.3, torch.float64),
        (np.float64(0.3), torch.float64),
        (1, torch.float64),
    ],
)
def test_losses_are_taken_in_float32_at_least(returned: Any, dtype: torch.dtype) -> None:
    loss = scalar(returned)
    assert loss.dtype == dtype
    assert loss.shape == ()
    assert float(loss) == float(returned)


def test_a_loss_may_be_a_parameter_itself() -> None:
    theta = parameter()
    (g,) = zo.estimate_gradient(lambda: theta, [theta], seed=0, eps=2.0**-10)
    assert float(g) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("closure", [None, 3.0, torch.ones(2), "loss"])
def test_a_closure_that_cannot_be_called_is_named(closure: Any) -> None:
    theta = parameter(3)
    for work in (
        lambda: zo.estimate_gradient(closure, [theta], seed=0),
        lambda: zo.ZOSGD([theta], 0.1, seed=0).step(closure),
    ):
        with pytest.raises(TypeError, match=r"closure: given .*, expected a function"):
            work()

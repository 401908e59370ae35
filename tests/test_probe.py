"""The probe: for any closure, the loss at theta + c u, with theta never written."""

from __future__ import annotations

import copy
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

import zotutor as zo
from zotutor.directions import Direction, Directions
from zotutor.probe import substitute

Case = tuple[list[Tensor], Callable[[], Tensor]]
"""Parameters, and a closure that computes a loss from them."""


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def parameter(*shape: int, seed: int = 1) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


def fill(model: nn.Module) -> nn.Module:
    """The model in eval mode, its parameters and statistics set by their position alone."""
    with torch.no_grad():
        for i, theta in enumerate(model.parameters()):
            fan_in = theta.numel() // (theta.shape[0] if theta.dim() else 1)
            theta.copy_(normal(*theta.shape, seed=i) / fan_in**0.5)
        for i, buffer in enumerate(model.buffers()):
            if buffer.is_floating_point():
                buffer.copy_(normal(*buffer.shape, seed=100 + i).square() + 0.5)
    return model.eval()


def spread(output: Tensor) -> Tensor:
    """A scalar on which every entry of the output tells."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype)
    return (output.reshape(-1) * weights).square().mean() + (output.reshape(-1) * weights).mean()


def of_model(model: nn.Module, *inputs: Tensor) -> Case:
    model = fill(model)

    def closure() -> Tensor:
        output = model(*inputs)
        return spread(output[0] if isinstance(output, tuple) else output)

    return list(model.parameters()), closure


class Raw(nn.Module):
    """A module with raw parameters, used with operators."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, 3))
        self.b = nn.Parameter(torch.zeros(3))
        self.s = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.w + self.b
        y = y * self.s - self.w[1:3].sum() / (1 + self.b[0] ** 2)
        return y + x[:, :3] @ self.w.t()[:, :3].mT


class Tied(nn.Module):
    """Embedding and output layer share one weight, as in a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.hidden = nn.Linear(6, 6)
        self.output = nn.Linear(6, 11, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(self.embedding(tokens))))


class Bag(nn.Module):
    """Parameters in a list and in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.ParameterList([nn.Parameter(torch.zeros(4)) for _ in range(3)])
        self.named = nn.ParameterDict({"scale": nn.Parameter(torch.zeros(4))})

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.stack(list(self.rows)).t() * torch.cat([self.named["scale"]] * 2)[:3]


X = normal(5, 4, seed=7)
IMAGES = normal(2, 3, 8, 8, seed=8)
SEQUENCE = normal(2, 7, 4, seed=9)
TOKENS = torch.tensor([[1, 3, 3, 10], [0, 5, 1, 2]])


def raw_calls() -> Case:
    w, b, s = parameter(3, 4), parameter(3, seed=2), parameter(seed=3)

    def closure() -> Tensor:
        y = F.linear(input=X, weight=w, bias=b)
        y = y + torch.einsum("ni,ji->nj", X, w) + torch.addmm(b, X, w.T, beta=0.5)
        z = torch.cat([w, torch.stack([b, b * s, b / 2, -b], dim=1)], dim=0)
        z = z + torch.nn.functional.pad(w, (0, 0, 0, 3))
        last: list[Tensor] = list(torch.unbind(w))
        for row in w:
            last.append(row * s)
        return spread(y) + spread(z) + spread(torch.stack(last)) + 2**s + abs(s) + (-s)

    return [w, b, s], closure


def python_numbers() -> Case:
    w, s = parameter(2, 3), parameter(seed=2)

    def closure() -> Tensor:
        total = s.item() + float(s) + sum(w.tolist()[1]) + float(np.asarray(w.detach()).sum())
        total += float(w.detach().numpy()[0, 1]) + (1.0 if w[0, 0] > 0 else 2.0)
        return torch.tensor(total) + torch.utils.dlpack.from_dlpack(w.detach()).square().sum()

    return [w, s], closure


def in_place_on_copies() -> Case:
    w = parameter(3, 4)

    def closure() -> Tensor:
        a, b = w.clone(), w + 0
        a.mul_(2.0).add_(w)
        a[0] = 1.0
        b += w
        out = torch.empty(3, 4)
        torch.mul(w, 3.0, out=out)
        return spread(a) + spread(b) + spread(out)

    return [w], closure


def views_that_stay() -> Case:
    w, b = parameter(3, 4), parameter(4, seed=2)

    def closure() -> Tensor:
        transposed, row, data = w.t(), w[1], w.data
        y = X @ transposed + b[0]
        return spread(y) + spread(row * b) + spread(data * row)

    return [w, b], closure


def copies_and_metadata() -> Case:
    w, q = parameter(3, 4), nn.Parameter(normal(3, seed=2))

    def closure() -> Tensor:
        again = copy.deepcopy(q)
        both = copy.deepcopy([w.detach(), q])
        found = {w: 2.0, q: 3.0}[w] + len(w) + w.dim() + w.shape[0] + w.numel() + w.size(1)
        assert hash(w) == id(w)
        assert "tensor" in repr(w)
        assert w.dtype == torch.float32
        assert w.requires_grad
        assert w.is_leaf
        assert w in {w}
        assert isinstance(q, nn.Parameter)
        return spread(again) + spread(both[0]) + spread(both[1]) + found * w.sum()

    return [w, q], closure


def deep_copied_model() -> Case:
    model = Tied()
    fill(model)

    def closure() -> Tensor:
        again = copy.deepcopy(model)
        assert again.output.weight is again.embedding.weight
        return spread(again(TOKENS))

    return list(model.parameters()), closure


def functional() -> Case:
    model = fill(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    names: dict[str, Tensor] = dict(model.named_parameters())
    return list(model.parameters()), lambda: spread(functional_call(model, names, (X,)))


def functional_tied() -> Case:
    model = Tied()
    fill(model)

    def closure() -> Tensor:
        half = {"embedding.weight": model.embedding.weight / 2}
        return spread(functional_call(model, half, (TOKENS,)))

    return list(model.parameters()), closure


def vmap_that_captures() -> Case:
    w = parameter(3, 4)
    return [w], lambda: spread(torch.vmap(lambda row: torch.tanh(w @ row))(X))


def gradient_in_the_input() -> Case:
    """A loss with derivatives in the input, as for differential equations."""
    model = fill(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))

    def closure() -> Tensor:
        with torch.enable_grad():
            x = X.clone().requires_grad_()
            (slope,) = torch.autograd.grad(model(x).sum(), x)
        return spread(slope)

    return list(model.parameters()), closure


def checkpointed(reentrant: bool) -> Callable[[], Case]:
    def build() -> Case:
        model = fill(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))

        def closure() -> Tensor:
            with torch.enable_grad():
                x = X.clone().requires_grad_()
                y = checkpoint(model, x, use_reentrant=reentrant)
            return spread(y.detach())

        return list(model.parameters()), closure

    return build


@torch.library.custom_op("zotutor_tests::multiply", mutates_args=())
def multiply(x: Tensor, w: Tensor) -> Tensor:
    """A custom operator."""
    return x @ w.t()


def custom_operators() -> Case:
    w = parameter(3, 4)

    def closure() -> Tensor:
        return spread(multiply(X, w)) + spread(torch.ops.aten.linear.default(X, w))

    return [w], closure


def gradient_switches() -> Case:
    model = fill(nn.Linear(4, 3))

    def closure() -> Tensor:
        model.zero_grad()
        model.zero_grad(set_to_none=False)
        with torch.no_grad():
            y = model(X)
        with torch.enable_grad():
            y = y + model(X)
        return spread(y.detach())

    return list(model.parameters()), closure


def half_precision() -> Case:
    model = fill(nn.Linear(4, 3))

    def closure() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return spread(model(X).float())

    return list(model.parameters()), closure


def own_strides() -> Case:
    """as_strided with the parameter's own strides and offset, for a slice of a transposed one."""
    base = normal(6, 5)
    w = base.t()[1:4].detach().requires_grad_()
    dense = normal(6, 5, seed=2).t().detach().requires_grad_()
    assert not w.is_contiguous()
    assert w.storage_offset() == 1

    def closure() -> Tensor:
        assert dense.stride() == (1, 5)
        assert not dense.is_contiguous()
        first = torch.as_strided(w, (3, 6), w.stride(), w.storage_offset())
        return spread(first) + spread(torch.as_strided(dense, (5, 6), dense.stride()))

    return [w, dense], closure


def normalized_embedding() -> Case:
    return of_model(nn.Embedding(11, 4, max_norm=0.9), TOKENS)


CASES: dict[str, Callable[[], Case]] = {
    "linear": lambda: of_model(nn.Linear(4, 3), X),
    "linear without a bias": lambda: of_model(nn.Linear(4, 3, bias=False), X),
    "bilinear": lambda: of_model(nn.Bilinear(4, 4, 3), X, X.flip(0)),
    "mlp": lambda: of_model(zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0), X),
    "lenet": lambda: of_model(zo.models.lenet(inputs=(3, 8, 8), seed=0), IMAGES),
    "convolution": lambda: of_model(nn.Conv2d(3, 4, 3, padding=1, stride=2), IMAGES),
    "channels last": lambda: of_model(
        nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        IMAGES.contiguous(memory_format=torch.channels_last),
    ),
    "transposed convolution": lambda: of_model(nn.ConvTranspose2d(3, 4, 3), IMAGES),
    "grouped convolution": lambda: of_model(nn.Conv2d(3, 6, 3, groups=3), IMAGES),
    "batch norm in eval mode": lambda: of_model(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), IMAGES
    ),
    "layer, group and instance norm": lambda: of_model(
        nn.Sequential(
            nn.LayerNorm([3, 8, 8]), nn.GroupNorm(3, 3), nn.InstanceNorm2d(3, affine=True)
        ),
        IMAGES,
    ),
    "PReLU": lambda: of_model(nn.PReLU(3), IMAGES),
    "attention": lambda: of_model(nn.MultiheadAttention(4, 2, batch_first=True), *[SEQUENCE] * 3),
    "attention with other widths": lambda: of_model(
        nn.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True, batch_first=True),
        SEQUENCE,
        SEQUENCE[..., :3],
        SEQUENCE[..., :2],
    ),
    "transformer": lambda: of_model(
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2, enable_nested_tensor=False
        ),
        SEQUENCE,
    ),
    "LSTM": lambda: of_model(nn.LSTM(4, 5, num_layers=2, bidirectional=True), SEQUENCE),
    "projected LSTM": lambda: of_model(nn.LSTM(4, 5, proj_size=2, batch_first=True), SEQUENCE),
    "GRU": lambda: of_model(nn.GRU(4, 5, batch_first=True), SEQUENCE),
    "LSTM cell": lambda: of_model(nn.LSTMCell(4, 5), X),
    "embedding": lambda: of_model(nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 2)), TOKENS),
    "embedding bag": lambda: of_model(nn.EmbeddingBag(11, 4, mode="sum"), TOKENS),
    "embedding with max_norm": normalized_embedding,
    "weight norm": lambda: of_model(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        X,
    ),
    "raw parameters": lambda: of_model(Raw(), X),
    "lists and dictionaries of parameters": lambda: of_model(Bag(), X),
    "tied weights": lambda: of_model(Tied(), TOKENS),
    "functions of raw tensors": raw_calls,
    "python numbers": python_numbers,
    "in-place operations on copies": in_place_on_copies,
    "views that outlive the operation": views_that_stay,
    "copies and metadata": copies_and_metadata,
    "deep copy of the model": deep_copied_model,
    "functional_call": functional,
    "functional_call with a derived parameter": functional_tied,
    "vmap that captures": vmap_that_captures,
    "gradient in the input": gradient_in_the_input,
    "checkpoint": checkpointed(False),
    "reentrant checkpoint": checkpointed(True),
    "custom operators": custom_operators,
    "gradient switches": gradient_switches,
    "autocast": half_precision,
    "own strides": own_strides,
}


def columns(
    family: Directions, tensors: list[Tensor], *, seed: int, step: int, p: int = 0
) -> list[Tensor]:
    """The direction as `dense` gives it, cut into parameters, in their dtypes' float32 at least."""
    column = family.dense(tensors, P=1, seed=seed, step=step, first=p)[:, 0]
    parts = column.split([tensor.numel() for tensor in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]


def move(tensors: list[Tensor], u: list[Tensor], c: float) -> None:
    """theta <- theta + c u, in place."""
    with torch.no_grad():
        for theta, part in zip(tensors, u, strict=True):
            theta.copy_(theta.to(part.dtype).add(part, alpha=c))


def bits(tensor: Tensor) -> Tensor:
    """The bits of a floating-point tensor, so that -0.0 and NaN compare too."""
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()]
    return tensor.detach().contiguous().view(width).clone()


@contextmanager
def unwritten(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Checks that the tensors are bit for bit, and in place in memory, what they were."""
    before = [(bits(t), t.data_ptr(), t._version) for t in tensors]
    yield
    for tensor, (old, pointer, version) in zip(tensors, before, strict=True):
        assert torch.equal(bits(tensor), old)
        assert tensor.data_ptr() == pointer
        assert tensor._version == version


@contextmanager
def nothing_left_over() -> Iterator[None]:
    """Checks that no mode is left on torch's stacks, and that gradients are as they were."""
    before = torch.is_grad_enabled()
    yield
    assert torch.is_grad_enabled() == before
    assert torch.overrides._get_current_function_mode_stack() == []
    assert _get_current_dispatch_mode() is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch.func itself
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("c", [0.25, -0.125])
@pytest.mark.parametrize("name", CASES)
def test_a_probe_equals_perturbing_a_copy_in_place(name: str, c: float) -> None:
    with torch.no_grad():
        plain = float(CASES[name]()[1]())
    tensors, closure = CASES[name]()
    with (
        unwritten(tensors),
        nothing_left_over(),
        zo.perturbed(tensors, c, seed=3, step=5, p=2) as mode,
    ):
        probed = float(closure())
    assert mode.reads >= 1
    copied, closure = CASES[name]()  # an equal one, built again
    move(copied, columns(zo.Rademacher(), tensors, seed=3, step=5, p=2), c)
    with torch.no_grad():
        moved = float(closure())
    assert abs(probed - plain) > 1e-4 * abs(plain)  # many times the tolerance below
    # In other memory, or under a mode, torch may choose another kernel: the last digits may differ;
    # that what is handed out is theta + c u to the bit is the next test.
    assert probed == pytest.approx(moved, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "family",
    [zo.Rademacher(), zo.Gaussian(), zo.Uniform(), zo.Sphere(), zo.Sparse(0.5), zo.LowRank(2)],
)
def test_what_is_handed_out_is_theta_plus_c_u_rounded_once(
    family: Directions, dtype: torch.dtype
) -> None:
    shapes = [(7, 5), (3,), (), (2, 3, 2, 2), (0, 4)]
    tensors = [normal(*s, seed=i, dtype=dtype).requires_grad_() for i, s in enumerate(shapes)]
    tensors.append(normal(5, 4, seed=9, dtype=dtype).t()[1:].requires_grad_())
    with zo.perturbed(tensors, 0.3, directions=family, seed=1, step=2, p=3):
        handed = [theta.clone() for theta in tensors]
    exact = torch.promote_types(dtype, torch.float32)
    direction = family.at(tensors, seed=1, step=2, p=3)
    for i, (theta, got) in enumerate(zip(tensors, handed, strict=True)):
        assert got.dtype == dtype
        assert got.shape == theta.shape
        u = direction.tensor(i, exact).view(theta.shape)
        want = theta.detach().to(exact).add(u, alpha=0.3).to(dtype)
        assert torch.equal(got, want)
        if isinstance(family, zo.Rademacher):  # the product is exact: there is but one rounding
            assert torch.equal(got, (theta.detach().to(exact) + u * 0.3).to(dtype))


def test_a_probe_without_distance_is_theta_bit_for_bit() -> None:
    theta = torch.tensor([1.0, 2.0**-149, -3.5, 1e38, float("inf")], requires_grad=True)
    with zo.perturbed([theta], 0.0, seed=0, step=0):
        assert torch.equal(bits(theta.clone()), bits(theta.detach().clone()))
        again = theta.clone()
    assert torch.equal(again, theta)


def test_frozen_parameters_are_read_as_they_are() -> None:
    model = fill(nn.Linear(4, 3))
    (bias,) = (theta for name, theta in model.named_parameters() if name == "bias")
    bias.requires_grad_(False)
    with zo.perturbed(model, 0.5, seed=0, step=0) as mode:
        difference = model(torch.zeros(1, 4)) - bias
    assert mode.reads == 1
    assert torch.equal(difference, torch.zeros(1, 3))


def test_models_names_and_lists_are_the_same_parameters() -> None:
    model = fill(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    losses = []
    for params in (model, model.parameters(), list(model.named_parameters())):
        with zo.perturbed(params, 0.5, seed=4, step=1):
            losses.append(float(spread(model(X))))
    assert losses[0] == losses[1] == losses[2]


def test_each_of_seed_step_p_and_family_tells() -> None:
    model = fill(nn.Linear(4, 3))
    losses = set()
    for options in (
        {"seed": 0, "step": 0},
        {"seed": 1, "step": 0},
        {"seed": 0, "step": 1},
        {"seed": 0, "step": 0, "p": 1},
        {"seed": 0, "step": 0, "directions": zo.Gaussian()},
    ):
        with zo.perturbed(model, 0.5, **options):
            losses.add(float(spread(model(X))))
    assert len(losses) == 5


# ---- nothing to restore ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exception_leaves_nothing_behind(error: type[BaseException], dtype: torch.dtype) -> None:
    model = fill(zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0)).to(dtype)
    tensors = list(model.parameters())
    gradient = torch.ones_like(tensors[0])
    tensors[0].grad = gradient

    def read_then_raise() -> None:
        with zo.perturbed(model, 0.5, seed=0, step=0):
            model(X.to(dtype))
            raise error

    with unwritten(tensors), nothing_left_over(), pytest.raises(error):
        read_then_raise()
    assert tensors[0].grad is gradient
    with zo.perturbed(model, 0.5, seed=0, step=0):  # and the next one works
        pass


def test_an_interrupt_within_an_operation_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(Direction, "perturbed", interrupted)
    tensors = [parameter(3, 4)]
    with unwritten(tensors), nothing_left_over(), pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with zo.perturbed(tensors, 0.5, seed=0, step=0):
            X @ tensors[0].t()
    monkeypatch.undo()
    with zo.perturbed(tensors, 0.5, seed=0, step=0):
        X @ tensors[0].t()


def test_a_probe_in_a_probe_is_refused_and_the_first_goes_on() -> None:
    model, other = fill(nn.Linear(4, 3)), [parameter(3)]
    with zo.perturbed(model, 0.5, seed=0, step=0):
        alone = model(X)
    with nothing_left_over(), zo.perturbed(model, 0.5, seed=0, step=0):
        for inner in (
            lambda: zo.estimate_gradient(lambda: other[0].sum(), other, seed=0),
            lambda: zo.ZOSGD(other, lr=0.1, seed=0).step(lambda: other[0].sum()),
            lambda: zo.perturbed(other, 0.5, seed=0, step=0).__enter__(),
        ):
            with unwritten(other), pytest.raises(RuntimeError, match=r"inside another probe"):
                inner()
        assert torch.equal(model(X), alone)


def test_gradients_are_off_inside_unless_the_closure_asks() -> None:
    w = parameter(3)
    with zo.perturbed([w], 0.5, seed=0, step=0):
        assert not torch.is_grad_enabled()
        assert not (w * 2).requires_grad
        with torch.enable_grad():
            assert not (w * 2).requires_grad  # theta + c u is a new leaf
    assert (w * 2).requires_grad


def test_a_probe_works_in_inference_mode() -> None:
    model = fill(nn.Linear(4, 3))
    with zo.perturbed(model, 0.5, seed=0, step=0):
        want = model(X)
    with torch.inference_mode(), zo.perturbed(model, 0.5, seed=0, step=0):
        got = model(X)
    assert torch.equal(want, got)


def test_gradients_of_parameters_can_be_reset_inside() -> None:
    model = fill(nn.Linear(4, 3))
    for theta in model.parameters():
        theta.grad = torch.ones_like(theta)
    first, second = model.parameters()
    with zo.perturbed(model, 0.5, seed=0, step=0):
        model.zero_grad(set_to_none=False)
        assert first.grad is not None
        assert not first.grad.any()
        del first.grad
        model.zero_grad()
    assert first.grad is None
    assert second.grad is None


# ---- writes ----------------------------------------------------------------------------------


def _iadd(w: Tensor) -> None:
    w += 1


def _setitem(w: Tensor) -> None:
    w[0] = 1.0


def _set_data(w: Tensor) -> None:
    w.data = torch.zeros(4, 4)


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "add_": lambda w: w.add_(1),
    "copy_": lambda w: w.copy_(torch.zeros(4, 4)),
    "zero_": lambda w: w.zero_(),
    "torch.relu_": lambda w: torch.relu_(w),
    "by keyword": lambda w: torch.relu_(input=w),
    "relu in place": lambda w: F.relu(w, inplace=True),
    "nn.init": lambda w: nn.init.normal_(w),
    "fill_diagonal_": lambda w: w.fill_diagonal_(0.0),
    "clip_grad-like foreach": lambda w: torch._foreach_mul_([w], 0.5),
    "+=": _iadd,
    "setitem": _setitem,
    ".data =": _set_data,
    "out=": lambda w: torch.mul(X[:4], 2.0, out=w),
    "out= .data": lambda w: torch.mul(X[:4], 2.0, out=w.data),
    ".data.clamp_": lambda w: w.data.clamp_(-0.1, 0.1),
    ".detach().zero_": lambda w: w.detach().zero_(),
    "a view": lambda w: w.view(-1).add_(1),
    "a row": lambda w: w[0].add_(1),
    "vector_to_parameters": lambda w: nn.utils.vector_to_parameters(torch.zeros(16), [w]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_writes_to_a_parameter_are_refused(write: Callable[[Tensor], Any]) -> None:
    w = parameter(4, 4)
    with (
        unwritten([w]),
        nothing_left_over(),
        pytest.raises(RuntimeError, match=r"closure: .* writes to a parameter inside a probe.*"),
        zo.perturbed([w], 0.5, seed=0, step=0),
    ):
        write(w)


def test_writes_to_an_alias_taken_before_are_refused() -> None:
    w = parameter(4, 4)
    alias = w.detach()
    with unwritten([w]), pytest.raises(RuntimeError, match=r"closure: add_ reads the memory"):  # noqa: SIM117
        with zo.perturbed([w], 0.5, seed=0, step=0):
            alias.add_(1)


# ---- roads that a probe cannot follow ---------------------------------------------------------


def view_from_outside(w: Tensor) -> Callable[[], Tensor]:
    view = w.t()
    return lambda: X @ view


def data_from_outside(w: Tensor) -> Callable[[], Tensor]:
    data = w.data
    return lambda: F.linear(X, data)


ALIASES = {
    "view": view_from_outside,
    ".data": data_from_outside,
    "Parameter of it": lambda w: lambda: F.linear(X, nn.Parameter(w)),
}


@pytest.mark.parametrize("build", ALIASES.values(), ids=ALIASES.keys())
@pytest.mark.parametrize("method", ["two-point", "forward", "one-point", "jvp"])
def test_aliases_of_a_parameter_are_refused(
    build: Callable[[Tensor], Callable[[], Tensor]],
    method: Literal["two-point", "forward", "one-point", "jvp"],
) -> None:
    w, b = parameter(3, 4), parameter(3, seed=2)
    read = build(w)
    with unwritten([w, b]), pytest.raises(RuntimeError, match=r"reads the memory of a parameter"):
        zo.estimate_gradient(lambda: spread(read()) + b.sum(), [w, b], seed=0, method=method)


def test_aliases_are_found_in_lists_and_beside_a_large_weight() -> None:
    w, large = parameter(3, 4), parameter(600, 500, seed=2)  # large: multiplied in pieces
    alias, rows = w.detach(), large.detach()[:2]
    for read in (
        lambda: torch.cat([torch.zeros(1, 4), alias]),
        lambda: torch.stack(tensors=[alias, alias]),
        lambda: F.linear(rows, large),
        lambda: F.linear(input=rows, weight=large),
        lambda: F.linear(torch.zeros(1, 500), large, rows.view(-1)[:600]),
    ):
        with (
            pytest.raises(RuntimeError, match=r"reads the memory of a parameter"),
            zo.perturbed([w, large], 0.5, seed=0, step=0),
        ):
            read()


@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_derivatives_in_the_input_of_a_large_layer(family: Directions) -> None:
    w, b = parameter(600, 500), parameter(600, seed=2)
    x = normal(3, 500, seed=3)

    def slope() -> Tensor:
        with torch.enable_grad():
            y = torch.tanh(F.linear(leaf := x.clone().requires_grad_(), w, b)).sum()
            (found,) = torch.autograd.grad(y, leaf)
        return found

    with zo.perturbed([w, b], 0.01, directions=family, seed=0, step=0):
        got = slope()
    move([w, b], columns(family, [w, b], seed=0, step=0), 0.01)
    torch.testing.assert_close(got, slope(), rtol=1e-4, atol=1e-4)


def test_sparse_tensors_may_be_used_in_a_closure() -> None:
    w = parameter(4, 3)
    sparse = torch.eye(4).to_sparse()
    with zo.perturbed([w], 0.5, seed=0, step=0):
        got, want = torch.sparse.mm(sparse, w), w.clone()
    assert torch.equal(got, want)


def test_neighbors_in_the_same_memory_are_no_aliases() -> None:
    base = normal(24)
    w, frozen = base[:12].view(3, 4).requires_grad_(), base[12:].view(3, 4)
    with zo.perturbed([w], 0.5, seed=0, step=0):
        probed = spread(X @ w.t()) + frozen.sum()
    again = w.detach() + 0.5 * zo.Rademacher().at([w], seed=0, step=0).tensor(0)
    assert probed == spread(X @ again.t()) + frozen.sum()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_modules_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), torch.jit.script(nn.Linear(3, 2)))
    for work in (
        lambda: zo.estimate_gradient(lambda: model(X).sum(), model, seed=0),
        lambda: zo.perturbed(model, 0.5, seed=0, step=0).__enter__(),
        lambda: zo.perturbed(model[1], 0.5, seed=0, step=0).__enter__(),
    ):
        with pytest.raises(TypeError, match=r"model: its module .* is scripted.*before torch.jit"):
            work()


def test_another_thread_is_not_seen_and_said_so() -> None:
    w = parameter(3, 4)

    def closure() -> Tensor:
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(spread(X @ w.detach().t())))
        thread.start()
        thread.join()
        return found[0]

    with pytest.raises(ValueError, match=r"closure: it read none of the parameters"):
        zo.estimate_gradient(closure, [w], seed=0)


@pytest.mark.parametrize("warm", [False, True])
def test_compiled_models_run_uncompiled_in_a_probe(warm: bool) -> None:
    compiled_graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled_graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = fill(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    compiled = torch.compile(model, backend=backend)
    if warm:
        with torch.no_grad():
            compiled(X)
        assert len(compiled_graphs) == 1
    for seed in range(4):
        with zo.perturbed(model, 0.5, seed=seed, step=0):
            got = compiled(X)
        with zo.perturbed(model, 0.5, seed=seed, step=0):
            want = model(X)
        assert torch.equal(got, want)
    assert len(compiled_graphs) == int(warm)
    with torch.no_grad():
        assert torch.equal(compiled(X), model(X))  # and compiled again outside of it
    assert len(compiled_graphs) == 1
    torch._dynamo.reset()


def test_a_closure_may_enter_modes_of_its_own() -> None:
    class Count(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            Count.seen += 1
            return func(*args, **(kwargs or {}))

    w = parameter(3, 4)
    with zo.perturbed([w], 0.5, seed=0, step=0):
        want = X @ w.t()
        with Count(), torch.device("cpu"):
            got = X @ w.t() + torch.zeros(())
    assert Count.seen > 0
    assert torch.equal(got, want)


# ---- probes that can be compared --------------------------------------------------------------


def test_batch_norm_that_updates_its_statistics_is_refused_by_any_road() -> None:
    norm = nn.BatchNorm1d(4)
    x = normal(5, 4)
    means = norm.running_mean
    assert means is not None
    for work in (
        lambda: zo.perturbed(norm, 0.5, seed=0, step=0).__enter__(),
        lambda: zo.estimate_gradient(lambda: norm(x).sum(), norm.parameters(), seed=0),
        lambda: zo.ZOSGD(norm.parameters(), 0.1, seed=0).step(lambda: norm(x).sum()),
        lambda: zo.estimate_gradient(
            lambda: F.batch_norm(x, means, means + 1, norm.weight, norm.bias, True).sum(),
            norm.parameters(),
            seed=0,
        ),
    ):
        with (
            unwritten(list(norm.parameters())),
            pytest.raises(ValueError, match=r"model\.eval\(\)"),
        ):
            work()
    assert not means.any()


def test_instance_norm_that_updates_its_statistics_is_refused() -> None:
    norm = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    x = normal(2, 3, 5)
    for params in (norm, list(norm.parameters())):
        with pytest.raises(ValueError, match=r"(?i)instance.?norm.*model\.eval\(\)"):
            zo.estimate_gradient(lambda: norm(x).sum(), params, seed=0)
    assert norm.running_mean is not None
    assert not norm.running_mean.any()
    norm.eval()
    zo.estimate_gradient(lambda: spread(norm(x)), norm, seed=0)


def test_norms_without_running_statistics_are_functions() -> None:
    x, w = normal(5, 4), parameter(4)

    def closure() -> Tensor:
        y = F.batch_norm(x, None, None, w, training=True)
        return spread(y) + spread(F.instance_norm(y[None], use_input_stats=True))

    (g,) = zo.estimate_gradient(closure, [w], P=400, seed=0, method="two-point")
    (want,) = torch.autograd.grad(closure(), [w])
    assert torch.nn.functional.cosine_similarity(g, want, dim=0) > 0.9


def test_a_probe_draws_nothing_from_the_global_generator() -> None:
    w = parameter(3)
    before = torch.get_rng_state()
    with zo.perturbed([w], 0.5, directions=zo.Gaussian(), seed=0, step=0):
        w.sum()
    assert torch.equal(torch.get_rng_state(), before)


# ---- memory ----------------------------------------------------------------------------------


class PeakMemory(TorchDispatchMode):
    """Bytes of storages made by operations, alive at the same time: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0

    def now(self) -> int:
        self._alive = {key: x for key, x in self._alive.items() if not x[0].expired()}
        return sum(size for _, size in self._alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            t.untyped_storage()._cdata
            for t in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(t, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                reference = torch.multiprocessing.reductions.StorageWeakRef(storage)
                self._alive[storage._cdata] = (reference, storage.nbytes())
        self.peak = max(self.peak, self.now())
        return result


MB = 2**20


@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian(), zo.Sparse(0.5)])
def test_extra_memory_is_one_parameter_and_a_chunk(family: Directions) -> None:
    weights = [torch.full((1024, 4096), 0.5).requires_grad_() for _ in range(3)]  # 16 MB each
    x = torch.ones(1, 4096)
    with PeakMemory() as memory, zo.perturbed(weights, 0.5, directions=family, seed=0, step=0):
        for w in weights:
            x = (w @ x[0]).repeat(4)[None]
        assert memory.now() < MB  # the scratch tensors are gone
    chunk = 24 if family != zo.Rademacher() else 6  # float64 words, radii and angles of 2^18
    assert 16 * MB <= memory.peak < (16 + chunk) * MB, memory.peak / MB


def test_scratch_tensors_die_with_their_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    perturbed = Direction.perturbed

    def remembered(self: Direction, *args: Any, **kwargs: Any) -> Tensor:
        assert not any(reference() is not None for reference in made)
        scratch = perturbed(self, *args, **kwargs)
        made.append(weakref.ref(scratch))
        return scratch

    monkeypatch.setattr(Direction, "perturbed", remembered)
    ws = [parameter(3, 3, seed=i) for i in range(4)]
    with zo.perturbed(ws, 0.5, seed=0, step=0):
        y = X[:, :3]
        for w in ws:
            y = torch.tanh(y @ w)
        assert len(made) == 4
        view = ws[0].t()  # this one keeps its memory, not its tensor
        kept = view.tolist()
    move(ws[:1], columns(zo.Rademacher(), ws, seed=0, step=0)[:1], 0.5)
    assert kept == ws[0].t().tolist()


def test_what_is_written_in_a_closure_is_not_confused_with_freed_scratch() -> None:
    """Memory of a dropped scratch tensor comes back as another tensor's, which may be written."""
    w = parameter(64, 64)
    with zo.perturbed([w], 0.5, seed=0, step=0):
        for _ in range(50):
            w.sum()
            torch.zeros(64, 64).add_(1)


# ---- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"c": float("nan")}, ValueError, ["c", "nan", "finite"]),
        ({"c": float("inf")}, ValueError, ["c", "inf", "finite"]),
        ({"c": "1"}, TypeError, ["c", "'1'", "number"]),
        ({"c": None}, TypeError, ["c", "None", "number"]),
        ({"seed": -1}, ValueError, ["seed", "-1", "at least 0"]),
        ({"seed": 1 << 64}, ValueError, ["seed", "below"]),
        ({"seed": 1.5}, TypeError, ["seed", "1.5", "int"]),
        ({"step": -1}, ValueError, ["step", "-1"]),
        ({"p": -1}, ValueError, ["p", "-1"]),
        ({"directions": "gaussian"}, TypeError, ["directions", "'gaussian'", "Rademacher()"]),
        ({"directions": zo.Gaussian}, TypeError, ["directions", "Gaussian", "construct"]),
        ({"params": []}, ValueError, ["params", "requires_grad=True"]),
        ({"params": torch.ones(2)}, TypeError, ["params", "one tensor", "[tensor]"]),
        ({"params": [torch.ones(2, dtype=torch.int64)]}, ValueError, ["no trainable"]),
        ({"params": nn.Dropout()}, ValueError, ["params", "no trainable"]),
        (
            {"params": nn.Sequential(nn.Linear(2, 2), nn.Dropout())},
            ValueError,
            ["model", "Dropout", "training", "model.eval()"],
        ),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    arguments: dict[str, Any] = {"params": [parameter(2)], "c": 0.5, "seed": 0, "step": 0}
    arguments |= options
    with (
        nothing_left_over(),
        pytest.raises(error) as caught,
        zo.perturbed(arguments.pop("params"), arguments.pop("c"), **arguments),
    ):
        pass
    for word in words:
        assert word in str(caught.value)


def test_substitute_hands_out_what_it_is_told() -> None:
    w, b = parameter(3, 4), parameter(3, seed=2)
    with substitute([w, b], lambda i, theta: torch.full_like(theta, float(i))) as mode:
        y = F.linear(X, w, b)
    assert torch.equal(y, torch.ones(5, 3))
    assert mode.reads == 2


def test_reads_are_counted_and_metadata_is_not() -> None:
    w = parameter(3, 4)
    with warnings.catch_warnings(), zo.perturbed([w], 0.5, seed=0, step=0) as mode:
        assert (w.shape, w.dtype, w.device.type, w.ndim) == ((3, 4), torch.float32, "cpu", 2)
        assert w.requires_grad
        assert w.is_leaf
        assert w.grad is None
        assert w.data_ptr() != 0
        assert len(w) == 3
        assert mode.reads == 0
        w * w
        assert mode.reads == 1

"""The probe: for any closure, the loss at theta + c u, with theta never written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

import zotutor as zo
from zotutor.directions import Directions

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


def vmap_over_a_parameter() -> Case:
    w = parameter(6, 4)
    return [w], lambda: spread(torch.vmap(lambda row: torch.tanh(X @ row))(w))


def derivatives_in_a_parameter() -> Case:
    w = parameter(4)

    def cube(t: Tensor) -> Tensor:
        return (t**3).sum()

    def closure() -> Tensor:
        tangent = torch.func.jvp(cube, (w,), (torch.ones(4),))[1]
        jacobian = torch.func.jacrev(lambda t: t**3)(w)
        return torch.func.grad(cube)(w).sum() + tangent + spread(jacobian)

    return [w], closure


def gradient_in_the_input() -> Case:
    """A loss with derivatives in the input, as for differential equations."""
    model = fill(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))

    def closure() -> Tensor:
        with torch.enable_grad():
            x = X.clone().requires_grad_()
            (slope,) = torch.autograd.grad(model(x).sum(), x)
        return spread(slope)

    return list(model.parameters()), closure


def custom_function() -> Case:
    w = parameter(3, 4)

    def closure() -> Tensor:
        with torch.enable_grad():
            x = X.clone().requires_grad_()
            y = MultiplyBackward.apply(x, w)
            (slope,) = torch.autograd.grad(y.square().sum(), x)
        return spread(slope) + spread(y.detach())

    return [w], closure


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


def without_torch_functions() -> Case:
    w, b = parameter(3, 4), parameter(3, seed=2)

    def closure() -> Tensor:
        with torch._C.DisableTorchFunction():
            y = X @ w.t()
        return spread(y + b)

    return [w, b], closure


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
    "mlp": lambda: of_model(zo.models.mlp(5, 2, inputs=4, outputs=3), X),
    "lenet": lambda: of_model(zo.models.lenet(inputs=(3, 8, 8)), IMAGES),
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
    "vmap over a parameter": vmap_over_a_parameter,
    "derivatives in a parameter": derivatives_in_a_parameter,
    "gradient in the input": gradient_in_the_input,
    "custom function": custom_function,
    "checkpoint": checkpointed(False),
    "reentrant checkpoint": checkpointed(True),
    "custom operators": custom_operators,
    "torch functions off": without_torch_functions,
    "gradient switches": gradient_switches,
    "autocast": half_precision,
    "own strides": own_strides,
}


ROUNDED = {"attention with other widths", "transformer", "GRU"}
"""What torch computes by other steps, hence with other roundings, while it is watched."""


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
def unwritten(tensors: list[Tensor]) -> Iterator[None]:
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
    with unwritten(tensors), nothing_left_over(), zo.probe(tensors, c, seed=3, step=5, p=2) as mode:
        probed = float(closure())
    assert mode.reads >= 1
    copied, closure = CASES[name]()  # an equal one, built anew
    move(copied, columns(zo.Rademacher(), tensors, seed=3, step=5, p=2), c)
    with torch.no_grad():
        moved = float(closure())
    assert probed != plain
    assert probed == (pytest.approx(moved, rel=1e-6) if name in ROUNDED else moved)

"""Jacobians one number at a time, and the models they are tried on.

Nothing here is fast. A Jacobian is one `torch.autograd.grad` for each logit of each input, given to
the model alone, and a kernel is a matrix product of two of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zotutor as zo

FAMILIES = [
    zo.Rademacher(),
    zo.Gaussian(),
    zo.Uniform(),
    zo.Sphere(),
    zo.Sparse(0.3),
    zo.LowRank(2),
]
"""A family of each kind."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64, its parameters normal with variance 1 / fan_in, buffers as they are."""
    model.double()
    source = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            scale = max(1, p.numel() // len(p) if p.dim() > 1 and len(p) else 4) ** -0.5
            p.copy_(torch.randn(p.shape, generator=source, dtype=torch.float64) * scale)
    return model


def trainable(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def logits(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x)
    return output if isinstance(output, Tensor) else output.logits


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """J (N, V, d), by one backward pass a number of logits."""
    params = trainable(model)
    blocks = []
    for n in range(x.shape[0]):
        rows = []
        for z_i in logits(model, x[n : n + 1])[0]:
            grads = torch.autograd.grad(z_i, params, retain_graph=True, allow_unused=True)
            parts = [
                torch.zeros(p.numel(), dtype=p.dtype) if g is None else g.reshape(-1)
                for p, g in zip(params, grads, strict=True)
            ]
            rows.append(torch.cat(parts))
        blocks.append(torch.stack(rows))
    return torch.stack(blocks)


def kernel(J_o: Tensor, J_u: Tensor, U: Tensor | None = None) -> Tensor:
    """Every block J(x_o) J(x_u)^T, or J(x_o) U U^T J(x_u)^T, one after the other."""
    out = torch.empty(len(J_o), len(J_u), J_o.shape[1], J_u.shape[1], dtype=J_o.dtype)
    for o in range(len(J_o)):
        for u in range(len(J_u)):
            out[o, u] = J_o[o] @ J_u[u].T if U is None else J_o[o] @ U @ U.T @ J_u[u].T
    return out


class Tied(nn.Module):
    """An embedding that is also the output layer, and an inner matrix used on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens).mean(1)
        return self.out(torch.tanh(self.inner(h)) @ self.inner.weight.T)


class Shared(nn.Module):
    """One layer object under two names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(self.second(self.first(x).tanh()).tanh()).tanh())


class Scalars(nn.Module):
    """A 0-d parameter, an empty one and one that the logits do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2, 3))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh() * self.temperature + self.empty.sum()


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.body = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.norm(self.embed(tokens))
        h = h + self.attend(h, h, h, need_weights=False)[0]
        return h[:, -1] @ self.embed.weight.T


class Branching(nn.Module):
    """Decides by a value: no vectorizing transform can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Linear(4, 3)
        self.high = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = [(self.high if float(row.sum()) > 0 else self.low)(row).tanh() for row in x]
        return torch.stack(rows)


class LogitsObject(nn.Module):
    """Returns an object that holds the logits, as language models do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.body(x), loss=None)


class Counted(nn.Module):
    """Counts the calls of a linear map from 4 inputs to 3 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.float64)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x)


class FunctionalDropout(nn.Module):
    """Drops by a function: no module tells so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(x, 0.5, self.training))


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def _batch_norm() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    ).double()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1]))
    norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.5]))
    return model.eval()


def mlp(inputs: int = 4, V: int = 3, *, width: int = 5, seed: int = 0) -> nn.Module:
    """A small tanh network with biases that are not 0."""
    return filled(zo.models.mlp(width, 1, inputs=inputs, outputs=V, seed=0), seed)


@dataclass(frozen=True)
class Case:
    """A model, inputs for it, and how far from the naive result rounding may lead."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Tensor]

    def __call__(self, N: int, *, seed: int = 1) -> tuple[nn.Module, Tensor]:
        model = self.build()
        return filled(model), self.inputs(N, seed)


def _vectors(N: int, seed: int) -> Tensor:
    return normal(N, 4, seed=seed)


def _images(N: int, seed: int) -> Tensor:
    return normal(N, 1, 4, 4, seed=seed)


def _sequences(N: int, seed: int) -> Tensor:
    return normal(N, 5, 3, seed=seed)


def _tokens(N: int, seed: int) -> Tensor:
    return torch.randint(0, 7, (N, 5), generator=generator(seed))


CASES: dict[str, Case] = {
    "mlp": Case(lambda: zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0), _vectors),
    "conv": Case(
        lambda: zo.models.lenet(inputs=(1, 4, 4), outputs=3, channels=(2, 3), hidden=(4,), seed=0),
        _images,
    ),
    "tied": Case(Tied, _tokens),
    "frozen": Case(_frozen, _vectors),
    "shared": Case(Shared, _vectors),
    "batch norm in eval": Case(_batch_norm, _images),
    "object": Case(
        lambda: LogitsObject(zo.models.mlp(5, 1, inputs=4, outputs=3, seed=0)), _vectors
    ),
    "scalars": Case(Scalars, _vectors),
    "one output": Case(lambda: nn.Linear(4, 1), _vectors),
    "lstm": Case(lambda: Recurrent(nn.LSTM), _sequences),
    "gru": Case(lambda: Recurrent(nn.GRU), _sequences),
    "attention": Case(Attention, _tokens),
    "attention in eval": Case(lambda: Attention().eval(), _tokens),
    "branching": Case(Branching, _vectors),
    "in place": Case(
        lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)), _vectors
    ),
    "dropout in eval": Case(
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).eval(), _vectors
    ),
    "group norm, training": Case(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Linear(6, 3)).train(),
        _vectors,
    ),
    "weight norm": Case(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)
        ),
        _vectors,
    ),
}


def _random_states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numpy["state"]["key"].tolist()


def _state(model: nn.Module, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    return {
        "parameters": {k: p.detach().clone() for k, p in model.named_parameters()},
        "identities": {k: id(p) for k, p in model.named_parameters(remove_duplicate=False)},
        "gradients": {
            k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()
        },
        "requires_grad": {k: p.requires_grad for k, p in model.named_parameters()},
        "buffers": {k: b.clone() for k, b in model.named_buffers()},
        "training": {k: m.training for k, m in model.named_modules()},
        "arguments": [t.detach().clone() for t in tensors],
        "argument gradients": [t.grad for t in tensors],
        "random states": _random_states(),
        "grad mode": torch.is_grad_enabled(),
        "attention": (
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
    }


@contextmanager
def untouched(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Fails if the model, a tensor given, a random state or a global switch has changed inside.

    Parameters get gradients first, so that adding to one, or dropping it, would show.
    """
    for p in trainable(model):
        p.grad = torch.full_like(p, 0.25)
    before = _state(model, tensors)
    yield
    after = _state(model, tensors)
    for part, old in before.items():
        new = after[part]
        if part in ("parameters", "gradients", "buffers", "arguments"):
            torch.testing.assert_close(
                new, old, rtol=0, atol=0, equal_nan=True, msg=f"{part} changed"
            )
        else:
            assert new == old, f"{part} changed"
    for p in trainable(model):
        p.grad = None

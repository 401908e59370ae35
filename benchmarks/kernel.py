"""The eNTK against the two ways of the torch.func tutorial, and of a language model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

import zotutor as zo

from . import jax_kernels, models
from .runner import Call, Case, Comparison, Timed

BASE = "the tutorial's contraction"
PRODUCTS = "the tutorial's vector products"
OURS = "zo.entk"
FORWARDS = "one forward pass"


class TutorialCNN(nn.Module):
    """The network of the tutorial on neural tangent kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(inputs, 32, (3, 3)) for inputs in (3, 32, 32)
        )
        self.fc = nn.Linear(21632, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) to logits (N, 10)."""
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.fc(self.conv3(x).flatten(1))


def perceptron(width: int, outputs: int) -> nn.Module:
    """64 inputs, two hidden layers."""
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def _single(model: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda params, x: functional_call(model, params, (x[None],))[0]


def contraction(model: nn.Module, x_o: Tensor, x_u: Tensor) -> Tensor:
    """Jacobians by vmap over jacrev, contracted for each parameter: (N_o, N_u, V, V)."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    rows = [
        [part.flatten(2) for part in vmap(jacrev(_single(model)), (None, 0))(params, x).values()]
        for x in (x_o, x_u)
    ]
    each = [torch.einsum("Naf,Mbf->NMab", a, b) for a, b in zip(*rows, strict=True)]
    return torch.stack(each).sum(0)


def vector_products(model: nn.Module, x_o: Tensor, x_u: Tensor) -> Tensor:
    """J J^T e for each basis vector e by vjp and jvp, vectorized: (N_o, N_u, V, V)."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    single = _single(model)

    def pair(one: Tensor, other: Tensor) -> Tensor:
        out, pull = vjp(lambda p: single(p, other), params)[:2]

        def column(e: Tensor) -> Tensor:
            return jvp(lambda p: single(p, one), (params,), pull(e))[1]

        # row of the result: e of x_u; transposed to (of x_o, of x_u)
        return vmap(column)(torch.eye(out.numel(), dtype=out.dtype, device=out.device)).T

    return vmap(vmap(pair, (None, 0)), (0, None))(x_o, x_u)


def load_libraries() -> None:
    """Call every way on next to nothing, so that no import counts as memory of a kernel."""
    model, x = nn.Linear(2, 2), torch.ones(1, 2)
    for way in (contraction, vector_products, zo.entk):
        way(model, x, x)


def ways(
    build: Callable[[], nn.Module],
    shape: Sequence[int],
    N: tuple[int, int],
    slow: bool,
    device: str,
) -> dict[str, Call]:
    """The ways by name, on the same model and inputs."""
    load_libraries()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().to(device)
        x_o, x_u = (torch.randn(n, *shape).to(device) for n in N)
    found = ours_and_tutorial(model, x_o, x_u)
    if not slow:
        del found[PRODUCTS]
    return found


def ours_and_tutorial(model: nn.Module, x_o: Tensor, x_u: Tensor) -> dict[str, Call]:
    """The package's kernel and the tutorial's two."""
    return {
        BASE: lambda: contraction(model, x_o, x_u),
        OURS: lambda: zo.entk(model, x_o, x_u),
        PRODUCTS: lambda: vector_products(model, x_o, x_u),
    }


def language_ways(device: str) -> dict[str, Call]:
    """OPT-125M on 8 texts of 32 tokens: the kernel of two words after the last of them."""
    load_libraries()
    model = models.opt("OPT-125M", device)
    tokens = models.batch_of(8, 32, device, 49000)
    rows = zo.llm.Rows(model, words=[100, 200])

    def forward() -> None:
        with torch.no_grad():
            rows(tokens)

    return {FORWARDS: forward, OURS: lambda: zo.entk(rows, tokens, tokens)}


def exact_case() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A perceptron with tanh and its inputs, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(n, m) for n, m in ((64, 256), (256, 256), (256, 10))]
        model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
        x_o, x_u = torch.randn(32, 64).double(), torch.randn(32, 64).double()
    return model.double(), x_o, x_u


@cache
def peer() -> jax_kernels.Peer | None:
    """neural-tangents on that case, if there is a Python that has it."""
    if jax_kernels.VARIABLE not in os.environ:
        print(f"  (without neural-tangents: {jax_kernels.VARIABLE} names no Python)")
        return None
    model, x_o, x_u = exact_case()
    parts = [part.detach().numpy() for part in model.parameters()]  # weight, bias, weight, ...
    weights = list(zip(parts[::2], parts[1::2], strict=True))
    threads = torch.get_num_threads()
    return jax_kernels.Peer(weights, x_o.numpy(), x_u.numpy(), threads=threads)


def exact_ways(device: str) -> dict[str, Call]:
    """Float64, where structured derivatives of another library apply."""
    load_libraries()
    model, x_o, x_u = exact_case()
    found = ours_and_tutorial(model.to(device), x_o.to(device), x_u.to(device))
    other = peer() if device == "cpu" else None
    return found | (jax_kernels.ways(other, Timed) if other else {})


def compilation(device: str) -> dict[str, Any]:
    """Seconds of first calls of what compiles."""
    other = peer() if device == "cpu" else None
    first = other.first if other else {}
    return {"first_call": {name: round(seconds, 3) for name, seconds in first.items()}}


CNN = "the tutorial's CNN, 20 x 5, V = 10"
MLP = "MLP 64-256-256-10, 32 x 32, V = 10"
WIDE = "MLP 64-512-512-10, 128 x 128, V = 10"
MANY = "MLP 64-256-256-100, 16 x 16, V = 100"
EXACT = "MLP 64-256-256-10, tanh, float64, 32 x 32"
WORDS = "OPT-125M, 8 texts of 32 tokens, 2 words"


def cases(_: str) -> list[Case]:
    """The tutorial's and the issue's networks, and a language model."""

    def case(
        name: str,
        build: Callable[[], nn.Module],
        shape: tuple[int, ...],
        N: tuple[int, int],
        *,
        slow: bool = True,
    ) -> Case:
        return Case(name, partial(ways, build, shape, N, slow), BASE, tolerance=1e-4)

    return [
        case(CNN, TutorialCNN, (3, 32, 32), (20, 5)),
        case(MLP, partial(perceptron, 256, 10), (64,), (32, 32)),
        case(MANY, partial(perceptron, 256, 100), (64,), (16, 16), slow=False),
        case(WIDE, partial(perceptron, 512, 10), (64,), (128, 128), slow=False),
        Case(EXACT, exact_ways, BASE, tolerance=1e-12, about=compilation, memory=False),
        Case(WORDS, language_ways, FORWARDS, seconds=60.0),
    ]


COMPARISON = Comparison(
    "kernel",
    "The empirical neural tangent kernel of both sets of inputs",
    cases,
    # twenty forward passes: ten for each of the two words
    goals={(CNN, OURS): 1.0, (MLP, OURS): 0.1, (MANY, OURS): 0.1, (WORDS, OURS): 20.0},
)

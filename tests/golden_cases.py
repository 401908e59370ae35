"""What must never change: random numbers, directions, a short run, the bytes of a ledger.

A run on disk is a seed and P numbers per step. Whoever changes a value below makes every ledger and
every checkpoint that exists useless. `golden.json` holds what version 0.1.0 computed, and 0.2.0 for
Uniform directions, which are younger.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.llm.runs.ledger import Ledger, Step, WeightsHash
from zotutor.streams import Stream, normals, signs, uniforms

CPU = torch.device("cpu")
FAMILIES = (
    zo.Rademacher(),
    zo.Gaussian(),
    zo.directions.Sphere(),
    zo.Sparse(0.25),
    zo.LowRank(2),
)


def bits(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's memory."""
    return sha256(tensor.detach().contiguous().view(torch.uint8).numpy().data).hexdigest()


def model() -> nn.Module:
    """A matrix, a vector, a convolution, a scalar, one of them frozen, one of them tied."""
    found = nn.Module()
    found.matrix = nn.Parameter(torch.zeros(3, 5))
    found.vector = nn.Parameter(torch.zeros(4))
    found.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    found.convolution = nn.Parameter(torch.zeros(2, 1, 2, 2))
    found.tied = found.matrix
    found.scalar = nn.Parameter(torch.zeros(()))
    return found


def words() -> list[int]:
    """Words of a few streams, near 0 and far from it; int64 arithmetic, exact anywhere."""
    found = []
    for parts in ((), (0,), (7, 3, 1, 2), (2**64 - 1, 10**12, 5, 0, 2)):
        stream = Stream.of(*parts)
        for start in (0, 2**32 - 1, 2**40 + 5):
            found += stream.words(start, start + 2, CPU).tolist()
    return found


def exact_numbers() -> dict[str, Any]:
    """Signs and uniforms, without a rounding: equal bits anywhere."""
    stream = Stream.of(7, 3, 1, 2)
    picked = torch.tensor([5, 0, 2**33 + 1, 64, 63])
    return {
        "signs": signs(stream, slice(61, 71), torch.float32, CPU).tolist(),
        "signs by number": signs(stream, picked, torch.float32, CPU).tolist(),
        "many signs": bits(signs(stream, slice(0, 100_000), torch.float32, CPU)),
        "uniforms": uniforms(stream, slice(3, 9), CPU).tolist(),
        "uniforms by number": uniforms(stream, picked, CPU).tolist(),
        "directions": bits(zo.Rademacher().dense(model(), P=3, seed=11, step=4)),
        "uniform directions": bits(zo.Uniform().dense(model(), P=3, seed=11, step=4)),
        "uniform directions in float64": bits(
            zo.Uniform().dense(model().double(), P=3, seed=11, step=4)
        ),
    }


def rounded_numbers() -> dict[str, list[float]]:
    """Normals and what is made of them: log, sin and cos differ in their last bit by processor."""
    stream = Stream.of(7, 3, 1, 2)
    found = {"normals": normals(stream, slice(3, 9), CPU).tolist()}
    for family in FAMILIES:
        drawn = family.dense(model().double(), P=2, seed=11, step=4, first=1)
        found[repr(family)] = drawn.flatten().tolist()
    return found


def replayed(dtype: torch.dtype, **options: Any) -> str:
    """The weights after five steps of signs with given projected gradients."""
    theta = nn.Parameter((torch.arange(1000) / 64 - 8).to(dtype))
    matrix = nn.Parameter((torch.arange(12).view(3, 4) / 8).to(dtype))
    optimizer = zo.ZOSGD([theta, matrix], 2.0**-7, P=2, seed=5, **options)
    for step in range(5):
        optimizer.replay((0.25 + step, -1.5))
    return bits(theta) + bits(matrix)


def measured() -> list[list[float]]:
    """Coefficients and weights of three steps whose loss is a sum without a rounding."""
    theta = nn.Parameter(torch.arange(8) / 4)
    weights = torch.tensor([1.0, -2.0, 0.5, 4.0, -0.25, 1.0, 0.0, 8.0])
    optimizer = zo.ZOSGD([theta], 2.0**-4, eps=2.0**-6, P=2, seed=3)
    found = []
    for _ in range(3):
        projection = optimizer.measure(lambda: (theta * weights).sum())
        optimizer.replay(projection.coefficients)
        found += [[*projection.coefficients, projection.loss], theta.tolist()]
    return found


RUNS: dict[str, Callable[[], str]] = {
    "float32": lambda: replayed(torch.float32),
    "float64": lambda: replayed(torch.float64),
    "bfloat16": lambda: replayed(torch.bfloat16),
    "float16": lambda: replayed(torch.float16),
    "weight decay": lambda: replayed(torch.float32, weight_decay=0.5),
    "momentum": lambda: replayed(torch.float32, momentum=0.5),
}


def ledger(folder: Path) -> str:
    """The bytes of a ledger, as hexadecimal digits."""
    header = {"P": 2, "eps": 1e-3, "directions": "rademacher", "seed": 7}
    with Ledger.create(folder / "ledger.bin", header) as written:
        written.append(Step(0, 7, 0.69, 1e-3, (0.25, -1.0)))
        written.append(WeightsHash(1, bytes(range(32))))
        written.append(Step(1, 7, 0.5, 1e-3, (1e-300, 3.0)))
    return (folder / "ledger.bin").read_bytes().hex()

"""How time grows with the number of parameters d, and with the number of perturbations P."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo

from .runner import Call, Case, Comparison

BASE, STEP = "two forward passes", "ZO step, P = 1"
LAYERS, TOKENS = 8, 32
PS = (1, 4, 16, 64)


class Layers(nn.Module):
    """Square matrices with tanh between them; nothing else costs time."""

    def __init__(self, width: int, dtype: torch.dtype, device: str) -> None:
        """Weights of a fixed seed."""
        super().__init__()
        source = torch.Generator(device).manual_seed(0)
        self.weights = nn.ParameterList()
        for _ in range(LAYERS):
            weight = torch.empty(width, width, dtype=dtype, device=device)
            scale = math.sqrt(3 / width)
            self.weights.append(nn.Parameter(weight.uniform_(-scale, scale, generator=source)))

    def forward(self, x: Tensor) -> Tensor:
        """(T, width) to (T, width)."""
        for weight in self.weights:
            x = nn.functional.linear(x, weight).tanh()
        return x


def loss_of(model: Layers) -> Tensor:
    """The mean square of the output on fixed inputs."""
    weight = model.weights[0]
    x = torch.linspace(-1, 1, TOKENS * len(weight), dtype=weight.dtype, device=weight.device)
    found: Tensor = model(x.view(TOKENS, -1)).float().square().mean()
    return found


def two_forwards(model: Layers) -> None:
    """What a ZO step cannot do without."""
    with torch.no_grad():
        loss_of(model)
        loss_of(model)


def stepper(model: Layers, P: int) -> Call:
    """A function that takes a step."""
    optimizer = zo.ZOSGD(model.parameters(), 1e-7, P=P, seed=0)
    return lambda: optimizer.step(partial(loss_of, model))


def width_of(d: int) -> int:
    """The width at which LAYERS square matrices have about d entries."""
    return round(math.sqrt(d / LAYERS))


def ways_in_d(d: int, dtype: torch.dtype, device: str) -> dict[str, Call]:
    """A step at one size."""
    model = Layers(width_of(d), dtype, device)
    return {BASE: partial(two_forwards, model), STEP: stepper(model, 1)}


def ways_in_P(d: int, device: str) -> dict[str, Call]:
    """A step at each P."""
    model = Layers(width_of(d), torch.float32, device)
    return {f"P = {P}": stepper(model, P) for P in PS}


def about_d(d: int, dtype: torch.dtype, _: str) -> dict[str, Any]:
    """The size."""
    return {"d": LAYERS * width_of(d) ** 2, "dtype": str(dtype).removeprefix("torch.")}


def case_of_d(power: int, dtype: torch.dtype = torch.float32) -> Case:
    """The case of 10^power parameters."""
    name = f"d = 10^{power}, {str(dtype).removeprefix('torch.')}"
    d, options = 10**power, {"seconds": 5.0, "rounds": 15}
    about = partial(about_d, d, dtype)
    return Case(name, partial(ways_in_d, d, dtype), BASE, about=about, **options)  # type: ignore[arg-type]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent b of the least-squares fit y = a x^b.

    >>> round(slope([1, 10, 100], [2, 200, 20000]), 6)
    2.0
    """
    logs = torch.tensor([x, y], dtype=torch.float64).log()
    u, v = logs - logs.mean(1, keepdim=True)
    return round(float(u @ v / (u @ u)), 3)


def derive(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Exponents: of seconds in d, from 10^6 on in float32, and of seconds in P."""
    sizes = [c for c in cases if c["about"].get("dtype") == "float32" and c["about"]["d"] > 5e5]
    found = {}
    for way in (BASE, STEP):
        seconds = [row["seconds"] for c in sizes for row in c["ways"] if row["way"] == way]
        found[f"{way}, in d"] = slope([c["about"]["d"] for c in sizes], seconds)
    for c in cases:
        if "d" not in c["about"]:
            seconds = [row["seconds"] for row in c["ways"]]
            found[f"ZO step, in P, {c['case']}"] = slope(PS, seconds)
    return found


COMPARISON = Comparison(
    "scaling",
    "the time of a ZO step against d and P",
    lambda _: [
        *(case_of_d(power) for power in range(5, 9)),
        case_of_d(9, torch.bfloat16),
        Case("d = 10^4", partial(ways_in_P, 10**4), "P = 1", seconds=3.0, memory=False),
        Case("d = 10^6", partial(ways_in_P, 10**6), "P = 1", seconds=5.0, memory=False),
    ],
    derive=derive,
)

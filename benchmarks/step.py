"""One ZO step against two plain forward passes, the least that it can cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.models import mlp

from . import models
from .runner import Call, Case, Comparison, DisagreementError

BASE = "two forward passes"
SIGNS, NORMALS, FACTORS = "Rademacher", "Gaussian", "LowRank(1), one after the other"
BOTH, FOUR = "LowRank(1), both signs in one batch", "LowRank(1), P = 4 in one batch"
REPLAY = "seed replay in place"
LR = 1e-7


@dataclass
class Step:
    """A way to take a step with an optimizer of this package."""

    optimizer: zo.ZOSGD
    losses: Callable[[int], Tensor]
    batched: bool = False

    def __call__(self) -> Tensor:
        """One step."""
        if self.batched:
            return self.optimizer.step_batched(self.losses)
        return self.optimizer.step(self.loss)

    def loss(self) -> Tensor:
        """The loss of the batch."""
        return self.losses(1)[0]


def language_losses(model: nn.Module, tokens: Tensor) -> Callable[[int], Tensor]:
    """A function from a number of copies of the batch to the language-model loss of each copy.

    Sentence by sentence: the log-softmax of all would take as much memory again as the logits.
    """

    def losses(copies: int) -> Tensor:
        repeated = tokens.repeat(copies, 1)
        logits = model(input_ids=repeated, use_cache=False).logits
        each = [
            nn.functional.cross_entropy(z[:-1].float(), ids[1:])
            for z, ids in zip(logits, repeated, strict=True)
        ]
        return torch.stack(each).view(copies, -1).mean(1)

    return losses


def regression_losses(model: nn.Module, rows: int, n: int) -> Callable[[int], Tensor]:
    """The mean squared output of a network on normal inputs (rows, n), for one copy."""
    x = torch.randn(rows, n, generator=torch.Generator().manual_seed(1))
    return lambda _: model(x).square().mean().view(1)


def seed_replay(model: nn.Module, loss: Callable[[], Tensor], eps: float = 1e-3) -> None:
    """MeZO's step: four passes that move all weights in place along normals of one seed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator(device=parameters[0].device)

    def move(scale: float) -> None:
        generator.manual_seed(0)
        for p in parameters:
            z = torch.normal(0.0, 1.0, p.shape, generator=generator, dtype=p.dtype, device=p.device)
            p.data = p.data + scale * z

    with torch.no_grad():
        move(eps)
        above = loss()
        move(-2 * eps)
        below = loss()
        move(eps)
        move(-LR * float(above - below) / (2 * eps))


def ways(
    model: nn.Module, losses: Callable[[int], Tensor], *, also: Sequence[str] = ()
) -> dict[str, Call]:
    """The steps by name: always :data:`BASE`, Rademacher, LowRank and seed replay."""

    def optimizer(directions: zo.directions.Directions, P: int = 1) -> zo.ZOSGD:
        return zo.ZOSGD(model.parameters(), LR, seed=0, directions=directions, P=P)

    def two_forwards() -> None:
        with torch.no_grad():
            losses(1)
            losses(1)

    low_rank = optimizer(zo.LowRank(1))
    found: dict[str, Call] = {
        BASE: two_forwards,
        SIGNS: Step(optimizer(zo.Rademacher()), losses),
        NORMALS: Step(optimizer(zo.Gaussian()), losses),
        FACTORS: Step(low_rank, losses),
        BOTH: Step(low_rank, losses, batched=True),
        FOUR: Step(optimizer(zo.LowRank(1), P=4), losses, batched=True),
        REPLAY: lambda: seed_replay(model, lambda: losses(1)[0]),
    }
    kept = {BASE, SIGNS, FACTORS, REPLAY, *also}
    return {name: call for name, call in found.items() if name in kept}


def check(steps: Mapping[str, Call]) -> None:
    """Each optimizer's projected gradient is that of weights moved in place along the same u."""
    for name, step in steps.items():
        if not isinstance(step, Step) or step.batched:
            continue
        optimizer = step.optimizer
        parameters = optimizer.param_groups[0]["params"]
        found = optimizer.measure(step.loss).coefficients[0]
        u = optimizer.directions.at(parameters, seed=0, step=optimizer.steps_taken)
        eps, losses = optimizer.eps, []
        with torch.no_grad():
            backup = [p.clone() for p in parameters]
            for sign in (1, -1):
                for i, (p, theta) in enumerate(zip(parameters, backup, strict=True)):
                    p.copy_(theta + sign * eps * u.tensor(i, p.dtype))
                losses.append(float(step.loss()))
            for p, theta in zip(parameters, backup, strict=True):
                p.copy_(theta)
        expected = (losses[0] - losses[1]) / (2 * eps)
        # a loss is known to a few spacings, its projected gradient to that over eps
        allowed = 32 * torch.finfo(torch.float32).eps * abs(losses[0]) / eps
        if not abs(found - expected) <= allowed:
            raise DisagreementError(
                f"{name}: projected gradient {found}, in place {expected}, which may differ by "
                f"{allowed:.2g}; correct the probe before timing it"
            )


def language_model(name: str, device: str) -> nn.Module:
    """A model by its name in the table."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if name == "SmolLM2-135M":
        return models.smollm2(device, dtype)
    return models.opt(name, device, dtype)


def language_ways(name: str, shape: tuple[int, int], also: Sequence[str], device: str) -> Any:
    """The ways to take a step of a language model on random tokens."""
    model = language_model(name, device)
    tokens = models.batch_of(*shape, device, 49000)
    return ways(model, language_losses(model, tokens), also=also)


def language_case(
    name: str, shape: tuple[int, int], *, also: Sequence[str] = (), **options: Any
) -> Case:
    """A case of a language model."""
    prepare = partial(language_ways, name, shape, also)
    if name == "SmolLM2-135M":
        options["missing"] = models.missing_smollm2
    return Case(f"{name}, {shape[0]} x {shape[1]}", prepare, BASE, **options)


def network_ways(width: int, inputs: int, device: str) -> Any:
    """The ways to take a step of a network of two hidden layers, on 32 inputs."""
    model = mlp(width, inputs=inputs, seed=0).to(device)
    return ways(model, regression_losses(model, 32, inputs), also=[NORMALS])


def network_case(width: int, inputs: int) -> Case:
    """A case of a small network."""
    d = (inputs + 1) * width + (width + 1) * width + (width + 1) * 10
    prepare = partial(network_ways, width, inputs)
    name = f"network of width {width}, d = {d:,}"
    return Case(name, prepare, BASE, check=check, seconds=3.0, rounds=61, memory=False)


SMALL = network_case(64, 64)


def cases(device: str) -> list[Case]:
    """What fits the device."""
    if device == "cuda":
        names = ("OPT-125M", "OPT-1.3B", "OPT-6.7B", "OPT-13B", "OPT-30B")
        every = [NORMALS, BOTH, FOUR]
        return [language_case(name, s, also=every) for name in names for s in ((16, 64), (4, 32))]
    return [
        language_case("OPT-125M", (16, 64), also=[NORMALS, BOTH]),
        language_case("OPT-125M", (4, 32), also=[NORMALS, BOTH, FOUR], check=check, seconds=40.0),
        language_case("SmolLM2-135M", (16, 64), memory=False),
        language_case("SmolLM2-135M", (4, 32), memory=False, check=check),
        SMALL,
        network_case(256, 64),
        network_case(1024, 784),
    ]


COMPARISON = Comparison(
    "step",
    "one ZO step against two forward passes",
    cases,
    goals={
        ("OPT-125M, 16 x 64", SIGNS): 1.25,
        ("OPT-125M, 4 x 32", SIGNS): 2.2,
        ("OPT-125M, 16 x 64", FACTORS): 1.1,
        ("OPT-125M, 4 x 32", FACTORS): 1.35,
        (SMALL.name, SIGNS): 5.0,
    },
)

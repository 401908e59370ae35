"""The runs next to SGD, and the law for them, against naive versions in float64 and many draws."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import zotutor as zo
from zotutor.directions import Directions
from zotutor.experiments.llm_dynamics import first_order_logits, zeroth_order_logits

FAMILIES: dict[str, Directions] = {
    "signs": zo.Rademacher(),
    "normals": zo.Gaussian(),
    "uniform": zo.Uniform(),
}
Batches = list[tuple[Tensor, Tensor]]


def setting(steps: int) -> tuple[nn.Module, Batches, Tensor]:
    """A small network in float64, a fresh batch for each step, and two observed inputs."""
    generator = torch.Generator().manual_seed(3)
    model = zo.models.mlp(4, 1, inputs=5, outputs=3, seed=0).double()
    x = torch.randn(steps, 6, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (steps, 6), generator=generator)
    observe = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    return model, list(zip(x, y, strict=True)), observe


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y)


def naive_sgd(
    model: nn.Module, batches: Batches, observe: Tensor, lr: float
) -> tuple[list[Tensor], dict[str, list[float]]]:
    """torch's own SGD, and the law with a loop over all pairs of rows."""
    model = zo.models.mlp(4, 1, inputs=5, outputs=3, seed=0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    logits, laws = [model(observe).detach()], {name: [0.0] for name in FAMILIES}
    for x, y in batches:
        J = zo.jacobian(model, observe).flatten(0, 1)  # (6, d)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        g = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        for name, family in FAMILIES.items():
            added = sum(
                float((a @ a) * (g @ g) + (a @ g) ** 2)
                + (family.kurtosis - 3) * float((a**2 * g**2).sum())
                for a in J
            )
            laws[name].append(laws[name][-1] + lr**2 * added)
        optimizer.step()
        logits.append(model(observe).detach())
    return logits, laws


def test_sgd_and_the_law_are_those_of_a_naive_version() -> None:
    model, batches, observe = setting(4)
    before = [p.detach().clone() for p in model.parameters()]
    found = first_order_logits(
        model, batches, observe=observe, lr=0.05, record=[0, 1, 4], families=FAMILIES
    )
    logits, laws = naive_sgd(model, batches, observe, 0.05)
    torch.testing.assert_close(found.logits, torch.stack([logits[t] for t in (0, 1, 4)]))
    for name, values in found.variances.items():
        assert values == pytest.approx([laws[name][t] for t in (0, 1, 4)], rel=1e-6)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_a_jacobian_that_is_kept_is_that_of_the_last_refresh() -> None:
    model, batches, observe = setting(2)
    kept, fresh = (
        first_order_logits(
            model,
            batches,
            observe=observe,
            lr=0.5,
            record=[1, 2],
            families=FAMILIES,
            refresh=refresh,
        ).variances["normals"]
        for refresh in (2, 1)
    )
    assert kept[0] == fresh[0]
    assert kept[1] != fresh[1]
    assert kept[1] == pytest.approx(fresh[1], rel=0.5)


@pytest.mark.statistical
@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_square_deviation_of_runs_is_the_law(name: str) -> None:
    # lr so small that J and g hardly change: what the law neglects is of that relative size
    model, batches, observe = setting(3)
    lr, P, runs = 1e-3, 2, 400
    common: dict[str, Any] = {"observe": observe, "lr": lr, "record": [3]}
    sgd = first_order_logits(model, batches, families=FAMILIES, **common)
    squares = torch.stack(
        [
            (
                zeroth_order_logits(
                    model,
                    batches,
                    directions=FAMILIES[name],
                    P=P,
                    seed=seed,
                    **common,
                )
                - sgd.logits
            )
            .square()
            .sum()
            for seed in range(runs)
        ]
    )
    # 4.5 standard errors: an honest law fails in 7 of a million runs of this test
    error = 4.5 * float(squares.std()) / math.sqrt(runs)
    law = sgd.variances[name][0] / P
    assert float(squares.mean()) == pytest.approx(law, abs=error)
    assert error < 0.3 * law  # so that it can fail


def test_a_run_is_that_of_the_optimizer() -> None:
    model, batches, observe = setting(3)
    found = zeroth_order_logits(
        model,
        batches,
        observe=observe,
        lr=0.1,
        record=[0, 3],
        directions=zo.Gaussian(),
        P=2,
        seed=7,
    )
    assert torch.equal(found[0], model(observe))
    optimizer = zo.ZOSGD(model.parameters(), 0.1, P=2, directions=zo.Gaussian(), seed=7)
    for x, y in batches:
        optimizer.step(partial(loss, model, x, y))
    assert torch.equal(found[1], model(observe))

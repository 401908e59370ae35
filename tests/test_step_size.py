"""The border of divergence: against the theorem, and against runs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.experiments.loss_view import max_stable_lr
from zotutor.models import mlp, train
from zotutor.run_planning import SHARE, Plan

DIGITS = zo.datasets.digits()


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("P", [1, 4])
def test_without_end_it_is_that_of_the_theorem(decay: float, P: int) -> None:
    """On a quadratic with normal directions, within 1.5: the theorem's two values differ by 1.4."""
    h = torch.arange(1, 65, dtype=torch.float64) ** -decay
    theta = torch.ones(64, dtype=torch.float64, requires_grad=True)
    ratios = []
    for seed in range(4):
        found = zo.plan(
            lambda _: (h * theta.square()).sum() / 2,
            [theta],
            steps=1_000_000,
            P=P,
            directions=zo.Gaussian(),
            samples=100,
            seed=seed,
        )
        ratios.append(found.border.value / max_stable_lr(h, P))
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    assert 1 / 1.5 < mean < 1.5, ratios


def network() -> nn.Module:
    """A network of 3,466 parameters that has learned, to be tuned further."""
    model = mlp(32, 2, seed=0)
    train(model, DIGITS.x_train[:256], y=DIGITS.y_train[:256], lr=20 / 82, steps=40)
    return model


def losses_of(model: nn.Module, number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 100_003 + number % 100_003)
    rows = torch.randint(len(DIGITS.x_train), (16,), generator=generator)
    return nn.functional.cross_entropy(
        model(DIGITS.x_train[rows]), DIGITS.y_train[rows], reduction="none"
    )


def batch_loss(model: nn.Module, number: int, seed: int) -> Tensor:
    return losses_of(model, number, seed).mean()


def last_quarter(model: nn.Module, lr: float, family: Any, seeds: int, steps: int) -> float:
    """The mean loss of a run's last quarter, over seeds."""
    start = {key: value.clone() for key, value in model.state_dict().items()}
    total = 0.0
    for seed in range(seeds):
        model.load_state_dict(start)
        optimizer = zo.ZOSGD(model.parameters(), lr=lr, directions=family, seed=seed)
        losses = [float(optimizer.step(partial(batch_loss, model, n, seed))) for n in range(steps)]
        total += sum(losses[-steps // 4 :]) / (steps // 4) / seeds
    model.load_state_dict(start)
    return total


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.Rademacher()])
def test_runs_diverge_where_it_is_predicted(family: Any) -> None:
    """On digits, with batches of 16: not 1.5 times below the border, and 1.5 times above it."""
    model, steps = network(), 100
    found = zo.plan(
        lambda number: losses_of(model, number, 777),
        model,
        steps=steps,
        directions=family,
        samples=64,
        seed=0,
    )
    limit = 1.5 * found.loss.value
    below, above = (
        last_quarter(model, factor * found.border.value, family, 5, steps)
        for factor in (1 / 1.5, 1.5)
    )
    assert below < limit < above
    taken = last_quarter(model, found.lr, family, 5, steps)
    assert taken < found.loss.value
    for factor in (0.25, 4):  # neither much smaller nor much larger is better
        assert taken < last_quarter(model, factor * found.lr, family, 5, steps) + 0.002


def planned(**options: Any) -> Plan:
    theta = torch.ones(30, requires_grad=True)
    given: dict[str, Any] = {"samples": 4, "seed": 0} | options
    return zo.plan(lambda _: theta.square().sum() / 2, [theta], **given)


def test_a_budget_is_steps_turned_round() -> None:
    assert planned(budget=1000, P=5)[:1] + planned(budget=1000, P=5)[3:4] == (
        *planned(steps=100, P=5)[:1],
        100,
    )
    found = planned(steps=100, P=5)
    assert found.forward_passes == 1000
    assert found.lr == pytest.approx(SHARE * found.border.value, rel=0.06)  # two digits
    assert found.hours > 0


def test_its_text_says_all_of_it() -> None:
    text = str(planned(steps=100))
    for word in ("learning rate", "eps", "steps", "hours", "memory", "off first order", "tr(H)"):
        assert word in text
    assert text.count("±") >= 5
    assert text.endswith("no backward pass")


def test_more_perturbations_allow_a_larger_step() -> None:
    borders = [planned(steps=1000, P=P).border.value for P in (1, 4, 16)]
    assert borders[0] < borders[1] < borders[2]


def test_it_makes_no_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(Tensor, "backward", refuse)
    planned(steps=10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "steps, budget: given None and None, expected one of them"),
        ({"steps": 1, "budget": 2}, "steps, budget: given 1 and 2"),
        ({"budget": 3, "P": 2}, "budget: given 3, expected at least 4"),
        ({"steps": 0}, "steps: given 0"),
        ({"steps": 1, "P": 0}, "P: given 0"),
        ({"steps": 1, "samples": 3}, "samples: given 3, expected at least 4"),
    ],
)
def test_bad_arguments_are_refused_before_any_loss(options: dict[str, Any], says: str) -> None:
    def never(_: int) -> Tensor:
        raise AssertionError("a loss was computed")

    theta = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=says):
        zo.plan(never, [theta], seed=0, **options)


def test_a_plan_of_a_model_warns_and_plans_perturbations() -> None:
    model, x = mlp(4, 1, inputs=2, outputs=2, seed=0), torch.eye(2)
    old: Any = zo.plan
    with pytest.warns(DeprecationWarning, match="now plan_perturbations"):
        found = old(model, x, x, error=0.5, seed=0)
    assert found == zo.plan_perturbations(model, x, x, error=0.5, seed=0)

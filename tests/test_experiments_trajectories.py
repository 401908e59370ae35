"""Measurements of *Trajectories*, against the package's own runs."""

from __future__ import annotations

import copy

import pytest
import torch

import zotutor as zo
from zotutor.experiments.trajectories import constants_of_a_step, ends_of_runs

DIGITS = zo.datasets.digits()
X, Y = DIGITS.x_train[:12], DIGITS.y_train[:12]
X_O, Y_O = DIGITS.x_test[:8], DIGITS.y_test[:8]


def test_constants_are_those_of_single_gradients() -> None:
    model = zo.models.mlp(6, 1, seed=0)
    g = zo.models.gradient(model, X, y=Y).double()
    along, size = torch.zeros(8, 10), torch.zeros(8, 10)
    for n in range(8):
        for v in range(10):  # the gradient of log pi_v is minus that of the loss with label v
            b = -zo.models.gradient(model, X_O[n : n + 1], y=torch.tensor([v])).double()
            along[n, v], size[n, v] = (b @ g).square(), b.square().sum()
    picked = torch.arange(8), Y_O
    every, labels = constants_of_a_step(model, X, y=Y, x_o=X_O, y_o=Y_O)
    norm = g.square().sum().item()
    assert every == pytest.approx((size.sum().item() * norm / along.sum().item() + 1) ** 0.5, 1e-3)
    ratio = size[picked].sum().item() * norm / along[picked].sum().item()
    assert labels == pytest.approx((ratio + 1) ** 0.5, rel=1e-3)


def test_ends_are_those_of_the_optimizers() -> None:
    model = zo.models.mlp(6, 1, seed=0)
    before = copy.deepcopy(model.state_dict())
    ends = ends_of_runs(model, (X, Y), test=(X_O, Y_O), distance=0.5, runs=1, steps=5, P=3, seed=4)
    run = zo.trajectory(model, (X, Y), observe=X_O, lr=0.1, steps=5, P=3, seed=4)
    fo, by_zo = run.log_probs_fo[-1], run.log_probs_zo[-1]
    assert float(ends.deviation[0]) == pytest.approx(float(run.deviation()[-1]), rel=1e-2)
    assert ends.accuracy_fo == pytest.approx(float((fo.argmax(1) == Y_O).double().mean()))
    assert float(ends.accuracy[0]) == float((by_zo.argmax(1) == Y_O).double().mean())
    assert float(ends.same_answers[0]) == float((by_zo.argmax(1) == fo.argmax(1)).double().mean())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    many = ends_of_runs(model, (X, Y), test=(X_O, Y_O), distance=0.5, runs=4, steps=5, P=3, seed=4)
    assert len(set(many.deviation.tolist())) == 4

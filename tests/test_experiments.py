"""Measurements of the chapters, against definitions written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

import zotutor as zo
from zotutor.experiments import dimension_free, jl_lemma, kernel_fidelity, llm_finetuning, zo_sgd

DIGITS = zo.datasets.digits()


def network() -> nn.Module:
    return zo.models.mlp(3, 1, inputs=4, outputs=3, seed=0).double()


X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4).sin()
Y = torch.tensor([0, 1, 2, 2, 1, 0])


def test_steps_on_a_quadratic_are_those_of_zo_sgd() -> None:
    h = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    theta, step = torch.ones(3, dtype=torch.float64), 0
    like = [theta.clone().requires_grad_()]
    while h @ theta.square() > 0.1 * h.sum():
        u = zo.Rademacher().dense(like, P=1, seed=0, step=step)[:, 0]
        theta = theta - 0.2 * (u @ (h * theta)) * u
        step += 1
    assert zo_sgd.steps_on_quadratic(h, 0.2) == step


def test_gradient_and_hessian_are_those_of_the_loss() -> None:
    model = network()
    params = list(model.parameters())
    g, H = zo_sgd.hessian(zo_sgd.loss_on(model, X, Y), params)
    start = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in params]

    def loss_at(flat: Tensor) -> Tensor:
        parts = zip(start, flat.split(sizes), strict=True)
        weights = {name: part.view(start[name].shape) for name, part in parts}
        return F.cross_entropy(torch.func.functional_call(model, weights, (X,)), Y)

    theta = parameters_to_vector(params).detach()
    torch.testing.assert_close(g, torch.func.grad(loss_at)(theta))
    assert torch.equal(H, H.T)
    torch.testing.assert_close(H, torch.func.jacrev(torch.func.grad(loss_at))(theta))
    top, trace = zo_sgd.curvature(zo_sgd.loss_on(model, X, Y), params, draws=400)
    eigenvalues = torch.linalg.eigvalsh(H)
    assert top == pytest.approx(float(eigenvalues.abs().max()), rel=0.05)
    assert trace == pytest.approx(float(H.trace()), rel=0.1)


def test_measured_changes_are_those_of_a_step_and_leave_the_weights() -> None:
    model = network()
    params, before = list(model.parameters()), parameters_to_vector(model.parameters()).clone()
    loss_fn = zo_sgd.loss_on(model, X, Y)
    found = zo_sgd.measured_changes(loss_fn, params, [0.0, 0.3], P=2, draws=3)
    assert torch.equal(parameters_to_vector(params), before)  # written back, not computed
    assert float(found[:, 0].abs().max()) < 1e-15
    for draw in range(3):
        student = network()
        loss = zo_sgd.loss_on(student, X, Y)
        start = float(loss().detach())
        zo.ZOSGD(student.parameters(), lr=0.3, P=2, seed=draw).step(loss)
        change = float(loss().detach()) - start
        assert float(found[draw, 1]) == pytest.approx(change, rel=1e-5)


def test_training_takes_the_batch_of_each_step() -> None:
    model, same = (zo.models.mlp(4, 1, seed=0) for _ in range(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    losses = zo_sgd.train(
        model, optimizer, split=DIGITS, steps=range(5, 8), scheduler=scheduler, size=16
    )
    for i, step in enumerate(range(5, 8)):
        x, y = zo_sgd.batch_at(DIGITS, step, size=16)
        assert losses[i] == pytest.approx(float(F.cross_entropy(same(x), y).detach()), rel=1e-5)
        zo.models.train(same, x, y=y, lr=0.1 * 0.5**i, steps=1)
    zeroth = zo.ZOSGD(same.parameters(), lr=0.1, seed=0)
    assert len(zo_sgd.train(same, zeroth, split=DIGITS, steps=[0])) == 1


def test_errors_of_inner_products() -> None:
    rows = torch.randn(3, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    like = [torch.zeros(15, dtype=torch.float64, requires_grad=True)]
    given: dict[str, Any] = {"directions": zo.Rademacher(), "P": 10, "trials": 4, "seed": 1}
    found = jl_lemma.inner_product_errors(rows, like, **given)
    pieces = [zo.Rademacher().dense(like, P=2, seed=1, step=s) for s in range(20)]
    for trial, u in enumerate(torch.cat(pieces, 1).split(10, dim=1)):
        expected = (rows @ u @ u.T @ rows.T / 10 - rows @ rows.T).abs()
        torch.testing.assert_close(found[trial], expected)
    with pytest.raises(ValueError, match="20"):
        jl_lemma.inner_product_errors(rows, like, **(given | {"trials": 1, "P": 7}))


def test_squared_errors_of_a_kernel() -> None:
    J_o, J_u = torch.randn(2, 3, 15, generator=torch.Generator().manual_seed(0)).double()
    like = [torch.zeros(15, dtype=torch.float64, requires_grad=True)]
    given: dict[str, Any] = {"directions": zo.Gaussian(), "seed": 1}
    found = kernel_fidelity.squared_errors(J_o, J_u, like, draws=500, **given)
    u = torch.cat([zo.Gaussian().dense(like, P=250, seed=1, step=s) for s in range(2)], 1)
    for draw in (0, 249, 250, 499):
        K_U = torch.outer(J_o @ u[:, draw], J_u @ u[:, draw])
        torch.testing.assert_close(found[draw], (K_U - J_o @ J_u.T).square().sum())
    with pytest.raises(ValueError, match="250"):
        kernel_fidelity.squared_errors(J_o, J_u, like, draws=100, **given)


def test_means_over_starts_are_those_of_each_pair() -> None:
    x = DIGITS.x_test[[0, 4, 8]]
    error, aligned, d = dimension_free.mean_over_starts(x, width=5, P=4, starts=2, draws=2)
    squares, alignments = [], []
    for seed in range(2):
        model = zo.models.mlp(5, 1, seed=seed)
        J, K = zo.jacobian(model, x), zo.entk(model, x, x)
        for n, m in ((0, 1), (0, 2), (1, 2)):
            alignments.append(float(zo.alignment(J[n], J[m])))
            for step in range(2):
                K_U = zo.zo_entk(model, x, x, P=4, seed=seed, step=step)
                squares.append(float(zo.relative_frobenius(K_U[n, m], K[n, m])) ** 2)
    assert error == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-4)
    assert aligned == pytest.approx(sum(alignments) / len(alignments), rel=1e-4)
    assert d == 65 * 5 + 6 * 10


def test_weights_changed_by_probes_are_counted() -> None:
    model = nn.Linear(3, 2)
    assert not llm_finetuning.weights_changed_by_probes(
        model, lambda: model(torch.ones(1, 3)).sum(), eps=1e-2, probes=3
    )

    model.register_buffer("calls", torch.zeros(2))

    def careless() -> Tensor:
        model.calls.add_(1.0)  # type: ignore[operator]
        return torch.zeros(())

    assert llm_finetuning.weights_changed_by_probes(model, careless, eps=1e-2, probes=2) == 2


def test_what_slopes_tell_of_a_gradient() -> None:
    # In two dimensions with one slope the best method turns by a right angle where |cos| < |sin|:
    # E max(cos^2, sin^2) = 1/2 + 1/pi, below (P + 1) / d = 1.
    draws = 20_000
    for P, d in ((1, 2), (2, 5)):
        found = zo_sgd.from_slopes(P, d=d, draws=draws, seed=3)
        for name, error in (("orthogonal", d / P - 1), ("averaged", (d + 1) / P)):
            v = found[name]
            square = v.square().sum(1) - 2 * v[:, 0] + 1
            bar = square.std() / draws**0.5
            assert abs(square.mean() - error) < 4 * bar
            assert bool((v[:, 0] - 1).mean().abs() < 4 * v[:, 0].std() / draws**0.5)  # unbiased
        cosine2 = found["best"][:, 0].square() / found["best"].square().sum(1)
        assert float(cosine2.mean()) < (P + 1) / d
        if d == 2:
            bar = cosine2.std() / draws**0.5
            assert abs(cosine2.mean() - (0.5 + 1 / math.pi)) < 4 * bar
    with pytest.raises(ValueError, match="expected 1 to d - 1 = 4"):
        zo_sgd.from_slopes(5, d=5, draws=1, seed=0)

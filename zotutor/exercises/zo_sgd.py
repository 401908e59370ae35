"""Checkers for *ZO-SGD*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zotutor.estimators import estimate_gradient
from zotutor.models import mlp
from zotutor.optim import ZOSGD

from .answers import (
    RTOL,
    NotYet,
    ask,
    compare_number,
    correct,
)

__all__ = ["check_momentum_step", "check_perturbations_per_step", "check_trace_from_losses"]


def check_trace_from_losses(student: Callable[..., Any]) -> None:
    """Check an estimate of tr(H) that uses loss values only.

    Args:
        student: takes loss_fn, params and, by keyword, eps, P, seed; returns an estimate of the
            trace of the Hessian, a mean over P directions.

    Raises:
        NotYet: with a hint.
    """
    generator = torch.Generator().manual_seed(0)
    d, P, eps = 20, 64, 0.05
    noise = torch.randn(d, d, generator=generator, dtype=torch.float64)
    H = torch.diag(torch.linspace(0.5, 5.0, d, dtype=torch.float64)) + 0.02 * (noise + noise.T)
    slope = torch.randn(d, generator=generator, dtype=torch.float64)
    theta = nn.Parameter(torch.randn(d, generator=generator, dtype=torch.float64))
    before = theta.detach().clone()

    @torch.no_grad()
    def loss_fn() -> Tensor:
        return theta @ H @ theta / 2 + slope @ theta + 3.0

    trace = float(H.trace())
    call = f"trace_from_losses(loss_fn, params, eps={eps}, P={P}, seed=0)"
    answer = ask(student, call, loss_fn, [theta], eps=eps, P=P, seed=0)
    if not torch.equal(theta.detach(), before):
        raise NotYet(
            f"{call}: theta is not what it was. Look at the loss inside `with zo.perturbed(...)`, "
            "which never writes theta"
        )
    slips = [
        (trace / 2, "Half of it: L(+) + L(-) - 2 L is eps^2 u^T H u, without a factor of 2."),
        (trace * P, "This is the sum over directions; divide by P."),
        (trace * eps, "A second difference is divided by eps squared."),
        (trace * eps**2, "Divide by eps squared."),
        (-trace, "The sign is turned: a valley has L(+) + L(-) > 2 L."),
        (0.0, "This is 0; is it a first difference, or is each probe on the same side?"),
    ]
    # d = 20 and 64 draws of signs: the standard error is below 1 % of the trace
    compare_number(call, answer, trace, slips, rtol=0.05)
    correct("three loss values a direction give u^T H u, whose mean is tr(H).")


def check_momentum_step(student: Callable[..., Any]) -> None:
    """Check a ZO-SGD step with momentum against ZOSGD, over a few steps.

    Args:
        student: takes loss_fn, params, buffer of shape (d,) and, by keyword, lr, momentum, eps, P,
            seed, step. It changes params and buffer in place.

    Raises:
        NotYet: with a hint.
    """
    settings = {"lr": 0.05, "momentum": 0.8, "eps": 1e-5, "P": 3, "seed": 7}
    model, loss_fn = _small_problem()
    params = list(model.parameters())
    buffer = torch.zeros(sum(p.numel() for p in params), dtype=torch.float64)
    for step in range(5):
        ask(student, "momentum_step", loss_fn, params, buffer, **settings, step=step)
    answer = _flat(params)
    if not bool(answer.isfinite().all()):
        raise NotYet("momentum_step: the parameters are no longer finite")
    expected = _momentum_run(settings)
    if torch.allclose(answer, expected, rtol=RTOL, atol=1e-7):
        correct("equal to zo.ZOSGD with momentum, for 5 steps.")
        return
    start = _flat(_small_problem()[0].parameters())
    if torch.equal(answer, start):
        raise NotYet(
            "momentum_step: the parameters did not move. Write theta - lr * buffer back into them "
            "with vector_to_parameters"
        )
    slips = [
        (
            _momentum_run(settings | {"momentum": 0.0}),
            "These are steps without momentum: change the buffer in place, with mul_ and add_.",
        ),
        (
            _variant(settings, damp=0.2),
            "Yours averages with (1 - momentum) g_hat; torch's SGD and ZOSGD add the whole g_hat.",
        ),
        (
            _variant(settings, one_step=True),
            "Every step looks along the same directions: pass `step` on.",
        ),
        (
            _variant(settings | {"lr": -settings["lr"]}),
            "Each step goes uphill: subtract lr * buffer.",
        ),
    ]
    for wrong, hint in slips:
        if torch.allclose(answer, wrong, rtol=RTOL, atol=1e-7):
            raise NotYet(f"momentum_step: {hint}")
    gap = float((answer - expected).norm() / (expected - start).norm())
    raise NotYet(
        f"momentum_step: after 5 steps the parameters differ from zo.ZOSGD's by {gap:.2g} of the "
        "way traveled. Expected buffer <- momentum * buffer + g_hat, theta <- theta - lr * buffer"
    )


def _small_problem() -> tuple[nn.Module, Callable[[], Tensor]]:
    model = mlp(4, 1, inputs=3, outputs=2, seed=1).double()
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3).sin()
    y = torch.tensor([0, 1, 1, 0, 1])
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _momentum_run(settings: dict[str, Any]) -> Tensor:
    model, loss_fn = _small_problem()
    optimizer = ZOSGD(model.parameters(), **settings)
    for _ in range(5):
        optimizer.step(loss_fn)
    return _flat(model.parameters())


def _variant(settings: dict[str, Any], *, damp: float = 1.0, one_step: bool = False) -> Tensor:
    """Where common slips lead: an averaging buffer, or the directions of step 0 at each step."""
    model, loss_fn = _small_problem()
    params = list(model.parameters())
    buffers = [torch.zeros_like(p) for p in params]
    draw = {name: settings[name] for name in ("P", "eps", "seed")}
    for step in range(5):
        found = estimate_gradient(loss_fn, params, **draw, step=0 if one_step else step)
        with torch.no_grad():
            for theta, buffer, g_hat in zip(params, buffers, found, strict=True):
                buffer.mul_(settings["momentum"]).add_(g_hat, alpha=damp)
                theta.sub_(buffer, alpha=settings["lr"])
    return _flat(params)


def check_perturbations_per_step(student: Callable[..., float]) -> None:
    """Check the choice of P that trains fastest on a number of machines.

    Args:
        student: takes machines, d_H, probe, update (how many machines measure at the same time; the
            intrinsic dimension; seconds of one probe, and of one update); returns the whole P for
            which a run takes least time, the smallest of several.

    Raises:
        NotYet: with a hint.
    """
    cases = ((1, 10.0, 1.0, 0.0), (8, 10.0, 1.0, 0.0), (1, 10.0, 1.0, 8.0), (4, 30.0, 0.5, 3.0))
    for machines, d_H, probe, update in cases:
        call = f"perturbations_per_step({machines}, {d_H:g}, {probe:g}, {update:g})"
        slips = [
            (_fastest(1, d_H, probe, update), "The machines measure at the same time."),
            (_fastest(machines, d_H, probe, 0.0), "An update takes time, too."),
            (
                _fastest(machines, d_H, probe, update, floor=0.0),
                "However many directions, steps are needed: 1 + (1 + d_H) / P, with the 1.",
            ),
        ]
        hint = (
            "The number of steps goes as 1 + (1 + d_H) / P, and a step takes "
            "2 ceil(P / machines) probe + update seconds: try P = 1, 2, 3, ..."
        )
        answer = ask(student, call, machines, d_H, probe, update)
        expected = _fastest(machines, d_H, probe, update)
        slips = [(wrong, text) for wrong, text in slips if wrong != expected]
        compare_number(call, answer, expected, slips, whole=True, hint=hint)
    correct(
        "one if probes are all that costs; more where they run in parallel or updates are slow."
    )


def _fastest(machines: int, d_H: float, probe: float, update: float, *, floor: float = 1.0) -> int:
    """The P for which steps times seconds per step is smallest."""

    def seconds(P: int) -> float:
        return (floor + (1 + d_H) / P) * (2 * math.ceil(P / machines) * probe + update)

    return min(range(1, 1000), key=seconds)

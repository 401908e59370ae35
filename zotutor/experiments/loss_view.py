"""Measurements of *The loss's view*: curvatures from the kernel, and the largest stable step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from zotutor.directions import Directions, Rademacher
from zotutor.jacobians import jvp, vjp
from zotutor.kernels import entk
from zotutor.parameters import resolve

__all__ = [
    "curvatures",
    "intrinsic_dimension_by_passes",
    "loss_around",
    "max_stable_lr",
    "run_around",
    "second_moment_step",
    "stable_border",
    "stable_bracket",
    "valley_balance",
]


def curvatures(model: nn.Module, x: Tensor) -> Tensor:
    """Eigenvalues of the Gauss-Newton Hessian other than 0, from the kernel: ascending, (N V,).

    Args:
        model: returns logits (N, V).
        x: inputs (N, ...), of a mean cross-entropy.
    """
    with torch.no_grad():
        pi = model(x).softmax(1).double()
    K = entk(model, x, x).double()  # (N, N, V, V)
    S = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None]  # (N, V, V)
    size, basis = torch.linalg.eigh(S)
    root = basis * size.clamp_min(0).sqrt()[:, None]  # root root^T = S
    blocks = torch.einsum("nji,nmjk,mkl->nmil", root, K, root) / len(x)
    matrix = blocks.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (N V, N V)
    return torch.linalg.eigvalsh(matrix).clamp_min(0)


def loss_around(model: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The flat parameters, and KL from the model's own outputs as a function of them."""
    params = resolve(model)
    with torch.no_grad():
        target = model(x).softmax(1)

    def loss_at(flat: Tensor) -> Tensor:
        logits = functional_call(model, params.split_named(flat), (x,))
        return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")

    return params.flatten(params.named().values()), loss_at


def max_stable_lr(h: Tensor, P: int | float) -> float:
    """The largest stable learning rate of ZO-SGD on a quadratic of eigenvalues h, by bisection."""
    low, high = 0.0, 2 * P / ((P + 1) * h.max().item())
    for _ in range(60):
        lr = (low + high) / 2
        noise = (lr / P * (h / (2 - (1 + 1 / P) * lr * h))).sum()
        low, high = (lr, high) if noise < 1 else (low, lr)
    return low


def run_around(
    model: nn.Module, x: Tensor, rates: Sequence[float], *, P: int, steps: int = 60, runs: int = 3
) -> Tensor:
    """The loss after ZO-SGD from near a minimum, relative to that at the start.

    Args:
        model: at its minimum of the loss of :func:`loss_around`.
        x: inputs (N, ...).
        rates: learning rates.
        P: number of perturbations.
        steps: of a run; the loss is the mean over the last five.
        runs: for each rate, each from another start.

    Returns:
        (len(rates), runs).
    """
    theta, loss_at = loss_around(model, x)
    slope_and_loss = vmap(grad_and_value(loss_at))
    generator = torch.Generator().manual_seed(0)
    copies = len(rates) * runs
    at = theta + 3e-3 * torch.randn(copies, len(theta), generator=generator)
    lr = torch.tensor(rates).repeat_interleave(runs)[:, None]
    losses = []
    for step in range(steps):
        g, loss = slope_and_loss(at)
        losses.append(loss)
        u = Rademacher().dense(model, P=copies * P, seed=0, step=step)  # (d, copies P)
        u = u.T.unflatten(0, (copies, P))
        slopes = torch.einsum("rpd,rd->rp", u, g)
        at = at - lr * torch.einsum("rp,rpd->rd", slopes, u) / P
    return (torch.stack(losses[-5:]).mean(0) / losses[0]).view(len(rates), runs)


def stable_bracket(
    model: nn.Module, x: Tensor, *, P: int, limit: float, factors: Sequence[float]
) -> tuple[float, float]:
    """The largest factor of a learning rate at which most runs came to rest, and the next.

    Args:
        model: at its minimum.
        x: inputs (N, ...).
        P: number of perturbations.
        limit: the learning rate.
        factors: of it, ascending.

    Raises:
        ValueError: runs came to rest at no factor, or at the last.
    """
    ends = run_around(model, x, [factor * limit for factor in factors], P=P)
    rests = (ends < 1).double().mean(1) > 0.5  # most runs came to rest
    last = int(rests.int().cumprod(0).sum()) - 1
    if last < 0 or bool(rests[-1]):
        raise ValueError(
            f"factors: runs came to rest at {rests.tolist()} of {list(factors)}, expected at the "
            "first and not at the last; give smaller or larger ones"
        )
    return factors[last], factors[last + 1]


def intrinsic_dimension_by_passes(
    model: nn.Module, x: Tensor, *, signs: int = 12, rounds: int = 6
) -> float:
    """Tr / lambda of the Gauss-Newton Hessian, sampled; O(d) memory.

    Args:
        model: returns logits (N, V).
        x: inputs (N, ...).
        signs: random signs for the trace.
        rounds: multiplications for the largest eigenvalue.
    """
    with torch.no_grad():
        pi = model(x).softmax(1)

    def root(w: Tensor) -> Tensor:  # B w with B B^T = S
        return pi.sqrt() * w - pi * (pi.sqrt() * w).sum(1, keepdim=True)

    def root_transposed(z: Tensor) -> Tensor:
        return pi.sqrt() * (z - (pi * z).sum(1, keepdim=True))

    generator = torch.Generator().manual_seed(0)
    traces = []
    for _ in range(signs):
        w = torch.randint(0, 2, pi.shape, generator=generator) * 2.0 - 1.0
        g = vjp(model, x, root(w))
        traces.append((g @ g).item() / len(x))
    w = root_transposed(w)
    for _ in range(rounds):
        w = root_transposed(jvp(model, x, vjp(model, x, root(w / w.norm())))) / len(x)
    return sum(traces) / signs / w.norm().item()


def second_moment_step(M: Tensor, H: Tensor, *, lr: float, P: int, kurtosis: float) -> Tensor:
    """E[theta theta^T] after a step of ZO-SGD on theta^T H theta / 2, from that before, (d, d).

    With F = I - lr H: F M F + (lr^2 / P) [tr(H M H) I + H M H + (kurtosis - 3) diag(H M H)].
    """
    inner = H @ M @ H
    noise = inner + (kurtosis - 3) * torch.diag(inner.diagonal())
    noise.diagonal().add_(inner.trace())
    step = torch.eye(len(H), dtype=H.dtype) - lr * H
    return step @ M @ step + lr**2 / P * noise


def stable_border(H: Tensor, *, P: int, kurtosis: float, rounds: int = 300) -> float:
    """The largest stable learning rate for directions of independent entries, by bisection.

    d x d matrices are multiplied some thousand times: for d of a few dozen.

    Args:
        H: symmetric and positive semi-definite, in the basis in which entries are drawn, (d, d).
        P: number of perturbations.
        kurtosis: of the entries; at 3 it is :func:`max_stable_lr` in any basis.
        rounds: steps after which the growth of the second moments is read off.
    """

    def grows(lr: float) -> bool:
        M = torch.eye(len(H), dtype=H.dtype)
        for _ in range(rounds):
            M = second_moment_step(M / M.trace(), H, lr=lr, P=P, kurtosis=kurtosis)
        return bool(M.trace() > 1)

    low, high = 0.0, 3.0 / float(H.diagonal().max())
    for _ in range(30):
        lr = (low + high) / 2
        low, high = (low, lr) if grows(lr) else (lr, high)
    return low


class Balance(NamedTuple):
    """Where runs on the loss (v w - 1)^2 / 2 end along its valley of minima, v w = 1."""

    end: Tensor
    """v^2 - w^2 after the last step, (runs,)."""
    met: Tensor
    """The sum over steps of (v^2 - w^2) G^2, with G the residual of the step, (runs,)."""


def valley_balance(
    start: tuple[float, float],
    *,
    lr: float,
    eps: float,
    P: int,
    steps: int,
    runs: int,
    directions: Directions,
    seed: int,
    label_noise: float = 0.0,
) -> Balance:
    """ZO-SGD from function values on (v w - y)^2 / 2, with labels y = 1 +- label_noise.

    Args:
        start: v and w, of all runs.
        lr: learning rate.
        eps: finite-difference step.
        P: number of perturbations.
        steps: of a run.
        runs: each with other directions and labels.
        directions: of independent entries, as Gaussian() or Rademacher().
        seed: of directions and labels.
        label_noise: the label's distance from 1; its sign is drawn in each step of a run.
    """
    theta = torch.tensor(start, dtype=torch.float64).repeat(runs, 1)  # (runs, 2)
    like = [torch.zeros(runs * P * 2, dtype=torch.float64, requires_grad=True)]
    generator = torch.Generator().manual_seed(seed)
    met = torch.zeros(runs, dtype=torch.float64)
    for step in range(steps):
        u = directions.dense(like, P=1, seed=seed, step=step).view(runs, P, 2)  # all at once
        sign = torch.randint(2, (runs, 1), generator=generator).double() * 2 - 1
        y = 1 + label_noise * sign
        residual = theta.prod(1) - y[:, 0]
        met += (theta[:, 0].square() - theta[:, 1].square()) * residual.square()
        above, below = (
            ((theta[:, None] + c * u).prod(2) - y).square() / 2 for c in (eps, -eps)
        )  # (runs, P)
        slopes = (above - below) / (2 * eps)
        theta = theta - lr * (slopes[:, :, None] * u).mean(1)
    return Balance(theta[:, 0].square() - theta[:, 1].square(), met)

"""Measurements of *Dimension-free*: kernels of models too large for a Jacobian.

Errors of several pairs of inputs are pooled: their squared errors are added up, and divided by the
sum of their norm(K)_F^2. The law, a sum over pairs, holds for it with the pooled alignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zotutor.directions import Rademacher
from zotutor.jacobians import jacobian, jvp, vjp
from zotutor.kernels import product, projected
from zotutor.models import gradient, mlp
from zotutor.similarity import alignment, relative_frobenius
from zotutor.statistics import rms, rms_with_error

__all__ = [
    "Facts",
    "Measured",
    "Memorizer",
    "Outputs",
    "draws_from_gram",
    "kernel_facts",
    "mean_over_starts",
    "measure",
    "measure_outputs",
    "pooled",
    "relative_error",
    "relative_law",
    "zo_kernel",
]


class Facts(NamedTuple):
    """The quantities of the kernels between N inputs that the law depends on."""

    K: Tensor
    """(N, N, V, V)."""
    norms: Tensor
    """norm(J_n)_F^2, (N,)."""
    overlaps: Tensor
    """sum_k (sum_i J_n[i, k]^2)(sum_j J_m[j, k]^2), (N, N)."""


class Measured(NamedTuple):
    """One network of a sweep."""

    d: int
    facts: Facts
    errors: dict[str, list[float]]
    """Relative errors, one per seed: of the gradient, and of the kernel for each kind of pair."""


class Outputs(NamedTuple):
    """One network of the sweep over the number of classes."""

    hidden: int
    rank: float
    """Effective rank of K(x_u, x_u)."""
    errors: list[tuple[float, float]]
    """For each quantity the root mean square error and its standard error."""
    laws: list[float]
    """For each quantity the law's prediction."""
    rows: tuple[Tensor, Tensor]
    """b (d,) of the first log-probability of x_o, and g (d,), the gradient of the loss."""


def draws_from_gram(gram: Tensor, *, P: int, draws: int, seed: int) -> Tensor:
    """Relative errors of K_U for Gaussian directions, drawn from inner products, without the model.

    Args:
        gram: of the rows of J_o and J_u together, (2 V, 2 V).
        P: number of perturbations.
        draws: how many.
        seed: of the draws.

    Returns:
        norm(K_U - K)_F / norm(K)_F, (draws,).
    """
    V = len(gram) // 2
    size, basis = torch.linalg.eigh(gram.double())
    root = basis * size.clamp_min(0).sqrt()  # root root^T = gram
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(draws, P, 2 * V, generator=generator, dtype=torch.float64)
    s, t = (normal @ root.T).split(V, dim=-1)  # (draws, P, V) each
    return relative_frobenius(s.mT @ t / P, gram[:V, V:].double())


def kernel_facts(model: nn.Module, x: Tensor) -> Facts:
    """K, norms and overlaps of all pairs of inputs, by 2 V passes per input; O(N d) memory.

    Args:
        model: returns logits (N, V).
        x: inputs (N, ...).
    """
    with torch.no_grad():
        N, V = model(x).shape
    K = torch.empty(N, N, V, V)
    columns = torch.zeros(N, sum(p.numel() for p in model.parameters()))  # sum_i J[i, k]^2
    for n in range(N):
        for j, unit in enumerate(torch.eye(V)):
            row = vjp(model, x[[n]], unit[None])  # (d,): row j of J(x_n)
            K[:, n, :, j] = jvp(model, x, row)  # (N, V)
            columns[n].addcmul_(row, row)
    return Facts(K, columns.sum(1), columns @ columns.T)


def zo_kernel(model: nn.Module, x: Tensor, g: Tensor, *, P: int, seed: int) -> tuple[Tensor, float]:
    """K_U of all pairs of inputs, and the relative error of the estimate of a gradient.

    Args:
        model: returns logits (N, V).
        x: inputs (N, ...).
        g: the gradient that is estimated along the same random signs, (d,).
        P: number of perturbations.
        seed: of the directions.

    Returns:
        K_U (N, N, V, V), and norm(g_hat - g) / norm(g).
    """
    responses, estimate = [], torch.zeros_like(g)
    for p in range(P):
        u = Rademacher().dense(model, P=1, seed=seed, step=0, first=p)[:, 0]
        responses.append(jvp(model, x, u))  # (N, V)
        estimate.add_(u, alpha=(u @ g).item() / P)
    seen = torch.stack(responses, -1)  # (N, V, P)
    K_U = torch.einsum("nip,mjp->nmij", seen, seen) / P
    return K_U, ((estimate - g).norm() / g.norm()).item()


def pooled(facts: Facts, pairs: Tensor) -> tuple[float, float]:
    """Alignment and overlap over a set of pairs, a mask (N, N)."""
    scale = (facts.norms[:, None] * facts.norms)[pairs].sum()
    squared = facts.K.square().sum((2, 3))
    return (squared[pairs].sum() / scale).item(), (facts.overlaps[pairs].sum() / scale).item()


def relative_law(facts: Facts, pairs: Tensor, *, P: int, kurtosis: float = 1.0) -> float:
    """Root of E norm(K_U - K)_F^2 / norm(K)_F^2 over a set of pairs, a mask (N, N)."""
    a, overlap = pooled(facts, pairs)
    return math.sqrt((1 / a + 1 + (kurtosis - 3) * overlap / a) / P)


def relative_error(K_U: Tensor, K: Tensor, pairs: Tensor) -> float:
    """norm(K_U - K)_F / norm(K)_F over a set of pairs, a mask (N, N)."""
    return ((K_U - K)[pairs].square().sum() / K[pairs].square().sum()).sqrt().item()


def measure(
    model: nn.Module,
    x: Tensor,
    *,
    y: Tensor,
    kinds: Mapping[str, Tensor],
    P: int,
    seeds: Iterable[int],
) -> Measured:
    """Errors of gradient and kernel of one network, for random signs of several seeds.

    Args:
        model: returns logits (N, V).
        x: inputs (N, ...).
        y: labels (N,), of the loss whose gradient is estimated.
        kinds: sets of pairs, masks (N, N), by name.
        P: number of perturbations.
        seeds: of the directions.
    """
    facts, g = kernel_facts(model, x), gradient(model, x, y=y)
    errors: dict[str, list[float]] = {"gradient": [], **{kind: [] for kind in kinds}}
    for seed in seeds:
        K_U, off = zo_kernel(model, x, g, P=P, seed=seed)
        errors["gradient"].append(off)
        for kind, pairs in kinds.items():
            errors[kind].append(relative_error(K_U, facts.K, pairs))
    return Measured(len(g), facts, errors)


def mean_over_starts(
    x: Tensor, *, width: int, P: int, starts: int, draws: int
) -> tuple[float, float, int]:
    """Error and alignment of all pairs of different inputs, over networks of one hidden layer.

    Args:
        x: inputs (N, 1, 8, 8).
        width: of the hidden layer.
        P: number of perturbations, random signs.
        starts: networks, each the seed of its number.
        draws: for each network.

    Returns:
        Root mean square relative error, mean alignment, d.
    """
    found, seen = [], []
    left, right = torch.triu_indices(len(x), len(x), 1)
    for seed in range(starts):
        network = mlp(width, 1, seed=seed)
        J = jacobian(network, x)  # (N, V, d)
        K = product(J, J)
        for step in range(draws):
            drawn = projected(J, J, network, P=P, seed=seed, step=step)
            found.append(relative_frobenius(drawn, K)[left, right])
        seen.append(alignment(J[left], J[right]))
    return rms(torch.stack(found)), torch.stack(seen).mean().item(), J.shape[2]


def measure_outputs(x: Tensor, *, V: int, d: int, P: int, draws: int) -> Outputs:
    """Errors of K(x_u, x_u), of K(x_o, x_u) and of one log-probability's change, for V classes.

    Args:
        x: x_o and x_u, whose label is class 0, (2, 1, 8, 8).
        V: number of classes.
        d: number of parameters; the one hidden layer has as many units as they allow.
        P: number of perturbations.
        draws: how many, of random signs.
    """
    hidden = round((d - V) / (65 + V))
    model = mlp(hidden, 1, outputs=V, seed=0)
    J_o, J_u = jacobian(model, x)  # (V, d) each
    with torch.no_grad():
        pi_o, pi_u = model(x).softmax(1)
    g = (pi_u - F.one_hot(torch.tensor(0), V)) @ J_u  # (d,): gradient of the loss
    b = J_o[0] - pi_o @ J_o  # (d,): gradient of log pi_0(x_o)
    u = Rademacher().dense(model, P=draws * P, seed=0, step=0)  # (d, draws P)
    errors, laws, ranks = [], [], []
    for left, right in ((J_u, J_u), (J_o, J_u), (b[None], g[None])):
        K = left @ right.T
        squared, scale = K.square().sum(), left.square().sum() * right.square().sum()
        overlap = left.square().sum(0) @ right.square().sum(0)  # kappa - 3 = -2 for signs
        laws.append(((scale + squared - 2 * overlap) / squared / P).sqrt().item())
        seen = [(rows @ u).split(P, dim=1) for rows in (left, right)]
        found = [relative_frobenius(s @ t.T / P, K).item() for s, t in zip(*seen, strict=True)]
        errors.append(rms_with_error(found))
        ranks.append((scale / squared).item())
    return Outputs(hidden, ranks[0], errors, laws, (b, g))


class Memorizer(nn.Module):
    """A small shared network, and a table of m private parameters per class, read by a key.

    The keys of two images are as good as independent, so that the table makes Jacobians longer
    and adds next to nothing to their inner product.
    """

    def __init__(self, m: int) -> None:
        super().__init__()
        self.shared = mlp(16, 1, seed=0)
        self.table = nn.Parameter(torch.zeros(10, m))
        generator = torch.Generator().manual_seed(0)
        self.waves: Tensor
        self.phases: Tensor
        self.register_buffer("waves", 20 * torch.randn(64, m, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(m, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of digits (N, 1, 8, 8)."""
        key = math.sqrt(2) * (x.flatten(1) @ self.waves + self.phases).cos()  # (N, m)
        logits: Tensor = self.shared(x) + key @ self.table.T
        return logits

"""Measurements of the chapter on the learning dynamics of language models.

Zeroth-order runs next to a first-order run from the same weights on the same batches, seen from the
logits of a few inputs: the study of Li et al. (2026), and the law that predicts its outcome.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zotutor.directions import Directions, Rademacher
from zotutor.dynamics import loss_gradient
from zotutor.jacobians import jvp, vjp
from zotutor.laws import PairTerms, pair_terms
from zotutor.optim import ZOSGD
from zotutor.parameters import resolve

__all__ = ["FirstOrderLogits", "first_order_logits", "zeroth_order_logits"]


class FirstOrderLogits(NamedTuple):
    """Logits along a run of SGD, and the law for the runs of ZO-SGD next to it."""

    logits: Tensor
    """(R, N_o, V), at the R recorded steps."""
    variances: dict[str, list[float]]
    """For each family and recorded step, the predicted E|z_ZO - z_SGD|^2 at P = 1, summed over all
    observed logits; for another P divide by it."""


def first_order_logits(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    observe: Tensor,
    lr: float,
    record: Sequence[int],
    families: dict[str, Directions],
    refresh: int = 1,
) -> FirstOrderLogits:
    r"""A run of SGD, and how far runs of ZO-SGD on its batches will be from it, without a fit.

    The one-step law (thm-exact-law, with the gradient as the only row of J_u) is summed over the
    steps of this run:

    .. math:: \operatorname E \lvert z_{ZO} - z_{SGD} \rvert^2 = \frac{\eta^2}{P} \sum_t \Bigl(
        \lVert J_t \rVert_F^2 \lvert g_t \rvert^2 + \lvert J_t g_t \rvert^2
        + (\kappa - 3) \sum_k \bigl( \textstyle\sum_i J_t[i, k]^2 \bigr) g_t[k]^2 \Bigr),

    which neglects that later steps see the weights that earlier noise has moved. g_t is that of
    each step; of J_t only the sums over its rows are kept, and computed again every ``refresh``
    steps, with one backward pass for each row.

    Args:
        model: returns logits (N, V); it is not changed.
        batches: inputs and labels of each step.
        observe: x_o, (N_o, ...).
        lr: learning rate eta.
        record: steps after which the logits are recorded, ascending, from 0 to len(batches).
        families: families of u by name, with independent entries.
        refresh: how many steps use one J.
    """
    model = copy.deepcopy(model)
    tensors = resolve(model).tensors
    logits, variances = list[Tensor](), {name: list[float]() for name in families}
    totals = dict.fromkeys(families, 0.0)
    columns = torch.zeros(0)
    for t in range(len(batches) + 1):
        if t in record:
            with torch.no_grad():
                logits.append(model(observe))
            for name in families:
                variances[name].append(totals[name])
        if t == len(batches):
            break
        if t % refresh == 0:
            columns = _root_of_column_sums(model, observe)  # (d,)
        g = loss_gradient(model, *batches[t]).g
        aligned = float(jvp(model, observe, g).double().square().sum())  # |J g|^2
        # one row with the same column sums as J gives two of the three terms
        terms = pair_terms(columns[None], g[None], directions=Rademacher())
        for name, family in families.items():
            excess = (3.0 - family.kurtosis) / 2.0 * terms.excess  # of signs: -2 times the overlap
            totals[name] += lr**2 * sum(PairTerms(terms.norms, aligned, excess))
        with torch.no_grad():
            offset = 0
            for tensor in tensors:
                tensor -= lr * g[offset : offset + tensor.numel()].view_as(tensor)
                offset += tensor.numel()
    return FirstOrderLogits(torch.stack(logits), variances)


def _root_of_column_sums(model: nn.Module, x: Tensor) -> Tensor:
    """The root of sum_i J[i, k]^2 over all logits i of all inputs, (d,), row by row."""
    with torch.no_grad():
        V = model(x).shape[1]
    total = None
    for n in range(len(x)):
        for i in range(V):
            row = vjp(model, x[n : n + 1], torch.eye(V)[i : i + 1])  # (d,)
            total = row.square_() if total is None else total.add_(row.square_())
    assert total is not None
    return total.sqrt_()


def zeroth_order_logits(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    observe: Tensor,
    lr: float,
    record: Sequence[int],
    directions: Directions,
    P: int,
    seed: int,
) -> Tensor:
    """The logits (R, N_o, V) along a run of ZO-SGD, at the recorded steps.

    Arguments as for :func:`first_order_logits`; all losses are those of real forward passes.
    """
    model = copy.deepcopy(model)
    optimizer = ZOSGD(model.parameters(), lr, P=P, directions=directions, seed=seed)
    found = []
    for t in range(len(batches) + 1):
        if t in record:
            with torch.no_grad():
                found.append(model(observe))
        if t < len(batches):
            optimizer.step(partial(_loss, model, *batches[t]))
    return torch.stack(found)


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y)

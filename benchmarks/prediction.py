"""What it costs to predict one step's effect on all V = 50,272 log-probabilities of a model.

A Jacobian would take V backward passes and V d numbers. The prediction takes one backward pass for
the gradient, passes over the directions, and one forward-mode pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor import dynamics
from zotutor.llm import Rows

from . import models
from .runner import Call, Case, Comparison, DisagreementError

BASE = "one forward pass"
GRADIENT, SLOPE = "the gradient g", "the change A J v, one forward-mode pass"
FIRST, ZEROTH = "the prediction for SGD", "the prediction for ZO-SGD, P = 16"
P = 16


class Prediction:
    """The parts of a prediction for one observed text and four that the step is taken on."""

    def __init__(self, model: nn.Module, device: str) -> None:
        """Random tokens; the label of each text is its first token."""
        self.rows = Rows(model)
        tokens = models.batch_of(5, 32, device, 50000)
        self.x_o, self.x_u, self.y_u = tokens[:1], tokens[1:], tokens[1:, 0]
        self.v = self.gradient()

    def forward(self) -> Tensor:
        """The logits of the observed text (1, V)."""
        with torch.no_grad():
            found: Tensor = self.rows(self.x_o)
        return found

    def gradient(self) -> Tensor:
        """g, (d,)."""
        return dynamics.loss_gradient(self.rows, self.x_u, self.y_u).g

    def change(self, v: Tensor) -> Tensor:
        """A J_o v, (1, V)."""
        return dynamics.change_of_log_probs(self.rows, self.x_o, v)

    def first_order(self) -> Tensor:
        """A J_o g, (1, V)."""
        return self.change(self.gradient())

    def zeroth_order(self) -> Tensor:
        """A J_o U U^T g, (1, V)."""
        g = dynamics.random_projection(self.gradient(), self.rows, P=P, seed=0)
        return self.change(g)

    def slope_of(self, word: int) -> float:
        """The same change of one log-probability, by a backward pass from it."""
        parameters = [p for p in self.rows.parameters() if p.requires_grad]
        log_prob = self.rows(self.x_o).log_softmax(-1)[0, word]
        found = torch.autograd.grad(log_prob, parameters)
        return float(torch.cat([part.reshape(-1) for part in found]) @ self.v)


def made(name: str, device: str) -> Prediction:
    """The prediction for a model of random weights."""
    return Prediction(models.opt(name, device), device)


def ways(name: str, device: str) -> dict[str, Call]:
    """The parts of a prediction, and the whole."""
    one = made(name, device)
    return {
        BASE: one.forward,
        GRADIENT: one.gradient,
        SLOPE: partial(one.change, one.v),
        FIRST: one.first_order,
        ZEROTH: one.zeroth_order,
    }


def check(found: Mapping[str, Call]) -> None:
    """One entry of the prediction is what a backward pass from that log-probability says."""
    one: Any = found[FIRST]
    word = 1234
    expected, predicted = one.__self__.slope_of(word), float(one()[0, word])
    if not abs(predicted - expected) <= 1e-3 * abs(expected) + 1e-6:
        raise DisagreementError(f"predicted {predicted}, by a backward pass {expected}")


def about(name: str, device: str) -> dict[str, Any]:
    """Sizes."""
    d = zo.parameters.resolve(models.opt(name, device)).d
    return {"d": d, "V": 50272, "P": P, "texts": [1, 4], "tokens": 32}


def case(name: str) -> Case:
    """A model by its name."""
    options: dict[str, Any] = {"check": check, "about": partial(about, name)}
    return Case(name, partial(ways, name), BASE, seconds=15.0, **options)


COMPARISON = Comparison(
    "prediction",
    "predicting one step's change of 50,272 log-probabilities",
    lambda device: [case(n) for n in ("OPT tiny", "OPT-125M", *(["OPT-1.3B"] * (device != "cpu")))],
)

"""A learning rate to start from, measured on the model to be tuned."""

from __future__ import annotations

import math

from .stepping import Batches, ZerothOrder

REACH = 1e-3
"""How far a step may move each weight.

On the shipped model (reviews, P = 1, projected gradients of about 5) runs succeed at 5e-4 to 1.3e-3
(lr 1e-4 to 2.5e-4), and destroy what the model knew at 5e-3 (lr 1e-3).
"""
PROBES = 8


def mean_slope(stepper: ZerothOrder, batches: Batches) -> float:
    """The root mean square projected gradient, over a few directions and batches.

    No weight changes. Its square estimates the squared norm of the gradient of a batch's loss.
    """
    optimizer, found = stepper.optimizer, list[float]()
    device = optimizer.param_groups[0]["params"][0].device
    for number in range(max(2, -(-PROBES // optimizer.P))):
        tokens, labels = batches(number)
        found += stepper.measure(tokens.to(device), labels.to(device)).coefficients
    return math.sqrt(sum(g * g for g in found) / len(found))


def largest(g: float, P: int) -> float:
    """The learning rate at which a step moves each weight by :data:`REACH`, to one digit.

    A step moves a weight by (lr / P) sum_p g_p u_p, with random signs lr g / sqrt(P) on average.

    >>> largest(5.0, P=1), largest(5.0, P=4)
    (0.0002, 0.0004)
    """
    return float(f"{REACH * math.sqrt(P) / g:.0e}")


def advice(stepper: ZerothOrder, batches: Batches) -> str:
    """A suggested learning rate, and how it was found, in a sentence or two."""
    g, P = mean_slope(stepper, batches), stepper.optimizer.P
    if g == 0:
        return (
            "the loss did not change along random directions; look at the model, or give a larger "
            "eps"
        )
    lr = largest(g, P)
    return (
        f"this model's projected gradients are about {g:.2g} (root mean square over a few "
        f"batches), so that with lr={lr} a step moves each weight by {REACH}, as far as steps went "
        f"well on the shipped model; give lr={lr} or less: a tenth of it for thousands of steps"
    )

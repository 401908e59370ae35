"""Explorables of *The loss's view*."""

from __future__ import annotations

import torch

from zotutor.experiments.loss_view import max_stable_lr

from .page import Explorable, Table


def stable_step() -> Explorable:
    """The length of an estimate and the largest stable step, against d, P, kappa and tr H.

    On a quadratic with curvatures k^(-decay) along the axes of d parameters, the page computes
    E |g_hat|^2 = |g|^2 (1 + (d + kappa - 2) / P), and the largest learning rate at which the second
    moments of ZO-SGD stay bounded. The first grows with d; the second is limited by tr H.

    Example:
        >>> stable_step()
        <explorable loss_view.stable_step>
    """
    rows = []
    for decay in (0.0, 1.0, 2.0):
        h = torch.arange(1, 257, dtype=torch.float64) ** -decay
        shares = [f"{max_stable_lr(h, P) / 2:.3g}" for P in (1, 16, 256)]
        rows.append([f"{decay}", f"{float(h.sum()):.1f}", *shares])
    return Explorable(
        "loss_view",
        "stable_step",
        "The length of an estimate, and the largest stable step",
        {},
        Table(
            "Largest stable step over gradient descent's, d = 256, Gaussian directions",
            ["decay of the curvatures", "tr H / λ", "P = 1", "P = 16", "P = 256"],
            rows,
        ),
    )

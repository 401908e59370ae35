"""Explorables of *Learning dynamics*."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zotutor.checks import check_batch, check_labels, check_real
from zotutor.dynamics import one_step as take_step

from .arguments import check_names
from .page import Explorable, Table, rounded


def one_step(
    model: nn.Module, x: Tensor, y: Tensor, *, names: Sequence[str], rates: Sequence[float]
) -> Explorable:
    """A, K and G for any pair of inputs, their product, and the step that was really taken.

    The page computes the predicted change -eta A K G of every log-probability of one input after a
    step on another, from the kernel and the probabilities that it holds, and shows it with the
    change that was measured when the step was taken here.

    Args:
        model: returns logits (N, V); the model is left as it was.
        x: inputs (N, ...); N^2 V^2 kernel entries are kept, so for N of about ten.
        y: their labels (N,).
        names: of the inputs.
        rates: the learning rates to choose from.

    Raises:
        TypeError, ValueError: for bad inputs, labels, names or rates, or if the page would be
            larger than 200 kB.

    Example:
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> one_step(torch.nn.Linear(2, 2), x, y, names=["left", "right"], rates=[0.01, 0.1])
        <explorable learning_dynamics.one_step>
    """
    check_batch("x", x)
    y = check_labels("y", y, count=len(x))
    names = check_names(names, count=len(x))
    if not rates:
        raise ValueError("rates: given none, expected at least one learning rate")
    for rate in rates:
        check_real("rates", rate, low=0.0, open_low=True)
    steps = [
        [take_step(model, x, x[[u]], y[[u]], lr=rate) for u in range(len(x))] for rate in rates
    ]
    measured = torch.stack(
        [torch.stack([step.measured for step in at], dim=1) for at in steps]
    )  # (rates, N_o, N_u, V)
    K = torch.cat([step.K for step in steps[0]], dim=1)  # (N_o, N_u, V, V)
    with torch.no_grad():
        probabilities = model(x).softmax(1)
    own = [float(measured[0, n, n, y[n]]) for n in range(len(x))]
    return Explorable(
        "learning_dynamics",
        "one_step",
        "One step on one input, observed at another",
        {
            "names": names,
            "labels": y.tolist(),
            "rates": list(rates),
            "probabilities": rounded(probabilities, 6),
            "K": rounded(K),
            "measured": rounded(measured, 4),
        },
        Table(
            f"Change of an input's own log-probability after a step on it, η = {rates[0]}",
            ["input", "label", "change of log π"],
            [
                [name, f"{int(label)}", f"{change:.2g}"]
                for name, label, change in zip(names, y, own, strict=True)
            ],
        ),
    )

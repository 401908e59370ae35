"""Measurements of the chapter on fine-tuning a language model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zotutor.probe import perturbed

__all__ = ["weights_changed_by_probes"]


def weights_changed_by_probes(
    model: nn.Module, loss_fn: Callable[[], Tensor], *, eps: float, probes: int
) -> int:
    """How many entries of a model's state differ after probes of which the last is interrupted.

    Args:
        model: what is probed.
        loss_fn: a loss of it.
        eps: the finite-difference step.
        probes: how many; in the last one a KeyboardInterrupt is raised.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for p in range(probes):
        try:
            with torch.no_grad(), perturbed(model, eps, seed=0, step=0, p=p):
                loss_fn()
                if p == probes - 1:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    after = model.state_dict()
    return sum(int((before[name] != after[name]).sum()) for name in before)

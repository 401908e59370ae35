"""Models on several devices, or partly on disk, as accelerate places them by ``device_map``.

Directions need nothing of this: they are functions of a parameter's number, drawn where it is. What
is left is where a batch begins, and how to read weights that are in memory only while they are
used. The loss is on the device of the last layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def first_device(model: nn.Module) -> torch.device:
    """The device that a batch is put on: that of the first parameter which holds numbers.

    >>> first_device(nn.Linear(2, 2))
    device(type='cpu')
    """
    for module in model.modules():
        # of a layer whose weights are elsewhere until it is called
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None and any(p.is_meta for p in module.parameters(recurse=False)):
            return torch.device(device)
        for parameter in module.parameters(recurse=False):
            if not parameter.is_meta:
                return parameter.device
    return torch.device("cpu")


def check_held(model: nn.Module) -> None:
    """Refuse trainable parameters without numbers.

    Raises:
        ValueError: naming the first, and what to do.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_meta:
            raise ValueError(
                f"model: its trainable parameter {name} is offloaded (on the meta device), so that "
                "an update would be lost; freeze it, or place it on a device that holds it by "
                "another device_map; zotutor.llm.add_adapter keeps what it trains in memory"
            )


def held_parameters(model: nn.Module) -> Iterator[Tensor]:
    """The parameters in ``named_parameters()`` order; offloaded ones are loaded one by one."""
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:
            yield parameter
            continue
        from accelerate.utils import align_module_device

        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        with align_module_device(module, "cpu"):
            yield getattr(module, leaf).detach()

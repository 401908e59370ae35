"""Frozen weights of 8 or 4 bits: how they are loaded, and what their layers consist of."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Quantized = Literal["8bit", "4bit"]

_PACKED = {torch.int8, torch.uint8, torch.int16, torch.int32}
"""What integers are stored in; larger ones are positions or counts."""


def loading_options(
    library: Any, quantize: str | None, dtype: torch.dtype, device: str | torch.device
) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` for weights in 8 or 4 bits; none for None.

    Raises:
        ValueError: for another name.
        ImportError: without bitsandbytes.
    """
    if quantize is None:
        return {}
    if quantize not in get_args(Quantized):
        expected = ", ".join(get_args(Quantized))
        raise ValueError(f"quantize: given {quantize!r}, expected one of {expected}")
    if find_spec("bitsandbytes") is None:
        raise ImportError(
            "quantize: needs bitsandbytes, which is not installed; run: pip install bitsandbytes"
        )
    if quantize == "8bit":
        # it would say at each product that activations are rounded, as `load` says once
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        config = library.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = library.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_layout(model: nn.Module) -> None:
    """Make bitsandbytes keep 4-bit weights as they are, and multiply in their own dtype.

    On some processors it would repack them at the first product, with scales in bfloat16, which
    cannot be undone, and then multiply in bfloat16, which a probe of eps = 1e-3 cannot bear.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def rounds_activations(model: nn.Module) -> bool:
    """Whether a model rounds what its layers read to 8 bits, as bitsandbytes does in 8-bit layers.

    A loss of such a model jumps. On the shipped model with "lora" the projected gradients were off
    by 147 % (root mean square) at eps = 1e-3, and by 15 % at 1e-2; in 4 bits by 1 % at 1e-3.
    """
    return any(type(module).__name__ == "Linear8bitLt" for module in model.modules())


def is_quantized(module: nn.Module) -> bool:
    """Whether a layer itself stores small integers, as parameters or buffers.

    >>> is_quantized(nn.Linear(2, 2))
    False
    """
    own = (*module._parameters.values(), *module._buffers.values())
    return any(tensor is not None and tensor.dtype in _PACKED for tensor in own)


def state_of(module: nn.Module) -> list[Tensor]:
    """All that a quantized layer computes with, by name: also scales that are no parameters.

    Raises:
        ValueError: if bitsandbytes has repacked its weights, see :func:`keep_layout`.
    """
    weight = getattr(module, "weight", None)
    if getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False):
        raise ValueError(
            "model: bitsandbytes has rounded its scales further when it was first called, so that "
            "it cannot be compared with the base; load it again, with zotutor.llm.load or, before "
            "its first call, with support_avx512bf16_for_cpu = False in each Linear4bit"
        )
    state: dict[str, Any] = {}
    module._save_to_state_dict(state, "", False)
    return [state[name] for name in sorted(state) if isinstance(state[name], Tensor)]


def check_trainable(model: nn.Module) -> None:
    """Refuse a quantized model in which nothing can be trained.

    Raises:
        ValueError: that says what to add.
    """
    if any(p.requires_grad for p in model.parameters()):
        return
    layers = sum(map(is_quantized, model.modules()))
    what = f"{layers} of its layers store integers" if layers else "all its parameters are frozen"
    raise ValueError(
        f"model: nothing in it can be trained: {what}; add an adapter, with "
        "zotutor.llm.add_adapter or peft (--adapter lora)"
    )

"""Checks of what the user gave, made before any work.

Every message says what was given, what was expected, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .parameters import ParametersLike as Parameters
from .parameters import at_least_float32, resolve

__all__ = ["Parameters", "at_least_float32"]


def trainable(params: Parameters) -> list[Tensor]:
    """The tensors of :func:`zotutor.parameters.resolve`, for callers that need nothing else."""
    return list(resolve(params).tensors)


def check_integer(name: str, value: int, *, low: int, high: int | None = None) -> int:
    """``value`` as an int in [low, high), or a TypeError or ValueError that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: given {value!r} of type {type(value).__name__}, expected an int")
    value = value.__index__()
    if value < low or (high is not None and value >= high):
        top = "" if high is None else f" and below {high}"
        raise ValueError(f"{name}: given {value}, expected at least {low}{top}; choose such a one")
    return value


def check_real(name: str, value: float, *, low: float, open_low: bool = False) -> float:
    """``value`` as a finite float, at least ``low`` (above it if ``open_low``), or an error."""
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # torch raises the last, for several elements
        raise TypeError(f"{name}: given {value!r}, expected a number") from None
    if not math.isfinite(number) or number < low or (open_low and number == low):
        relation = "above" if open_low else "of at least"
        raise ValueError(f"{name}: given {number}, expected a finite number {relation} {low}")
    return number


def check_eps(eps: float, tensors: Iterable[Tensor]) -> float:
    """``eps`` as a float that is positive and not too small for any dtype in ``tensors``.

    The smallest eps allowed is the spacing of floating-point numbers at 1. Below it, theta + eps u
    and the loss are mostly rounding: in bfloat16 at eps = 1e-3 a directional derivative of a
    language model is wrong by more than 80 %.
    """
    eps = check_real("eps", eps, low=0.0, open_low=True)
    for tensor in tensors:
        spacing = torch.finfo(tensor.dtype).eps
        if eps < spacing:
            raise ValueError(
                f"eps: given {eps}, too small for {tensor.dtype} parameters, whose spacing at 1 is "
                f"{spacing:.3g}; give at least that, or leave eps=None for the default"
            )
    return eps


def check_comparable(model: nn.Module) -> None:
    """Refuse a model whose loss is not a fixed function of its parameters.

    Dropout in training mode draws a new mask at each call; batch norm, instance norm with running
    statistics and spectral norm in training mode write buffers at each call: function values could
    then not be compared. Batch norm without running statistics makes one row's logits depend on
    the other rows, in any mode.
    """
    for name, module in model.named_modules():
        kind = type(module).__name__.removeprefix("_")
        here = f"model: its module {name or '(itself)'} is a {kind}"
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm and not module.track_running_stats:
            raise ValueError(
                f"{here} without running statistics, so that the logits of one input depend on the "
                "others in its batch; construct it with track_running_stats=True"
            )
        p = getattr(module, "p", getattr(module, "dropout", 0.0))
        dropping = isinstance(
            module, (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)
        )
        if module.training and (
            batch_norm
            or (dropping and float(p) > 0)
            or (isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats)
            or isinstance(module, nn.utils.parametrizations._SpectralNorm)
        ):
            raise ValueError(
                f"{here} in training mode, so that two calls cannot be compared; "
                "call model.eval() first"
            )


def check_tensor(name: str, value: Tensor) -> Tensor:
    """``value`` itself if it is a tensor, or a TypeError that names it."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: given a {type(value).__name__}, expected a tensor; convert it with "
            "torch.as_tensor"
        )
    return value


def check_batch(name: str, x: Tensor) -> Tensor:
    """``x`` as a tensor with a batch dimension and at least one row."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}: given a {type(x).__name__}, expected a tensor of shape (N, ...); "
            "convert it with torch.as_tensor"
        )
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(
            f"{name}: given shape {tuple(x.shape)}, expected a batch (N, ...) with N at least 1; "
            "add the batch dimension with x[None], or give at least one input"
        )
    return x


def check_labels(name: str, y: Tensor, *, count: int, classes: int | None = None) -> Tensor:
    """``y`` as int64 labels of shape (count,), each in [0, classes).

    Without ``classes``, all that can be said before the model was called once.
    """
    integers = isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex())
    if not integers or y.dtype == torch.bool:
        given = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{name}: given {given}, expected a tensor of integer labels (int64)")
    if y.shape != (count,):
        raise ValueError(
            f"{name}: given shape {tuple(y.shape)}, expected ({count},): one label for each input"
        )
    if count and (int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes)):
        expected = "at least 0"
        if classes is not None:
            expected = f"0 to {classes - 1}, since the model has {classes} outputs"
        raise ValueError(
            f"{name}: given labels from {int(y.min())} to {int(y.max())}, expected {expected}; "
            "renumber the labels"
        )
    return y.long()

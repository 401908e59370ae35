"""Checks of arguments, made before any work.

Every message names what was given, what was expected, and what to do.
"""

from __future__ import annotations

import errno
import math
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .parameters import ParametersLike as Parameters
from .parameters import at_least_float32, resolve

__all__ = ["Parameters", "at_least_float32"]


def trainable(params: Parameters) -> list[Tensor]:
    """The tensors of :func:`zotutor.parameters.resolve`, for callers that need nothing else."""
    return list(resolve(params).tensors)


def _python_number(value: Any) -> Any:
    """A 0-d tensor or array as the Python number in it, and anything else as it is.

    Raises:
        TypeError: for several entries, or none, and for a tensor without memory (on "meta").
    """
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        if value.shape != () or (isinstance(value, Tensor) and value.is_meta):
            raise TypeError
        return value.item()
    return value


def _described(value: Any) -> str:
    """A value as messages show it: the shape and dtype of a tensor, else at most 80 characters."""
    if isinstance(value, (Tensor, np.ndarray)):
        place = f" on {value.device}" if isinstance(value, Tensor) else ""
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        return f"{kind} of shape {tuple(value.shape)} and dtype {value.dtype}{place}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_integer(name: str, value: int, *, low: int, high: int = 1 << 63) -> int:
    """``value`` as an int in [low, high), or a TypeError or ValueError that names it.

    What torch counts with has 64 bits, one of them for the sign: the default of ``high``.

    NumPy's integers and 0-d tensors and arrays of integers are integers; booleans of any kind and
    3.0 are not.
    """
    try:
        number = _python_number(value)
        if isinstance(number, (bool, str, bytes, bytearray)):
            raise TypeError
        number = operator.index(number)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise TypeError(
            f"{name}: given {_described(value)} of type {kind}, expected an int"
        ) from None
    if not low <= number < high:
        top = "" if number < low and high == 1 << 63 else f" and below {high}"
        raise ValueError(f"{name}: given {number}, expected at least {low}{top}")
    return int(number)


def check_real(name: str, value: float, *, low: float, open_low: bool = False) -> float:
    """``value`` as a finite float, at least ``low`` (above it if ``open_low``), or an error.

    NumPy's numbers and 0-d tensors and arrays are numbers; booleans of any kind and text are not.
    """
    try:
        number = _python_number(value)
        if isinstance(number, (bool, str, bytes, bytearray)):
            raise TypeError
        number = float(number)
    except OverflowError:
        number = math.inf  # an int that no float can hold
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: given {_described(value)}, expected a number") from None
    if not math.isfinite(number) or number < low or (open_low and number == low):
        relation = "above" if open_low else "of at least"
        bound = "" if low == -math.inf else f" {relation} {low}"
        raise ValueError(f"{name}: given {number}, expected a finite number{bound}")
    return number


def check_path(name: str, path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` expanded, or a TypeError or ValueError that names it.

    A name that is no UTF-8 is refused: a library below may not open it, or nobody can print it.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: given {path!r} of type {type(path).__name__}, expected a path")
    text = os.fsdecode(path)
    try:
        text.encode()
        if not text or "\0" in text:
            raise ValueError
        os.lstat(text)
    except ValueError:  # or UnicodeEncodeError, which is one
        raise ValueError(
            f"{name}: given {text!r}, expected the path of a file or folder; rename it"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(
                f"{name}: given a path of {len(text)} characters, {text[:40]!r}..., longer than "
                "this system allows; choose a shorter one"
            ) from None
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{name}: given {text!r}, and there is no such home folder; write the path in full"
        ) from None


def check_eps(eps: float, dtypes: Iterable[torch.dtype]) -> float:
    """``eps`` as a float that is positive and not too small for any of ``dtypes``.

    The smallest eps allowed is the spacing of floating-point numbers at 1. Below it, theta + eps u
    and the loss are mostly rounding: in bfloat16 at eps = 1e-3 a directional derivative of a
    language model is wrong by more than 80 %.
    """
    eps = check_real("eps", eps, low=0.0, open_low=True)
    for dtype in dict.fromkeys(dtypes):
        if eps >= torch.finfo(dtype).max:
            raise ValueError(
                f"eps: given {eps}, too large for {dtype}; give a small number, or leave it out "
                "for the default"
            )
        spacing = torch.finfo(dtype).eps
        if eps < spacing:
            raise ValueError(
                f"eps: given {eps}, too small for {dtype} parameters, whose spacing at 1 is "
                f"{spacing:.3g}; give at least that, or leave it out for the default"
            )
    return eps


def check_comparable(model: nn.Module) -> None:
    """Refuse a model whose loss is not a fixed function of its parameters.

    Dropout in training mode draws a new mask at each call; batch norm, instance norm with running
    statistics and spectral norm in training mode write buffers at each call: function values could
    then not be compared. Batch norm without running statistics makes the logits of one input depend
    on the others in its batch, in any mode.
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
    if value.is_meta or value.layout != torch.strided:
        raise TypeError(
            f"{name}: given a tensor of layout {value.layout} on {value.device}, expected a dense "
            "one that holds numbers; convert it with .to_dense(), or compute it on a real device"
        )
    return value


def check_batch(name: str, x: Tensor) -> Tensor:
    """``x`` as a tensor with a batch dimension, of at least one input."""
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

    Without ``classes``, which is not known before the model's first call, only the lower limit.
    """
    integers = isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex() or y.is_meta)
    if not integers or y.dtype == torch.bool:
        given = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
        if isinstance(y, Tensor) and y.is_meta:
            given += " without values (on meta)"
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


def check_floats(
    name: str,
    value: Tensor,
    *,
    dims: Sequence[int],
    expected: str,
    fix: str = "index or reshape it",
) -> Tensor:
    """``value`` as a tensor of finite real numbers with one of ``dims`` dimensions, none of size 0.

    ``expected`` says the shape in words, such as "(V, d)", and ``fix`` how to get there.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: given a {type(value).__name__}, expected a tensor of shape {expected}; "
            "convert it with torch.as_tensor"
        )
    if value.layout != torch.strided or value.is_meta:
        kind = "on the meta device" if value.is_meta else f"of layout {value.layout}"
        raise TypeError(f"{name}: given a tensor {kind}, expected a dense one that holds numbers")
    if not value.is_floating_point():
        raise TypeError(
            f"{name}: given dtype {value.dtype}, expected real floating point; convert it with "
            ".float()"
        )
    if value.dim() not in dims or value.numel() == 0:
        raise ValueError(
            f"{name}: given shape {tuple(value.shape)}, expected {expected}, no dimension of size "
            f"0; {fix}"
        )
    return check_finite(name, value)


def check_finite(name: str, value: Tensor) -> Tensor:
    """``value`` itself if all of its numbers are finite, or a ValueError that says which is not."""
    if not is_finite(value):
        raise ValueError(
            f"{name}: {place_of_nonfinite(value)}, expected finite numbers; repair or leave out "
            "what holds it"
        )
    return value


def is_finite(value: Tensor) -> bool:
    """Whether all entries are finite."""
    # a sum takes no memory, and is NaN or infinite if any entry is; it may also overflow by itself
    return bool(value.detach().sum().isfinite()) or bool(value.isfinite().all())


def place_of_nonfinite(value: Tensor) -> str:
    """The first number that is NaN or infinite, such as "nan at [0, 3]"."""
    bad = value.detach().isfinite().logical_not().nonzero()[0].tolist()
    return f"{float(value.detach()[tuple(bad)])} at {bad}"

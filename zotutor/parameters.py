"""A model's trainable parameters, resolved once: which they are, and where each is in theta.

theta is all trainable parameters, flattened and concatenated in ``named_parameters()`` order; d is
its length. Each public function resolves its argument once, with :func:`resolve`, and passes the
result to everything below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in for storage of type ``dtype``: float32, or float64 for float64.

    >>> at_least_float32(torch.bfloat16)
    torch.float32
    """
    return torch.promote_types(dtype, torch.float32)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """(m, n) of the matrix that a parameter is, or None for a vector or a scalar.

    A convolution of shape (out, in, height, width) counts as (out, in * height * width).

    >>> matrix_shape((6, 1, 5, 5)), matrix_shape((6,))
    ((6, 25), None)
    """
    return (shape[0], math.prod(shape[1:])) if len(shape) >= 2 else None


@dataclass(frozen=True, eq=False)
class Parameters:
    """The trainable parameters of a model, each once, in order; made by :func:`resolve`.

    Its position i here identifies a parameter everywhere: random directions depend on it.
    Iteration yields (i, tensor, start, stop), with parameter i at theta[start:stop].

    Example:
        >>> params = resolve(nn.Linear(2, 3))
        >>> params.names, params.d, params.offsets
        (('weight', 'bias'), 9, (0, 6))
        >>> [tuple(part.shape) for part in params.split(torch.zeros(4, 9))]
        [(4, 3, 2), (4, 3)]
    """

    names: tuple[str, ...]
    """As the model names them, or "parameter 0" and so on for tensors without names."""
    tensors: tuple[Tensor, ...]
    """The parameters themselves, on any devices."""
    model: nn.Module | None = None
    """The model, where one was given."""

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self.tensors)

    def __iter__(self) -> Iterator[tuple[int, Tensor, int, int]]:
        """(i, tensor, start, stop) for each parameter, in order."""
        for i, (tensor, start) in enumerate(zip(self.tensors, self.offsets, strict=True)):
            yield i, tensor, start, start + tensor.numel()

    @cached_property
    def shapes(self) -> tuple[torch.Size, ...]:
        """The shape of each."""
        return tuple(tensor.shape for tensor in self.tensors)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each has."""
        return tuple(tensor.numel() for tensor in self.tensors)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each begins in theta."""
        return (0, *accumulate(self.sizes))[:-1]

    @cached_property
    def d(self) -> int:
        """The length of theta."""
        return sum(self.sizes)

    @cached_property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The dtype of each."""
        return tuple(tensor.dtype for tensor in self.tensors)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype to compute in: float64 if any parameter is, else float32."""
        found = torch.float32
        for dtype in self.dtypes:
            found = torch.promote_types(found, dtype)
        return found

    @cached_property
    def matrices(self) -> tuple[tuple[int, int] | None, ...]:
        """(m, n) of each matrix or convolution, None for vectors and scalars."""
        return tuple(matrix_shape(shape) for shape in self.shapes)

    @cached_property
    def devices(self) -> tuple[torch.device, ...]:
        """The device of each."""
        return tuple(tensor.device for tensor in self.tensors)

    @cached_property
    def device(self) -> torch.device:
        """The one device of all.

        Raises:
            ValueError: if they are on several.
        """
        if len(set(self.devices)) > 1:
            found = ", ".join(sorted(set(map(str, self.devices))))
            raise ValueError(
                f"params: given on {found}, expected one device; move the model to one "
                "with .to(device)"
            )
        return self.devices[0]

    def named(self) -> dict[str, Tensor]:
        """The parameters by name, detached: they share memory with the model's."""
        pairs = zip(self.names, self.tensors, strict=True)
        return {name: tensor.detach() for name, tensor in pairs}

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """(..., d) cut into one (..., *shape) for each parameter; views where that is possible."""
        parts = flat.split(self.sizes, dim=-1)
        return tuple(
            part.reshape(flat.shape[:-1] + shape)  # (..., n) -> (..., *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        )

    def split_named(self, flat: Tensor) -> dict[str, Tensor]:
        """:meth:`split` by name, each part in its parameter's dtype."""
        parts = zip(self.names, self.split(flat), self.dtypes, strict=True)
        return {name: part.to(dtype) for name, part, dtype in parts}

    def flatten(self, parts: Iterable[Tensor]) -> Tensor:
        """One (..., *shape) for each parameter, joined to (..., d); the inverse of :meth:`split`.

        Mixed dtypes are promoted.
        """
        pairs = zip(parts, self.shapes, strict=True)
        return torch.cat(
            [
                part.reshape((*part.shape[: part.dim() - len(shape)], shape.numel()))
                for part, shape in pairs
            ],
            -1,
        )


ParametersLike = nn.Module | Parameters | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
"""A model, its parameters with or without names, or what :func:`resolve` made of them."""


def resolve(params: ParametersLike) -> Parameters:
    """The trainable parameters of ``params``, each once, in order.

    Frozen parameters (``requires_grad=False``) are left out, whatever their dtype; a tied parameter
    is listed where it is first met. The order is that of ``named_parameters()`` for a model, and
    the order given for anything else: directions depend on it.

    Args:
        params: a model; its parameters, with or without names; or what this function returned,
            which is returned as it is.

    Raises:
        TypeError: for something that is not a tensor, or a trainable tensor that is not dense or
            not real floating point.
        ValueError: if nothing is trainable; if a shape is not known yet (lazy modules), or one
            number in memory is several entries of a parameter (``expand``).

    Example:
        >>> model = nn.Linear(2, 3)
        >>> _ = model.bias.requires_grad_(False)
        >>> resolve(model).names
        ('weight',)
    """
    if isinstance(params, Parameters):
        return params
    if isinstance(params, nn.Module):
        items: Iterable[Any] = params.named_parameters()
    else:
        items = _checked_iterable(params)
    found: dict[int, tuple[str, Tensor]] = {}
    for position, item in enumerate(items):
        named = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
        name, tensor = item if named else (f"parameter {position}", item)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"params: item {position} is a {type(tensor).__name__}, expected a tensor; "
                "give a model, model.parameters() or model.named_parameters()"
            )
        if tensor.requires_grad and id(tensor) not in found:
            _check_trainable(position, tensor)
            found[id(tensor)] = name, tensor
    if not found:
        raise ValueError(
            "params: no trainable parameter given; expected at least one with "
            "requires_grad=True; unfreeze some with .requires_grad_(True)"
        )
    names, tensors = zip(*found.values(), strict=True)
    return Parameters(names, tensors, params if isinstance(params, nn.Module) else None)


def _checked_iterable(params: Any) -> Iterable[Any]:
    if isinstance(params, Tensor):
        raise TypeError(
            f"params: given one tensor of shape {tuple(params.shape)}, expected a model or an "
            "iterable of parameters; put it in a list: [tensor]"
        )
    if not isinstance(params, Iterable):
        raise TypeError(
            f"params: given a {type(params).__name__}, expected a model or an iterable of "
            "parameters; give model, model.parameters() or [tensor]"
        )
    return params


def _check_trainable(position: int, tensor: Tensor) -> None:
    """Refuse a tensor that cannot be perturbed."""
    if isinstance(tensor, nn.UninitializedParameter):
        raise ValueError(
            f"params: item {position} has no shape yet, as in a lazy module; call the model on a "
            "batch first"
        )
    here = f"params: item {position} of shape {tuple(tensor.shape)}"
    if tensor.dtype not in _FLOATS:
        raise TypeError(
            f"{here} has dtype {tensor.dtype}, expected float32, float64, bfloat16 or float16; "
            "freeze it with .requires_grad_(False), or convert it"
        )
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{here} has layout {tensor.layout}, expected a dense tensor; convert it with "
            ".to_dense()"
        )
    if any(
        size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    ):
        raise ValueError(
            f"{here} is expanded: one number in memory is several of its entries; copy it with "
            ".clone().detach().requires_grad_()"
        )

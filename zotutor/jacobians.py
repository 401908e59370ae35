"""A model as a function of its flat parameters: J, J v and J^T g."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from .checks import check_batch, check_comparable, check_integer, trainable

_BUDGET = 1 << 26
"""Numbers of a Jacobian formed at once: 256 MB in float32."""


def named_trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, detached, in ``named_parameters()`` order."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: given a {type(model).__name__}, expected a torch.nn.Module")
    trainable(model)
    check_comparable(model)
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def count(model: nn.Module) -> int:
    """d, the number of trainable parameters.

    >>> count(nn.Linear(2, 3))
    9
    """
    return sum(tensor.numel() for tensor in trainable(model))


def flatten(tensors: dict[str, Tensor]) -> Tensor:
    """The parameters as one vector of shape (d,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vector ``flat`` (d,) cut into parameters shaped as ``like``; the inverse of flatten."""
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {
        name: part.view(tensor.shape).to(tensor.dtype)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


def logits_of(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits z (N, V) of the model at ``params``; the model is not touched.

    Raises:
        ValueError: if the model returns anything but one row of logits for each input.
    """
    output: Any = functional_call(model, params, (x,))
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model: returned {given} for {x.shape[0]} inputs, expected logits of shape "
            f"({x.shape[0]}, V); wrap the model so that it returns one row an input"
        )
    return logits


def _function(model: nn.Module, x: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda params: logits_of(model, params, x)


def jacobian(model: nn.Module, x: Tensor, *, chunk_size: int | None = None) -> Tensor:
    """The Jacobian of the logits in the flat parameters: J(x) = dz(x) / dtheta.

    One backward pass an output, vectorized over inputs and outputs, ``chunk_size`` inputs at a
    time.

    Args:
        model: returns logits (N, V) for a batch (N, ...); no dropout or batch norm in training.
        x: inputs (N, ...), N at least 1.
        chunk_size: inputs at a time; by default so many that 2^26 numbers are formed at once.

    Returns:
        Shape (N, V, d), in the parameters' dtype. It must fit in memory: for larger models use
        :func:`jvp` and :func:`vjp`, which never form it.

    Raises:
        TypeError, ValueError: for a bad batch, model or chunk_size.

    Example:
        >>> model = nn.Linear(2, 3, bias=False)
        >>> jacobian(model, torch.tensor([[1.0, 2.0]]))[0, 0]
        tensor([1., 2., 0., 0., 0., 0.])
    """
    params = named_trainable(model)
    check_batch("x", x)
    with torch.no_grad():
        V = logits_of(model, params, x[:1]).shape[1]
    d = sum(tensor.numel() for tensor in params.values())
    if chunk_size is None:
        chunk_size = max(1, _BUDGET // (V * d))
    check_integer("chunk_size", chunk_size, low=1)

    def one(params: dict[str, Tensor], x_n: Tensor) -> Tensor:
        return logits_of(model, params, x_n[None])[0]

    rows = vmap(jacrev(one), in_dims=(None, 0))
    dtype = flatten({name: t.reshape(-1)[:1] for name, t in params.items()}).dtype
    J = torch.empty(x.shape[0], V, d, dtype=dtype, device=x.device)
    for start in range(0, x.shape[0], chunk_size):
        offset = 0
        for part in rows(params, x[start : start + chunk_size]).values():
            part = part.flatten(start_dim=2)  # (chunk, V, size of this parameter)
            J[start : start + chunk_size, :, offset : offset + part.shape[2]] = part
            offset += part.shape[2]
    return J


def _check_vector(v: Tensor, d: int, name: str) -> None:
    if not isinstance(v, Tensor) or v.shape != (d,):
        given = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
        raise ValueError(
            f"{name}: given {given}, expected shape ({d},), one number for each trainable parameter"
        )


def jvp(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """J(x) v, how the logits move when theta moves along v, in one forward-mode pass.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        v: a direction in flat parameters, (d,).

    Returns:
        Shape (N, V). Costs two to three forward passes, and no Jacobian is formed.

    Raises:
        TypeError, ValueError: for a bad batch, model or shape.

    Example:
        >>> jvp(nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 4.0]))
        tensor([[11.]])
    """
    params = named_trainable(model)
    check_batch("x", x)
    _check_vector(v, sum(tensor.numel() for tensor in params.values()), "v")
    tangents = unflatten(v.detach(), params)
    with torch.no_grad():
        return torch.func.jvp(_function(model, x), (params,), (tangents,))[1]


def vjp(model: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    """sum_n J(x_n)^T g_n, in one backward pass.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        g: one vector of cotangents an input, (N, V).

    Returns:
        Shape (d,). With g = G / N it is the gradient of the mean loss.

    Raises:
        TypeError, ValueError: for a bad batch, model or shape.

    Example:
        >>> vjp(nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
        tensor([3., 6.])
    """
    params = named_trainable(model)
    check_batch("x", x)
    pulled: Any = torch.func.vjp(_function(model, x), params)
    logits, pull = pulled
    if not isinstance(g, Tensor) or g.shape != logits.shape:
        given = tuple(g.shape) if isinstance(g, Tensor) else type(g).__name__
        raise ValueError(f"g: given {given}, expected the logits' shape {tuple(logits.shape)}")
    (grads,) = pull(g.detach().to(logits.dtype))
    return flatten(grads).detach()

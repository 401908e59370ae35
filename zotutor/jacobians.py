"""A model as a function of its flat parameters: J, J v and J^T g."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from .checks import check_batch, check_comparable, check_integer, check_tensor, trainable

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


def _everywhere(model: nn.Module, params: dict[str, Tensor]) -> dict[str, Tensor]:
    """``params`` under every name by which a module of the model holds them.

    A tied parameter gets all its names, but a module that is used in several places only its first
    path: given two paths to one module, `functional_call` leaves the substitute in it for good.
    """
    first: dict[int, str] = {}
    found = {}
    for path, module in model.named_modules():
        for name, p in module.named_parameters(path, recurse=False, remove_duplicate=False):
            if first.setdefault(id(p), name) in params:
                found[name] = params[first[id(p)]]
    return found


def _random_state(x: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


def as_logits(output: Any) -> Any:
    """What a model returned, or its ``.logits``, as language models return them."""
    return getattr(output, "logits", output)


def logits_of(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits z (N, V) of the model at ``params``; the model is not touched.

    Raises:
        ValueError: if the model returns anything but one row of logits for each input, or draws
            random numbers.
    """
    before = _random_state(x)
    try:
        output: Any = functional_call(model, _everywhere(model, params), (x,), tie_weights=False)
    except Exception as error:
        error.add_note(f"The model was called with x of shape {tuple(x.shape)} and {x.dtype}.")
        raise
    if not torch.equal(_random_state(x), before):
        (torch.cuda if x.is_cuda else torch).set_rng_state(before)
        raise ValueError(
            "model: it drew random numbers (dropout in training mode, or noise), so that its "
            "logits are no function of the parameters; call model.eval() first"
        )
    logits = as_logits(output)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model: returned {given} for {x.shape[0]} inputs, expected logits of shape "
            f"({x.shape[0]}, V); wrap the model so that it returns one row an input"
        )
    return logits


def _function(model: nn.Module, x: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda params: logits_of(model, params, x)


@contextmanager
def differentiable() -> Iterator[None]:
    """Attention from plain operations, and no graph around the result.

    The fused kernels have neither a batching rule nor a forward-mode derivative.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            # slow batching is not the caller's concern, nor is what forward mode imports
            warnings.filterwarnings("ignore", message="There is a performance drop")
            warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _rows(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """J(x) by parameter, each of shape (N, V, *the parameter's)."""

    def one(params: dict[str, Tensor], x_n: Tensor) -> Tensor:
        return logits_of(model, params, x_n[None])[0]

    try:
        return vmap(jacrev(one), in_dims=(None, 0))(params, x)
    except RuntimeError:  # an operation that cannot be batched, or a branch on a value
        rows: list[list[dict[str, Tensor]]] = []
        for x_n in x:
            pulled: Any = torch.func.vjp(lambda p, x_n=x_n: one(p, x_n), params)
            z, pull = pulled
            basis = torch.eye(z.shape[0], dtype=z.dtype, device=z.device)
            rows.append([pull(e)[0] for e in basis])
        return {k: torch.stack([torch.stack([r[k] for r in row]) for row in rows]) for k in params}


def jacobian(model: nn.Module, x: Tensor, *, chunk_size: int | None = None) -> Tensor:
    """The Jacobian of the logits in the flat parameters: J(x) = dz(x) / dtheta.

    One backward pass an output, vectorized over inputs and outputs, ``chunk_size`` inputs at a
    time. Where an operation cannot be vectorized (recurrent layers, a branch on a value), the
    backward passes are made one after the other, which is slower and gives the same.

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
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, low=1)
    with differentiable():
        V = logits_of(model, params, x[:1]).shape[1]
        d = sum(tensor.numel() for tensor in params.values())
        size = max(1, _BUDGET // (V * d)) if chunk_size is None else chunk_size
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in params.values()))
        J = torch.empty(x.shape[0], V, d, dtype=dtype, device=x.device)
        for rows, part in zip(J.split(size), x.split(size), strict=True):
            offset = 0
            for name, J_part in _rows(model, params, part).items():
                width = params[name].numel()
                rows[:, :, offset : offset + width] = J_part.reshape(len(part), V, width)
                offset += width
    return J


def _check_vector(v: Tensor, d: int, name: str) -> None:
    if check_tensor(name, v).shape != (d,):
        raise ValueError(
            f"{name}: given {tuple(v.shape)}, expected shape ({d},), one number for each trainable "
            "parameter; flatten in named_parameters() order"
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
    with differentiable():
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
    check_tensor("g", g)
    with torch.no_grad():
        pulled: Any = torch.func.vjp(_function(model, x), params)
        logits, pull = pulled
        if g.shape != logits.shape:
            raise ValueError(
                f"g: given {tuple(g.shape)}, expected the logits' shape {tuple(logits.shape)}; "
                "give one row of cotangents an input"
            )
        (grads,) = pull(g.detach().to(logits.dtype))
    return flatten(grads)

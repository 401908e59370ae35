"""A model as a function of its flat parameters: J, J v and J^T g.

Each is computed by the fastest way that the model allows, and by a slower one with the same result
where torch has no rule for the fast one: :func:`vjp` by plain backward passes, which every model
that can be trained allows; :func:`jvp` in forward mode, else by two backward passes, else row by
row; :func:`jacobian` vectorized over inputs and outputs, else row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge
from torch.func import jacrev, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from .calling import (
    called,
    logits,
    logits_of,
    model_of,
    plain_attention,
    recording,
    refuse_nonfinite,
    resolve_model,
)
from .checks import check_batch, check_integer, check_tensor
from .deprecation import warn
from .parameters import Parameters, resolve

_BUDGET = 1 << 26
"""Entries of a Jacobian formed at a time: 256 MB in float32."""


# ---- J^T g --------------------------------------------------------------------------------------


class Pullback:
    """One forward pass over x with its graph retained: J(x)^T g for any number of vectors g.

    Each g costs one backward pass. The activations stay in memory as long as the object does.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> pullback = Pullback(resolve_model(model), torch.tensor([[1.0, 2.0]]))
        >>> pullback(torch.tensor([[3.0]])), pullback(torch.tensor([[0.5]]))
        (tensor([3., 6.]), tensor([0.5000, 1.0000]))
    """

    def __init__(
        self, params: Parameters, x: Tensor, *, mode: TorchFunctionMode | None = None
    ) -> None:
        self.params = params
        model = model_of(params)

        def call(x: Tensor) -> Any:
            with mode or nullcontext():
                return model(x)

        with recording(model):
            # autograd cannot save an inference tensor for the backward pass; a clone is a plain one
            self._z = called(model, x.clone() if x.is_inference() else x.detach(), call=call)
        if not self._z.requires_grad:
            raise ValueError(
                "model: its logits carry no derivative: they are computed under torch.no_grad, "
                "detached, or read no trainable parameter; return what autograd can follow"
            )
        self.logits = self._z.detach()
        """z (N, V)."""

    def parts(self, g: Tensor, *, graph: bool = False) -> list[Tensor | None]:
        """J^T g by parameter, None where the logits do not depend on it; g is (N, V)."""
        with recording(model_of(self.params)):
            found = torch.autograd.grad(
                self._z,
                self.params.tensors,
                g.to(self._z.dtype),
                retain_graph=True,
                create_graph=graph,
                allow_unused=True,
            )
        return list(found)

    def at(self, places: Sequence[GradientEdge]) -> Iterator[list[Tensor | None]]:
        """The gradients of each logit, of every input, at places in the graph; None where 0."""
        one = torch.zeros_like(self._z)
        with recording(model_of(self.params)):
            for v in range(self._z.shape[1]):
                one[:, v] = 1.0
                found = torch.autograd.grad(
                    self._z, places, one, retain_graph=True, allow_unused=True
                )
                yield list(found)  # may be `one` itself
                one[:, v] = 0.0

    def __call__(self, g: Tensor) -> Tensor:
        """J^T g, (d,)."""
        return self.params.flatten(filled(self.parts(g.detach()), self.params.tensors))


def filled(parts: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Zeros for parameters that the logits do not depend on; sparse gradients made dense."""
    return [
        torch.zeros_like(tensor) if part is None else part.detach().to_dense()
        for part, tensor in zip(parts, tensors, strict=True)
    ]


def vjp(model: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    r"""The vector-Jacobian product :math:`\sum_n J(x_n)^\top g_n`, in one backward pass.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        g: one vector of cotangents for each input, (N, V).

    Returns:
        Shape (d,). With g = G / N it is the gradient of the mean loss.

    Raises:
        TypeError, ValueError: for a bad batch, model or shape; ValueError where NaN or infinity
            comes out, with the place it comes from.

    For many g at one x use :class:`Pullback`, which makes the forward pass once.

    Example:
        >>> vjp(nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
        tensor([3., 6.])
    """
    return vjp_at(resolve_model(model), x, g)


def vjp_at(params: Parameters, x: Tensor, g: Tensor, name: str = "x") -> Tensor:
    """:func:`vjp` of a resolved model; ``name`` is what errors call x."""
    check_batch(name, x)
    check_tensor("g", g)
    pullback = Pullback(params, x)
    if g.shape != pullback.logits.shape:
        raise ValueError(
            f"g: given {tuple(g.shape)}, expected the logits' shape "
            f"{tuple(pullback.logits.shape)}; give one row of cotangents for each input"
        )
    _check_real_tensor("g", g)
    return refuse_nonfinite(pullback(g), params, x, name, g=g)


# ---- J v ----------------------------------------------------------------------------------------


def jvp(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    r"""The Jacobian-vector product :math:`J(x)\,v`: how the logits move when theta moves along v.

    In forward mode, at the cost of two to three forward passes. Where an operation has no
    forward-mode derivative (grouped matrix products in a mixture of experts, weight norm, a custom
    ``autograd.Function``), by the derivative in u of :math:`v^\top J(x)^\top u`, which is two
    backward passes; where that is not possible either (``EmbeddingBag``), row by row.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        v: a direction in flat parameters, (d,).

    Returns:
        Shape (N, V). No Jacobian is formed.

    Raises:
        TypeError, ValueError: for a bad batch, model or shape; ValueError where NaN or infinity
            comes out, with the place it comes from.

    Example:
        >>> jvp(nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 4.0]))
        tensor([[11.]])
    """
    return jvp_at(resolve_model(model), x, v)


def jvp_at(params: Parameters, x: Tensor, v: Tensor, name: str = "x") -> Tensor:
    """:func:`jvp` of a resolved model; ``name`` is what errors call x."""
    check_batch(name, x)
    check_direction("v", v, params.d)
    v = v.detach()
    moved = None
    # tried on the model itself: torch has no list of the operations with a forward-mode rule
    for way in (_forward_mode, _twice_backward):
        try:
            moved = way(params, x, v)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation without a rule; the model's own errors surface below
            continue
        if moved is not None:
            break
    if moved is None:
        moved = torch.stack([J @ v.to(J.dtype) for J in (_row_by_row(params, x_n) for x_n in x)])
    return refuse_nonfinite(moved, params, x, name, v=v)


def check_direction(name: str, v: Tensor, d: int) -> None:
    """Refuse what is no vector of d real numbers."""
    if check_tensor(name, v).shape != (d,):
        raise ValueError(
            f"{name}: given {tuple(v.shape)}, expected shape ({d},), one number for each trainable "
            "parameter; flatten in named_parameters() order"
        )
    _check_real_tensor(name, v)


def _check_real_tensor(name: str, value: Tensor) -> None:
    if not value.is_floating_point():
        raise TypeError(
            f"{name}: given dtype {value.dtype}, expected real floating point; convert it with "
            ".float()"
        )


class _ConstantUnderNoGrad(TorchFunctionMode):
    """Drops the tangents of what a model computes under ``torch.no_grad()``.

    Forward mode ignores the grad mode, backward passes do not: without this, J v would include
    terms that J, and so the gradient of the loss, lacks.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (args, kwargs or {})
        if not torch.is_grad_enabled():
            given = tree_map_only(Tensor, lambda t: forward_ad.unpack_dual(t).primal, given)
        return func(*given[0], **given[1])


def _forward_mode(params: Parameters, x: Tensor, v: Tensor) -> Tensor:
    tangents = params.split_named(v)
    with (
        plain_attention(),
        torch.inference_mode(False),
        torch.enable_grad(),  # records nothing: no tensor here requires a gradient
        forward_ad.dual_level(),
        _ConstantUnderNoGrad(),
    ):
        duals = {
            name: forward_ad.make_dual(p, tangents[name]) for name, p in params.named().items()
        }
        z = logits_of(model_of(params), duals, x.clone() if x.is_inference() else x.detach())
        tangent = forward_ad.unpack_dual(z).tangent
        if tangent is None:
            raise ValueError(
                "model: its logits carry no derivative: they are detached, or read no trainable "
                "parameter; return what autograd can follow"
            )
        return tangent.detach().clone()  # (N, V)


def _twice_backward(params: Parameters, x: Tensor, v: Tensor) -> Tensor | None:
    """J v as d/du of v . J^T u, which is linear in u; None if autograd lost a part of it.

    It loses parts without an error: through a function that is only once differentiable, J^T u is
    a constant to autograd. The derivative is therefore taken at random signs u and checked there
    by the identity u . (J v) = v . (J^T u), whose right side needs one backward pass only.
    """
    with plain_attention():
        pullback = Pullback(params, x)
        z = pullback.logits
        source = torch.Generator(z.device).manual_seed(0)
        u = torch.randint(0, 2, z.shape, generator=source, device=z.device).to(z.dtype) * 2 - 1
        u.requires_grad_()  # (N, V)
        parts = pullback.parts(u, graph=True)
        pairs = [
            (part, along.to(part.dtype))
            for part, along in zip(parts, params.split(v), strict=True)
            if part is not None
        ]
        linked = [pair for pair in pairs if pair[0].requires_grad]
        with recording(model_of(params)):
            (moved,) = torch.autograd.grad(
                [part for part, _ in linked], u, [along for _, along in linked], allow_unused=True
            )
    if moved is None:
        return None
    products = [part.detach().double() * along.double() for part, along in pairs]
    total = sum(float(p.sum()) for p in products)
    rounding = torch.finfo(z.dtype).eps ** 0.5
    # the size of the terms that either side adds up, which sets the scale of their rounding
    size = float(moved.double().norm()) * z.numel() ** 0.5  # |J v| |u|
    size += sum(float(p.square().sum()) for p in products) ** 0.5
    agrees = abs(float((u.detach().double() * moved.double()).sum()) - total) <= rounding * size
    return moved.detach() if agrees else None


# ---- J ------------------------------------------------------------------------------------------


def jacobian(model: nn.Module, x: Tensor, *, chunk_size: int | None = None) -> Tensor:
    r"""The Jacobian of the logits in the flat parameters, :math:`J(x) = dz(x) / d\theta`.

    One backward pass for each output, vectorized over inputs and outputs, ``chunk_size`` inputs at
    a time. Where an operation cannot be vectorized (recurrent layers, a branch on a value, a custom
    ``autograd.Function``), the backward passes are made one after the other, which is slower and
    gives the same.

    Args:
        model: returns logits (N, V) for a batch (N, ...); no dropout or batch norm in training.
        x: inputs (N, ...), N at least 1.
        chunk_size: inputs at a time; by default as many as form 2^26 numbers at once.

    Returns:
        Shape (N, V, d), in the parameters' dtype. It must fit in memory: for larger models use
        :func:`jvp` and :func:`vjp`, which never form it.

    Raises:
        TypeError, ValueError: for a bad batch, model or chunk_size; ValueError where NaN or
            infinity comes out, with the place it comes from.

    Example:
        >>> model = nn.Linear(2, 3, bias=False)
        >>> jacobian(model, torch.tensor([[1.0, 2.0]]))[0, 0]
        tensor([1., 2., 0., 0., 0., 0.])
    """
    return jacobian_at(resolve_model(model), x, chunk_size=chunk_size)


def jacobian_at(
    params: Parameters, x: Tensor, name: str = "x", *, chunk_size: int | None = None
) -> Tensor:
    """:func:`jacobian` of a resolved model; ``name`` is what errors call x."""
    check_batch(name, x)
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, low=1)
    V = logits(model_of(params), x[:1]).shape[1]
    size = max(1, _BUDGET // max(1, V * params.d)) if chunk_size is None else chunk_size
    dtype = reduce(torch.promote_types, params.dtypes)
    J = torch.empty(x.shape[0], V, params.d, dtype=dtype, device=x.device)
    for block, part in zip(J.split(size), x.split(size), strict=True):
        _fill_block(block, params, part)
    if not bool(J.any()):
        Pullback(params, x[:1])  # raises if J is 0 because the logits carry no derivative
    return refuse_nonfinite(J, params, x, name)


def _fill_block(J: Tensor, params: Parameters, x: Tensor) -> None:
    """Write J(x) into ``J``, (N, V, d): one copy less than returning it."""

    def one(theta: dict[str, Tensor], x_n: Tensor) -> Tensor:
        return logits_of(model_of(params), theta, x_n[None])[0]

    try:
        with plain_attention(), torch.no_grad():
            by_name = vmap(jacrev(one), in_dims=(None, 0))(params.named(), x)
    except Exception:  # noqa: BLE001  torch.func raises errors of many types
        # an error of the model itself is raised again here
        for J_n, x_n in zip(J, x, strict=True):
            J_n.copy_(_row_by_row(params, x_n))
        return
    for i, _, start, stop in params:
        part = by_name[params.names[i]]  # (N, V, *shape)
        J[:, :, start:stop] = part.reshape(*J.shape[:2], stop - start)


def _row_by_row(params: Parameters, x_n: Tensor) -> Tensor:
    """J(x_n) (V, d), by one backward pass for each output."""
    pullback = Pullback(params, x_n[None])
    z = pullback.logits
    return torch.stack([pullback(e[None]) for e in torch.eye(z.shape[1]).to(z)])


# ---- deprecated ---------------------------------------------------------------------------------


def flatten(tensors: dict[str, Tensor]) -> Tensor:
    """Deprecated: use ``zotutor.parameters.resolve(model).flatten``."""
    warn("jacobians.flatten is deprecated; use zotutor.parameters.resolve(model).flatten")
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Deprecated: use ``zotutor.parameters.resolve(model).split_named``."""
    warn("jacobians.unflatten is deprecated; use zotutor.parameters.resolve(model).split_named")
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {
        name: part.view(tensor.shape).to(tensor.dtype)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


def count(model: nn.Module) -> int:
    """Deprecated: use ``zotutor.parameters.resolve(model).d``."""
    warn("jacobians.count is deprecated; use zotutor.parameters.resolve(model).d")
    return resolve(model).d

"""How a batch of logits uses each parameter: a Jacobian in factors, never written out.

Where a linear layer multiplies an input a by its weight W, the gradient of logit i in W is
delta_i a^T, with delta_i the gradient in the layer's output. So the kernel needs no gradient:

    <delta_i a^T, delta'_j a'^T> = (delta_i . delta'_j) (a . a').

A forward pass of the whole batch notes each use of a parameter (the operation, its input a, the
place of its output in the graph); V backward passes give delta at those places for all inputs at
once. A weight that is used at T positions, or several times (tied, recurrent), has the sum of as
many products. What an operation does to its parameter is known here for linear layers, matrix
products, convolutions, look-ups, norms, and vectors added or multiplied; the caller writes out the
rows of any other parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .parameters import at_least_float32
from .probe import _READS_NO_VALUE as READS_NO_VALUE

_TABLE = 1 << 24
"""Numbers of an intermediate table formed at once: 64 MB in float32."""


@dataclass
class Factor:
    """One side of an outer product: (N, V or 1, T, n) numbers, or (N, 1, T) rows of an identity."""

    values: Tensor
    one_hot: bool = False

    def __getitem__(self, rows: slice) -> Factor:
        """The factor for some of the inputs."""
        return Factor(self.values[rows], self.one_hot)

    def columns(self, part: slice, size: int) -> Tensor:
        """Entries ``part`` of each row, written out: (N, V or 1, T, len(part))."""
        if not self.one_hot:
            return self.values[..., part]
        numbers = torch.arange(part.start, part.stop, device=self.values.device)
        return (self.values[..., None] == numbers).float()


@dataclass
class Use:
    """The gradient of each logit in one parameter, from one kind of use.

    A matrix (m, n) has ``left`` (N, V, T, m) and ``right`` (N, V, T, n), its gradient being the sum
    of their outer products over T; anything else has ``rows`` (N, V, size).
    """

    left: Factor | None = None
    right: Factor | None = None
    rows: Tensor | None = None

    def __getitem__(self, part: slice) -> Use:
        """The use for some of the inputs."""
        if self.rows is not None:
            return Use(rows=self.rows[part])
        assert self.left is not None
        assert self.right is not None
        return Use(self.left[part], self.right[part])


@dataclass
class _Seen:
    """A use while the forward pass runs: delta is not known yet."""

    i: int
    edge: GradientEdge
    shape: torch.Size
    finish: Callable[[Tensor], Use]
    """From delta (N, V, *the output's shape after the batch dimension) to the use."""


@dataclass
class Uses:
    """The Jacobian of a batch, by parameter; made by :func:`record`."""

    logits: Tensor
    """(N, V)."""
    found: dict[int, list[Use]] = field(default_factory=dict)
    """By position of the parameter."""
    unknown: set[int] = field(default_factory=set)
    """Parameters that are used in a way not known here."""


class _Recorder(TorchFunctionMode):
    """Notes each use of a parameter in one forward pass of N inputs."""

    def __init__(self, tensors: Sequence[Tensor], N: int) -> None:
        super().__init__()
        self._number = {id(tensor): i for i, tensor in enumerate(tensors)}
        self._tensors, self._N = tensors, N
        self.seen: list[_Seen] = []
        self.unknown: set[int] = set()
        self._known: dict[Any, Callable[..., Any]] = {
            F.linear: self._linear,
            torch.addmm: self._addmm,
            torch.matmul: self._matmul,
            Tensor.matmul: self._matmul,
            Tensor.__matmul__: self._matmul,
            torch.mm: self._matmul,
            F.conv1d: self._convolution,
            F.conv2d: self._convolution,
            F.embedding: self._embedding,
            F.layer_norm: self._layer_norm,
            F.batch_norm: self._batch_norm,
            F.group_norm: self._group_norm,
        }
        if hasattr(F, "rms_norm"):
            self._known[F.rms_norm] = self._rms_norm
        for name in ("add", "__add__", "__radd__"):
            self._known[getattr(Tensor, name)] = self._add
        for name in ("mul", "__mul__", "__rmul__"):
            self._known[getattr(Tensor, name)] = self._mul
        self._known[torch.add], self._known[torch.mul] = self._add, self._mul

    def _i(self, value: Any) -> int | None:
        return self._number.get(id(value)) if isinstance(value, Tensor) else None

    def _all(self, values: Any) -> set[int]:
        found = set()
        for value in values:
            if isinstance(value, (list, tuple)):
                found |= self._all(value)
            elif (i := self._i(value)) is not None:
                found.add(i)
        return found

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and note what it does to parameters."""
        kwargs = kwargs or {}
        used = set() if func in READS_NO_VALUE else self._all((*args, *kwargs.values()))
        if not used:
            return func(*args, **kwargs)
        before = len(self.seen)
        known = self._known.get(func)
        out = NotImplemented if known is None else known(func, *args, **kwargs)
        if out is NotImplemented:
            del self.seen[before:]
            self.unknown |= used
            return func(*args, **kwargs)
        self.unknown |= used - {seen.i for seen in self.seen[before:]}
        return out

    def _note(self, value: Any, out: Tensor, finish: Callable[[Tensor], Use]) -> None:
        """Note that parameter ``value`` has been used to make ``out``, whose first dimension
        begins with the batch."""
        i = self._i(value)
        if i is None:
            return
        plain = not torch._C._functorch.is_functorch_wrapped_tensor(out)
        if not plain or out.grad_fn is None or out.dim() == 0 or out.shape[0] % self._N:
            self.unknown.add(i)
            return
        self.seen.append(_Seen(i, get_gradient_edge(out), out.shape, finish))

    def _split(self, x: Tensor) -> Tensor:
        """(N ..., n) as (N, T, n)."""
        return x.detach().reshape(self._N, -1, x.shape[-1])

    def _matrix(self, x: Tensor, *, transposed: bool) -> Callable[[Tensor], Use]:
        """A product with x (N ..., n): the weight is (m, n), or (n, m) if ``transposed``."""
        a = Factor(self._split(x)[:, None])  # (N, 1, T, n)

        def finish(delta: Tensor) -> Use:
            V = delta.shape[1]
            d = Factor(delta.reshape(self._N, V, -1, delta.shape[-1]))  # (N, V, T, m)
            return Use(a, d) if transposed else Use(d, a)

        return finish

    def _vector(self, scale: Tensor | None = None, *, last: bool) -> Callable[[Tensor], Use]:
        """A vector (n,) added, or times ``scale``, along the last or the channel dimension."""

        def finish(delta: Tensor) -> Use:
            N, V = delta.shape[:2]
            if scale is not None:
                delta = delta * scale.reshape(N, 1, *delta.shape[2:])
            if last:
                return Use(rows=delta.reshape(N, V, -1, delta.shape[-1]).sum(2))
            return Use(rows=delta.reshape(N, V, delta.shape[2], -1).sum(3))

        return finish

    def _linear(self, func: Any, input: Any, weight: Any, bias: Any = None) -> Any:
        if self._i(input) is not None or input.shape[0] % self._N:
            return NotImplemented
        out = func(input, weight, bias)
        self._note(weight, out, self._matrix(input, transposed=False))
        self._note(bias, out, self._vector(last=True))
        return out

    def _addmm(self, func: Any, input: Any, mat1: Any, mat2: Any, **scales: Any) -> Any:
        if scales or self._i(mat1) is not None or input.dim() != 1 or mat1.shape[0] % self._N:
            return NotImplemented
        out = func(input, mat1, mat2)
        self._note(mat2, out, self._matrix(mat1, transposed=True))
        self._note(input, out, self._vector(last=True))
        return out

    def _matmul(self, func: Any, input: Any, other: Any) -> Any:
        if self._i(input) is not None or other.dim() != 2 or input.dim() < 2:
            return NotImplemented
        if input.shape[0] % self._N:
            return NotImplemented
        out = func(input, other)
        self._note(other, out, self._matrix(input, transposed=True))
        return out

    def _convolution(
        self,
        func: Any,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        options = [stride, padding, dilation]
        flat = weight.dim() == 3
        whole = all(isinstance(o, int) or len(o) == weight.dim() - 2 for o in options)
        batched = self._i(input) is None and input.dim() == weight.dim()
        if groups != 1 or isinstance(padding, str) or not whole or not batched:
            return NotImplemented
        out = func(input, weight, bias, stride, padding, dilation)
        pairs = [(o, o) if isinstance(o, int) else tuple(o) for o in options]
        image, kernel = input.detach(), weight.shape[2:]
        if flat:  # a signal is an image of height 1
            image, kernel = image[:, :, None], (1, *kernel)
            pairs = [(neutral, pair[-1]) for neutral, pair in zip((1, 0, 1), pairs, strict=True)]
        stride_, padding_, dilation_ = pairs

        def finish(delta: Tensor) -> Use:
            a = F.unfold(image, kernel, dilation_, padding_, stride_).mT  # (N, T, in * kernel)
            d = delta.flatten(3).mT  # (N, V, out, T) -> (N, V, T, out)
            return Use(Factor(d), Factor(a[:, None]))

        self._note(weight, out, finish)
        self._note(bias, out, self._vector(last=False))
        return out

    def _embedding(
        self,
        func: Any,
        input: Any,
        weight: Any,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Any:
        if max_norm is not None or scale_grad_by_freq or sparse or self._i(input) is not None:
            return NotImplemented
        ids = input
        if ids.dim() == 2 and ids.shape[0] == 1 < self._N:  # one row of positions for all inputs
            ids = ids.expand(self._N, -1)
        if ids.dim() == 0 or ids.shape[0] % self._N or (ids.dim() == 1 and len(ids) > 1):
            return NotImplemented
        out = func(ids, weight, padding_idx)
        rows = ids.reshape(self._N, 1, -1)  # (N, 1, T)

        def finish(delta: Tensor) -> Use:
            d = delta.reshape(*delta.shape[:2], -1, delta.shape[-1])  # (N, V, T, n)
            if padding_idx is not None:  # its row is never trained
                d = d * (rows != padding_idx % weight.shape[0])[..., None]
            return Use(Factor(rows, one_hot=True), Factor(d))

        self._note(weight, out, finish)
        return out

    def _normed(
        self, out: Tensor, normalized: Callable[[], Tensor], weight: Any, bias: Any, *, last: bool
    ) -> None:
        if self._i(weight) is not None:
            with torch.no_grad():
                scale = normalized()
            self._note(weight, out, self._vector(scale, last=last))
        self._note(bias, out, self._vector(last=last))

    def _layer_norm(
        self,
        func: Any,
        input: Any,
        normalized_shape: Any,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
    ) -> Any:
        if len(normalized_shape) != 1 or self._i(input) is not None:
            return NotImplemented
        out = func(input, normalized_shape, weight, bias, eps)
        shape = normalized_shape
        plain = lambda: func(input.detach(), shape, None, None, eps)  # noqa: E731
        self._normed(out, plain, weight, bias, last=True)
        return out

    def _rms_norm(
        self,
        func: Any,
        input: Any,
        normalized_shape: Any,
        weight: Any = None,
        eps: float | None = None,
    ) -> Any:
        if len(normalized_shape) != 1 or self._i(input) is not None:
            return NotImplemented
        out = func(input, normalized_shape, weight, eps)
        plain = lambda: func(input.detach(), normalized_shape, None, eps)  # noqa: E731
        self._normed(out, plain, weight, None, last=True)
        return out

    def _batch_norm(
        self,
        func: Any,
        input: Any,
        running_mean: Any,
        running_var: Any,
        weight: Any = None,
        bias: Any = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Any:
        if training or self._i(input) is not None:
            return NotImplemented
        statistics = running_mean, running_var
        out = func(input, *statistics, weight, bias, False, momentum, eps)
        plain = lambda: func(input.detach(), *statistics, None, None, False, momentum, eps)  # noqa: E731
        self._normed(out, plain, weight, bias, last=False)
        return out

    def _group_norm(
        self,
        func: Any,
        input: Any,
        num_groups: int,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
    ) -> Any:
        if self._i(input) is not None:
            return NotImplemented
        out = func(input, num_groups, weight, bias, eps)
        plain = lambda: func(input.detach(), num_groups, None, None, eps)  # noqa: E731
        self._normed(out, plain, weight, bias, last=False)
        return out

    def _operands(self, one: Any, other: Any) -> tuple[Any, Any] | None:
        """The vector parameter and the activation beside it, if that is what they are."""
        theta, x = (one, other) if self._i(one) is not None else (other, one)
        fits = isinstance(x, Tensor) and self._i(x) is None and theta.dim() == 1 and x.dim() >= 2
        return (theta, x) if fits and theta.shape == x.shape[-1:] else None

    def _add(self, func: Any, input: Any, other: Any, *, alpha: float = 1) -> Any:
        found = self._operands(input, other)
        if found is None or alpha != 1:
            return NotImplemented
        out = func(input, other)
        self._note(found[0], out, self._vector(last=True))
        return out

    def _mul(self, func: Any, input: Any, other: Any) -> Any:
        found = self._operands(input, other)
        if found is None:
            return NotImplemented
        out = func(input, other)
        self._note(found[0], out, self._vector(found[1].detach(), last=True))
        return out


def record(
    call: Callable[[Tensor], Tensor], tensors: Sequence[Tensor], x: Tensor, *, keep: bool = False
) -> Uses:
    """The uses of parameters in the logits of a batch, from one forward and V backward passes.

    Args:
        call: from inputs (N, ...) to logits (N, V), through the parameters themselves.
        tensors: the parameters.
        x: inputs (N, ...).
        keep: whether the graph stays, for other gradients of the logits.

    Returns:
        The uses, detached. A parameter in ``unknown`` has no use in ``found``.
    """
    recorder = _Recorder(tensors, x.shape[0])
    with torch.enable_grad(), recorder:
        z = call(x)  # (N, V)
    N, V = z.shape
    seen = [s for s in recorder.seen if s.i not in recorder.unknown]
    places = [s.edge for s in seen]
    deltas: list[list[Tensor | None]] = []
    for i in range(V if seen else 0):
        ones = torch.ones(N, dtype=z.dtype, device=z.device)
        more = keep or i < V - 1
        deltas.append(
            list(torch.autograd.grad(z[:, i], places, ones, retain_graph=more, allow_unused=True))
        )
    uses = Uses(z.detach(), unknown=recorder.unknown)
    for k, s in enumerate(seen):
        zero = torch.zeros(s.shape, dtype=z.dtype, device=z.device)
        delta = torch.stack([zero if row[k] is None else row[k] for row in deltas])  # (V, N ..., m)
        after = s.shape[1:] if s.shape[0] == N else (s.shape[0] // N, *s.shape[1:])
        delta = delta.view(V, N, *after).transpose(0, 1)
        uses.found.setdefault(s.i, []).append(s.finish(delta))
    for i, several in uses.found.items():
        uses.found[i] = _joined(several)
    return uses


def _joined(uses: list[Use]) -> list[Use]:
    """Uses of one kind as one: rows add, products are further positions."""
    rows = [use.rows for use in uses if use.rows is not None]
    found = [Use(rows=torch.stack(rows).sum(0))] if rows else []
    groups: dict[tuple[Any, ...], list[Use]] = {}
    for use in uses:
        if use.left is not None and use.right is not None:
            sides = (use.left, use.right)
            kind = tuple((side.one_hot, side.values.shape[1]) for side in sides)
            groups.setdefault(kind, []).append(use)
    for several in groups.values():
        left, right = (
            Factor(torch.cat([side.values for side in sides], 2), sides[0].one_hot)
            for sides in zip(*((use.left, use.right) for use in several), strict=True)  # type: ignore[misc]
        )
        found.append(Use(left, right))
    return found


def _dot(o: Factor, u: Factor) -> Tensor:
    """All inner products of two factors: (N_o, V_o or 1, T, N_u, V_u or 1, S)."""
    a, b = o.values, u.values
    if o.one_hot and u.one_hot:
        return (a[..., None, None, None] == b).to(torch.float32)
    if u.one_hot:
        return _dot(u, o).permute(3, 4, 5, 0, 1, 2)
    if o.one_hot:  # entry a of each row of b
        table = b[..., a.reshape(-1)]  # (N_u, V_u, S, N_o T)
        return table.permute(3, 0, 1, 2).view(*a.shape, *b.shape[:3])
    table = _exact(a).flatten(0, 2) @ _exact(b).flatten(0, 2).T
    return table.view(*a.shape[:3], *b.shape[:3])


def _exact(values: Tensor) -> Tensor:
    return values.to(at_least_float32(values.dtype))


def contract(o: Use, u: Use, size: tuple[int, int] | None) -> Tensor:
    """The contribution of two uses of one parameter to the kernel: (N_o, V, N_u, V).

    Args:
        o: at x_o.
        u: at x_u.
        size: (m, n) of a matrix.
    """
    if o.rows is not None and u.rows is not None:
        flat = _exact(o.rows).flatten(0, 1) @ _exact(u.rows).flatten(0, 1).T
        return flat.view(*o.rows.shape[:2], *u.rows.shape[:2])
    assert size is not None
    if o.rows is not None or u.rows is not None or not _pairs_are_cheaper(o, u, size):
        return _by_gradients(o, u, size)
    assert o.left is not None
    assert o.right is not None
    assert u.left is not None
    assert u.right is not None
    T, S = o.left.values.shape[2], u.left.values.shape[2]
    N_u, V_o, V_u = u.left.values.shape[0], _outputs(o), _outputs(u)
    rows = max(1, _TABLE // (V_o * T * N_u * V_u * S))
    parts = []
    for start in range(0, o.left.values.shape[0], rows):
        some = slice(start, start + rows)
        left, right = _dot(o.left[some], u.left), _dot(o.right[some], u.right)
        if T == S == 1:
            parts.append((left * right)[:, :, 0, :, :, 0])
        else:
            parts.append(torch.einsum("avtbws,avtbws->avbw", *torch.broadcast_tensors(left, right)))
    return torch.cat(parts)


def _outputs(use: Use) -> int:
    """V."""
    assert use.left is not None
    assert use.right is not None
    return max(use.left.values.shape[1], use.right.values.shape[1])


def _pairs_are_cheaper(o: Use, u: Use, size: tuple[int, int]) -> bool:
    """Whether inner products of all pairs of positions cost less than the gradients written out."""
    assert o.left is not None
    assert u.left is not None
    (N_o, _, T), (N_u, _, S), V = o.left.values.shape[:3], u.left.values.shape[:3], _outputs(o)
    m, n = size
    pairs = N_o * N_u * T * S * (n + V * V * (m + 1))
    gradients = m * n * V * (N_o * T + N_u * S + N_o * N_u * V)
    return pairs <= gradients


def _by_gradients(o: Use, u: Use, size: tuple[int, int]) -> Tensor:
    """The contribution from gradients written out, some rows of the matrix at a time."""
    m, n = size
    count = max(len(_rows_of(use, slice(0, 1), n)) for use in (o, u)) * max(_width(o), _width(u))
    step = max(1, _TABLE // (n * count))
    total: Tensor | float = 0.0
    for start in range(0, m, step):
        part = slice(start, min(start + step, m))
        one, other = _rows_of(o, part, n), _rows_of(u, part, n)  # (N, V, len(part) * n)
        flat = one.flatten(0, 1) @ other.flatten(0, 1).T
        total = total + flat.view(*one.shape[:2], *other.shape[:2])
    assert isinstance(total, Tensor)
    return total


def _width(use: Use) -> int:
    return use.rows.shape[1] if use.rows is not None else _outputs(use)


def _rows_of(use: Use, part: slice, n: int) -> Tensor:
    """The gradient in rows ``part`` of the matrix: (N, V, len(part) * n)."""
    if use.rows is not None:
        return _exact(use.rows[..., part.start * n : part.stop * n])
    assert use.left is not None
    assert use.right is not None
    left = _exact(use.left.columns(part, 0))
    right = _exact(use.right.columns(slice(0, n), 0))
    V = _outputs(use)
    left, right = (side.expand(-1, V, -1, -1) for side in (left, right))
    return (left.mT.to(right.dtype) @ right).flatten(2)  # (N, V, m, n) -> (N, V, m n)

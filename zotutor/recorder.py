"""What one forward pass of a batch does to each parameter, and where in the graph.

What an operation does is known here for linear layers, matrix products, convolutions, look-ups,
norms, and parameters added or multiplied. A parameter that is used in any other way is noted as
unknown. Only shapes tell here which dimension is that of the batch; :mod:`zotutor.uses` checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .factors import Explicit, Outer, Use
from .probe import READS_NO_VALUE

Take = Callable[[Tensor], Tensor]
"""From the gradient of one logit in an operation's output to what is kept of it, (N, ...)."""
Wrap = Callable[[Tensor], Use]
"""From what has been kept of all logits, (N, V, ...), to the use."""


@dataclass
class Seen:
    """A use while the forward pass runs."""

    i: int
    edge: GradientEdge
    keep: Callable[[int], tuple[Take, Wrap]]
    """From V to what is kept."""


class Recorder(TorchFunctionMode):
    """Notes each use of a parameter in one forward pass of N inputs."""

    def __init__(self, tensors: Sequence[Tensor], N: int) -> None:
        super().__init__()
        self._number = {id(tensor): i for i, tensor in enumerate(tensors)}
        self._transposes: dict[int, tuple[Tensor, int]] = {}
        self._N = N
        self.seen: list[Seen] = []
        self.biases: dict[int, int] = {}
        """Of a weight that makes something, which vector is added to that."""
        self.unknown: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and note what it does to parameters."""
        kwargs = kwargs or {}
        used = self._parameters((*args, *kwargs.values()))
        if not used or func in READS_NO_VALUE or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        before = len(self.seen)
        known = _KNOWN.get(func)
        out = NotImplemented if known is None else known(self, func, *args, **kwargs)
        if out is NotImplemented:
            del self.seen[before:]
            self.unknown |= used
            return func(*args, **kwargs)
        if func not in _TRANSPOSING:
            self.unknown |= used - {seen.i for seen in self.seen[before:]}
        return out

    def _find(self, value: Any) -> tuple[int | None, bool]:
        """Which parameter a value is, and whether it is its transpose."""
        if not isinstance(value, Tensor):
            return None, False
        if (found := self._transposes.get(id(value))) is not None:
            return found[1], True
        return self._number.get(id(value)), False

    def _i(self, value: Any) -> int | None:
        return self._find(value)[0]

    def _parameters(self, values: Any) -> set[int]:
        found = set()
        for value in values:
            if isinstance(value, (list, tuple)):
                found |= self._parameters(value)
            elif (i := self._i(value)) is not None:
                found.add(i)
        return found

    def _note(self, i: int | None, out: Tensor, keep: Callable[[int], tuple[Take, Wrap]]) -> None:
        """Note that parameter i was used to make ``out``, whose first dimension is the batch's."""
        if i is None:
            return
        plain = not torch._C._functorch.is_functorch_wrapped_tensor(out)
        if not plain or out.grad_fn is None or out.dim() < 2 or out.shape[0] % self._N:
            self.unknown.add(i)
        else:
            self.seen.append(Seen(i, get_gradient_edge(out), keep))

    def _is_data(self, x: Any, dims: int = 2) -> bool:
        """Whether x is a batch of activations."""
        fits = isinstance(x, Tensor) and self._i(x) is None and x.dim() >= dims
        return fits and x.shape[0] % self._N == 0

    def _product(self, weight: Any, out: Tensor, x: Tensor, *, x_first: bool) -> None:
        """Note x W^T, or x W if ``x_first``: the weight is (out, in) or (in, out)."""
        i, turned = self._find(weight)
        a = x.detach().reshape(self._N, -1, x.shape[-1])  # (N, T, in)
        transposed = x_first != turned

        def keep(_: int) -> tuple[Take, Wrap]:
            return (
                lambda delta: delta.reshape(*a.shape[:2], -1),  # (N, T, out)
                lambda kept: Outer(kept, a, transposed=transposed),
            )

        self._note(i, out, keep)

    def _vector(
        self, theta: Any, out: Tensor, *, channels: bool, scale: Tensor | None = None
    ) -> None:
        """Note a vector added, or times ``scale``, along the last or the channel dimension."""
        N = self._N

        def take(delta: Tensor) -> Tensor:
            if scale is not None:
                delta = delta * scale
            if channels:
                return delta.reshape(*delta.shape[:2], -1).sum(2)  # (N, n)
            return delta.reshape(N, -1, delta.shape[-1]).sum(1)

        self._note(self._i(theta), out, lambda _: (take, Explicit))

    def _bias(self, weight: Any, bias: Any) -> None:
        """Note that ``bias`` is added to what ``weight`` makes."""
        i, j = self._i(weight), self._i(bias)
        if i is not None and j is not None:
            self.biases[i] = j

    # ---- what each operation does: NotImplemented where that is not known ------------------------

    def linear(self, func: Any, input: Any, weight: Any, bias: Any = None) -> Any:
        """X W^T + b."""
        if not self._is_data(input):
            return NotImplemented
        out = func(input, weight, bias)
        self._product(weight, out, input, x_first=False)
        self._vector(bias, out, channels=False)
        self._bias(weight, bias)
        return out

    def addmm(self, func: Any, input: Any, mat1: Any, mat2: Any, **scales: Any) -> Any:
        """B + x W."""
        if scales or not self._is_data(mat1) or input.dim() != 1:
            return NotImplemented
        out = func(input, mat1, mat2)
        self._product(mat2, out, mat1, x_first=True)
        self._vector(input, out, channels=False)
        self._bias(mat2, input)
        return out

    def matmul(self, func: Any, input: Any, other: Any) -> Any:
        """X W."""
        if not self._is_data(input) or other.dim() != 2:
            return NotImplemented
        out = func(input, other)
        self._product(other, out, input, x_first=True)
        return out

    def transpose(self, func: Any, input: Any, *dims: Any) -> Any:
        """W^T, to be used by one of the products."""
        i, turned = self._find(input)
        if input.dim() != 2 or turned or sorted(dim % 2 for dim in dims) not in ([], [0, 1]):
            return NotImplemented
        out = func(input, *dims)
        assert i is not None
        self._transposes[id(out)] = (out, i)  # kept alive, so that its id stays its own
        return out

    def convolution(
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
        """A convolution of signals or images, as a product with the patches of each."""
        spatial = weight.dim() - 2
        options = _pairs(stride, padding, dilation, kernel=weight.shape[2:])
        if options is None or not self._is_data(input, spatial + 2) or self._find(weight)[1]:
            return NotImplemented
        out = func(input, weight, bias, stride, padding, dilation, groups)
        if input.shape[0] != self._N or input.dim() != spatial + 2:
            return NotImplemented
        image = input.detach() if spatial == 2 else input.detach()[:, :, None]
        stride_, padding_, dilation_, kernel = options
        m, n, T = weight.shape[0], weight[0].numel(), out[0, 0].numel()

        def keep(V: int) -> tuple[Take, Wrap]:
            a = F.unfold(image, kernel, dilation_, padding_, stride_)  # (N, groups n, T)
            if groups == 1 and V * m * n > T * (V * m + n):  # factors are smaller than gradients
                return lambda delta: delta.flatten(2).mT, lambda kept: Outer(kept, a.mT)
            right = a.view(-1, n, T).mT  # (N groups, T, n)

            def gradient(delta: Tensor) -> Tensor:
                return (delta.reshape(-1, m // groups, T) @ right).view(len(a), -1)

            return gradient, Explicit

        self._note(self._i(weight), out, keep)
        self._vector(bias, out, channels=True)
        return out

    def embedding(
        self,
        func: Any,
        input: Any,
        weight: Any,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,  # noqa: ARG002  has a meaning with max_norm only
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Any:
        """Rows of a matrix."""
        ids = input
        if max_norm is not None or scale_grad_by_freq or sparse or self._find(weight)[1]:
            return NotImplemented
        if ids.dim() == 2 and ids.shape[0] == 1 < self._N:  # one row of positions for all inputs
            ids = ids.expand(self._N, -1)
        if not self._is_data(ids, 1) or (ids.dim() == 1 and len(ids) > 1 and len(ids) != self._N):
            return NotImplemented
        out = func(ids, weight, padding_idx)
        rows = ids.reshape(self._N, -1).long()  # (N, T)
        trained = None if padding_idx is None else rows != padding_idx % weight.shape[0]

        def take(delta: Tensor) -> Tensor:
            delta = delta.reshape(*rows.shape, -1)  # (N, T, n)
            return delta if trained is None else delta * trained[..., None]

        self._note(
            self._i(weight), out, lambda _: (take, lambda kept: Outer(kept, rows, transposed=True))
        )
        return out

    def _norm(
        self, out: Tensor, plain: Callable[[], Tensor], weight: Any, bias: Any, *, channels: bool
    ) -> Tensor:
        if self._i(weight) is not None:
            with torch.no_grad():
                scale = plain()
            self._vector(weight, out, channels=channels, scale=scale)
        self._vector(bias, out, channels=channels)
        return out

    def layer_norm(
        self,
        func: Any,
        input: Any,
        normalized_shape: Any,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
    ) -> Any:
        """Normalized over the last dimension."""
        if len(normalized_shape) != 1 or not self._is_data(input):
            return NotImplemented
        out = func(input, normalized_shape, weight, bias, eps)

        def plain() -> Tensor:
            return func(input.detach(), normalized_shape, None, None, eps)

        return self._norm(out, plain, weight, bias, channels=False)

    def rms_norm(
        self,
        func: Any,
        input: Any,
        normalized_shape: Any,
        weight: Any = None,
        eps: float | None = None,
    ) -> Any:
        """Divided by the root mean square over the last dimension."""
        if len(normalized_shape) != 1 or not self._is_data(input):
            return NotImplemented
        out = func(input, normalized_shape, weight, eps)

        def plain() -> Tensor:
            return func(input.detach(), normalized_shape, None, eps)

        return self._norm(out, plain, weight, None, channels=False)

    def batch_norm(
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
        """Normalized by running statistics."""
        if training or not self._is_data(input):
            return NotImplemented
        statistics = running_mean, running_var
        out = func(input, *statistics, weight, bias, False, momentum, eps)

        def plain() -> Tensor:
            return func(input.detach(), *statistics, None, None, False, momentum, eps)

        return self._norm(out, plain, weight, bias, channels=True)

    def group_norm(
        self,
        func: Any,
        input: Any,
        num_groups: int,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
    ) -> Any:
        """Normalized over groups of channels of each input."""
        if not self._is_data(input):
            return NotImplemented
        out = func(input, num_groups, weight, bias, eps)

        def plain() -> Tensor:
            return func(input.detach(), num_groups, None, None, eps)

        return self._norm(out, plain, weight, bias, channels=True)

    def add(self, func: Any, input: Any, other: Any) -> Any:
        """A parameter added to activations, broadcast over the batch."""
        return self._elementwise(func, input, other, by=lambda _: None)

    def multiply(self, func: Any, input: Any, other: Any) -> Any:
        """Activations multiplied by a parameter, broadcast over the batch."""
        return self._elementwise(func, input, other, by=lambda x: x.detach())

    def _elementwise(
        self, func: Any, input: Any, other: Any, *, by: Callable[[Tensor], Tensor | None]
    ) -> Any:
        theta, x = (input, other) if self._i(input) is not None else (other, input)
        if not self._is_data(x) or self._find(theta)[1]:
            return NotImplemented
        out = func(input, other)
        N, inner = self._N, out.shape[1:]
        shape = theta.shape[1:] if theta.dim() == out.dim() else theta.shape
        if theta.dim() == out.dim() and theta.shape[0] != 1:
            return NotImplemented
        padded = (1,) * (len(inner) - len(shape)) + tuple(shape)
        summed = [k + 2 for k, size in enumerate(padded) if size == 1]
        scale = by(x)

        def take(delta: Tensor) -> Tensor:
            if scale is not None:
                delta = delta * scale
            delta = delta.reshape(N, -1, *inner)  # the batch may be folded with positions
            return delta.sum([1, *summed]).reshape(N, -1)

        self._note(self._i(theta), out, lambda _: (take, Explicit))
        return out


def _pairs(
    stride: Any, padding: Any, dilation: Any, *, kernel: Sequence[int]
) -> tuple[tuple[int, int], ...] | None:
    """A convolution's stride, padding, dilation and kernel for images, or None."""
    if len(kernel) not in (1, 2):
        return None
    found = []
    for value in (stride, padding, dilation):
        if value == "valid":
            value = 0
        elif value == "same":
            spaces = [(k - 1) * d for k, d in zip(kernel, _each(dilation, kernel), strict=True)]
            if any(space % 2 for space in spaces):
                return None
            value = [space // 2 for space in spaces]
        found.append(_each(value, kernel))
    found.append(tuple(kernel))
    if len(kernel) == 2:
        return tuple((one[0], one[1]) for one in found)
    neutral = (1, 0, 1, 1)  # a signal is an image of height 1
    return tuple((k, one[0]) for k, one in zip(neutral, found, strict=True))


def _each(value: Any, kernel: Sequence[int]) -> tuple[int, ...]:
    """One number for each spatial dimension."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * len(kernel) if len(numbers) == 1 else numbers


_TRANSPOSING = {Tensor.t, torch.t, Tensor.transpose, torch.transpose}
_TRANSPOSING |= {getattr(Tensor, name).__get__ for name in ("T", "mT")}
_KNOWN: dict[Any, Callable[..., Any]] = {
    F.linear: Recorder.linear,
    torch.addmm: Recorder.addmm,
    torch.conv1d: Recorder.convolution,
    torch.conv2d: Recorder.convolution,
    F.embedding: Recorder.embedding,
    F.layer_norm: Recorder.layer_norm,
    F.rms_norm: Recorder.rms_norm,
    F.batch_norm: Recorder.batch_norm,
    F.group_norm: Recorder.group_norm,
    **dict.fromkeys((torch.matmul, Tensor.matmul, torch.mm, Tensor.mm), Recorder.matmul),
    Tensor.__matmul__: Recorder.matmul,
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), Recorder.add),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), Recorder.multiply),
    **dict.fromkeys(_TRANSPOSING, Recorder.transpose),
}

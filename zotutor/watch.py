"""The floor beneath a probe: no operation on a parameter's memory goes unseen.

A probe hands out perturbed parameters where torch functions read them. There are other roads to a
parameter's memory: scripted functions, `torch.vmap` over a parameter, the backward pass of a custom
function, a view taken before the probe. A loss computed on them would silently be the loss at
theta. All roads end in torch's dispatcher; a mode there perturbs what it can and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

Swap = Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]
"""Takes the arguments of an operation, and returns them with perturbed parameters."""

_RENORMALIZES = torch.ops.aten.embedding_renorm_.default
"""What an embedding with max_norm does first: part of its value, so done on the scratch tensor."""

_DIFFERENTIABLE = ("aten", "prims")
"""Namespaces of operators with a forward-mode derivative, or an error that says there is none."""


class Vigilance:
    """Whether probes are still watched, for a closure that is called again and again.

    Watching costs some microseconds an operation, as much as a small network's step. A closure
    whose first calls needed nothing done at this depth is trusted after them.
    """

    def __init__(self) -> None:
        self.watching = True
        self.needed = False

    def settle(self) -> None:
        """Trust the closure from now on, unless the watch was needed so far."""
        self.watching = self.needed


class Unwatched(AbstractContextManager["Unwatched"]):
    """Stands in for :class:`Watch` where a closure is trusted."""

    needed = False

    def lend(self, make: Callable[[], Tensor]) -> Tensor:
        """``make()``."""
        return make()

    def paused(self) -> AbstractContextManager[None]:
        """A context that does nothing."""
        return nullcontext()

    def touches(self, _: Iterable[Any]) -> bool:
        """Not looked at."""
        return False

    def __exit__(self, *exception: object) -> None:
        """Nothing to leave."""


class Watch(TorchDispatchMode):
    """Sees each operation on memory; none reads or writes ``tensors``, or writes a scratch copy.

    Args:
        tensors: the parameters.
        swap: perturbs a parameter that an operation is about to read; None to refuse instead,
            where substitution at this depth would lose something (forward-mode tangents).
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a probe is never compiled; the guard would double the cost of an operation

    def __init__(self, tensors: Sequence[Tensor], swap: Swap | None) -> None:
        super().__init__()
        self._spans: dict[int, list[tuple[int, int]]] = {}
        for tensor in tensors:
            self._spans.setdefault(_storage(tensor), []).append(_span(tensor))
        self._swap = swap
        self._lent: set[StorageWeakRef] = set()
        self._paused = False
        self.needed = False

    def lend(self, make: Callable[[], Tensor]) -> Tensor:
        """``make()``, which may read parameters; nobody may write to what it returns."""
        with self.paused():
            scratch = make()
        plain = scratch
        while torch._C._functorch.is_functorch_wrapped_tensor(plain):
            plain = torch._C._functorch.get_unwrapped(plain)
        with torch._C.DisableTorchFunction():
            self._lent.add(StorageWeakRef(plain.untyped_storage()))
        return scratch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose operations may read parameters."""
        if _python_dispatch._get_current_dispatch_mode() is self:
            with _python_dispatch._pop_mode_temporarily():
                yield
            return
        paused, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = paused

    def touches(self, values: Iterable[Any]) -> bool:
        """Whether a tensor among the values, or in a list of them, lies in a parameter's memory."""
        for value in values:
            if isinstance(value, Tensor):
                spans = self._spans.get(_storage(value))
                if spans is not None and any(_overlap(_span(value), span) for span in spans):
                    return True
            elif isinstance(value, (list, tuple)) and self.touches(value):
                return True
        return False

    def _lent_any(self, values: Iterable[Any]) -> bool:
        return any(
            StorageWeakRef(value.untyped_storage()) in self._lent
            if isinstance(value, Tensor)
            else isinstance(value, (list, tuple)) and self._lent_any(value)
            for value in values
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, on perturbed parameters, or refuse it."""
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            raise RuntimeError(
                f"closure: it calls the higher-order operator {func}, whose body a probe cannot "
                "see into; write it with plain torch functions"
            )
        differentiated = self._swap is None and forward_ad._current_level >= 0
        if differentiated and func.namespace not in _DIFFERENTIABLE and _has_tensors(args):
            raise RuntimeError(
                f"closure: torch does not know a forward-mode derivative of {func}, and would drop "
                "it without a word; use method='two-point'"
            )
        with torch._C.DisableTorchFunction():
            if self.touches(args) or self.touches(kwargs.values()):
                if self._swap is not None:
                    self.needed = True
                    args, kwargs = self._swap(args, kwargs)
                if self._swap is None or self.touches(args) or self.touches(kwargs.values()):
                    raise RuntimeError(
                        f"closure: {func} reads the memory of a parameter where a probe cannot "
                        "perturb it: through an alias (a view or .data taken outside of the "
                        "closure, nn.Parameter of it) or, with method 'jvp', in code that is no "
                        "torch function; read the parameter itself, in the closure"
                    )
            written = _written(func)
            if written and self._lent_any(_arguments(func, written, args, kwargs)):
                raise RuntimeError(
                    f"closure: {func} writes to a parameter inside a probe, where parameters "
                    "are only read; write to a copy (.clone()), or outside of the closure"
                )
        return func(*args, **kwargs)


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:  # a sparse tensor has none of its own
        return 0


def _span(tensor: Tensor) -> tuple[int, int]:
    """The bytes of its storage, from and to, that a tensor covers."""
    if tensor.numel() == 0:
        return 0, 0
    steps = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    last = tensor.storage_offset() + steps
    size = tensor.element_size()
    return int(tensor.storage_offset() * size), int((last + 1) * size)


def _has_tensors(values: Iterable[Any]) -> bool:
    return any(
        isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and _has_tensors(value))
        for value in values
    )


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


@lru_cache(maxsize=1024)
def _written(func: Any) -> frozenset[str]:
    """Names of the arguments that an operation writes to."""
    if func is _RENORMALIZES:
        return frozenset()
    arguments = func._schema.arguments
    return frozenset(a.name for a in arguments if a.alias_info and a.alias_info.is_write)


def _arguments(func: Any, names: frozenset[str], args: Any, kwargs: dict[str, Any]) -> list[Any]:
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    return [value for name, value in given.items() if name in names]

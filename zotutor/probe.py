"""The loss at theta + c u, without writing theta.

A `torch.overrides.TorchFunctionMode` intercepts each torch function that Python calls. A function
that reads a trainable parameter gets a scratch tensor theta + c u_p in its place, which is freed
when the function returns. The obvious way, to perturb theta in place and to restore it afterwards,
has to restore it after exceptions and interrupts as well, and in half precision cannot: +eps,
-2 eps, +eps does not lead back to theta. Tied weights come out right, because a parameter is
recognized by identity wherever it is used.

Reads that are not calls of torch functions from Python are invisible to the mode;
:mod:`zotutor.closure` checks that a loss makes none.
"""

from __future__ import annotations

import math
import sys
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .checks import check_comparable, check_real
from .closure import NonFiniteLossError as NonFiniteLossError
from .directions import Direction, Directions, check_draw
from .fused import Fused
from .parameters import Parameters, ParametersLike, resolve

Replace = Callable[[int, Tensor], Tensor]
"""The tensor to use in place of parameter i, given i and the parameter."""

Operations = Callable[[Any, Any, dict[str, Any]], Any]
"""Runs an operation (function, arguments, keyword arguments), or returns NotImplemented."""

# attributes and methods that do not depend on a tensor's entries, and so need no scratch copy
READS_NO_VALUE = {
    getattr(Tensor, name).__get__
    for name in (
        "shape dtype device layout ndim requires_grad is_leaf grad grad_fn names is_sparse "
        "is_cuda is_mps is_quantized is_meta is_nested itemsize nbytes _version"
    ).split()
    if hasattr(Tensor, name)
} | {
    getattr(Tensor, name)
    for name in (
        "size dim ndimension numel nelement element_size is_complex is_inference data_ptr "
        "get_device __len__ __hash__ requires_grad_"
    ).split()
}
READS_NO_VALUE |= {
    vars(torch._C.TensorBase)["grad"].__set__,
    vars(torch._C.TensorBase)["grad"].__delete__,
}


_ALIASING = {vars(torch._C.TensorBase)["data"].__get__, Tensor.detach}
"""Reads that return the same memory in a new tensor whose ``_base`` does not say so."""


class Substitution(TorchFunctionMode):
    """Passes ``replace(i, theta_i)`` to each torch function that reads parameter i.

    A context: enter it once per evaluation, after setting ``replace`` with :meth:`aim`. ``reads``
    counts the replacements made since.
    """

    def __init__(self, params: Parameters) -> None:
        super().__init__()
        self.number = {id(tensor): i for i, tensor in enumerate(params.tensors)}
        self.params = params  # keeps the tensors alive, and with them their ids valid
        # address ranges of the parameters' memory, sorted for bisection by _is_alias
        spans = sorted(
            (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)
            for tensor in params.tensors
            if tensor.is_contiguous()  # a strided one may enclose memory of other tensors
        )
        self._starts, self._stops = [start for start, _ in spans], [stop for _, stop in spans]
        self._replace: Replace = as_they_are
        self._fused: Operations | None = None
        self._ready: dict[int, Tensor] = {}
        self._ready_ids: set[int] = set()
        self.reads = 0

    def aim(self, replace: Replace, fused: Operations | None = None) -> Self:
        """Set what replaces a parameter from now on; ``fused`` is tried first for an operation."""
        self._replace, self._fused, self._ready, self.reads = replace, fused, {}, 0
        return self

    def aim_at(self, moved: Sequence[Tensor]) -> Self:
        """Set tensors, one for each parameter, that replace the parameters from now on."""
        self._ready = dict(enumerate(moved))
        # by id, which is faster than a mark on each; they live as long as this is of use
        self._ready_ids = set(map(id, moved))
        self._fused, self.reads = None, 0
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function on the perturbed parameters."""
        kwargs = kwargs or {}
        reads_no_value, is_in_place, is_python = _traits(func)
        if reads_no_value:
            return func(*args, **kwargs)
        if func in _NORMS and _updates_statistics(func, args, kwargs):
            raise ValueError(
                f"closure: {func.__name__} in training mode changes its running statistics at each "
                "call, so that probes cannot be compared; call model.eval() first"
            )
        reads = self._reads(func, args)
        if kwargs:  # also if `reads` is known: an alias among them must be refused
            reads = self._reads(func, kwargs.values()) or reads
            if "out" in kwargs:
                self._check_write(func, kwargs["out"])
        if is_in_place:
            self._check_write(func, (*args, *kwargs.values())[0])
        if not reads:
            return func(*args, **kwargs)
        if self._fused is not None:
            result = self._fused(func, args, kwargs)
            if result is not NotImplemented:
                self.reads += 1
                return result
        scratch: dict[int, Tensor] = {}  # shared by all arguments: f(theta, theta) needs one copy
        args = tuple([self._swapped(value, scratch) for value in args])
        if kwargs:
            kwargs = {name: self._swapped(value, scratch) for name, value in kwargs.items()}
        self.reads += len(scratch)
        if not is_python:  # a built-in that writes has a name that says so
            result = func(*args, **kwargs)
        else:  # a Python function may write to its arguments somewhere inside
            before = _versions(scratch)
            result = func(*args, **kwargs)
            if before != _versions(scratch) and func not in _RESCALING:
                raise _written(func)
        if func in _ALIASING:
            _mark_scratch(result)
        return result

    def result(self, loss: Any) -> Any:
        """The value a closure returned, replaced if it is a parameter itself."""
        scratch: dict[int, Tensor] = {}
        found = self._swapped(loss, scratch)
        self.reads += len(scratch)
        return found

    def _reads(self, func: Any, values: Any) -> bool:
        """Whether a parameter is among the values; raises if an alias of one is."""
        found = False
        for value in values:
            if isinstance(value, Tensor):
                if id(value) in self.number:
                    found = True
                elif self._is_alias(value):
                    name = getattr(func, "__name__", func)
                    raise RuntimeError(
                        f"closure: {name} reads the memory of a parameter where a probe cannot "
                        "perturb it: through an alias (a view or .data taken outside of the "
                        "closure, nn.Parameter of it) or as an argument of torch.vmap or "
                        "torch.func; read the parameter itself, in the closure"
                    )
            elif isinstance(value, (list, tuple)):
                found = self._reads(func, value) or found
        return found

    def _is_alias(self, tensor: Tensor) -> bool:
        """Whether a tensor, not a parameter itself, lies in a parameter's memory."""
        try:
            address = tensor.data_ptr()
        except RuntimeError:  # no memory of its own: wrapped by torch.func, or sparse
            if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                inner = torch._C._functorch.get_unwrapped(tensor)
                return id(inner) in self.number or self._is_alias(inner)
            return False
        k = bisect_right(self._starts, address)
        return k > 0 and address < self._stops[k - 1]

    def _swapped(self, value: Any, scratch: dict[int, Tensor]) -> Any:
        """The value with each parameter in it replaced; one scratch tensor per parameter."""
        if isinstance(value, Tensor):
            i = self.number.get(id(value))
            if i is None:
                return value
            if i in scratch:
                return scratch[i]
            if self._ready:
                scratch[i] = self._ready[i]
            else:
                scratch[i] = self._replace(i, value)
                _mark_scratch(scratch[i])
            return scratch[i]
        if isinstance(value, (list, tuple)):
            swapped = [self._swapped(item, scratch) for item in value]
            # a new container only if needed; a named tuple takes its fields one by one
            if any(new is not old for new, old in zip(swapped, value, strict=True)):
                named = hasattr(value, "_fields")
                return type(value)(*swapped) if named else type(value)(swapped)
        return value

    def _check_write(self, func: Any, target: Any) -> None:
        """Refuse to write to a parameter, or to a scratch tensor or a view of one."""
        if isinstance(target, (list, tuple)):
            for one in target:
                self._check_write(func, one)
            return
        if isinstance(target, Tensor) and func not in _RESCALING:
            base = target if target._base is None else target._base
            known = id(target) in self.number or id(base) in self._ready_ids
            if known or hasattr(base, "_is_scratch"):
                raise _written(func)


_RESCALING = (nn.functional.embedding, nn.functional.embedding_bag, torch.embedding_renorm_)
"""With max_norm they first rescale rows in place. That is part of what they compute, and happens to
the scratch tensor here."""


def _versions(scratch: dict[int, Tensor]) -> list[int]:
    """How many in-place writes each has seen; torch does not count them for inference tensors."""
    return [0 if tensor.is_inference() else tensor._version for tensor in scratch.values()]


def _mark_scratch(tensor: Tensor) -> None:
    """Mark a tensor, so that writes to it or to its views are refused as writes to a parameter."""
    base: Any = tensor if tensor._base is None else tensor._base
    base._is_scratch = True


def _written(func: Any) -> RuntimeError:
    return RuntimeError(
        f"closure: {getattr(func, '__name__', func)} writes to a parameter inside a probe, where "
        "parameters are only read; write to a copy (.clone()), or outside of the closure"
    )


def as_they_are(_: int, theta: Tensor) -> Tensor:
    """The replacement at theta itself, c = 0."""
    return theta.detach()


@lru_cache(maxsize=4096)
def _traits(func: Any) -> tuple[bool, bool, bool]:
    """Whether a torch function reads no entries, writes in place, and is written in Python."""
    # torch's naming rule: add_, but not __add__
    name = getattr(func, "__name__", "")
    writes = (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE_OPERATORS
    return func in READS_NO_VALUE, writes, isinstance(func, FunctionType)


_IN_PLACE_OPERATORS = frozenset(
    f"__i{name}__"
    for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
) | {"__setitem__", "__set__"}


_NORMS = {
    nn.functional.batch_norm: ("training", False),
    nn.functional.instance_norm: ("use_input_stats", True),
}
"""Functions with running statistics as arguments 1 and 2, updated if argument 5 is true."""


def _updates_statistics(func: Any, args: Any, kwargs: Any) -> bool:
    name, default = _NORMS[func]
    running = kwargs.get("running_mean", args[1] if len(args) > 1 else None)
    return running is not None and bool(kwargs.get(name, args[5] if len(args) > 5 else default))


def _uncompiled() -> AbstractContextManager[Any]:
    """A context in which compiled functions run eagerly.

    Otherwise the mode would be traced into them, with a recompilation for each direction.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def check_model(model: nn.Module) -> None:
    """Refuse a model whose losses could not be compared, or whose operations cannot be seen.

    Raises:
        ValueError: for dropout or batch norm in training mode.
        TypeError: for a scripted module.
    """
    check_comparable(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"model: its module {name or '(itself)'} is scripted, and its operations cannot be "
                "seen by a probe; give the model as it was before torch.jit.script"
            )


@contextmanager
def probing(
    params: ParametersLike, kind: type[Substitution] = Substitution
) -> Iterator[Substitution]:
    """A context without gradients that yields a :class:`Substitution`, to be entered inside it.

    Raises:
        TypeError, ValueError: for a model that cannot be probed, see :func:`check_model`.
        RuntimeError: inside another probe.
    """
    found = resolve(params)
    if found.model is not None:
        check_model(found.model)
    # nested, the inner probe would perturb parameters that the outer one has replaced already
    stack = torch.overrides._get_current_function_mode_stack()
    if any(isinstance(mode, Substitution) for mode in stack):
        raise RuntimeError("probe: given inside another probe; leave the first one before")
    with torch.no_grad(), _uncompiled():
        yield kind(found)


@contextmanager
def substitute(params: ParametersLike, replace: Replace) -> Iterator[Substitution]:
    """A context in which operations that read parameter i get ``replace(i, theta_i)`` instead."""
    with probing(params) as mode, mode.aim(replace):
        yield mode


@contextmanager
def perturbed(
    params: ParametersLike,
    c: float,
    *,
    directions: Directions | None = None,
    seed: int,
    step: int,
    p: int = 0,
) -> Iterator[Substitution]:
    """A context in which everything is computed at theta + c u, while theta is never written.

    It works for any code that reads parameters through torch functions: calls of a model, a loss
    of raw parameters, recurrent layers, attention, tied weights. Inside, gradients are off;
    writing to a parameter is an error, and so is reading one through a view taken before. Compiled
    models run eagerly. Extra memory: the parameters of one operation.

    Code that bypasses torch functions is computed at theta: scripted functions (scripted modules
    are refused), the backward pass of a custom function, hand-written kernels, other threads.
    :func:`~zotutor.estimate_gradient` and :class:`~zotutor.ZOSGD` evaluate a loss more than once
    and check for such reads; this context runs its body once and cannot.

    Args:
        params: a model, or its parameters, with or without names.
        c: the signed distance; +eps and -eps for the two-point method.
        directions: family of u; Rademacher by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        p: which of the step's perturbations.

    Yields:
        The active mode; its ``reads`` counts how often a parameter was replaced.

    Raises:
        TypeError: for a trainable parameter that is not real, or a scripted module.
        ValueError: for a model with dropout or batch norm in training mode.
        RuntimeError: for a write to a parameter, or a probe inside a probe.

    Use it to evaluate a loss anywhere along a direction. For a gradient estimate use
    :func:`~zotutor.estimate_gradient`, for training :class:`~zotutor.ZOSGD`; both work this way.

    Example:
        >>> theta = torch.zeros(3, requires_grad=True)
        >>> with perturbed([theta], 0.5, seed=0, step=0):
        ...     print(float(theta.abs().sum()))
        1.5
        >>> float(theta.detach().abs().sum())
        0.0
    """
    c = check_real("c", c, low=-math.inf)
    family = check_draw(directions, P=1, seed=seed, step=step)
    found = resolve(params)
    direction = family.at(found, seed=seed, step=step, p=p)
    with probing(found) as mode, toward(mode, direction, c):
        yield mode


def toward(
    mode: Substitution,
    direction: Direction,
    c: float,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Substitution:
    """The mode, aimed at theta + c u.

    The perturbed parameters of a small model are computed here, all at once. Those of a large model
    are computed where they are used, block by block (:class:`~zotutor.fused.Fused`) unless ``read``
    is given: a function that returns theta's values given its memory, see :mod:`zotutor.closure`.
    """

    def perturbed_at_use(i: int, theta: Tensor) -> Tensor:
        if read is None:
            return direction.perturbed(i, theta, c)
        plain = read(theta)
        # if `read` made a copy, the result is written over it
        own = plain.data_ptr() != theta.data_ptr() and plain.is_contiguous()
        return direction.perturbed(i, plain, c, out=plain.view(-1) if own else None)

    if direction.parts is not None:
        thetas = mode.params.tensors
        return mode.aim_at(
            direction.all_perturbed(thetas if read is None else list(map(read, thetas)), c)
        )
    fused = Fused(mode.number, direction, c) if read is None else None
    return mode.aim(perturbed_at_use, fused)


class _CallableModule(ModuleType):
    """This module, callable as the function `zotutor.probe` of 0.1 was; until 0.3."""

    def __call__(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Substitution]:
        warnings.warn(
            "zotutor.probe(...) is now zotutor.perturbed(...)", DeprecationWarning, stacklevel=2
        )
        return perturbed(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

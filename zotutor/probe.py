"""The loss at theta + c u, theta never written.

A `torch.overrides.TorchFunctionMode` sees every torch operation, and :mod:`zotutor.watch` what goes
around it. Where an operation reads a trainable parameter it is handed a scratch tensor
theta + c u_p instead, which is dropped when the operation returns. So there is nothing to restore:
not after an exception, not after an interrupt, not in half precision, where +eps, -2 eps, +eps does
not lead back to theta. Tied weights come out right, because a parameter is recognized by identity
wherever it is used.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .checks import Parameters, at_least_float32, check_comparable, check_real, trainable
from .directions import Direction, Directions, LowRank, check_draw
from .fused import Batched, Fused
from .watch import Unwatched, Vigilance, Watch

Operations = Callable[[Any, Any, dict[str, Any]], Any]
"""Runs an operation (function, arguments, keyword arguments), or returns NotImplemented."""

Loss = Callable[[], Tensor | float]
"""A closure that computes a loss, without backward, and returns it as a 0-d tensor."""

_READS_NO_VALUE = {
    getattr(Tensor, name).__get__
    for name in (
        "shape dtype device layout ndim requires_grad is_leaf grad grad_fn names is_sparse "
        "is_cuda is_mps is_quantized is_meta is_nested itemsize nbytes"
    ).split()
    if hasattr(Tensor, name)
} | {
    getattr(Tensor, name)
    for name in (
        "size dim ndimension numel nelement element_size is_complex data_ptr "
        "get_device __len__ __hash__ requires_grad_"
    ).split()
}
_READS_NO_VALUE |= {
    vars(torch._C.TensorBase)["grad"].__set__,
    vars(torch._C.TensorBase)["grad"].__delete__,
}


class NonFiniteLossError(FloatingPointError):
    """The loss was NaN or infinite at a probe. The parameters are as they were."""


class Substitution(TorchFunctionMode):
    """Hands ``replace(i, theta_i)`` to each operation that reads parameter number i."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        replace: Callable[[int, Tensor], Tensor],
        *,
        follow: bool = True,
        fused: Callable[[dict[int, int]], Operations] | None = None,
        watched: bool = True,
    ) -> None:
        super().__init__()
        self._number = {id(tensor): i for i, tensor in enumerate(tensors)}
        self._fused = None if fused is None else fused(self._number)
        self._tensors = tensors  # keeps the ids valid
        self._replace = replace
        self.watch: Watch | Unwatched = Unwatched()
        if watched:
            self.watch = Watch(tensors, self.swapped if follow else None)
        self.reads = 0

    def _tracked(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return id(value) in self._number
        if isinstance(value, (list, tuple)):
            return any(self._tracked(item) for item in value)
        return False

    def _swap(self, value: Any, scratch: dict[int, Tensor]) -> Any:
        if isinstance(value, Tensor):
            i = self._number.get(id(value))
            if i is None:
                return value
            if i not in scratch:
                scratch[i] = self.watch.lend(partial(self._replace, i, value))
                self.reads += 1
            return scratch[i]
        if isinstance(value, (list, tuple)) and self._tracked(value):
            return type(value)(self._swap(item, scratch) for item in value)
        return value

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch operation on the perturbed parameters."""
        kwargs = kwargs or {}
        if func in _NORMS and _updates_statistics(func, args, kwargs):
            raise ValueError(
                f"closure: {func.__name__} in training mode changes its running statistics at each "
                "call, so that probes cannot be compared; call model.eval() first"
            )
        if func in _READS_NO_VALUE or not self._tracked((*args, *kwargs.values())):
            return func(*args, **kwargs)
        if _writes(func, args, kwargs, self._tracked):
            raise RuntimeError(
                f"closure: {func.__name__} writes to a parameter inside a probe, where parameters "
                "are only read; move the write out of the closure"
            )
        if self._fused is not None and not self.watch.touches(self._untracked(args, kwargs)):
            with self.watch.paused():
                result = self._fused(func, args, kwargs)
            if result is not NotImplemented:
                self.reads += 1
                return result
        args, kwargs = self.swapped(args, kwargs)
        return func(*args, **kwargs)

    def _untracked(self, args: Any, kwargs: dict[str, Any]) -> list[Any]:
        return [value for value in (*args, *kwargs.values()) if not self._tracked(value)]

    def swapped(self, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The arguments of one operation, with a scratch tensor for each parameter."""
        scratch: dict[int, Tensor] = {}
        return (
            tuple(self._swap(value, scratch) for value in args),
            {name: self._swap(value, scratch) for name, value in kwargs.items()},
        )


def _writes(func: Any, args: Any, kwargs: Any, tracked: Callable[[Any], bool]) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    in_place = in_place or name in ("__setitem__", "__set__") or name in _IN_PLACE_OPERATORS
    return (in_place and bool(args) and tracked(args[0])) or tracked(kwargs.get("out"))


_IN_PLACE_OPERATORS = frozenset(
    f"__i{name}__"
    for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
)


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
    """A context in which compiled functions run as they were written.

    Compiled, a probe would be traced into them, and compiled anew for each direction.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def substitute(
    params: Parameters,
    replace: Callable[[int, Tensor], Tensor],
    *,
    follow: bool = True,
    fused: Callable[[dict[int, int]], Operations] | None = None,
    vigilance: Vigilance | None = None,
) -> Iterator[Substitution]:
    """A context in which operations that read parameter i get ``replace(i, theta_i)``.

    The mechanism beneath :func:`probe`; the estimators' forward-mode derivative uses it too, and
    with ``follow=False`` has reads refused that are no torch function's, where tangents are lost.
    ``fused`` makes, from the parameters' positions by id, what is asked first for each operation.
    ``vigilance`` says whether to watch, and is told if that was needed.
    """
    tensors = trainable(params)
    if isinstance(params, nn.Module):
        check_comparable(params)
        for name, module in params.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise TypeError(
                    f"model: its module {name or '(itself)'} is scripted, and its operations "
                    "cannot be seen by a probe; give the model as it was before torch.jit.script"
                )
    stack = torch.overrides._get_current_function_mode_stack()
    if any(isinstance(mode, Substitution) for mode in stack):
        raise RuntimeError("probe: given inside another probe; leave the first one before")
    watched = vigilance is None or vigilance.watching
    mode = Substitution(tensors, replace, follow=follow, fused=fused, watched=watched)
    try:
        with torch.no_grad(), _uncompiled(), mode.watch, mode:
            yield mode
    finally:
        if vigilance is not None:
            vigilance.needed |= mode.watch.needed


@contextmanager
def probe(
    params: Parameters,
    c: float,
    *,
    directions: Directions | None = None,
    seed: int,
    step: int,
    p: int = 0,
) -> Iterator[Substitution]:
    """A context in which everything is computed at theta + c u, while theta is never written.

    It works for any closure: a model called, a loss computed from raw parameters, recurrent layers,
    attention, tied weights. Inside, gradients are off, and writing to a parameter is an error.
    Code that goes around torch functions (a scripted function, ``torch.vmap`` over a parameter) is
    perturbed further down; what cannot be (a view of a parameter taken before) is refused. Compiled
    models run uncompiled. Extra memory: the parameters of one operation. What a probe cannot see is
    code that reads memory by address (scripted modules are refused, hand-written kernels are not),
    and other threads.

    Args:
        params: a model, or its parameters, with or without names.
        c: the signed distance; +eps and -eps for the two-point method.
        directions: family of u; Rademacher by default.
        seed: 0 <= seed < 2^64.
        step: which optimizer step.
        p: which of the step's perturbations.

    Yields:
        The active mode; its ``reads`` counts how often a parameter was handed out.

    Raises:
        TypeError: if there is an integer parameter or a scripted module.
        ValueError: for a model with dropout or batch norm in training mode.
        RuntimeError: for a write to a parameter, or a probe inside a probe.

    Use it to look at a loss anywhere along a direction. For a gradient estimate use
    :func:`~zotutor.estimate_gradient`, for training :class:`~zotutor.ZOSGD`; both stand on it.

    Example:
        >>> theta = torch.zeros(3, requires_grad=True)
        >>> with probe([theta], 0.5, seed=0, step=0):
        ...     print(float(theta.abs().sum()))
        1.5
        >>> float(theta.detach().abs().sum())
        0.0
    """
    c = check_real("c", c, low=-math.inf) if c != 0 else 0.0
    family = check_draw(directions, P=1, seed=seed, step=step)
    tensors = trainable(params)
    direction = family.at(tensors, seed=seed, step=step, p=p)
    # an iterator of parameters has been used up by now
    source = params if isinstance(params, nn.Module) else tensors
    with along(source, direction, c) as mode:
        yield mode


def along(
    params: Parameters, direction: Direction, c: float, vigilance: Vigilance | None = None
) -> AbstractContextManager[Substitution]:
    """:func:`probe` for a direction at hand."""

    def perturbed(i: int, theta: Tensor) -> Tensor:
        return direction.perturbed(i, theta, c)

    return substitute(
        params,
        perturbed,
        fused=partial(Fused, direction=direction, c=c),
        vigilance=vigilance,
    )


def batched(
    params: Parameters, directions: Sequence[Direction], cs: Sequence[float]
) -> AbstractContextManager[Substitution]:
    """A context in which copy s of the batch is computed at theta + c_s u_s, in one forward.

    For LowRank directions; the closure repeats its batch len(cs) times along dimension 0.

    Raises:
        ValueError: for another family.
        NotImplementedError: within, for an operation on a parameter that is not known here.
    """
    if not all(isinstance(direction.family, LowRank) for direction in directions):
        raise ValueError(
            f"directions: given {directions[0].family}, expected LowRank, whose thin factors let "
            "many directions share one forward; use LowRank(rank), or the sequential step"
        )

    def refuse(i: int, theta: Tensor) -> Tensor:
        raise NotImplementedError(f"closure: a batched probe cannot hand out parameter {i} whole")

    fused = partial(Batched, directions=directions, cs=cs)
    return substitute(params, refuse, follow=False, fused=fused)


def check_closure(loss_fn: Loss) -> Loss:
    """``loss_fn`` itself if it can be called, or a TypeError."""
    if not callable(loss_fn):
        given = f"shape {tuple(loss_fn.shape)}" if isinstance(loss_fn, Tensor) else repr(loss_fn)
        raise TypeError(
            f"closure: given {given}, expected a function without arguments that computes and "
            "returns the loss; write `lambda: loss(model(x), y)`"
        )
    return loss_fn


def evaluate(
    loss_fn: Loss,
    copies: int | None = None,
    *,
    probing: AbstractContextManager[Substitution] | None = None,
) -> Tensor:
    """The closure's loss as a 0-d tensor, float32 at least, checked to be one that can be compared.

    With ``copies`` the losses of so many copies of the batch, of shape (copies,). With ``probing``
    the loss within that probe; the checks are made outside of it, where no operation is watched:
    within, they would cost as much as a small model.

    Raises:
        TypeError: if the closure does not return a scalar (or a vector of that length).
        ValueError: if it consumed random numbers, as dropout does, so that two calls would differ;
            or if it read no parameter within the probe.
        NonFiniteLossError: if the loss is NaN or infinite.
    """
    before = _random_states()
    with nullcontext() if probing is None else probing as mode:
        loss = loss_fn()
        if isinstance(loss, Tensor):
            loss = loss.clone()  # a loss that is a parameter is to be read within the probe, too
    after = _random_states()
    if any(not torch.equal(old, new) for old, new in zip(before, after, strict=True)):
        raise ValueError(
            "closure: it drew random numbers (dropout in training mode, or noise), so that probes "
            "cannot be compared; call model.eval(), or draw the noise outside of the closure"
        )
    if isinstance(loss, (int, float)) and not isinstance(loss, bool):
        loss = torch.tensor(loss, dtype=torch.float64)
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"closure: returned {type(loss).__name__}, expected the loss as a 0-d tensor; "
            "end the closure with `return loss`"
        )
    expected = () if copies is None else (copies,)
    if loss.shape != expected or not loss.is_floating_point():
        kind = "a floating-point 0-d tensor" if copies is None else f"one loss a copy, ({copies},)"
        raise TypeError(
            f"closure: returned shape {tuple(loss.shape)} and dtype {loss.dtype}, expected {kind}; "
            "reduce the loss with .mean() or .sum()"
        )
    loss = loss.to(at_least_float32(loss.dtype))
    if not bool(loss.detach().isfinite().all()):
        raise NonFiniteLossError(
            f"closure: the loss is {loss.detach().tolist()}; the parameters are as they were. "
            "Lower lr or eps, and check the inputs for NaN"
        )
    if mode is not None and mode.reads == 0:
        raise ValueError(
            "closure: it read none of the parameters given, so that no probe can change its loss; "
            "compute the loss from these parameters (scripted or compiled models hide them)"
        )
    return loss


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states

"""What a loss may be: a finite scalar, the same at each call, a function of its parameters.

A probe (:mod:`zotutor.probe`) passes perturbed parameters to the torch functions that read them,
and leaves the parameters' memory alone. So a loss must read its parameters through torch functions.
One that reads their memory in another way (in a scripted function, the backward pass of a custom
function, NumPy) would be evaluated at theta itself, and the estimate would silently be wrong.

:func:`check` detects such reads on a closure's first call. It evaluates the loss twice within one
probe, the second time with all bits of the parameters flipped in memory; the probe flips them back
in the tensors that it passes on. A loss that reads its parameters only through the probe is the
same to the last bit. Flipping, unlike overwriting, needs no backup: flipping again restores every
bit. The same two evaluations detect a loss that is noisy, or that writes to its parameters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .parameters import Parameters, at_least_float32

Loss = Callable[[], Tensor | float]
"""A closure that computes a loss, without backward, and returns it as a 0-d tensor."""


class NonFiniteLossError(FloatingPointError):
    """The loss was NaN or infinite at a probe. The parameters are as they were."""


def check_callable(loss_fn: Loss) -> Loss:
    """``loss_fn`` itself if it can be called, or a TypeError."""
    if not callable(loss_fn):
        given = f"shape {tuple(loss_fn.shape)}" if isinstance(loss_fn, Tensor) else repr(loss_fn)
        raise TypeError(
            f"closure: given {given}, expected a function without arguments that computes and "
            "returns the loss; write `lambda: loss(model(x), y)`"
        )
    return loss_fn


def scalar(loss: Any) -> Tensor:
    """The value that a closure returned, as a finite 0-d tensor, float32 at least.

    Raises:
        TypeError: if it is not a real number, or a floating-point tensor of shape ().
        NonFiniteLossError: if it is NaN or infinite.
    """
    if isinstance(loss, (int, float)) and not isinstance(loss, bool):
        loss = torch.tensor(loss, dtype=torch.float64)
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"closure: returned {type(loss).__name__}, expected the loss as a 0-d tensor; "
            "end the closure with `return loss`"
        )
    if loss.shape != () or not loss.is_floating_point() or loss.is_meta:
        raise TypeError(
            f"closure: returned shape {tuple(loss.shape)} and dtype {loss.dtype} on "
            f"{loss.device}, expected a floating-point 0-d tensor with a value; reduce the loss "
            "with .mean() or .sum()"
        )
    loss = loss.to(at_least_float32(loss.dtype))
    if not math.isfinite(float(loss.detach())):
        raise NonFiniteLossError(
            f"closure: the loss is {float(loss.detach())}; the parameters are as they were. "
            "Lower lr or eps, and check the inputs for NaN"
        )
    return loss


@contextmanager
def no_random_numbers() -> Iterator[None]:
    """A context that raises at its end if torch's global random numbers were drawn within it.

    Raises:
        ValueError: if they were, as by dropout: losses within could not be compared.
    """
    before = _random_states()
    yield
    if not all(map(torch.equal, before, _random_states())):
        raise ValueError(
            "closure: it drew random numbers (dropout in training mode, or noise), so that probes "
            "cannot be compared; call model.eval(), or draw the noise outside of the closure"
        )


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    # asking for CUDA's state would initialize CUDA
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def identity(closure: Any) -> Hashable:
    """A key for a closure: equal for two made by the same line of code around the same model.

    A training loop makes a new function for each batch, with the same code and the same functions
    and models inside it; the key consists of these, and leaves the batch out. A check of the first
    closure then counts for all of them.
    """
    return _identity(closure, 4)  # a loss calls functions that call functions, rarely deeper


def _identity(value: Any, depth: int) -> Hashable:
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, functools.partial):
        value = _unpacked(value)
    if not callable(value) or depth == 0:
        return None  # data, such as a batch
    inner = getattr(value, "__func__", value)
    code = getattr(inner, "__code__", None)
    if code is None:
        return type(value).__qualname__
    held = [cell.cell_contents for cell in inner.__closure__ or () if _is_filled(cell)]
    held += [*(inner.__defaults__ or ()), getattr(value, "__self__", None)]
    return code, tuple(_identity(one, depth - 1) for one in held)


def _unpacked(value: functools.partial[Any]) -> Any:
    """A function whose defaults are the parts of a partial, for :func:`_identity` to look at."""

    def same(*held: Any) -> None: ...

    same.__defaults__ = (value.func, *value.args, *value.keywords.values())
    return same


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a variable that has no value yet
        return False


# ---- the check --------------------------------------------------------------------------------


def as_it_is(tensor: Tensor) -> Tensor:
    """The tensor, detached: how a probe reads a parameter."""
    return tensor.detach()


def flipped(tensor: Tensor) -> Tensor:
    """A new tensor in which each bit of the given one is flipped."""
    return _bits(tensor).bitwise_not().view(tensor.dtype)


def check(loss_at: Callable[[Callable[[Tensor], Tensor]], float], params: Parameters) -> float:
    """Refuse a loss that cannot be probed; costs two evaluations, and four passes over theta.

    Args:
        loss_at: the loss within a probe that applies the function it is given, :func:`as_it_is` or
            :func:`flipped`, to each parameter before perturbing it.
        params: the parameters; restored to the last bit afterwards, whatever happens.

    Returns:
        The loss at the probe.

    Raises:
        ValueError: if the loss differs from call to call.
        RuntimeError: if it reads or writes the memory of a parameter without the probe seeing it.
    """
    before = _fingerprint(params.tensors)  # a copy would double the memory
    first = loss_at(as_it_is)
    _check_unwritten(params, before)
    cause: Exception | None = None
    with _flipped_in_memory(params.tensors):
        # a read that bypasses the probe sees flipped bits now: another loss, NaN or an error
        try:
            second = loss_at(flipped)
        except Exception as error:  # noqa: BLE001 - flipped weights may end in anything
            second, cause = math.nan, error
    _check_unwritten(params, before)
    if _same(first, second, params):
        return first
    again = loss_at(as_it_is)  # distinguishes noise from reads that bypass the probe
    if not _same(first, again, params):
        raise ValueError(
            f"closure: it returned {first} and then {again} at the same parameters, so that probes "
            "cannot be compared; call model.eval(), draw noise and batches outside of the closure, "
            "and if a GPU kernel is the reason, call torch.use_deterministic_algorithms(True)"
        )
    raise RuntimeError(
        "closure: it reads the memory of a parameter where a probe cannot perturb it: in a "
        "scripted or compiled function, in the backward pass of a custom autograd.Function, in "
        "NumPy, or through an alias taken outside of the closure; read the parameter itself, in "
        "torch functions"
    ) from cause


def _same(one: float, other: float, params: Parameters) -> bool:
    """Whether two losses are equal, up to the rounding of kernels that sum in no fixed order.

    On a CPU they are equal to the last bit. Some GPU kernels add in an order that varies from call
    to call; the mean then varies by less than 16 spacings, which no probe can resolve anyway.
    """
    spacing = max(torch.finfo(at_least_float32(dtype)).eps for dtype in params.dtypes)
    return abs(one - other) <= 16 * spacing * max(abs(one), abs(other))


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    """The memory of a tensor as integers; autograd does not record writes to them."""
    return tensor.data.view(_INTEGERS[tensor.element_size()])


def _fingerprint(tensors: Sequence[Tensor]) -> list[Tensor]:
    """For each tensor the sum of its memory as 64-bit integers; changing one entry changes it.

    Read in place: a sum of shorter integers would first copy them to 64 bits.
    """
    found = []
    for tensor in tensors:
        bits = _bits(tensor).reshape(-1)
        size = 8 // bits.element_size()  # entries per 64 bits
        start = min(-bits.storage_offset() % size, bits.numel())
        stop = start + (bits.numel() - start) // size * size
        total = bits[start:stop].view(torch.int64).sum()
        for ends in (bits[:start], bits[stop:]):
            total += ends.sum(dtype=torch.int64)
        found.append(total)
    return found


def _check_unwritten(params: Parameters, before: Sequence[Tensor]) -> None:
    for name, one, other in zip(params.names, before, _fingerprint(params.tensors), strict=True):
        if int(one) != int(other):
            raise RuntimeError(
                f"closure: it writes to {name}, so that losses cannot be compared; move the write "
                "out of the closure"
            )


@contextmanager
def _flipped_in_memory(tensors: Sequence[Tensor]) -> Iterator[None]:
    """A context in which each bit of the tensors is flipped; restored whatever happens.

    Flipping twice undoes itself, so restoring must know what is flipped when an interrupt comes
    halfway: the first entry of each tensor tells.
    """
    bits = [_bits(tensor) for tensor in tensors if tensor.numel()]
    first = [_first(one) for one in bits]

    def restore() -> None:
        for one, number in zip(bits, first, strict=True):
            if _first(one) != number:
                one.bitwise_not_()

    try:
        for one in bits:
            one.bitwise_not_()
        yield
    finally:
        try:
            restore()
        finally:  # again, in case Ctrl-C interrupted the first time
            restore()


def _first(tensor: Tensor) -> int:
    return int(tensor[(0,) * tensor.dim()])

"""How a model is called: its logits as a function of its parameters, checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from .checks import check_comparable, check_finite, check_integer, is_finite, place_of_nonfinite
from .parameters import Parameters, at_least_float32, resolve


def resolve_model(model: nn.Module) -> Parameters:
    """The trainable parameters of a model whose logits are a fixed function of them.

    Raises:
        TypeError: for something that is not a model.
        ValueError: as :func:`~zotutor.parameters.resolve`; for dropout or batch norm in training.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: given a {type(model).__name__}, expected a torch.nn.Module")
    params = resolve(model)
    check_comparable(model)
    return params


def model_of(params: Parameters) -> nn.Module:
    """The model of ``params``, which were resolved from one."""
    assert params.model is not None, "resolved from a model"
    return params.model


def as_logits(output: Any) -> Any:
    """What a model returned, or its ``.logits``, as language models return them."""
    return getattr(output, "logits", output)


class SomeOutputs(nn.Module):
    """A model that returns some of another's outputs, (N, len(outputs)), or their sum, (N, 1)."""

    def __init__(self, model: nn.Module, outputs: Sequence[int] | Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)
        self.outputs = None if outputs is None else _checked_outputs(outputs)
        """Which, or None for the sum of all."""

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, ...) to some of the logits."""
        z = called(self.model, x)
        if self.outputs is None:
            return z.sum(1, keepdim=True)
        if max(self.outputs) >= z.shape[1]:
            raise ValueError(
                f"outputs: given {max(self.outputs)}, expected numbers from 0 to {z.shape[1] - 1}, "
                f"since the model has {z.shape[1]} outputs"
            )
        return z[:, self.outputs]


def _checked_outputs(outputs: Sequence[int] | Tensor) -> list[int]:
    if isinstance(outputs, (int, str)) or not isinstance(outputs, (Sequence, Tensor)):
        raise TypeError(
            f"outputs: given {outputs!r}, expected a list of numbers of outputs; put one in a list"
        )
    found = [check_integer("outputs", number, low=0) for number in outputs]
    if not found or len(set(found)) < len(found):
        raise ValueError(
            f"outputs: given {found}, expected one number at least, and each once; leave outputs "
            "out for all"
        )
    return found


def _random_state(x: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


def _versions(model: nn.Module) -> list[int]:
    """How often each parameter has been written to, as autograd counts it."""
    return [p._version for p in model.parameters() if not p.is_inference()]


def called(model: nn.Module, x: Tensor, *, call: Callable[[Tensor], Any] | None = None) -> Tensor:
    """The logits (N, V) of one call, after checking their shape and that the call is repeatable.

    Args:
        model: the model.
        x: inputs (N, ...).
        call: how to call it; ``model`` itself by default.
    """
    before, versions = _random_state(x), _versions(model)
    try:
        output = model(x) if call is None else call(x)
    except Exception as error:
        error.add_note(f"The model was called with x of shape {tuple(x.shape)} and {x.dtype}.")
        raise
    if not torch.equal(_random_state(x), before):
        (torch.cuda if x.is_cuda else torch).set_rng_state(before)
        raise ValueError(
            "model: it drew random numbers (dropout in training mode, or noise), so that its "
            "logits are no function of the parameters; call model.eval() first"
        )
    if _versions(model) != versions:
        raise ValueError(
            "model: it writes to its own parameters when it is called, so that two calls cannot be "
            "compared; move the write out of forward, or freeze what it does in model.eval()"
        )
    logits = as_logits(output)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model: returned {given} for {x.shape[0]} inputs, expected logits of shape "
            f"({x.shape[0]}, V); wrap the model so that it returns one row for each input"
        )
    if not logits.is_floating_point():
        raise TypeError(
            f"model: returned logits of dtype {logits.dtype}, expected real floating point; return "
            "the scores before argmax or rounding"
        )
    return logits


def _everywhere(model: nn.Module, params: dict[str, Tensor]) -> dict[str, Tensor]:
    """``params`` under every name by which a module of the model holds them.

    A tied parameter gets all its names, but a module used in several places only its first path:
    given two paths to one module, `functional_call` never removes the substitute from it.
    """
    first: dict[int, str] = {}
    found = {}
    for path, module in model.named_modules():
        for name, p in module.named_parameters(path, recurse=False, remove_duplicate=False):
            if first.setdefault(id(p), name) in params:
                found[name] = params[first[id(p)]]
    return found


def logits_of(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits z (N, V) of the model at other parameters, by name; the model is not touched.

    Raises:
        ValueError: if the model returns anything but one row of logits for each input, or draws
            random numbers.
    """
    substitutes = _everywhere(model, params)
    return called(
        model, x, call=lambda x: functional_call(model, substitutes, (x,), tie_weights=False)
    )


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """The logits z (N, V) at the model's own parameters, without a graph; errors as above."""
    with torch.no_grad():
        return called(model, x).detach()


@contextmanager
def plain_attention() -> Iterator[None]:
    """A context in which attention uses plain operations, which forward mode and vmap support."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            # the caller can do nothing about slow batching, nor about what forward mode imports
            warnings.filterwarnings("ignore", message="There is a performance drop")
            warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def recording(model: nn.Module) -> Iterator[None]:
    """A context in which operations record a graph, whatever the caller's mode.

    cuDNN is off for models with recurrent layers: its own have a backward pass in training mode
    only.
    """
    cudnn = torch.backends.cudnn
    recurrent = cudnn.enabled and any(isinstance(m, nn.RNNBase) for m in model.modules())
    with torch.inference_mode(False), torch.enable_grad():
        if recurrent:
            cudnn.enabled = False
        try:
            yield
        finally:
            if recurrent:
                cudnn.enabled = True


def finite_logits(params: Parameters, x: Tensor, name: str) -> Tensor:
    """The logits (N, V), float32 at least, or an error that says where NaN comes from."""
    z = refuse_nonfinite(logits(model_of(params), x), params, x, name)
    return z.to(at_least_float32(z.dtype))


def refuse_nonfinite(
    result: Tensor, params: Parameters, x: Tensor, x_name: str = "x", **given: Tensor
) -> Tensor:
    """``result`` itself, or a ValueError that says where its NaN or infinity comes from.

    Examines the arguments, by name, then the parameters, then the logits.
    """
    if is_finite(result):
        return result
    named = [(n, t) for n, t in {x_name: x, **given}.items() if t.is_floating_point()]
    named += [(f"model: its parameter {name}", value) for name, value in params.named().items()]
    for name, value in named:
        check_finite(name, value)
    z = logits(model_of(params), x)
    if not is_finite(z):
        raise ValueError(
            f"model: its logits are {place_of_nonfinite(z)}, though {x_name} and its parameters "
            "are finite; look for an overflow, a division by 0 or a mask over all of a row"
        )
    raise ValueError(
        f"model: its derivative is {place_of_nonfinite(result)}, though its logits are finite; "
        "look for an operation without a derivative here, such as sqrt at 0, or for an overflow"
    )

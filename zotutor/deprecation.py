"""Old names and calls, which work for one more version and warn with the new name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

from torch import nn

_P = ParamSpec("_P")
_R = TypeVar("_R")


def warn(message: str) -> None:
    """A DeprecationWarning at the caller's caller."""
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def moved(old: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that forwards moved names, with a warning.

    Args:
        old: the module they were in.
        names: name -> its new module, or "module:name" if its name changed as well.

    Example:
        >>> lookup = moved("zotutor.kernels", {"cka": "zotutor.similarity"})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     print(lookup("cka").__module__)
        zotutor.similarity
        >>> print(caught[0].message)
        zotutor.kernels.cka is deprecated; use zotutor.similarity.cka
    """

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        module, _, new = names[name].partition(":")
        warn(f"{old}.{name} is deprecated; use {module}.{new or name}")
        return getattr(import_module(module), new or name)

    return __getattr__


def seed_was_optional(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a call without ``seed`` mean seed=0, with a warning.

    Where P may be None, for first order, such calls draw nothing and need no seed.

    >>> @seed_was_optional
    ... def draw(*, seed):
    ...     return seed
    >>> draw(seed=3)
    3
    """
    P = inspect.signature(function).parameters.get("P")
    first_order = P is not None and P.default is None

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        needed = not first_order or kwargs.get("P") is not None
        if needed and kwargs.get("seed") is None:
            warn(f"{function.__name__}: seed will be required; give seed=0 for what it did so far")
            kwargs["seed"] = 0
        return function(*args, **kwargs)

    return call


def keyword_only(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Accept keyword-only arguments by position, with a warning.

    >>> @keyword_only
    ... def power(base, *, exponent):
    ...     return base**exponent
    >>> power(2, exponent=3)
    8
    """
    parameters = list(inspect.signature(function).parameters.values())
    positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    names = [p.name for p in parameters[positional:]]

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        extra = dict(zip(names, args[positional:], strict=False))
        if not extra or len(args) > len(parameters):
            return function(*args, **kwargs)
        given = ", ".join(f"{name}=..." for name in extra)
        warn(f"{function.__name__}: arguments by position are deprecated here; give {given}")
        named: Callable[..., _R] = function
        return named(*args[:positional], **extra, **kwargs)

    return call


def flag_became(
    name: str, value: bool, other: Callable[[], Callable[..., Any]]
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Accept a removed flag, with a warning: at ``value`` the call is forwarded to ``other()``.

    >>> def pair(x):
    ...     return x, 0.0
    >>> @flag_became("return_std", True, lambda: pair)
    ... def single(x):
    ...     return x
    >>> single(3)
    3
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if name not in kwargs:
                return function(*args, **kwargs)
            warn(
                f"{function.__name__}: {name} is deprecated; use {other().__name__} for "
                f"{name}={value}, and leave it out else"
            )
            rest: dict[str, Any] = dict(kwargs)
            called: Callable[..., Any] = other() if rest.pop(name) == value else function
            result: _R = called(*args, **rest)
            return result

        return call

    return decorate


def a_model_first_meant(
    other: Callable[..., Any],
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Forward a call whose first argument is a model to ``other``, with a warning.

    >>> def of_model(model):
    ...     return "of a model"
    >>> @a_model_first_meant(of_model)
    ... def plan(losses):
    ...     return "of losses"
    >>> plan(sum)
    'of losses'
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if not (args and isinstance(args[0], nn.Module)) and "model" not in kwargs:
                return function(*args, **kwargs)
            warn(f"{function.__name__} of a model is now {other.__name__}, with these arguments")
            result: _R = other(*args, **kwargs)
            return result

        return call

    return decorate

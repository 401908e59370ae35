"""What goes, for one version: it still works, and the warning names what replaces it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def warn(message: str, *, stacklevel: int = 3) -> None:
    """A DeprecationWarning at the caller's caller."""
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def moved(old: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds names where they are now.

    Args:
        old: the module that had them.
        names: name -> the module that has it now.

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
        warn(f"{old}.{name} is deprecated; use {names[name]}.{name}")
        return getattr(import_module(names[name]), name)

    return __getattr__


def seed_was_optional(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A call without ``seed`` still means seed=0, and warns.

    >>> @seed_was_optional
    ... def draw(*, seed):
    ...     return seed
    >>> draw(seed=3)
    3
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if "seed" not in kwargs:
            warn(f"{function.__name__}: seed will be required; give seed=0 for what it did so far")
            kwargs["seed"] = 0
        return function(*args, **kwargs)

    return call


def keyword_only(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Keyword-only arguments that are given by position still work, and warn.

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
        return function(*args[:positional], **extra, **kwargs)

    return call

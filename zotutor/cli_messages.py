"""What the command ``zotutor`` prints: results, and for each error one line and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from .llm import lm
from .llm.runs.disk import RunStoppedError
from .llm.runs.ranks import place_among
from .probe import NonFiniteLossError

_OTHER_NAMES = {"name": "task", "folder": "data"}
"""Options with another name in Python."""


def say(text: str) -> None:
    """Print a line; a closed pipe is no error, since the work is done."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        # a file name may contain characters that the terminal cannot show
        typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for output still buffered


def warn(text: str) -> None:
    """Print a line on standard error, and continue."""
    typer.echo(f"zotutor: {text}", err=True)


@contextmanager
def reported(context: typer.Context, *, resumable: bool = False) -> Iterator[None]:
    """Turn errors that a user can do something about into one line and an exit code.

    Args:
        context: of the command; the line names its options as they are written in a shell.
        resumable: whether the same command resumes where an interrupt stopped it.
    """
    names = list(context.params)

    def fail(code: int, error: BaseException, message: str | None = None) -> NoReturn:
        notes = [] if message else getattr(error, "__notes__", [])
        text = " ".join(" ".join([message or str(error), *notes]).split())
        warn(f"{place_among()}{in_words_of_a_shell(text, names)}")
        raise typer.Exit(code)

    try:
        yield
    except BrokenPipeError:
        raise
    except RunStoppedError as error:
        fail(3, error)
    except NonFiniteLossError as error:
        fail(4, error)
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
        fail(1, error)
    except (RuntimeError, MemoryError) as error:
        if not lm.is_out_of_memory(error):
            raise
        reason = (str(error) or "out of memory").splitlines()[0]
        fail(
            3, error, f"{reason}; take a smaller --batch-size or --micro-batch, or a larger machine"
        )
    except KeyboardInterrupt as error:
        again = "; the same command resumes the run" if resumable else ""
        fail(130, error, f"interrupted{again}")


def in_words_of_a_shell(text: str, options: Iterable[str]) -> str:
    """A message with the names of Python arguments replaced by the command's options.

    >>> in_words_of_a_shell(
    ...     "batch_size: given 0, expected 1; give length=8", ["batch_size", "length"]
    ... )
    '--batch-size: given 0, expected 1; give --length 8'
    """
    known = {name: name for name in options}
    known |= {python: name for python, name in _OTHER_NAMES.items() if name in known}

    def option(match: re.Match[str]) -> Any:
        name, sign = match.groups()
        if name not in known:
            return match[0]
        return f"--{known[name].replace('_', '-')}" + (": " if sign == ": " else " ")

    text = re.sub(r"^(\w+)(: )", option, text)
    return re.sub(r"\b(\w+)(=)(?=[\w\"'.-])", option, text)

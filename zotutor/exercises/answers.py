"""Shared by all checkers: calling a student's function, and comparing what it returns.

A wrong answer of any kind raises :class:`NotYet`, never another error of Python or torch. If a
common slip reproduces the wrong answer, its hint is shown.

Where there is none, a hint says how far off the answer is, by its ratio to the right one. A course
that is graded turns that off with the environment variable ``ZOTUTOR_GRADING=1``: no message then
holds a value that is expected, or one it could be computed from.
"""

from __future__ import annotations

import math
import numbers
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

RTOL = 1e-5
"""Relative tolerance: a right answer computed in float32 passes."""


class NotYet(AssertionError):
    """The answer is not right yet; a notebook shows the hint alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


class Slip(NamedTuple):
    """A common mistake: the wrong answer it gives, and a hint for the student."""

    wrong: Any
    hint: str


Slips = Sequence[tuple[Any, str]]


def grading() -> bool:
    """Whether messages leave out what is expected, as ``ZOTUTOR_GRADING=1`` asks."""
    return os.environ.get("ZOTUTOR_GRADING", "0") not in ("", "0")


def correct(what: str) -> None:
    """Print that the answer is right, and what it means."""
    print(f"Correct: {what}")


def normal(*shape: int, seed: int) -> Tensor:
    """Normal numbers in double precision, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ask(student: Callable[..., Any], call: str, *args: Any, **kwargs: Any) -> Any:
    """What a student's function returns.

    Args:
        student: what the student gave.
        call: the call as the student would write it.
        args: of the call.
        kwargs: of the call.

    Raises:
        NotYet: if it is no function, or the call raises; with the line that did.
    """
    if not callable(student):
        raise NotYet(
            f"{call}: expected your function itself, without calling it, and you gave "
            f"{type(student).__name__}"
        )
    try:
        return student(*args, **kwargs)
    except NotYet:
        raise
    except (Exception, SystemExit) as error:
        raise NotYet(f"{call}: raised {type(error).__name__}: {error}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """The line of the student's function in which an error arose, as far as it is known."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    first = own[:1]  # below it are the functions that the student's function calls
    return f" (in the line `{first[0].line}`)" if first and first[0].line else ""


def number(call: str, answer: Any) -> float:
    """An answer as a number.

    Args:
        call: the student's call, as the student would write it.
        answer: a number of Python, NumPy or torch.

    Raises:
        NotYet: for anything else, and for NaN and infinity.
    """
    if answer is None:
        raise NotYet(f"{call}: returned None; does your function end with `return`?")
    found = answer
    if isinstance(answer, Tensor) or hasattr(answer, "__array__"):
        try:
            shape = tuple(answer.shape)
            found = answer.item() if math.prod(shape) == 1 else None
        except Exception:  # noqa: BLE001  # an array without numbers: nested, or on "meta"
            shape, found = (1,), answer
        if found is None:
            raise NotYet(
                f"{call}: returned {type(answer).__name__} of shape {shape}, expected one number"
            )
    if not isinstance(found, numbers.Real) or isinstance(found, bool):
        raise NotYet(f"{call}: returned {type(found).__name__}, expected one number")
    try:
        value = float(found)
    except OverflowError:  # a whole number of more than 300 digits
        value = math.inf
    if not math.isfinite(value):
        raise NotYet(f"{call}: returned {value}, expected a finite number")
    return value


def compare_number(
    call: str,
    answer: Any,
    expected: float,
    slips: Slips = (),
    *,
    rtol: float = RTOL,
    whole: bool = False,
    hint: str = "",
) -> None:
    """Raise :class:`NotYet` with a hint unless an answer is the expected number.

    Args:
        call: the student's call, as the student would write it.
        answer: what it returned.
        expected: the right answer.
        slips: common mistakes, (wrong answer, hint) each.
        rtol: relative tolerance.
        whole: whether the answer is a whole number, as a number of steps is.
        hint: for the student, where no slip explains the answer.

    Raises:
        NotYet: with a hint.
    """
    found = number(call, answer)
    right = math.isclose(found, expected, rel_tol=rtol, abs_tol=1e-12)
    if right and (not whole or found == round(found)):
        return
    for wrong, why in slips:
        # whole numbers near to each other are different mistakes
        if math.isclose(found, wrong, rel_tol=1e-12 if whole else rtol, abs_tol=1e-12):
            raise NotYet(f"{call}: {why}")
    if whole and found != round(found):
        raise NotYet(f"{call}: returned {found:.6g}, expected a whole number; round up, math.ceil")
    off = f"returned {found:.6g}"
    if grading():
        off += ", which is not right"
    elif expected:
        off += f"; the ratio is {found / expected:.4g} to the right one"
    raise NotYet(f"{call}: {off}{'. ' if hint else ''}{hint}")


def tensor(call: str, answer: Any, expected: Tensor) -> Tensor:
    """An answer as a real, finite tensor on the CPU, in the dtype of the expected one.

    Raises:
        NotYet: for anything else.
    """
    if not isinstance(answer, Tensor):
        raise NotYet(
            f"{call}: returned {type(answer).__name__}, expected a tensor; does your function end "
            "with `return`?"
        )
    plain = answer.layout == torch.strided and not answer.is_nested and not answer.is_quantized
    if answer.is_complex() or answer.dtype == torch.bool or answer.is_meta or not plain:
        raise NotYet(
            f"{call}: returned a tensor of {answer.dtype}, {answer.layout}, on {answer.device}, "
            "expected real numbers in a plain tensor"
        )
    found = answer.detach().to("cpu", expected.dtype)
    if not bool(found.isfinite().all()):
        raise NotYet(f"{call}: some of the numbers returned are not finite")
    return found


def compare_tensor(
    call: str, answer: Any, expected: Tensor, slips: Slips = (), *, rtol: float = RTOL
) -> None:
    """Raise :class:`NotYet` with a hint unless an answer is the expected tensor.

    Args:
        call: what is asked, as the student knows it.
        answer: what the student's function returned.
        expected: the right answer.
        slips: common mistakes, (wrong answer, hint) each.
        rtol: of the largest difference, relative to the largest entry.

    Raises:
        NotYet: with a hint.
    """
    found = tensor(call, answer, expected)

    def is_close(other: Tensor) -> bool:
        if found.shape != other.shape:
            return False
        return bool((found - other).abs().max() <= rtol * other.abs().max())

    if is_close(expected):
        return
    for wrong, why in slips:
        if is_close(wrong):
            raise NotYet(f"{call}: {why}")
    if found.shape != expected.shape:
        raise NotYet(
            f"{call}: your answer has shape {tuple(found.shape)}, expected "
            f"{tuple(expected.shape)}; write the shape at the end of each line to find the axis"
        )
    worst = (found - expected).abs().argmax()
    index = tuple(int(i) for i in torch.unravel_index(worst, found.shape))
    off = f"{call}: the shape is right, the numbers are not. Furthest off is {index}"
    if not grading() and float(expected[index]):
        off += f", with a ratio of {float(found[index] / expected[index]):.4g} to the right one"
    raise NotYet(off)


def choice(call: str, answer: Any, options: Sequence[str]) -> str:
    """An answer as one of some words.

    Raises:
        NotYet: for anything else.
    """
    if not isinstance(answer, str) or answer not in options:
        words = " or ".join(f'"{word}"' for word in options)
        raise NotYet(f"{call}: returned {type(answer).__name__}, expected {words}")
    return answer


def compare_choices(
    student: Callable[..., Any],
    name: str,
    cases: Sequence[tuple[float, ...]],
    costs: Callable[..., dict[str, float]],
    *,
    always: dict[str, str],
    opposite: str,
    hint: str,
) -> None:
    """Raise :class:`NotYet` with a hint unless the student chooses what costs least in each case.

    A single wrong word says little: a slip is known by what it chooses in all cases.

    Args:
        student: takes the numbers of a case, returns one of two words.
        name: of the student's function.
        cases: the numbers of each.
        costs: from the numbers of a case, what each word costs.
        always: for each word, the hint if it is chosen in all cases.
        opposite: the hint if the other word is chosen in all cases.
        hint: for the student, where no slip explains the answers.

    Raises:
        NotYet: with a hint.
    """
    calls, answers, cheap, dear = [], [], [], []
    for case in cases:
        given = ", ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in case)
        calls.append(f"{name}({given})")
        cost = costs(*case)
        answers.append(choice(calls[-1], ask(student, calls[-1], *case), tuple(cost)))
        cheap.append(min(cost, key=cost.__getitem__))
        dear.append(max(cost, key=cost.__getitem__))
    slips = [([word] * len(cases), why) for word, why in always.items()] + [(dear, opposite)]
    for call, found, right in zip(calls, answers, cheap, strict=True):
        if found != right:
            why = [text for words, text in slips if words == answers]
            raise NotYet(f'{call}: returned "{found}". {why[0] if why else hint}')

"""What holds for every checker: right answers pass, in float32 too, and nonsense gets one line."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import test_exercises_beyond as beyond
import test_exercises_dimension_free as dimension_free
import test_exercises_gradients_from_values as gradients
import test_exercises_intro as intro
import test_exercises_jl_lemma as jl_lemma
import test_exercises_kernel_emerges as emerges
import test_exercises_kernel_fidelity as fidelity
import test_exercises_learning_dynamics as dynamics
import test_exercises_llm_dynamics as llm_dynamics
import test_exercises_llm_finetuning as llm_finetuning
import test_exercises_loss_view as loss_view
import test_exercises_zo_sgd as zo_sgd
import torch
from torch import Tensor

import zotutor as zo
from zotutor.bounds import jl_rate
from zotutor.exercises import NotYet

RIGHT: dict[str, Callable[..., Any]] = {
    "alignment_from_error": fidelity.alignment_from_error,
    "alignment_from_responses": fidelity.alignment_from_responses,
    "best_eps": lambda delta, third: (3 * delta / third) ** (1 / 3),
    "best_perturbations": loss_view.best_perturbations,
    "best_factor": lambda d, kurtosis: 1 - 1 / (d + kurtosis - 1),
    "change_from_passes": llm_dynamics.change,
    "constant": lambda a: math.sqrt(1 / a + 1),
    "copies": dimension_free.copies,
    "entry_variance": emerges.variance,
    "expected_bias": lambda kurtosis, eps: kurtosis * eps**2,
    "expected_square": beyond.expected_square,
    "four_point": gradients.four_point,
    "growing_family": lambda size: dimension_free.Table(size),
    "law_from_kernels": fidelity.law_from_kernels,
    "log_softmax_jacobian": zo.dynamics.log_softmax_jacobian,
    "loss_left": intro.loss_left,
    "lowrank_variance": beyond.lowrank_variance,
    "momentum_step": zo_sgd.momentum_step,
    "norm_variance": jl_lemma.norm_variance,
    "perturbations_for_distances": jl_lemma.perturbations_for_distances,
    "perturbations_for_share": loss_view.perturbations_for_share,
    "perturbations_per_step": zo_sgd.perturbations_per_step,
    "perturbations_to_tell_apart": lambda H, t, g, error: llm_dynamics.needed(
        t @ H / len(t), g, error
    ),
    "predicted_change": dynamics.change,
    "prediction_without_kernel": dynamics.prediction,
    "quantum": lambda loss, eps: llm_finetuning.spacing(loss) / (2 * eps),
    "rank_needed": lambda factor: math.ceil(3 / (factor - 1)),
    "seconds_needed": lambda squared, s, error: squared * s / error**2,
    "softmax_regression_kernel": dynamics.regression_kernel,
    "steps": lambda C, deviation: math.ceil((C / deviation) ** 2),
    "steps_until_checkpoint": lambda d, P: 2 * d // (40 + 8 * P),
    "tail_probability": lambda P, epsilon: 2 * math.exp(-P * jl_rate(epsilon)),
    "text_change": lambda g_o, g_u, tokens, lr: lr * tokens * (g_o @ g_u),
    "trace_from_losses": zo_sgd.trace_from_losses,
    "which_directions": gradients.which_directions,
    "which_rounding": llm_finetuning.which_rounding,
    "zo_entk_from_values": emerges.zo_entk_from_values,
    "zo_prediction": emerges.zo_prediction,
}
CHECKERS = sorted(name for name in zo.exercises.__all__ if name.startswith("check_"))


def checker(name: str) -> Callable[..., None]:
    found: Callable[..., None] = getattr(zo.exercises, f"check_{name}")
    return found


def in_float32(answer: Any) -> Any:
    """The same answer with the rounding of single precision."""
    if isinstance(answer, Tensor) and answer.is_floating_point():
        return answer.float()
    return np.float32(answer) if isinstance(answer, float) else answer


def single(right: Callable[..., Any]) -> Callable[..., Any]:
    """A student who computes in single precision, from tensors in single precision."""

    def student(*args: Any, **kwargs: Any) -> Any:
        narrow = (
            args if any(isinstance(a, torch.nn.Module) for a in args) else map(in_float32, args)
        )
        return in_float32(right(*narrow, **kwargs))

    return student


def test_every_checker_is_here() -> None:
    assert [name.removeprefix("check_") for name in CHECKERS] == sorted([*RIGHT, "budget"])


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    checker(name)(RIGHT[name])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Correct: ")


def momentum_step_in_float32(f: Any, params: Any, buffer: Tensor, **settings: Any) -> None:
    """A student whose buffer is rounded to single precision in each step."""
    RIGHT["momentum_step"](f, params, buffer, **settings)
    buffer.copy_(buffer.float())


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_in_float32(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    in_place = {"momentum_step": momentum_step_in_float32}
    checker(name)(in_place.get(name) or single(RIGHT[name]))
    assert "Correct: " in capsys.readouterr().out


def raises(*args: Any, **kwargs: Any) -> Any:
    return 1 / 0


def leaves(*args: Any, **kwargs: Any) -> Any:
    sys.exit("leaving")


def never_ends(*args: Any, **kwargs: Any) -> Any:
    return never_ends(*args, **kwargs)


def yields(*args: Any, **kwargs: Any) -> Iterator[float]:
    yield 1.0


class Array:
    """What calls itself an array and has no shape."""

    def __array__(self) -> np.ndarray[Any, Any]:
        return np.zeros(1)


class Awkward:
    """An object that cannot even be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __float__ = __bool__ = __eq__ = __len__ = __str__ = __repr__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


with warnings.catch_warnings():  # torch says that these are new
    warnings.simplefilter("ignore")
    COMPRESSED = torch.eye(3).to_sparse_csr()
    NESTED = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
RETURNED: list[Any] = [
    None, "12", "ten", b"1", [], [1.0], {}, object(), True, 1j, math.nan, math.inf, -1.0, 0,
    10**400, np.nan, np.zeros(3), np.array("x"), torch.zeros(0), torch.zeros(2, 3),
    torch.tensor(math.nan), torch.full((3, 5), math.nan), torch.tensor([True]),
    torch.tensor(1j), torch.zeros(1, device="meta"), torch.zeros(3, 3, 3, device="meta"),
    torch.eye(3).to_sparse(), COMPRESSED, NESTED, torch.nn.Linear(2, 2), print, raises,
    yields(), Array(), Awkward(),
    (1.0, 2.0), np.array(None), np.datetime64("2026-01-01"), NotYet, torch.tensor([]),
]  # fmt: skip
GIVEN: list[Any] = [
    None, 5, 0.1, "answer", b"", [], (), {}, 1j, math.nan, torch.zeros(3), np.ones(2), object(),
    lambda: 1, lambda a: a, lambda *a, **k: a, raises, int, print, torch.nn.Linear(2, 2),
    leaves, never_ends, yields, Array, Awkward(), functools.partial(raises, 1), [lambda a: a],
    lambda **k: 1, lambda a, b, c, d, e, f, g, h: 1,
]  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_nonsense_gets_a_hint_and_no_other_error(name: str) -> None:
    for answer in RETURNED:
        with pytest.raises(NotYet):
            checker(name)(lambda *args, answer=answer, **kwargs: answer)
    for student in GIVEN:
        with pytest.raises(NotYet):
            checker(name)(student)


@pytest.mark.parametrize("answer", [None, 5, "", b"same", [], "SAME", torch.zeros(3), raises])
def test_nonsense_about_the_budget(answer: Any) -> None:
    with pytest.raises(NotYet, match="answer with"):
        zo.exercises.check_budget(answer)


def test_an_error_of_the_student_names_its_line() -> None:
    with pytest.raises(NotYet, match=r"raised ZeroDivisionError.*in the line `return 1 / 0`"):
        zo.exercises.check_constant(raises)


def test_a_notebook_shows_one_line() -> None:
    with pytest.raises(NotYet) as caught:
        zo.exercises.check_budget("P")
    (line,) = caught.value._render_traceback_()
    assert line.startswith("Not yet: check_budget: each step is more accurate")


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_student_writes_to_spoils_no_later_check(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A right answer that then zeroes all it was given: accepted, or refused in a line."""

    def careless(*args: Any, **kwargs: Any) -> Any:
        answer = RIGHT[name](*args, **kwargs)
        with torch.no_grad():
            for given in args:
                for tensor in given if isinstance(given, list) else [given]:
                    if isinstance(tensor, Tensor):
                        tensor.zero_()
        return answer

    with contextlib.suppress(NotYet):
        checker(name)(careless)
    capsys.readouterr()
    checker(name)(RIGHT[name])
    assert "Correct: " in capsys.readouterr().out


@pytest.mark.parametrize("name", CHECKERS)
def test_docstrings_do_not_print_solutions(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect.getdoc(getattr(zo.exercises, name)) or ""
    assert "Args:" in text
    assert "NotYet: with a hint" in text
    assert ">>>" not in text
    short = name.removeprefix("check_")
    checker(short)(RIGHT.get(short, "same"))
    solution = capsys.readouterr().out.removeprefix("Correct: ").split(",")[0].strip(" .\n")
    if re.search(r"[=/*^]", solution):  # a formula, and not what it is about
        assert solution not in " ".join(text.split())


def numbers_of(answer: Any) -> list[float]:
    """All numbers in an answer."""
    if isinstance(answer, Tensor):
        return answer.detach().double().flatten().tolist()
    return [float(answer)] if isinstance(answer, (int, float)) else []


@pytest.mark.parametrize("factor", [1.3719, 0.0])
@pytest.mark.parametrize("name", sorted(RIGHT.keys() - {"growing_family", "momentum_step"}))
def test_grading_shows_no_value_that_is_expected(
    name: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the right number nor a ratio to it; small whole numbers are in any sentence."""
    monkeypatch.setenv("ZOTUTOR_GRADING", "1")
    secret: list[float] = [1.3719, 1 / 1.3719]
    public: list[float] = []

    def student(*args: Any, **kwargs: Any) -> Any:
        right = RIGHT[name](*args, **kwargs)
        secret.extend(numbers_of(right))
        if isinstance(right, str):
            return {"random": "nearest", "independent": "orthogonal"}.get(right, "random")
        wrong = int(right * factor) + 1 if isinstance(right, int) else right * factor
        public.extend(numbers_of(wrong))
        return wrong

    with pytest.raises(NotYet) as caught:
        checker(name)(student)
    message = str(caught.value).partition(": ")[2]
    shown = [float(x) for x in re.findall(r"\d+\.?\d*(?:e[+-]?\d+)?", message.replace(",", ""))]
    for number in shown:
        if number > 20 or number != round(number):
            leaked = [s for s in secret if math.isclose(number, abs(s), rel_tol=2e-3)]
            assert not leaked or any(math.isclose(number, abs(p), rel_tol=2e-3) for p in public)
    assert "ratio" not in message


@pytest.mark.parametrize("value", ["", "0"])
def test_without_grading_a_ratio_helps(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOTUTOR_GRADING", value)
    with pytest.raises(NotYet, match="the ratio is 3 to the right one"):
        zo.exercises.check_constant(lambda a: 3 * math.sqrt(1 / a + 1))

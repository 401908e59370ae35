"""What the hidden tests of the problem set expect is true: enumerated, or the package's own."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from test_exercises import single
from torch import Tensor, nn

import zotutor as zo
from zotutor.exercises import NotYet

COURSE = Path(__file__).resolve().parent.parent / "course"


@pytest.fixture(scope="module")
def hidden() -> ModuleType:
    """course/hidden_checks.py; the grading mode that it turns on is left again."""
    before = os.environ.get("ZOTUTOR_GRADING")
    sys.path.insert(0, str(COURSE))
    module = import_module("hidden_checks")
    sys.path.pop(0)
    if before is None:
        os.environ.pop("ZOTUTOR_GRADING", None)
    return module


def cells() -> list[tuple[str, str]]:
    """The cells of the master notebook, "answer", "test" or other, with their sources."""
    found, place = [], "other"
    master = json.loads(COURSE.joinpath("problem_set.ipynb").read_text(encoding="utf-8"))
    for cell in master["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "raw":
            begins = {"# BEGIN TESTS": "test", "# BEGIN SOLUTION": "answer"}
            place = begins.get(source.split("\n")[0], "other")
        elif cell["cell_type"] == "code":
            found.append((place, source))
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What the cells of the master define, without the language model."""
    env: dict[str, Any] = {}
    for place, source in cells():
        if place != "test" and "zo.llm.load" not in source:
            exec(source, env)
    return env


TESTS = [source for place, source in cells() if place == "test" and "tiny(" not in source]


def run(source: str, env: dict[str, Any]) -> None:
    """Run a test cell as the autograder does."""
    (function,) = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)]
    scope: dict[str, Any] = {}
    exec(source, scope)
    test: Callable[..., None] = scope[function.name]
    test(**{name: env.get(name) for name in inspect.signature(test).parameters})


@pytest.mark.parametrize("source", TESTS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_answers_are_right_in_both_precisions(
    source: str, precision: str, hidden: ModuleType, answers: dict[str, Any]
) -> None:
    if "language_model" in source or "predicted, measured" in source:
        return
    env = dict(answers)
    if precision == "float32":
        # a function that is given functions computes in the precision of what they return
        whole = ("predicted_change", "estimate", "monte_carlo", "altered_step", "replay")
        names = [n for n in env if inspect.isfunction(env[n]) and n not in whole]
        env |= {name: single(env[name]) for name in names}
    run(source, env)


@pytest.mark.parametrize("source", [source for source in TESTS if "hidden_checks" in source])
@pytest.mark.parametrize("answer", [None, "42", float("nan"), torch.zeros(2, 3), (1.0, 2.0)])
def test_nonsense_gets_no_point_and_one_line(source: str, answer: Any, hidden: ModuleType) -> None:
    (function,) = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)]
    names = [argument.arg for argument in function.args.args]
    for given in (answer, lambda *args: answer):
        with pytest.raises(NotYet):
            run(source, dict.fromkeys(names, given))


def signs(*shape: int) -> Tensor:
    """All tensors of -1 and 1 of a shape."""
    every = itertools.product([-1.0, 1.0], repeat=math.prod(shape))
    return torch.tensor(list(every), dtype=torch.float64).view(-1, *shape)


def test_bias_over_all_signs(answers: dict[str, Any]) -> None:
    theta, eps = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64), 0.2

    def loss(at: Tensor) -> Tensor:
        return (at**4).sum()

    mean = torch.stack([answers["estimate"](loss, theta, u, eps) for u in signs(3, 1)]).mean(0)
    torch.testing.assert_close(mean - 4 * theta**3, answers["bias"](theta, 1.0, eps))


def test_expected_losses_over_all_signs(answers: dict[str, Any]) -> None:
    """Two steps with two directions each, all 2^8 draws of two coordinates."""
    h = torch.tensor([2.0, 0.5], dtype=torch.float64)
    start, lr = torch.tensor([1.0, -2.0], dtype=torch.float64), 0.2
    ends = []
    for u in signs(2, 2, 2):  # step, coordinate, direction
        theta = start
        for step in u:
            theta = theta - lr * step @ (step.T @ (h * theta)) / 2
        ends.append((h * theta**2).sum() / 2)
    expected = answers["expected_losses"](h, start, lr, 2, 1.0, 2)
    torch.testing.assert_close(torch.stack(ends).mean(), expected[2])


def test_entry_variance_is_the_law_of_softmax_regression(answers: dict[str, Any]) -> None:
    x = torch.tensor([[0.2, -1.0, 0.4], [1.1, 0.3, -0.6]], dtype=torch.float64)
    model = nn.Linear(3, 4).double()
    J = zo.jacobian(model, x)
    for family in (zo.Gaussian(), zo.Rademacher(), zo.Sparse(0.25)):
        law = zo.kernel_error_law(J[0], J[1], P=3, directions=family)
        found = answers["entry_variance"](x[0], x[1], family.kurtosis, 3, 4)
        assert float(found.sum()) == pytest.approx(law)
        assert float(answers["law"](J[0], J[1], family.kurtosis, 3)) == pytest.approx(law)


def test_projected_kernel_is_the_kernel_of_the_package(answers: dict[str, Any]) -> None:
    x = torch.tensor([[0.2, -1.0, 0.4], [1.1, 0.3, -0.6]], dtype=torch.float64)
    model = nn.Linear(3, 4).double()
    u = zo.Rademacher().dense(model, P=5, seed=1, step=0).T  # (P, d): W first, then b
    found = answers["projected_kernel"](x[0], x[1], u[:, :12].reshape(5, 4, 3), u[:, 12:])
    torch.testing.assert_close(found, zo.zo_entk(model, x[:1], x[1:], P=5, seed=1)[0, 0])


def test_bound_and_law_are_those_of_the_package(answers: dict[str, Any]) -> None:
    a, r, gaussian = 0.1, 0.4, zo.Gaussian()
    bound = zo.jl_min_perturbations(2 * 7, r * math.sqrt(a), delta=0.05, directions=gaussian)
    assert answers["guaranteed"](7, a, r, 0.05) == bound
    assert answers["law_perturbations"](a, r) == zo.perturbations_needed(r, alignment=a)


def test_a_run_of_the_optimizer_is_replayed(answers: dict[str, Any]) -> None:
    theta = nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64))
    start = theta.detach().clone()
    optimizer = zo.ZOSGD([theta], lr=0.1, P=3, seed=4)
    ledger = []
    for _ in range(4):
        found = optimizer.measure(lambda: (theta**2).sum() / 2)
        ledger.append(list(found.coefficients))
        optimizer.replay(found.coefficients)
    torch.testing.assert_close(answers["replay"](start, ledger, 0.1, 4), theta.detach())


def test_the_stable_step_is_a_border(hidden: ModuleType, answers: dict[str, Any]) -> None:
    """Below it the expected loss falls in the long run, above it grows."""
    h = torch.tensor([3.0, 1.0, 1.0, 0.2], dtype=torch.float64)
    lr = hidden._stable(h, 2)
    theta = torch.ones(4, dtype=torch.float64)
    below, above = (
        answers["expected_losses"](h, theta, share * lr, 2, 3.0, 4000) for share in (0.98, 1.02)
    )
    assert below[-1] < below[0] < above[-1]

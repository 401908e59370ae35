"""The problem set as an instructor has it: built, handed out, collected, graded.

Run by `make course`, in the environment with otter-grader and after the build.
"""

from __future__ import annotations

import ast
import csv
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "course"
STUDENT = BUILT / "student" / "problem_set.ipynb"
INSTRUCTOR = BUILT / "instructor" / "problem_set.ipynb"

POINTS = {
    "estimate": 8,
    "bias": 6,
    "perturbations": 6,
    "projected_kernel": 9,
    "entry_variance": 8,
    "law": 12,
    "bound": 9,
    "cheapest": 8,
    "stability": 12,
    "ledger": 10,
    "language_model": 6,
}  # and 6 for the question that is graded by hand

# What the report says of the functions of typical_mistakes.py; nothing of those that are right.
HINTS = {
    "estimate": "sum over the directions",
    "bias": "which is 1 for signs only",
    "perturbations": "square of the error",
    "projected_kernel": "divide by P",
    "entry_variance": "true for Gaussian directions only",
    "law": "the term with kappa - 3 is missing",
    "monte_carlo": "divide by sqrt(draws)",
    "law_perturbations": "",
    "guaranteed": "gamma = r sqrt(a)",
    "cheapest": "compare all P",
    "expected_losses": "",
    "largest_stable_lr": "this is gradient descent's",
    "replay": "",
    "altered_step": "what is left, end minus the replay",
    "predicted_change": "which is not right",
}
PARTIAL = {
    "estimate": 5,
    "bias": 2,
    "perturbations": 2,
    "projected_kernel": 4,
    "entry_variance": 4,
    "law": 6,
    "bound": 3,
    "cheapest": 4,
    "stability": 6,
    "ledger": 6,
    "language_model": 0,
}


def notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def with_mistakes() -> Any:
    """The student's notebook with wrong answers written into it."""
    found = notebook(STUDENT)
    source = ROOT.joinpath("course", "typical_mistakes.py").read_text(encoding="utf-8")
    imports = "from typing import Any\n\n"
    wrong = {f.name: f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)}
    assert wrong.keys() == HINTS.keys()
    for name, function in wrong.items():
        (cell,) = [c for c in found.cells if c.source.startswith(f"def {name}(")]
        assert cell.source.endswith("):\n    ...")
        cell.source = imports + ast.unparse(function)
    return found


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four submissions, graded by the command that the page for instructors names."""
    folder = tmp_path_factory.mktemp("submissions")
    nbformat.write(notebook(INSTRUCTOR), folder / "answers.ipynb")
    nbformat.write(notebook(STUDENT), folder / "empty.ipynb")
    nbformat.write(with_mistakes(), folder / "mistakes.ipynb")
    folder.joinpath("torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    command = [sys.executable, str(ROOT / "tools" / "problem_set.py"), "grade", str(folder)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr  # one could not be graded
    return folder / "graded"


@pytest.fixture(scope="session")
def scores(graded: Path) -> dict[str, dict[str, str]]:
    with graded.joinpath("scores.csv").open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_right_answers_get_all_points(scores: dict[str, dict[str, str]]) -> None:
    row = scores["answers"]
    assert {name: float(row[name]) for name in POINTS} == POINTS
    assert float(row["total"]) == sum(POINTS.values()) == 94
    assert row["problem"] == ""


def test_no_answers_get_none(scores: dict[str, dict[str, str]]) -> None:
    row = scores["empty"]
    assert {name: float(row[name]) for name in POINTS} == dict.fromkeys(POINTS, 0)
    assert row["problem"] == ""


def test_mistakes_get_part_of_the_points_and_their_hints(
    scores: dict[str, dict[str, str]], graded: Path
) -> None:
    row = scores["mistakes"]
    assert {name: float(row[name]) for name in PARTIAL} == PARTIAL
    report = graded.joinpath("mistakes.txt").read_text(encoding="utf-8")
    missing = [hint for hint in HINTS.values() if hint not in report]
    assert missing == []
    assert "ratio" not in report


def test_a_submission_that_cannot_be_read_stops_no_other(scores: dict[str, dict[str, str]]) -> None:
    assert list(scores) == ["answers", "empty", "mistakes", "torn"]
    assert scores["torn"]["problem"]
    assert float(scores["torn"]["total"]) == 0


def test_what_is_handed_out_holds_no_answer() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    check_answers = import_module("check_answers")
    sys.path.pop(0)
    text = STUDENT.read_text(encoding="utf-8")
    lines = set(check_answers.plain_lines("x.ipynb", text))
    assert sorted(lines & check_answers.answers()) == []
    for word in ("SOLUTION", "hidden_checks", "hidden: true", "**Right:**"):
        assert word not in text
    tests = notebook(STUDENT).metadata["otter"]["tests"]
    assert set(tests) == set(POINTS)
    assert json.dumps(tests).count("hidden=True") == 0


def test_what_is_handed_out_runs_without_answers(tmp_path: Path) -> None:
    """From top to bottom, with a message at each check and an error nowhere."""
    found = notebook(STUDENT)
    nbformat.write(found, tmp_path / "problem_set.ipynb")
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(found, timeout=180, kernel_name="python3", resources=resources).execute()
    shown = json.dumps([cell.get("outputs", []) for cell in found.cells])
    assert shown.count("Test case failed") >= len(POINTS)

"""Builds the course's problem set from its master notebook, and grades what students hand in.

.venv/otter/bin/python tools/problem_set.py build
.venv/otter/bin/python tools/problem_set.py grade SUBMISSIONS

`build` writes into _build/course: student/problem_set.ipynb to hand out, without answers and hidden
tests; instructor/problem_set.ipynb with both; autograder.zip, for `grade`, Gradescope or `otter
grade`. The answers of the master are graded on the way, and must be right.

`grade` runs each notebook of a folder (one .ipynb or .zip for each student, named after them)
against autograder.zip, and writes scores.csv and one report for each student into
SUBMISSIONS/graded. It executes what students wrote, on this machine, as you: use an account or a
container without anything to lose.

Both need otter-grader, which `make course` installs into .venv/otter.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MASTER = ROOT / "course" / "problem_set.ipynb"
BUILT = ROOT / "_build" / "course"
ARCHIVE = BUILT / "autograder.zip"
LIMIT = 900  # seconds for one submission; the answers of the master take far less


class Graded(NamedTuple):
    """What came of one submission: the points of each question, or why there are none."""

    name: str
    points: dict[str, float]
    possible: dict[str, float]
    report: str
    problem: str = ""


def otter(*arguments: str | Path, cwd: Path, timeout: float | None = None) -> str:
    """Run a command of otter-grader; what it printed.

    Raises:
        SystemExit: if otter-grader is not installed.
        subprocess.CalledProcessError, subprocess.TimeoutExpired: if the command fails.
    """
    command = [sys.executable, "-m", "otter", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    probe = [sys.executable, "-c", "import otter"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        sys.exit(
            f"{sys.executable} has no otter-grader. Run `make course` once, then use "
            ".venv/otter/bin/python, or: pip install --no-deps -r course/requirements.txt"
        )
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        timeout=timeout,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return result.stdout


def build(folder: Path = BUILT) -> None:
    """Write the notebooks and the autograder, all or nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch) / "course", Path(scratch) / "made"
        shutil.copytree(MASTER.parent, source, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            otter("assign", "--no-pdfs", source / MASTER.name, made, cwd=source)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{error.stdout}\nThe problem set could not be built: see above.")
        (archive,) = made.glob("autograder/*.zip")
        new = Path(scratch) / "new"
        for kind, name in (("student", "student"), ("autograder", "instructor")):
            new.joinpath(name).mkdir(parents=True)
            shutil.copy(made / kind / MASTER.name, new / name)
        shutil.copy(archive, new / ARCHIVE.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new, folder)


def grade_one(submission: Path, archive: Path = ARCHIVE) -> Graded:
    """Grade one submission; whatever is wrong with it becomes its report."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        arguments = ["run", "--no-logo", "-a", str(archive.resolve()), "-o", scratch]
        try:
            otter(*arguments, submission.resolve(), cwd=folder, timeout=LIMIT)
            tests = json.loads(folder.joinpath("results.json").read_text(encoding="utf-8"))["tests"]
        except subprocess.TimeoutExpired:
            return Graded(submission.stem, {}, {}, "", f"still running after {LIMIT} s")
        except (subprocess.CalledProcessError, OSError, ValueError, KeyError) as error:
            said = str(getattr(error, "stdout", error)).strip().splitlines()
            return Graded(submission.stem, {}, {}, "\n".join(said), said[-1] if said else "failed")
    return read(submission.stem, tests)


def read(name: str, tests: Iterable[dict[str, Any]]) -> Graded:
    """Points and report from otter's results, which have one entry for each question."""
    points: dict[str, float] = {}
    possible: dict[str, float] = {}
    lines: list[str] = []
    for test in tests:
        if "max_score" not in test:  # a remark about the submission as a whole
            lines += [str(test["output"]), ""]
            continue
        question = str(test["name"]).split(" ")[0]
        points[question] = float(test.get("score") or 0.0)
        possible[question] = float(test["max_score"] or 0.0)
        lines += [f"{question}: {points[question]:g} of {possible[question]:g}", test["output"], ""]
    problem = "" if possible else "no results: see the report"
    return Graded(name, points, possible, "\n".join(lines), problem)


def several(submissions: list[Path], archive: Path) -> Iterator[Graded]:
    """Grade submissions, some at the same time, and yield them in their order."""
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda path: grade_one(path, archive), submissions)


def grade(folder: Path, archive: Path = ARCHIVE) -> list[Graded]:
    """Grade every submission in a folder, and write scores.csv and the reports."""
    submissions = sorted(p for p in folder.iterdir() if p.suffix in (".ipynb", ".zip"))
    if not submissions:
        sys.exit(f"{folder} has no .ipynb and no .zip: put one for each student there")
    names = [path.stem for path in submissions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        sys.exit(f"{folder} has more than one submission of {', '.join(twice)}: keep one")
    if not archive.exists():
        sys.exit(f"There is no {archive}. Run `make course`, which writes it")
    out = folder / "graded"
    out.mkdir(exist_ok=True)
    found: list[Graded] = []
    for graded in several(submissions, archive):
        found.append(graded)
        total = f"{sum(graded.points.values()):g} of {sum(graded.possible.values()):g}"
        print(f"{graded.name}: {graded.problem or total}", flush=True)
        out.joinpath(f"{graded.name}.txt").write_text(graded.report, encoding="utf-8")
        write_scores(out / "scores.csv", found, questions_of())
    return found


def questions_of(master: Path = MASTER) -> list[str]:
    """The names of all questions, in their order; those graded by hand, too."""
    cells = json.loads(master.read_text(encoding="utf-8"))["cells"]
    raw = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "raw"]
    begins = [text for text in raw if text.startswith("# BEGIN QUESTION")]
    return [re.findall(r"^name: (\S+)$", text, re.MULTILINE)[0] for text in begins]


def write_scores(path: Path, found: list[Graded], questions: Sequence[str]) -> None:
    """Write the table of all points, in one piece; what is graded by hand is left empty."""
    graded_here = {q for graded in found for q in graded.possible}
    new = path.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", *questions, "total", "problem"])
        for graded in found:
            row = [graded.points.get(q, 0.0) if q in graded_here else "" for q in questions]
            table.writerow([graded.name, *row, sum(graded.points.values()), graded.problem])
    new.replace(path)


def main() -> int:
    """Build, or grade."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="write student and instructor notebooks and the autograder")
    grading = commands.add_parser("grade", help="grade a folder of submissions")
    grading.add_argument("submissions", type=Path)
    given = parser.parse_args()
    if given.command == "build":
        build()
        print(f"The problem set is in {BUILT}")
        return 0
    if not given.submissions.is_dir():
        sys.exit(f"{given.submissions} is no folder; name the one with the submissions")
    return int(any(graded.problem for graded in grade(given.submissions)))


if __name__ == "__main__":
    sys.exit(main())

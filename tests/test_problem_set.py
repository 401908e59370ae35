"""What tools/problem_set.py does with results, without otter; `make course` does the rest."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_package import tool

ROOT = Path(__file__).resolve().parent.parent
RESULTS: list[dict[str, Any]] = [
    {"name": "Public Tests", "output": "all passed", "status": "passed"},
    {"name": "bias", "score": 2.0, "max_score": 6.0, "output": "a hint"},
    {"name": "law", "score": 12, "max_score": 12, "output": "passed"},
]


def test_points_and_report_of_one_submission() -> None:
    graded = tool("problem_set").read("ann", RESULTS)
    assert graded.points == {"bias": 2, "law": 12}
    assert graded.possible == {"bias": 6, "law": 12}
    assert "bias: 2 of 6\na hint\n" in graded.report
    assert graded.problem == ""


def test_a_notebook_that_gave_no_results_is_no_zero_in_silence() -> None:
    failed = [{"name": "Autograder Failed", "output": "no results", "status": "failed"}]
    graded = tool("problem_set").read("bob", failed)
    assert graded.problem
    assert "no results" in graded.report


def test_a_submission_that_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tool("problem_set")

    def slow(*arguments: Any, **options: Any) -> str:
        raise subprocess.TimeoutExpired("otter", options["timeout"])

    monkeypatch.setattr(module, "otter", slow)
    graded = module.grade_one(tmp_path / "cy.ipynb")
    assert (graded.name, graded.problem) == ("cy", "still running after 900 s")


def test_the_table_has_all_questions(tmp_path: Path) -> None:
    module = tool("problem_set")
    found = [
        module.Graded("cy", {}, {}, "", "still running"),
        module.read("ann", RESULTS),
    ]
    module.write_scores(tmp_path / "scores.csv", found, ["law", "bias", "in_words"])
    with tmp_path.joinpath("scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["name", "law", "bias", "in_words", "total", "problem"],
        ["cy", "0.0", "0.0", "", "0", "still running"],
        ["ann", "12.0", "2.0", "", "14.0", ""],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize(
    ("files", "words"),
    [((), "has no .ipynb"), (("ann.ipynb", "ann.zip"), "more than one submission of ann")],
)
def test_a_folder_that_cannot_be_graded(tmp_path: Path, files: Any, words: str) -> None:
    for name in files:
        tmp_path.joinpath(name).touch()
    with pytest.raises(SystemExit, match=words):
        tool("problem_set").grade(tmp_path)


def test_without_an_autograder_it_says_what_to_run(tmp_path: Path) -> None:
    tmp_path.joinpath("ann.ipynb").touch()
    with pytest.raises(SystemExit, match="make course"):
        tool("problem_set").grade(tmp_path, tmp_path / "autograder.zip")


def test_without_otter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tool("problem_set")

    def failed(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(module.subprocess, "run", failed)
    with pytest.raises(SystemExit, match="has no otter-grader"):
        module.otter("assign", cwd=Path())


def test_addresses_are_those_of_the_repository_and_the_site() -> None:
    """One setting, _config.yml; a fork that changes it is told where else."""
    config = ROOT.joinpath("_config.yml").read_text(encoding="utf-8")
    (repository,) = re.findall(r"^  url: (\S+)$", config, re.MULTILINE)
    (site,) = re.findall(r"^  baseurl: (\S+)$", config, re.MULTILINE)
    found = set()
    for name in ("problem_set.ipynb", "autograder_requirements.txt"):
        text = ROOT.joinpath("course", name).read_text(encoding="utf-8")
        found.update(re.findall(r"https://[^\s\"')\\]+", text))
    assert repository in found
    assert [url for url in found if not url.startswith((repository, site))] == []


def test_pages_that_the_problem_set_names_exist() -> None:
    text = ROOT.joinpath("course", "problem_set.ipynb").read_text(encoding="utf-8")
    pages = set(re.findall(r"/book/(\w+)\.html", text))
    assert len(pages) > 5
    assert [page for page in pages if not ROOT.joinpath("book", f"{page}.ipynb").exists()] == []


def test_the_questions_have_their_order() -> None:
    names = tool("problem_set").questions_of()
    assert (names[0], names[-1], len(names)) == ("estimate", "in_words", 12)


def test_the_page_for_instructors_has_every_question_with_its_points() -> None:
    page = ROOT.joinpath("book", "instructors.md").read_text(encoding="utf-8")
    master = json.loads(ROOT.joinpath("course", "problem_set.ipynb").read_text(encoding="utf-8"))
    raw = ["".join(cell["source"]) for cell in master["cells"] if cell["cell_type"] == "raw"]
    questions = [
        dict(re.findall(r"^(\w+): (\S+)$", text, re.M)) for text in raw if "name: " in text
    ]
    given = {q["name"]: int(q["points"]) for q in questions if "points" in q}
    rows = re.findall(r"^\| \d+, `(\w+)`: [^|]*\|[^|]*\| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert {name: int(points) for name, _, points in rows} == given
    assert sum(given.values()) == 100
    assert sum(int(minutes) for _, minutes, _ in rows) == 180


def test_a_session_takes_90_minutes_and_its_exercises_what_they_say() -> None:
    page = ROOT.joinpath("book", "instructors.md").read_text(encoding="utf-8")
    chapters = "".join(
        "".join("".join(cell["source"]) for cell in json.loads(path.read_bytes())["cells"])
        for path in sorted(ROOT.joinpath("book").glob("*.ipynb"))
    )
    minutes = dict(re.findall(r":label: (ex-[a-z-]+)\n\*\*(\d+) minutes", chapters))
    rows = re.findall(
        r"^\| \d \|.*\| \d+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE
    )
    sessions = re.split(r"^### \d\. ", page.partition("\n## Slides")[0], flags=re.MULTILINE)[1:]
    assert len(rows) == len(sessions) == 6
    for row, session in zip(rows, sessions, strict=True):
        assert sum(map(int, row)) == 90
        named = re.findall(r"\{ref\}`(ex-[a-z-]+)`", session)
        assert sum(int(minutes[name]) for name in named) == int(row[2])

"""Answers of the problem set are found wherever they lie in a site."""

from __future__ import annotations

import zipfile
from html import escape
from pathlib import Path

import pytest
from test_package import tool

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def site(tmp_path: Path) -> Path:
    tmp_path.joinpath("index.html").write_text("<p>Nothing to see.</p>", encoding="utf-8")
    return tmp_path


def test_a_site_without_answers_is_clean(site: Path) -> None:
    assert tool("check_answers").leaks(site) == []


@pytest.mark.parametrize("name", ["problem_set.ipynb", "hidden_checks.py"])
def test_the_sources_themselves_are_found(site: Path, name: str) -> None:
    source = ROOT.joinpath("course", name).read_bytes()
    other = "other.ipynb" if name.endswith("ipynb") else "other.txt"
    site.joinpath(other).write_bytes(source)
    assert [line.partition(":")[0] for line in tool("check_answers").leaks(site)] == [other]
    site.joinpath(name).write_bytes(b"")
    assert len(tool("check_answers").leaks(site)) == 2


def test_an_answer_in_highlighted_code_is_found(site: Path) -> None:
    line = "return 4 * kurtosis * eps**2 * theta"
    assert line in tool("check_answers").answers()
    words = "".join(f"<span>{escape(word)}</span> " for word in line.split(" "))
    site.joinpath("page.html").write_text(f"<pre>\n    {words}\n</pre>", encoding="utf-8")
    assert tool("check_answers").leaks(site) == [f"page.html: {line}"]


def test_every_question_has_lines_to_be_known_by() -> None:
    """One of each answer would be found, wherever it stood alone."""
    module = tool("check_answers")
    secret = module.answers()
    text = ROOT.joinpath("course", "problem_set.ipynb").read_text(encoding="utf-8")
    questions = text.split("# BEGIN QUESTION")[1:-1]  # the last is in words
    assert len(questions) == 11
    for question in questions:
        assert any(line.replace('"', '\\"') in question for line in secret)


def test_the_archive_is_opened(site: Path) -> None:
    line = max(tool("check_answers").answers(), key=len)
    with zipfile.ZipFile(site / "book.zip", "w") as archive:
        archive.writestr("folder/page.html", line)
    (found,) = tool("check_answers").leaks(site)
    assert found.startswith("book.zip/folder/page.html: ")

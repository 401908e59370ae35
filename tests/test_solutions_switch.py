"""One switch: a site built with `hide_solutions: true` has no solution anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_site_extensions import extension

ROOT = Path(__file__).resolve().parent.parent

EXERCISE = """\
# A chapter

## Exercises

:::{exercise}
:label: ex-one
Why on Earth?
:::

:::{solution} ex-one
:class: dropdown
SECRETTEXT
:::
"""
CHAPTER = [
    ("markdown", EXERCISE),
    ("code", "SECRETCODE = 1"),
    ("code", "SECRETOUTPUT = 2"),
    ("markdown", "## Summary\n\nAfterwards."),
    ("code", "afterwards = 3"),
]


def notebook(cells: list[tuple[str, str]]) -> dict[str, object]:
    of_code: dict[str, object] = {"outputs": [], "execution_count": None}
    return {
        "cells": [
            {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": source}
            | (of_code if kind == "code" else {})
            for i, (kind, source) in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def build(folder: Path, *, hide: bool) -> Path:
    source, site = folder / "source", folder / str(hide)
    source.mkdir(exist_ok=True)
    source.joinpath("index.ipynb").write_text(json.dumps(notebook(CHAPTER)), encoding="utf-8")
    source.joinpath("conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        "project, extensions = 'x', ['myst_nb', 'sphinx_exercise', 'sphinx.ext.autodoc', "
        f"'solutions']\nnb_execution_mode, hide_solutions = 'off', {hide}\n"
        "myst_enable_extensions = ['colon_fence']\nexclude_patterns = []\n",
        encoding="utf-8",
    )
    source.joinpath("api.md").write_text(
        "---\norphan: true\n---\n# API\n\n```{eval-rst}\n.. autofunction:: "
        "zotutor.exercises.check_constant\n```\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(site)]
    subprocess.run(command, check=True, cwd=ROOT)
    return site


def words(site: Path) -> str:
    return "\n".join(
        path.read_text(encoding="utf-8", errors="ignore")
        for path in sorted(site.rglob("*"))
        if path.is_file() and ".doctrees" not in path.parts
    )


def test_the_switch_removes_solutions_everywhere(tmp_path: Path) -> None:
    """Pages, search, offered notebooks and the checkers' source; without it, it is all there."""
    extension("solutions")
    shown, hidden = (words(build(tmp_path, hide=hide)) for hide in (False, True))
    secret = ["SECRETTEXT", "SECRETCODE", "SECRETOUTPUT", "squared"]
    assert [word for word in secret if word not in shown] == []
    assert [word for word in secret if word in hidden] == []
    for word in ("Why on Earth?", "Afterwards.", "afterwards", "check_constant"):
        assert word in shown
        assert word in hidden


def test_every_solution_of_the_book_is_found() -> None:
    strip = extension("solutions").without_solutions
    solutions = 0
    for path in sorted(ROOT.joinpath("book").glob("*.ipynb")):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        text = "".join("".join(cell["source"]) for cell in chapter["cells"])
        left = strip(chapter)["cells"]
        after = "".join("".join(cell["source"]) for cell in left)
        solutions += text.count("{solution}")
        assert "{solution}" not in after
        assert after.count("{exercise}") == text.count("{exercise}")
        calls = [
            "".join(cell["source"])
            for cell in left
            if cell["cell_type"] == "code" and "zo.exercises.check_" in "".join(cell["source"])
        ]
        assert calls == [], path.name  # a checker is called in solutions only
    assert solutions > 30


@pytest.mark.lint
def test_the_public_site_shows_solutions() -> None:
    config = ROOT.joinpath("_config.yml").read_text(encoding="utf-8")
    assert config.count("hide_solutions: false") == 1

"""The rules for chapters that a program can check; they read files only, as part of `make lint`."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted(BOOK.glob("*.md"))
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|Users|root|work|tmp|mnt|content)/|\b[A-Za-z]:\\\\"
)

LONGEST_LOOP = 14
TAUGHT = {("gradients_from_values", "in-place")}
"""Cells with a longer loop that is what the chapter teaches."""

pytestmark = pytest.mark.lint
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    """A notebook as JSON."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def cells(path: Path, kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, source, cell) of each cell of a kind."""
    found = [cell for cell in load(path)["cells"] if cell["cell_type"] == kind]
    return [(cell.get("id", ""), "".join(cell["source"]), cell) for cell in found]


def prose(path: Path) -> str:
    """The Markdown of a chapter or page."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(source for _, source, _ in cells(path, "markdown"))


def test_every_page_is_in_the_table_of_contents() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:root|file): (book/\S+)", toc))
    assert listed == {f"book/{path.stem}" for path in [*CHAPTERS, *PAGES]}


@each_chapter
def test_cells_have_stable_ids(chapter: Path) -> None:
    notebook = load(chapter)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    drawn = [
        i for i in ids if not re.fullmatch(r"[a-z0-9-]{1,64}", i) or re.fullmatch(r"[0-9a-f]{8}", i)
    ]
    assert not drawn, f"Give these cells ids that say what they hold, of a-z, 0-9 and -: {drawn}"
    assert len(set(ids)) == len(ids), f"Used twice: {sorted({i for i in ids if ids.count(i) > 1})}"


@each_chapter
def test_chapters_are_stripped(chapter: Path) -> None:
    kept = [
        i for i, _, cell in cells(chapter, "code") if cell["outputs"] or cell["execution_count"]
    ]
    assert not kept, f"Cells with outputs, {kept}: run `make format`"
    assert load(chapter)["metadata"]["kernelspec"]["name"] == "python3"


@each_chapter
def test_figures_have_alt_text(chapter: Path) -> None:
    for i, source, cell in cells(chapter, "code"):
        if not re.search(r"\bfigures\.\w+\(", source):
            continue
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(alt.split()) >= 5, (
            f"Cell {i} shows a figure and its metadata.mystnb.image.alt is {alt!r}: "
            "say there what the picture shows"
        )


@each_chapter
def test_figures_have_captions_and_names(chapter: Path) -> None:
    for i, source, cell in cells(chapter, "code"):
        shown = cell["metadata"].get("mystnb", {})
        if "image" not in shown or "explor" in source:
            continue  # what has sliders says in its text what to move
        figure = shown.get("figure", {})
        assert re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")), f"Cell {i}: name its figure"
        assert len(figure.get("caption", "").split()) >= 4, (
            f"Cell {i} shows a figure without metadata.mystnb.figure.caption: say what to look at"
        )


@each_chapter
def test_what_a_named_figure_shares_its_cell_with_is_not_shown(chapter: Path) -> None:
    """All that such a cell shows is taken for the figure, and the build refuses its name twice."""
    for i, source, cell in cells(chapter, "code"):
        if "figure" in cell["metadata"].get("mystnb", {}):
            assert "display(" not in source, f"Cell {i}: show the table in a cell of its own"


@each_chapter
def test_no_absolute_path(chapter: Path) -> None:
    found = ABSOLUTE_PATH.search(chapter.read_text(encoding="utf-8"))
    assert found is None, f"{found[0]!r} exists on one machine only" if found else ""


@each_chapter
def test_directives_are_written_with_colons(chapter: Path) -> None:
    found = re.findall(r"^\s*[`~]{3,}\{.*$", prose(chapter), flags=re.MULTILINE)
    assert not found, f"Write ::: for these, which Colab shows as text: {found}"


@each_chapter
def test_directives_are_closed_in_their_cell(chapter: Path) -> None:
    for i, source, _ in cells(chapter, "markdown"):
        opened = re.findall(r"^:{3,}\{", source, flags=re.MULTILINE)
        closed = re.findall(r"^:{3,}\s*$", source, flags=re.MULTILINE)
        assert len(opened) == len(closed), f"Cell {i}: close each ::: with a line of its own"


@each_chapter
def test_exercises_have_folded_solutions(chapter: Path) -> None:
    text = prose(chapter)
    exercises = re.findall(r"^:{3,}\{exercise\}[^\n]*\n:label: (\S+)", text, flags=re.MULTILINE)
    assert len(exercises) == len(re.findall(r"^:{3,}\{exercise\}", text, flags=re.MULTILINE))
    solutions = re.findall(r"^:{3,}\{solution\} (\S+)\n:class: dropdown", text, flags=re.MULTILINE)
    assert sorted(exercises) == sorted(solutions)
    if chapter.stem not in ("intro", "claims", "my_run_is_flat", "performance"):
        assert 2 <= len(exercises) <= 4


@pytest.mark.parametrize("page", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)
def test_citations_are_in_the_bibliography(page: Path) -> None:
    references = (BOOK / "references.bib").read_text(encoding="utf-8")
    known = re.findall(r"^@\w+\{([^,\s]+),", references, flags=re.MULTILINE)
    assert len(set(known)) == len(known)
    cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(page))
    keys = {key.strip() for keys in cited for key in keys.split(",")}
    assert keys <= set(known), f"Not in book/references.bib: {sorted(keys - set(known))}"


def trees(chapter: Path) -> list[tuple[str, ast.Module]]:
    """(cell id, syntax tree) of each code cell, without magics."""
    magic = re.compile(r"^(\s*)%.*", flags=re.MULTILINE)
    return [(i, ast.parse(magic.sub(r"\1pass", source))) for i, source, _ in cells(chapter, "code")]


@each_chapter
def test_long_loops_are_in_the_package(chapter: Path) -> None:
    long = {
        (chapter.stem, i)
        for i, tree in trees(chapter)
        for node in ast.walk(tree)
        if isinstance(node, (ast.For, ast.While))
        and len(ast.unparse(node).splitlines()) > LONGEST_LOOP  # however it is laid out
    }
    assert long <= TAUGHT, "Move what is not taught here to zotutor.experiments, with a test"


def test_no_function_is_written_in_two_chapters() -> None:
    found: dict[str, set[str]] = {}
    for chapter in CHAPTERS:
        for _, tree in trees(chapter):
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and len(node.body) > 2:
                    found.setdefault(ast.dump(node), set()).add(f"{chapter.stem}: {node.name}")
    twice = [sorted(names) for names in found.values() if len({n.split(":")[0] for n in names}) > 1]
    assert not twice, "Put these into the package, once"

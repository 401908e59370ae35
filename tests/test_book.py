"""The rules for chapters, the lock and the wheel that a program can check.

Those marked lint read files only, and are part of `make lint`.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zotutor

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted(BOOK.glob("*.md"))
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|Users|root|work|tmp|mnt|content)/|\b[A-Za-z]:\\\\"
)

lint = pytest.mark.lint
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


def tool(name: str) -> ModuleType:
    """A script of tools/, imported."""
    sys.path.insert(0, os.fspath(ROOT / "tools"))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)


@lint
def test_every_page_is_in_the_table_of_contents() -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:root|file): (book/\S+)", toc))
    assert listed == {f"book/{path.stem}" for path in [*CHAPTERS, *PAGES]}


@lint
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


@lint
@each_chapter
def test_chapters_are_stripped(chapter: Path) -> None:
    kept = [
        i for i, _, cell in cells(chapter, "code") if cell["outputs"] or cell["execution_count"]
    ]
    assert not kept, f"Cells with outputs, {kept}: run `make format`"
    assert load(chapter)["metadata"]["kernelspec"]["name"] == "python3"


@lint
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


@lint
@each_chapter
def test_no_absolute_path(chapter: Path) -> None:
    found = ABSOLUTE_PATH.search(chapter.read_text(encoding="utf-8"))
    assert found is None, f"{found[0]!r} exists on one machine only" if found else ""


@lint
@each_chapter
def test_directives_are_written_with_colons(chapter: Path) -> None:
    found = re.findall(r"^\s*[`~]{3,}\{.*$", prose(chapter), flags=re.MULTILINE)
    assert not found, f"Write ::: for these, which Colab shows as text: {found}"


@lint
@each_chapter
def test_exercises_have_folded_solutions(chapter: Path) -> None:
    text = prose(chapter)
    exercises = re.findall(r"^:{3,}\{exercise\}[^\n]*\n:label: (\S+)", text, flags=re.MULTILINE)
    assert len(exercises) == len(re.findall(r"^:{3,}\{exercise\}", text, flags=re.MULTILINE))
    solutions = re.findall(r"^:{3,}\{solution\} (\S+)\n:class: dropdown", text, flags=re.MULTILINE)
    assert sorted(exercises) == sorted(solutions)
    if chapter.stem != "intro":
        assert 2 <= len(exercises) <= 4


@lint
@pytest.mark.parametrize("page", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)
def test_citations_are_in_the_bibliography(page: Path) -> None:
    references = (BOOK / "references.bib").read_text(encoding="utf-8")
    known = re.findall(r"^@\w+\{([^,\s]+),", references, flags=re.MULTILINE)
    assert len(set(known)) == len(known)
    cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(page))
    keys = {key.strip() for keys in cited for key in keys.split(",")}
    assert keys <= set(known), f"Not in book/references.bib: {sorted(keys - set(known))}"


@lint
def test_public_names_are_on_the_page_of_the_package() -> None:
    page = (BOOK / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: zotutor\.(\S+)$", page, flags=re.MULTILINE))
    assert {"datasets", "exercises", "figures", "models"} <= documented  # these as a whole
    public = {n for n in zotutor.__all__ if not isinstance(getattr(zotutor, n), ModuleType)}
    missing = sorted(public - documented)
    assert not missing, f"Add a line to book/api.md for {missing}"
    for name in documented:
        value: Any = zotutor
        for part in name.split("."):
            value = getattr(value, part)


def requirements() -> dict[str, str]:
    """What pyproject.toml asks for, by package; the specifier as text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    split = (re.fullmatch(r"([\w.-]+)(.*)", line) for group in groups for line in group)
    return {match[1]: match[2] for match in split if match}


@lint
def test_the_package_bounds_nothing_from_above() -> None:
    capped = {name for name, bounds in requirements().items() if "<" in bounds or "==" in bounds}
    assert capped == {"jupyter-book", "sphinx-book-theme"}  # why: see pyproject.toml


@lint
def test_the_lock_is_exact_and_complete() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    exact = [re.fullmatch(r"([a-z0-9-]+)==(\S+)(?: ; .+)?", line) for line in pins]
    assert all(exact), [line for line, match in zip(pins, exact, strict=True) if not match]
    locked = {match[1]: match[2] for match in exact if match}
    assert locked["torch"] == "2.13.0"  # a CPU build of it is what installs quickly
    assert locked["jupyter-book"] == "1.0.4.post1"  # 2 is another program
    assert set(requirements()) - set(locked) == {"datasets"}  # optional, and large


@lint
def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {zotutor.__version__}\n" in citation


@lint
def test_modules_import_only_those_above_them() -> None:
    order = (
        "checks directions probe estimators optim jacobians kernels concentration dynamics "
        "downloads datasets models figures explorables exercises llm cli"
    ).split()
    for path in sorted(ROOT.joinpath("zotutor").glob("*.py")):
        if path.stem == "__init__":
            continue
        assert path.stem in order, f"Say in this test where {path.name} stands in reading order"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                for name in names:
                    above = (name or "").split(".")[0]
                    assert order.index(above) < order.index(path.stem), (path.name, above)


def test_a_change_of_the_package_drops_the_results_of_chapters(tmp_path: Path) -> None:
    fingerprint = tool("build_book").fingerprint
    module = tmp_path / "module.py"
    module.write_text("a = 1", encoding="utf-8")
    seen = [fingerprint(tmp_path)]
    module.write_text("a = 2", encoding="utf-8")
    seen.append(fingerprint(tmp_path))
    module.rename(tmp_path / "other.py")
    seen.append(fingerprint(tmp_path))
    assert len(set(seen)) == 3
    cache = tmp_path / "__pycache__" / "other.pyc"
    cache.parent.mkdir()
    cache.write_bytes(b"compiled")
    assert fingerprint(tmp_path) == seen[-1]


def test_the_wheel_holds_the_package_and_chapters_run_on_it_alone(tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    command = [sys.executable, os.fspath(ROOT / "tools" / "chapters_alone.py"), os.fspath(folder)]
    subprocess.run(command, check=True, cwd=tmp_path)

    package = ROOT / "zotutor"
    source = {p.relative_to(ROOT) for p in package.rglob("*") if "__pycache__" not in p.parts}
    source = {path for path in source if (ROOT / path).is_file()}
    site = folder / "site"
    assert {p.relative_to(site) for p in site.glob("zotutor/**/*") if p.is_file()} == source
    assert sorted(path.name for path in folder.glob("chapters/*/*")) == [c.name for c in CHAPTERS]

    # The kernel that is written there must import the wheel, not the source tree.
    specification = json.loads((folder / "jupyter/kernels/python3/kernel.json").read_text())
    kernel = [specification["argv"][0], "-c", "import zotutor; print(zotutor.__file__)"]
    environment = os.environ | specification["env"]
    seen = subprocess.run(
        kernel, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert Path(seen.stdout.strip()) == site / "zotutor" / "__init__.py"

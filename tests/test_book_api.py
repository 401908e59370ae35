"""The pages on the API: their entries exist, and what package and chapters name is on them."""

from __future__ import annotations

import ast
import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zotutor as zo

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(ROOT.joinpath("book").glob("api*.md"))
PAGE = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
ENTRIES = re.findall(r"^\.\. auto(function|class|exception|module):: ([\w.]+)", PAGE, re.MULTILINE)
CHAPTERS = sorted(ROOT.joinpath("book").glob("*.ipynb"))
NO_ENTRIES = ("claims", "figures.style", "parameters", "streams")
"""Modules that chapters import from and the pages leave out: the book's own machinery."""


def resolve(name: str) -> Any:
    """The object that a dotted name refers to."""
    first, *parts = name.split(".")
    found: Any = import_module(first)
    for part in parts:  # a module that was not imported yet is no attribute
        found = (
            getattr(found, part)
            if hasattr(found, part)
            else import_module(f"{found.__name__}.{part}")
        )
    return found


def members(module: ModuleType) -> dict[str, Any]:
    """Public functions and classes that a module lists, or else defines."""
    listed = getattr(module, "__all__", None)
    return {
        name: thing
        for name, thing in vars(module).items()
        if (name in listed if listed else getattr(thing, "__module__", "") == module.__name__)
        and not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
    }


def documented() -> list[Any]:
    """Every object that has an entry on the page."""
    found: list[Any] = []
    for kind, name in ENTRIES:
        thing = resolve(name)
        found += list(members(thing).values()) if kind == "module" else [thing]
    return found


def stable() -> set[str]:
    """Names listed on the page as stable."""
    section = PAGE.split("## Stable names")[1].split("\n## ")[0]
    return set(re.findall(r"`zo\.([\w.]+)`", section))


@pytest.mark.parametrize("kind_and_name", ENTRIES, ids=lambda entry: entry[1])
def test_entries_exist_and_are_of_their_kind(kind_and_name: tuple[str, str]) -> None:
    kind, name = kind_and_name
    thing = resolve(name)
    kinds = {
        "function": inspect.isroutine,
        "module": inspect.ismodule,
        "class": inspect.isclass,
        "exception": lambda t: inspect.isclass(t) and issubclass(t, Exception),
    }
    assert kinds[kind](thing)
    assert inspect.getdoc(thing)
    assert [entry for _, entry in ENTRIES].count(name) == 1


def test_stable_names_are_those_of_the_package() -> None:
    own = {name for name in zo.__all__ if not isinstance(getattr(zo, name), ModuleType)}
    language = {
        f"llm.{name}" for name in zo.llm.__all__ if not inspect.ismodule(getattr(zo.llm, name))
    }
    assert stable() == own | language


def test_stable_names_have_entries() -> None:
    found = documented()
    missing = [name for name in stable() if not any(resolve(f"zotutor.{name}") is t for t in found)]
    assert not missing


def used(chapter: Path) -> set[str]:
    """Dotted names of the package that a chapter's code uses."""
    names = set()
    for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        code = re.sub(r"^(\s*)%.*", r"\1pass", "".join(cell["source"]), flags=re.MULTILINE)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zotutor"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        names |= {f"zotutor.{name}" for name in re.findall(r"\bzo\.([a-z_]\w*(?:\.\w+)*)", code)}
    return names


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_chapters_use_has_an_entry(chapter: Path) -> None:
    found = documented()
    missing = []
    for name in sorted(used(chapter)):
        thing = resolve(name)
        module = getattr(thing, "__module__", "").removeprefix("zotutor.")
        documentable = inspect.isclass(thing) or inspect.isfunction(thing)
        if documentable and not module.startswith(NO_ENTRIES):
            missing += [name] if not any(thing is entry for entry in found) else []
    assert not missing, f"Give these an entry in one of book/api_*.md: {missing}"

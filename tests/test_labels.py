"""Theorems that docstrings and comments name by their label are in the book."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LABEL = re.compile(r"\b(?:thm|cor|lem|prop)-[a-z]+(?:-[a-z]+)*\b")


def labels_of_the_book() -> set[str]:
    """The labels of all theorems, from the directives that define them."""
    found: set[str] = set()
    for path in ROOT.joinpath("book").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            found.update(re.findall(r"^:label: (\S+)$", "".join(cell["source"]), re.MULTILINE))
    return found


@pytest.mark.parametrize("folder", ["zotutor", "tools", "benchmarks"])
def test_labels_named_in_code_exist(folder: str) -> None:
    known = labels_of_the_book()
    named = {
        f"{path.relative_to(ROOT)}: {label}": label
        for path in sorted(ROOT.joinpath(folder).rglob("*.py"))
        for label in LABEL.findall(path.read_text(encoding="utf-8"))
    }
    assert folder != "zotutor" or len(named) > 20  # the pattern finds them
    assert sorted(place for place, label in named.items() if label not in known) == []

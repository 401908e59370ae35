"""What the build looks for on its pages: markup that was not understood."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "build_book.py"
spec = importlib.util.spec_from_file_location("build_book", TOOL)
assert spec is not None
assert spec.loader is not None
build_book = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_book)


@pytest.mark.parametrize(
    ("shown", "is_raw"),
    [
        ("a table: | a | b |\n|---|---|\n| 1 | 2 |", True),
        ("as smart dashes: |:\u2013|\u2013:|", True),
        ("and longer ones: |\u2014|\u2014|", True),
        ("it moves by with\n$$\nAfter", True),
        ("the error of $K_U$", True),
        (":::{admonition} Predict, then run", True),
        ("a `role` in vain", True),
        ("</span></p> an end without a beginning, then $", True),
        ("|K_U - K| and a | b, at most 5 - 3 ::", False),
        ("<code>`$x`</code> <pre>|---|</pre> <table><tr><td>1</td></tr></table>", False),
        ('<span class="math notranslate">$x$</span> <img alt="$"><br> words', False),
    ],
)
def test_raw_markup_is_found(shown: str, is_raw: bool) -> None:
    page = f"<html><p>$ outside</p><article><div>{shown}</div></article><p>` outside</p></html>"
    assert bool(build_book.raw_markup(page)) == is_raw

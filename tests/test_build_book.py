"""What the build looks for on its pages: markup that was not understood."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
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


def test_chapters_are_executed_again_once_a_package_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "snippets" not in build_book.fetched()
    before = build_book.fingerprint(tmp_path)
    monkeypatch.setattr(build_book, "fetched", lambda: ["snippets"])
    assert build_book.fingerprint(tmp_path) != before


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("code", [0, 1])
def test_make_goes_on_without_the_packages_and_says_so_in_a_line(tmp_path: Path, code: int) -> None:
    program = tmp_path / "bin" / "zotutor"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexit "{code}"\n')  # pip reaches its index, or does not
    program.chmod(0o755)
    (tmp_path / ".installed").touch()
    done = subprocess.run(
        ["make", "fetch", f"VENV={tmp_path}"],
        cwd=TOOL.parent.parent,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == code
    assert done.stderr == ""

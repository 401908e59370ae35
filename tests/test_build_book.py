"""What the book is built with: the packages that are fetched for it, and without them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_package import tool

build_book = tool("build_book")


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
        cwd=Path(__file__).resolve().parent.parent,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == code
    assert done.stderr == ""

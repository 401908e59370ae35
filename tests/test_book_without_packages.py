"""Where `zotutor fetch` was not run, a chapter says in one line what it does not show."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def test_the_cells_on_smollm2_execute_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # an empty cache; kernels inherit it
    chapter = nbformat.read(ROOT / "book" / "llm_finetuning.ipynb", as_version=4)
    chapter.cells = [
        cell
        for cell in chapter.cells
        if cell.cell_type == "code" and cell.id.startswith(("imports", "smol-", "decision"))
    ]
    assert len(chapter.cells) >= 5
    NotebookClient(chapter, timeout=600, kernel_name="python3").execute()
    printed = {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in chapter.cells
    }
    (line,) = printed["smol-load"].splitlines()
    assert line.startswith("Not shown here")
    assert "zotutor fetch smollm2" in line or "zotutor fetch snippets" in line
    assert printed["smol-live"] == printed["smol-replay"] == ""

"""The first cell of every chapter installs the package from its repository, or stops it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(ROOT.joinpath("book").glob("*.ipynb"))
INSTALL = """\
# In Colab this installs the package; elsewhere it is there already.
import importlib.util


class NotInstalled(Exception):
    def _render_traceback_(self):  # shown in place of a traceback
        return [str(self)]


if importlib.util.find_spec("zotutor") is None:
    source = "git+{url}"
    %pip install -q "zotutor[book] @ {{source}}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("zotutor") is None:
        raise NotInstalled(
            f"zotutor could not be installed from {{source}}; see what pip "
            "says above, then run this cell again."
        )"""
KERNEL = """
import importlib.util

found, missing = importlib.util.find_spec, {"zotutor"}
importlib.util.find_spec = lambda name: None if name in missing else found(name)

def pip(line):
    "In place of the magic: what it was called with; installs unless `installs` is False."
    print(line)
    if installs:
        missing.clear()

get_ipython().register_magic_function(pip, magic_name="pip")
"""


def expected() -> str:
    """The cell, with the address that _config.yml has."""
    settings = ROOT.joinpath("_config.yml").read_text(encoding="utf-8")
    (url,) = re.findall(r"^repository:\n  url: (\S+)$", settings, flags=re.MULTILINE)
    return INSTALL.format(url=url)


@pytest.mark.lint
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_begins_with_it(chapter: Path) -> None:
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "".join(first["source"]) == expected()


def run(*cells: str, folder: Path) -> list[nbformat.NotebookNode]:
    """The cells, executed up to the first that fails."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=60, resources=resources, kernel_name="python3")
    with suppress(CellExecutionError):
        client.execute()
    found: list[nbformat.NotebookNode] = notebook.cells
    return found


def test_it_stops_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    _, cell, after = run("installs = False" + KERNEL, expected(), "print(1)", folder=tmp_path)
    asked, error = cell.outputs
    assert re.fullmatch(r'install -q "zotutor\[book\] @ git\+https://\S+"\n', asked.text)
    assert error.output_type == "error"
    (line,) = error.traceback
    assert "\n" not in line
    assert line.startswith("zotutor could not be installed from git+https://")
    assert not after.outputs


def test_it_goes_on_once_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    _, cell, again, after = run(
        "installs = True" + KERNEL, expected(), expected(), "print(1)", folder=tmp_path
    )
    assert [output.output_type for output in cell.outputs] == ["stream"]
    assert not again.outputs
    assert after.outputs[0].text == "1\n"

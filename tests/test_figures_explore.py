"""Figures with sliders show their picture in a live kernel, and another when a slider moves."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

import zotutor as zo

CELLS = (
    """import zotutor as zo

def draw(P, name):
    return zo.figures.curves([1, 2, 3], {name: [P, 2 * P, 3 * P]}, xlabel="x", ylabel=name)

live = zo.figures.explore(draw, P=[1, 4, 16], name=["short", "a longer name"])
live
""",
    "first, second = live.children[:2]\nfirst.value, second.value = 16, 'short'",
)
PNG = b"\x89PNG\r\n\x1a\n"


def pictures(cells: tuple[str, ...], folder: Path) -> list[bytes]:
    """What the widgets of a notebook show after its last cell, run by a kernel as a reader's is.

    The kernel is that of this Python, with whatever ipywidgets, IPython and ipykernel it has; the
    client keeps the outputs of widgets as a browser would.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(folder)}}, kernel_name="python3"
    )
    executed = client.execute()
    states = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    shown = [output for s in states.values() for output in s["state"].get("outputs", [])]
    errors = [output for output in shown if output["output_type"] == "error"]
    assert not errors, "\n".join(errors[0]["traceback"])
    return [base64.b64decode(o["data"]["image/png"]) for o in shown if "data" in o]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for a kernel to run in, as a reader's: not the static site, no settings of ours."""
    monkeypatch.delenv("ZOTUTOR_STATIC", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    paths = [str(Path(zo.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    return tmp_path


def test_a_picture_appears_and_changes_with_a_slider(live: Path) -> None:
    (before,) = pictures(CELLS[:1], live)
    (after,) = pictures(CELLS, live)
    assert before.startswith(PNG)
    assert after.startswith(PNG)
    assert before != after


def test_without_a_kernel_the_middle_choices_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def draw(**values: Any) -> Figure:
        seen.append(values)
        return Figure()

    monkeypatch.setenv("ZOTUTOR_STATIC", "1")
    assert isinstance(zo.figures.explore(draw, P=[1, 4, 16], name=["a", "b"]), Figure)
    assert seen == [{"P": 4, "name": "b"}]


@pytest.mark.parametrize("choices", [{}, {"P": []}])
def test_no_choices_are_refused(choices: dict[str, list[Any]]) -> None:
    with pytest.raises(ValueError, match="explore"):
        zo.figures.explore(Figure, **choices)

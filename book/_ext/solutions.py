"""A Sphinx extension: a site without solutions, for a course.

The switch is `hide_solutions: true` in _config.yml. sphinx-exercise then leaves out the text of
each solution. This leaves out the rest: the cells of code after it, in pages, in the search and in
the notebooks that pages offer; and the source of the checkers, which holds what they expect.
Chapters are executed as always.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

CHECKERS = "zotutor.exercises"
FENCE = re.compile(r"^(:{3,}|`{3,})\{solution\}.*?^\1\s*$\n?", re.MULTILINE | re.DOTALL)


def is_code(node: nodes.Node) -> bool:
    """Whether a node is a cell of code with what it shows."""
    return isinstance(node, nodes.container) and "cell" in node["classes"]


def remove_code(app: Sphinx, doctree: nodes.document) -> None:
    """Remove cells of code between an exercise and the next text: they are its solution."""
    if not app.config.hide_solutions:
        return
    for exercise in list(doctree.findall(lambda node: "exercise" in getattr(node, "tagname", ""))):
        parent = exercise.parent
        if parent is None or "exercise_title" in exercise.tagname:
            continue
        after = parent.index(exercise) + 1
        while after < len(parent) and is_code(parent[after]):
            del parent[after]


def without_solutions(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook without the solutions of its exercises.

    >>> cells = [{"cell_type": "markdown", "source": "Why?\\n:::{solution} ex\\nSo.\\n:::\\n"}]
    >>> cells += [{"cell_type": "code", "source": "1"}, {"cell_type": "markdown", "source": "Next"}]
    >>> [cell["source"] for cell in without_solutions({"cells": cells})["cells"]]
    ['Why?\\n', 'Next']
    """
    kept, solved = [], False
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            if not solved:
                kept.append(cell)
            continue
        source = "".join(cell["source"])
        text = FENCE.sub("", source)
        solved = text != source
        if solved and not text.strip():
            continue
        kept.append({**cell, "source": text} if solved else cell)
    return {**notebook, "cells": kept}


def hidden_source(app: Sphinx, module: str) -> tuple[str, dict[str, Any]] | None:
    """In place of the source of a module of checkers: a line, and no names to link to."""
    if app.config.hide_solutions and module.startswith(CHECKERS):
        return "# This site is built without solutions: see hide_solutions in _config.yml.\n", {}
    return None


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write the notebooks that pages offer again, before the archive is made."""
    if exception is not None or app.builder.format != "html" or not app.config.hide_solutions:
        return
    for path in sorted(Path(app.outdir, "_sources").rglob("*.ipynb*")):
        notebook = without_solutions(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect; Sphinx calls this."""
    app.setup_extension("sphinx_exercise")
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("doctree-read", remove_code)
    app.connect("viewcode-find-source", hidden_source)
    app.connect("build-finished", finish, priority=940)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

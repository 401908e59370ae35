"""A Sphinx extension with two repairs that the stack of this book needs.

Thebe, a way to run code in the page, is loaded wherever sphinx-thebe is installed, and its
constants are declared twice, an error in the console of each page. The book does not use it.

A proof of sphinx-proof has no title line, without which `:class: dropdown` has nothing to click on,
and the script that folds boxes stops there, leaving every later box of the page open. And all
proofs of a page share one HTML id. Folded proofs get a title, and all of them ids of their own.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_proof.nodes import proof_node


def leave_thebe_out(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the scripts of Thebe from a page that is about to be written."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', script)} {vars(script)}".lower()
    ]


def give_proofs_titles(app: Sphinx, doctree: nodes.document) -> None:
    """Move the word Proof of a folded proof from its text to a title line."""
    for number, proof in enumerate(doctree.findall(proof_node), start=1):
        (box,) = proof.children
        assert isinstance(box, nodes.admonition)
        box["ids"] = [f"proof-{number}"]
        if "dropdown" not in box["classes"]:
            continue
        first = next(box.findall(nodes.Text))
        first.parent.replace(first, nodes.Text(first.astext().removeprefix("Proof. ")))
        box.insert(0, nodes.title("", "Proof"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the repairs; Sphinx calls this."""
    app.connect("doctree-read", give_proofs_titles)
    # After the theme, which adds its scripts at the default priority of 500.
    app.connect("html-page-context", leave_thebe_out, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

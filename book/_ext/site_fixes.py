"""A Sphinx extension with the repairs that the pages of this book need.

Thebe, a way to run code in the page, is loaded wherever sphinx-thebe is installed, and its
constants are declared twice, an error in the console of each page. The book does not use it.

A proof of sphinx-proof has no title line, without which `:class: dropdown` has nothing to click on,
and the script that folds boxes stops there, leaving every later box of the page open. And all
proofs of a page share one HTML id. Folded proofs get a title, and all of them ids of their own.

Docstrings are written to be read in a terminal: a norm is |g|, which reStructuredText would take
for a substitution, and a formula is indented on lines of its own, which it would run together as a
quotation, or a list where a line begins with +; a line that begins with an author's initial would
begin a list, too. What a function returns is described in prose, of which Napoleon would take all
before a colon for a type. All of it is shown as it is written. Explicit mathematics (the math role
and directive) is left alone, and typeset.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx_proof.nodes import proof_node

PROTECTED = (
    r"^ *>>>.*(?:\n.*\S.*)*"  # an example, up to a blank line
    r"|^( *)(?:\.\. math)?::.*(?:\n(?:\2 +.*| *$))*"  # displayed mathematics, literal formulas
    r"|``[^`]+``|`[^`]+`"  # code, and what follows the name of a role
)
MARKUP = (
    # an author's initial, a symbol that ends a sentence, (i)
    r"(?P<blank>^ *(?:\w+: )?)\(?(?:\d+|[A-Za-z]|[ivxlcdmIVXLCDM]+)[.)](?=\s|$)"
    r"|[|*]|(?<=\w)_(?!\w)"  # a norm, a product, a name as add_
)
PROTECTED_OR_MARKUP = re.compile(rf"({PROTECTED})|{MARKUP}", flags=re.MULTILINE)
RESULT = re.compile(r"^((?:Returns|Yields):\n)( +)", flags=re.MULTILINE)


def leave_thebe_out(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the scripts and the style of Thebe from a page that is about to be written."""
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context.get(kind, [])
            if "thebe" not in f"{getattr(file, 'filename', file)} {vars(file)}".lower()
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


def escaped(found: re.Match[str]) -> str:
    """What was found, with a backslash before it unless it is protected."""
    if found[1]:
        return found[1]
    blank = found["blank"] or ""
    return blank + "\\" + found[0].removeprefix(blank)


def indentation(line: str) -> int:
    """The number of blanks a line begins with."""
    return len(line) - len(line.lstrip())


def literal_formulas(lines: list[str]) -> list[str]:
    """Put `::` before each formula: an indented paragraph after a paragraph that is less so."""
    found: list[str] = []
    margin = 0  # of the last line of text
    formula: int | None = None  # the margin of the formula that the line is in
    directive = False
    for before, line in pairwise(["", *lines]):
        here, text = indentation(line), line.strip()
        if text and formula is not None and here < formula:
            formula = None
        if text and formula is None:
            starts = not before.strip() and here > margin and not directive
            if starts and not text.startswith((">>>", ".. ", "- ")):
                formula = here
                found += [" " * margin + "::", ""]
            else:
                margin = here
                directive = text.startswith(".. ") or text.endswith("::")
        found.append(line)
    return found


def take_docstrings_literally(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Escape what looks like markup and is not, except in examples, code and mathematics."""
    text = PROTECTED_OR_MARKUP.sub(escaped, "\n".join(literal_formulas(lines)))
    if what in ("attribute", "data", "property"):
        text = f"\\ \n{text}"  # a line that is read as nothing: a type would be before a colon
    text = RESULT.sub(r"\1\2\\ \n\2", text)  # the same: prose, not a type
    lines[:] = text.split("\n")


def set_dashes_of_fields(app: Sphinx, doctree: nodes.document) -> None:
    """Print the dash that Sphinx puts between a parameter and its description as one."""
    for content in doctree.findall(addnodes.desc_content):
        for text in list(content.findall(nodes.Text)):
            if text == " -- ":
                text.parent.replace(text, nodes.Text(" \u2013 "))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the repairs; Sphinx calls this."""
    app.connect("doctree-read", give_proofs_titles)
    app.connect("doctree-read", set_dashes_of_fields)
    # Before Napoleon, which reads the sections of a docstring at the default priority of 500.
    app.connect("autodoc-process-docstring", take_docstrings_literally, priority=400)
    # After the theme, which adds its scripts at the same default priority.
    app.connect("html-page-context", leave_thebe_out, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

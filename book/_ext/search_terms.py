"""A Sphinx extension: the words of readers, in book/search_terms.yml, find the page that answers.

Sphinx's search ranks a main entry of the index above titles and text, and shows its words; each
term becomes such an entry of its page.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


@cache
def terms(path: Path) -> dict[str, list[str]]:
    """From pages, or sections of pages, to the terms that lead there; each term once."""
    found: dict[str, list[str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    every = [term.lower() for listed in found.values() for term in listed]
    twice = sorted({term for term in every if every.count(term) > 1})
    if twice:
        raise ExtensionError(f"book/search_terms.yml: these terms lead to two places: {twice}")
    return found


def add_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Put the terms of a page into its index."""
    page = app.env.docname.removeprefix("book/")
    section = next(iter(doctree.findall(nodes.section)), None)
    if section is None:
        return
    ids = {name for node in doctree.findall(nodes.Element) for name in node.get("ids", [])}
    for place, listed in terms(Path(app.srcdir, "book", "search_terms.yml")).items():
        name, _, anchor = place.partition("#")
        if name != page:
            continue
        if anchor and anchor not in ids:
            raise ExtensionError(f"book/search_terms.yml: {page} has no section {anchor}")
        target = anchor or section["ids"][0]
        entries = [("single", term, target, "main", None) for term in listed]
        section.insert(1, addnodes.index(entries=entries))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("doctree-read", add_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

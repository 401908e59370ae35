r"""A Sphinx extension: the head of each page, which browsers, search engines and messengers read.

A title cannot be typeset: `\(d\)` becomes d. The description is what the page promises: the first
sentences of its box "In this chapter", or of its text.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

GREEK = {"kappa": "κ", "varepsilon": "ε", "eta": "η", "lambda": "λ", "rho": "ρ", "theta": "θ"}
LONGEST = 200  # of a description; search engines show no more


def plain(title: str) -> str:
    r"""A title without markup, its formulas as letters.

    >>> plain(r'what takes the place of <span class="math">\(d\)</span>, and \(1/\kappa\)')
    'what takes the place of d, and 1/κ'
    """
    text = re.sub(r"<[^>]+>", "", title)
    text = re.sub(r"\\\((.*?)\\\)", r"\1", text)
    text = re.sub(r"\\([A-Za-z]+)\s?", lambda found: GREEK.get(found[1], found[1]), text)
    return re.sub(r"[{}$\\]", "", text)


def words(node: nodes.Node) -> str:
    """The text of a node on one line, its formulas as letters."""
    parts = [
        plain(leaf.astext()) if isinstance(leaf.parent, nodes.math) else leaf.astext()
        for leaf in node.findall(nodes.Text)
    ]
    return " ".join("".join(parts).split())


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, up to the end of a word.

    >>> shortened("one two three", 9)
    'one two …'
    """
    if len(text) <= longest:
        return text
    return text[: longest - 1].rpartition(" ")[0].rstrip(",;:") + " …"


def description(doctree: nodes.document) -> str:
    """What a page is about: of its first box, or its first paragraph."""
    for box in doctree.findall(nodes.admonition):
        if "admonition-in-this-chapter" in box["classes"]:
            first = next(iter(box.findall(nodes.paragraph)), None)
            if first is not None:
                return shortened(words(first))
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section) and len(paragraph.astext()) > 40:
            return shortened(words(paragraph))
    return ""


def complete_head(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give a page a title without markup, a description, and what a link to it shows."""
    context["title"] = plain(context.get("title", ""))
    book = app.config.html_title or app.config.project
    about = description(doctree) if doctree is not None else ""
    properties = {
        "og:type": "article",
        "og:site_name": book,
        "og:title": context["title"] or book,
        "og:description": about,
    }
    base = app.config.html_baseurl
    if base:
        properties["og:url"] = f"{base.rstrip('/')}/{pagename}.html"
        properties["og:image"] = f"{base.rstrip('/')}/_static/card.png"
    tags = [f'<meta name="description" content="{escape(about)}"/>'] if about else []
    tags += [f'<meta property="{k}" content="{escape(v)}"/>' for k, v in properties.items() if v]
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags, ""])


def complete_search(app: Sphinx, exception: Exception | None) -> None:
    """Give the search titles without markup, which it shows as it was typed."""
    path = Path(app.outdir, "searchindex.js")
    if exception is not None or not path.exists():
        return
    begin, end = "Search.setIndex(", ")"
    text = path.read_text(encoding="utf-8").strip()
    index = json.loads(text.removeprefix(begin).removesuffix(end))
    index["titles"] = [plain(title) for title in index["titles"]]
    path.write_text(begin + json.dumps(index, ensure_ascii=False) + end, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("html-page-context", complete_head)
    app.connect("build-finished", complete_search)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

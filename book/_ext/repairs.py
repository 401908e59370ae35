"""A Sphinx extension: what Sphinx and its themes write that is wrong for whoever cannot see a page.

Each repair is a pattern, what takes its place, and why. The tests of the site run axe on each page
(tests/site), and say what is left to repair.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from sphinx.application import Sphinx


class Repair(NamedTuple):
    """A replacement on every page that was written."""

    pattern: str
    replacement: str
    why: str


REPAIRS = (
    Repair(
        r'<summary aria-label="Toggle hidden content">',
        "<summary>",
        "a label that is not the words that are shown: who speaks to the machine says the words",
    ),
    Repair(
        r'(<button class="btn search-button-field[^>]*?) aria-label="Search"',
        r"\1",
        "the same",
    ),
    Repair(
        r'<summary><span class="toctree-toggle"',
        r'<summary aria-label="The pages below it"><span class="toctree-toggle"',
        "a button without words",
    ),
    Repair(
        r'<div id="pst-primary-sidebar" class=',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class=',
        "the title of the book lies in no landmark",
    ),
    Repair(
        r'<div role="list" class="citation-list">',
        '<div class="citation-list">',
        "a list whose children are no list items",
    ),
    Repair(r'console\.log\("\[PST\][^"]*"\);?', "", "what the theme tells its own developers"),
    Repair(r' role="doc-biblioentry"', "", "a role that is deprecated, and not allowed here"),
    Repair(
        r'<th class="head([^"]*)">(?:<p>\s*</p>)?</th>',
        r'<td class="head\1"></td>',
        "the corner of a table above row names is no header",
    ),
    Repair(
        r'(<th class="head[^"]*"><p>)(<span class="math notranslate nohighlight)'
        r'(">\\\()([^<>]*)(\\\)</span>)(</p></th>)',
        r'\1\2" aria-hidden="true\3\4\5<span class="visually-hidden">\4</span>\6',
        "a header that is a formula alone counts as empty: its letters are text, too",
    ),
    Repair(
        r'<dl>\n((?:<dd>(?:<em class="sig-param|<span class="optional).*</dd>\n)+)</dl>\n',
        r'<span class="sig-lines">\n\1</span>\n',
        "parameters on lines of their own are no list of definitions",
    ),
)
LINE = re.compile(r"<dd>((?:<em class=\"sig-param|<span class=\"optional).*)</dd>")


def repaired(page: str) -> str:
    r"""A page with all repairs made.

    >>> repaired('<dl>\n<dd><em class="sig-param">x</em>,</dd>\n</dl>\n')
    '<span class="sig-lines">\n<span class="sig-line"><em class="sig-param">x</em>,</span>...'
    """
    for repair in REPAIRS:
        page = re.sub(repair.pattern, repair.replacement, page)
    return LINE.sub(r'<span class="sig-line">\1</span>', page)


def repair_pages(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        before = path.read_text(encoding="utf-8")
        after = repaired(before)
        if after != before:
            path.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", repair_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

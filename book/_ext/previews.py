"""A Sphinx extension: what a link refers to is shown where the link is, before one follows it.

Theorems, numbered formulas, functions and works cited that some page links to, and the symbols of
the notation page, are collected from the written pages into one script. site.js loads it when a
pointer or the focus first comes to such a link; a script, since a page in a folder may not fetch.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

KINDS = re.compile(r"#(thm-|lem-|cor-|prop-|def-|equation-|zotutor|fig-|id\d)")
LONGEST = 4000  # characters; a longer statement is better read in its place


def clean(tag: Tag) -> str:
    """The HTML of an element without its links, identifiers and scripts."""
    for gone in tag.select("a.headerlink, script, button, .viewcode-link, style"):
        gone.decompose()
    for link in tag.find_all("a"):
        link.unwrap()
    for inner in [tag, *tag.find_all(True)]:
        for name in ("id", "tabindex", "role"):
            inner.attrs.pop(name, None)
    return " ".join(str(tag).split())


def preview(target: Tag | None) -> str:
    """What to show for a place of a page; nothing if it is not of a kind that is shown."""
    if target is None:
        return ""
    if target.name == "dt":  # a function: its name, and the first paragraph of what it is
        name = " ".join(target.get_text().partition("[source]")[0].split()).rstrip("#\u00b6")
        about = target.find_next_sibling("dd")
        first = about.find("p") if isinstance(about, Tag) else None
        short = name if len(name) < 90 else name.partition("(")[0] + "(\u2026)"
        return f"<code>{short}</code>" + (clean(first) if isinstance(first, Tag) else "")
    if target.name in ("figure", "section", "span"):
        return ""
    found = clean(target)
    return found if len(found) <= LONGEST else ""


def symbols(page: BeautifulSoup) -> dict[str, str]:
    """From the TeX of each symbol in the tables of the notation page to its meaning."""
    found: dict[str, str] = {}
    for row in page.select("article table tbody tr"):
        first, *others = row.find_all("td")
        if others:
            longest = max(others, key=lambda cell: len(cell.get_text()))  # the meaning
            meaning = re.sub(r"^<td[^>]*>|</td>$", "", clean(longest))
            for symbol in first.select("span.math"):
                tex = re.sub(r"^\\\(|\\\)$", "", symbol.get_text().strip()).strip()
                found.setdefault(tex, meaning)
                found.setdefault(re.sub(r"\([^()]*\)$", "", tex), meaning)  # K for K(x_o, x_u)
    return found


def write_previews(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    wanted: dict[str, set[str]] = {}
    for path in sorted(out.joinpath("book").rglob("*.html")):
        here = path.relative_to(out).as_posix()
        for link in re.findall(r'href="([^":]*#[^"]+)"', path.read_text(encoding="utf-8")):
            if KINDS.search(link):
                file, _, place = link.partition("#")
                page = (
                    posixpath.normpath(posixpath.join(posixpath.dirname(here), file))
                    if file
                    else here
                )
                wanted.setdefault(page, set()).add(place)
    links: dict[str, str] = {}
    for name, places in sorted(wanted.items()):
        soup = BeautifulSoup(out.joinpath(name).read_text(encoding="utf-8"), "html.parser")
        found_at = {str(tag["id"]): tag for tag in soup.find_all(id=True) if isinstance(tag, Tag)}
        for place in sorted(places):
            links[f"{name}#{place}"] = preview(found_at.get(place))
    notation = out / "book" / "notation.html"
    meanings = symbols(BeautifulSoup(notation.read_text(encoding="utf-8"), "html.parser"))
    found = {"links": {k: v for k, v in links.items() if v}, "symbols": meanings}
    script = f"window.PREVIEWS = {json.dumps(found, ensure_ascii=False)};\n"
    out.joinpath("_static", "previews.js").write_text(script, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", write_previews, priority=400)  # before pages are repaired
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""A Sphinx extension: slides for a lecture on each chapter, made of the chapter's own page.

Nobody maintains them. A chapter becomes, in its order: a title with what one will be able to do;
for each section its heading and first sentences; every question under "Predict, then run"; every
theorem without its proof; formulas on lines of their own with the sentence before them; functions
that the chapter writes out; figures; what moves in the page; exercises without solutions; the
summary. They are slides/CHAPTER.html, and load nothing that the site does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag
from jinja2 import Environment
from sphinx.application import Sphinx

TEMPLATE = Path(__file__).resolve().parent.parent / "_templates" / "slides.html"
SKIPPED = ("what-to-read-next",)
LIVE = "try-it"  # a section about figures that need a kernel
CODE_LINES = 14  # of a function that fits a slide
OPENING = 330  # characters of a section's first sentences
BULLETS = 4  # of a summary on one slide


class Slide(NamedTuple):
    """One slide: the line above it, its HTML, and its kind: "wide" for a figure, or "moving"."""

    kicker: str
    html: str
    kind: str = ""


def inner(tag: Tag) -> str:
    """The HTML in an element."""
    return tag.decode_contents().strip()


def classes(tag: Tag) -> list[str]:
    """The classes of an element."""
    found = tag.get("class")
    return list(found) if isinstance(found, list) else []


def sentences(paragraph: Tag) -> list[str]:
    """The sentences of a paragraph as HTML; a period inside an element ends none.

    >>> sentences(BeautifulSoup("<p>One <b>v. 1</b> is. Two is.</p>", "html.parser").p)
    ['One <b>v. 1</b> is.', 'Two is.']
    """
    found, current = [], ""
    for child in paragraph.children:
        if not isinstance(child, NavigableString):
            current += str(child)
            continue
        parts = re.split(r"(?<=[.?!:])\s+(?=[A-Z\u201c(])", child.output_ready())
        for part in parts[:-1]:
            found.append((current + part).strip())
            current = ""
        current += parts[-1]
    return [part for part in [*found, current.strip()] if part]


def length(html: str) -> int:
    """How many characters a reader sees, about."""
    return len(re.sub(r"<[^>]+>", "", html))


def opening(paragraph: Tag) -> str:
    """The first sentences of a paragraph, as many as fit a slide."""
    kept = ""
    for sentence in sentences(paragraph):
        if kept and length(kept) + length(sentence) > OPENING:
            break
        kept = f"{kept} {sentence}".strip()
    return f"<p>{kept}</p>"


def formula(block: Tag) -> str:
    """A formula on a line of its own, led in by the sentence before it and its 'where' after it."""
    before = block.find_previous_sibling()
    after = block.find_next_sibling()
    html = ""
    if before is not None and before.name == "p":
        html += f"<p>{sentences(before)[-1]}</p>"
    html += f"<div>{inner(block)}</div>"
    if after is not None and after.name == "p" and re.match(r"[a-z]", after.get_text()):
        html += f"<p>{sentences(after)[0]}</p>"
    return html


def box(heading: str, content: str) -> str:
    """A statement or question with its heading."""
    return f'<div class="box"><h2>{heading}</h2>{content}</div>'


def of_cell(cell: Tag, kicker: str) -> Iterator[Slide]:
    """What a cell shows, and its code where it writes out a short function."""
    output = cell.select_one(".cell_output")
    moving = output.select_one(".zo-explorable") if output else None
    if moving is not None and isinstance(moving.parent, Tag):
        yield Slide(kicker, inner(moving.parent), "moving")
        return
    figure = output.select_one("figure") if output else None
    if figure is not None:
        yield Slide(kicker, str(figure), "wide")
        return
    code = cell.select_one(".cell_input pre")
    hidden = any(name.startswith(("tag_hide", "tag_remove")) for name in classes(cell))
    if code is None or hidden:
        return
    lines = code.get_text().strip("\n").split("\n")
    if len(lines) <= CODE_LINES and re.search(r"^def ", code.get_text(), re.MULTILINE):
        yield Slide(kicker, f'<div class="highlight">{code}</div>')


def of_block(block: Tag, kicker: str) -> Iterator[Slide]:
    """The slides of one element of a section."""
    kinds = classes(block)
    title = block.select_one(".admonition-title")
    heading = inner(title) if title else ""
    if block.name == "section":
        yield from of_section(block, kicker)
    elif "proof" in kinds:
        content = block.select_one("section")
        if "dropdown" not in kinds and content is not None:
            yield Slide(kicker, box(heading, inner(content)))
    elif "exercise" in kinds:
        content = block.select_one("section")
        if content is not None:
            yield Slide(kicker, box(heading, inner(content)))
    elif any(name.startswith("admonition-predict") for name in kinds) and title:
        content_html = "".join(str(part) for part in title.find_next_siblings())
        yield Slide(kicker, box(heading, content_html))
    elif "math" in kinds:
        yield Slide(kicker, formula(block))
    elif "cell" in kinds:
        yield from of_cell(block, kicker)


def of_section(section: Tag, kicker: str) -> Iterator[Slide]:
    """The slides of a section: its heading with its first sentences, then what is in it."""
    heading = section.find(["h2", "h3", "h4"], recursive=False)
    if not isinstance(heading, Tag) or section.get("id") in SKIPPED:
        return
    name = inner(heading)
    if section.get("id") == LIVE:
        for cell in section.select(".cell:has(.zo-explorable)"):
            yield from of_cell(cell, kicker)
        return
    first = heading.find_next_sibling()
    items = (
        first.find_all("li", recursive=False) if first is not None and first.name == "ul" else []
    )
    if items:
        for start in range(0, len(items), BULLETS):
            part = "".join(map(str, items[start : start + BULLETS]))
            yield Slide(kicker, f"<h2>{name}</h2><ul>{part}</ul>")
    elif first is not None and first.name == "p":
        yield Slide(kicker, f"<h2>{name}</h2>{opening(first)}")
    above = f"{kicker} \u203a {name}" if heading.name == "h2" else kicker
    for block in section.find_all(True, recursive=False):
        yield from of_block(block, above)


def clean(article: Tag, page: str) -> None:
    """Remove what only a page needs; let links lead to the pages; names are the slides' own."""
    for tag in article.select(".headerlink, .eqno, button, script[type='text/x-thebe-config']"):
        tag.decompose()
    for link in article.select("a[href]"):
        to = str(link["href"])
        if to.startswith("#"):
            link["href"] = f"../{page}.html{to}"
        elif not re.match(r"[a-z]+:|\.\./", to):
            link["href"] = f"../{page.rpartition('/')[0]}/{to}"
    for tag in article.select("[id]:not(section)"):
        if not tag.find_parent(class_="zo-explorable") and "zo-explorable" not in classes(tag):
            del tag["id"]


def slides(html: str, page: str) -> tuple[str, list[Slide]]:
    """The title of a chapter's page and its slides; none for a page that is no chapter."""
    article = BeautifulSoup(html, "html.parser").select_one("article.bd-article")
    chapter = article.select_one("section") if article else None
    about = (
        chapter.select_one(".admonition-in-this-chapter > p:nth-of-type(2)") if chapter else None
    )
    title = chapter.select_one("h1") if chapter else None
    if chapter is None or about is None or title is None:
        return "", []
    clean(chapter, page)
    name = inner(title)
    found = [Slide("", f"<h1>{name}</h1><p>{inner(about)}</p>")]
    for block in chapter.find_all(True, recursive=False):
        if block.name == "section" or "math" in classes(block):
            found += of_block(block, name)
    return title.get_text(), found


def rendered(title: str, found: list[Slide], page: str) -> str:
    """The HTML of a chapter's slides."""
    template = Environment(autoescape=False, trim_blocks=False).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    plain = re.sub(r"\\\((.*?)\\\)", r"\1", title).replace("\\", "")
    return template.render(title=plain, slides=found, page=page)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written and repaired, before the archive is made of them."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for page in sorted(app.env.found_docs):
        path = out / f"{page}.html"
        if path.exists() and (name := page.rpartition("/")[2]):
            title, found = slides(path.read_text(encoding="utf-8"), page)
            if found:
                target = out / "slides" / f"{name}.html"
                target.parent.mkdir(exist_ok=True)
                target.write_text(rendered(title, found, page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", finish, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

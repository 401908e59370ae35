"""What the references of the chapters lead to: numbers as the site prints them, and addresses.

Sphinx numbers theorems, exercises, equations and figures through the book, each kind by itself, in
the order of _toc.yml. The same is done here from the tokens of myst-parser, without a build;
book/_ext/notebooks.py compares the two when the site is built.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from markdown_it.token import Token
from myst_tokens import Directive, parse
from pybtex.database import Entry, parse_file

KINDS = {
    "prf:theorem": "Theorem",
    "prf:lemma": "Lemma",
    "prf:corollary": "Corollary",
    "prf:proposition": "Proposition",
    "exercise": "Exercise",
}
"""The directives that are numbered, and the word before the number."""


class Target(NamedTuple):
    """What a label stands for."""

    text: str
    """As the site prints it: Theorem 7, (3), Fig. 2, or the title of a section."""
    page: str
    """As in _toc.yml, book/zo_sgd."""
    anchor: str


class Work(NamedTuple):
    """A work of the bibliography."""

    authors: str
    year: str
    address: str


class Book(NamedTuple):
    """All that a chapter can refer to."""

    site: str
    """Where it is published, with a slash at the end."""
    repository: str
    """Its repository, of the form https://host/owner/name, or https://host/owner/name@commit."""
    titles: dict[str, str]
    """By page, in reading order."""
    targets: dict[str, Target]
    works: dict[str, Work]
    solutions: bool = True
    """Whether readers get them: `hide_solutions` of _config.yml is for a course."""

    def address(self, target: Target) -> str:
        """Where the site has it."""
        return f"{self.site}{target.page}.html#{target.anchor}"


def settings(root: Path) -> dict[str, Any]:
    """What _config.yml says; the environment of a workflow may name another repository."""
    found: dict[str, Any] = yaml.safe_load(root.joinpath("_config.yml").read_text(encoding="utf-8"))
    found["repository"]["url"] = os.environ.get("BOOK_REPOSITORY") or found["repository"]["url"]
    return found


def reading_order(toc: Any) -> Iterator[str]:
    """The pages of _toc.yml.

    >>> list(reading_order({"root": "a", "parts": [{"chapters": [{"file": "b"}]}]}))
    ['a', 'b']
    """
    if isinstance(toc, dict):
        yield from (toc[key] for key in ("root", "file") if key in toc)
        for part in toc.values():
            yield from reading_order(part)
    elif isinstance(toc, list):
        for part in toc:
            yield from reading_order(part)


def parts(root: Path, page: str) -> Iterator[str | dict[str, str]]:
    """The Markdown of a page, cell by cell, and the figures in between (name and caption)."""
    text = root / f"{page}.md"
    if text.exists():
        yield text.read_text(encoding="utf-8")
        return
    content = json.loads(root.joinpath(f"{page}.ipynb").read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        elif figure := cell["metadata"].get("mystnb", {}).get("figure"):
            yield figure


def labels(text: str) -> Iterator[tuple[str, str, str]]:
    """(kind, label, title) of all that can be referred to in Markdown, those within boxes too."""
    waiting: list[str] = []  # targets that name the heading that follows
    tokens = parse(text)
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        directive = Directive.of(token)
        if directive:
            if directive.name in KINDS and "label" in directive.options:
                yield KINDS[directive.name], directive.options["label"], ""
            if directive.name in KINDS or directive.name in ("prf:proof", "solution"):
                yield from labels(directive.body)
        elif token.type == "math_block_label":
            yield "Equation", token.info, ""
        elif token.type == "myst_target":
            waiting.append(token.content)
        elif token.type == "heading_open" and isinstance(after, Token):
            for label in [*waiting, *(["title"] if token.tag == "h1" else [])]:
                yield "Section", label, after.content
            waiting.clear()


def read_pages(root: Path, pages: list[str]) -> tuple[dict[str, str], dict[str, Target]]:
    """Titles by page, and targets by label."""
    titles: dict[str, str] = {}
    targets: dict[str, Target] = {}
    count: Counter[str] = Counter()
    for page in pages:
        for part in parts(root, page):
            if isinstance(part, dict):
                count["Fig."] += 1
                targets[part["name"]] = Target(f"Fig. {count['Fig.']}", page, part["name"])
                continue
            for kind, label, title in labels(part):
                count[kind] += 1
                if kind == "Equation":
                    targets[label] = Target(f"({count[kind]})", page, f"equation-{label}")
                elif kind != "Section":
                    targets[label] = Target(f"{kind} {count[kind]}", page, label)
                elif label == "title":
                    titles[page] = title
                else:
                    targets[label] = Target(title, page, label)
    return titles, targets


def work(entry: Entry, elsewhere: str) -> Work:
    """What is cited, and where it is: by its DOI, on arXiv, or as the bibliography says."""
    names = [" ".join(map(str, p.rich_last_names)) for p in entry.persons["author"]]
    authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
    fields = entry.fields
    if "doi" in fields:
        address = f"https://doi.org/{fields['doi']}"
    elif "eprint" in fields:
        address = f"https://arxiv.org/abs/{fields['eprint']}"
    else:
        address = fields.get("url", elsewhere)
    return Work(authors, fields["year"], address)


def read_book(root: Path) -> Book:
    """Read the settings, the table of contents, all pages and the bibliography."""
    config = settings(root)
    site = config["html"]["baseurl"]
    toc = yaml.safe_load(root.joinpath("_toc.yml").read_text(encoding="utf-8"))
    titles, targets = read_pages(root, list(reading_order(toc)))
    entries = parse_file(str(root / config["bibtex_bibfiles"][0])).entries
    works = {
        key: work(entry, f"{site}book/bibliography.html")
        for key, entry in sorted(entries.items(), key=lambda item: item[0])
    }
    shown = not config["sphinx"]["config"].get("hide_solutions", False)
    return Book(site, config["repository"]["url"], titles, targets, works, shown)

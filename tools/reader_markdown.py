"""The Markdown of a chapter as any notebook program shows it: no directive, role or label is left.

Blocks and roles are found by their tokens (tools/myst_tokens.py), and replaced where they are; the
rest is copied. Theorems and notes become quotations under a bold head, proofs and solutions fold
(<details>), citations and references become links with the numbers of the site.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from book_index import KINDS, Book
from markdown_it.token import Token
from myst_tokens import Directive, parse

FOLDED = ("prf:proof", "hint")


class Piece(NamedTuple):
    """A part of a cell: prose, or an exercise or a solution, with its label."""

    kind: str
    label: str
    text: str
    codes: tuple[str, ...] = ()
    """What an exercise has in code spans."""


def quoted(text: str) -> str:
    """A quotation."""
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def folded(title: str, text: str) -> str:
    """A text under a title that unfolds it. Markdown in HTML wants blank lines around it."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def code_spans(tokens: list[Token]) -> Iterator[str]:
    """The contents of all code spans."""
    for token in tokens:
        if token.type == "code_inline":
            yield token.content
        yield from code_spans(token.children or [])


class Reader:
    """Turns Markdown of the book into Markdown for its readers.

    Args:
        book: what references lead to.
    """

    def __init__(self, book: Book) -> None:
        """Keep the book."""
        self.book = book

    # ---- in a line ------------------------------------------------------------------------------

    def cite(self, keys: str, form: str) -> str:
        """Links to works: Li et al. (2026), or (Li et al., 2026) with form "p"."""
        between = "{} ({})" if form == "t" else "{}, {}"
        links = []
        for key in keys.split(","):
            work = self.book.works[key.strip()]
            links.append(f"[{between.format(work.authors, work.year)}]({work.address})")
        return " and ".join(links) if form == "t" else f"({'; '.join(links)})"

    def role(self, token: Token) -> str:
        """A role as a link."""
        name, content = token.meta["name"], token.content
        if name in ("cite:t", "cite:p"):
            return self.cite(content, name[-1])
        if name == "doc":
            return f"[{self.book.titles[f'book/{content}']}]({self.book.site}book/{content}.html)"
        if name in ("prf:ref", "eq", "numref", "ref"):
            target = self.book.targets[content]
            return f"[{target.text}]({self.book.address(target)})"
        raise ValueError(
            f"no rule for the role {{{name}}}`{content}`: add one to Reader.role in "
            "tools/reader_markdown.py"
        )

    def link(self, address: str) -> str | None:
        """Where a link of the book leads on the site; None for one that leads there as it is."""
        page, _, place = address.partition("#")
        name, dot, ending = page.rpartition(".")
        if ending in ("ipynb", "md") and f"book/{name}" in self.book.titles:
            return f"{self.book.site}book/{name}.html{'#' if place else ''}{place}"
        if not dot and (target := self.book.targets.get(page or place)):
            return self.book.address(target)
        if address.startswith(("https://", "http://")):
            return None
        raise ValueError(f"the link to {address!r} leads to no page and no label of the book")

    def line(self, token: Token) -> str:
        """The source of an inline token, with its roles and links replaced."""
        text = token.content
        for child in reversed(token.children or []):
            start, end = child.meta.get("place", (0, 0))
            if child.type == "myst_role":
                text = text[:start] + self.role(child) + text[end:]
            elif child.type == "link_open" and end:
                address = self.link(str(child.attrs["href"]))
                label, _, _ = text[start:end].rpartition("](")
                if address:
                    text = f"{text[:start]}{label}]({address}){text[end:]}"
        return text

    # ---- blocks ---------------------------------------------------------------------------------

    def head(self, directive: Directive) -> str:
        """The head of a theorem: its number and its name."""
        number = self.book.targets[directive.options["label"]].text
        return (
            f"**{number}** ({self.plain(directive.title)})" if directive.title else f"**{number}**"
        )

    def box(self, directive: Directive) -> str:
        """A directive as plain Markdown."""
        name, title = directive.name, directive.title
        if name == "exercise":
            number = self.book.targets[directive.options["label"]].text
            return f"### {number}\n\n{self.plain(directive.body)}"
        if name == "solution":
            exercise = self.book.targets[title].text
            return folded(f"Solution to {exercise}", self.plain(directive.body))
        if name in FOLDED:
            return folded(title or name.rpartition(":")[2].capitalize(), self.plain(directive.body))
        if name in KINDS:
            head = self.head(directive)
        elif name in ("admonition", "note", "tip", "important", "warning"):
            head = f"**{self.plain(title) or name.capitalize()}**"
        else:
            raise ValueError(
                f"no rule for the directive {{{name}}}: add one to Reader.box in "
                "tools/reader_markdown.py"
            )
        return quoted(f"{head}\n\n{self.plain(directive.body, one_line=True)}")

    def formula(self, token: Token, lines: list[str], one_line: bool) -> list[str]:
        """A displayed formula with its number, on one line for a quotation.

        JupyterLab takes all between two $$ for the formula, the marks of a quotation with it.
        """
        if token.type == "math_block_label":
            number = self.book.targets[token.info].text
            lines = ["$$", *token.content.strip("\n").split("\n"), rf"\tag{{{number[1:-1]}}}", "$$"]
        return [" ".join(line.strip() for line in lines)] if one_line else lines

    def block(self, token: Token, lines: list[str], one_line: bool) -> list[str] | None:
        """What stands in place of the lines of a block; None if they stay."""
        directive = Directive.of(token)
        if directive:
            return self.box(directive).split("\n")
        if token.type in ("math_block", "math_block_label", "amsmath"):
            return self.formula(token, lines, one_line)
        if token.type in ("myst_target", "myst_line_comment", "myst_block_break"):
            return []
        return None

    def plain(self, text: str, *, one_line: bool = False) -> str:
        """Markdown without what only MyST knows.

        Args:
            text: Markdown of the book.
            one_line: whether each displayed formula goes on one line.

        Raises:
            KeyError: for a label or a key that the book does not have.
            ValueError: for a directive, a role or a link that there is no rule for.
        """
        lines = text.split("\n")
        # From the end, so that what is still to be done keeps its place.
        limit = (-1, 0)  # cells of a table share a line: (line, where the one after begins)
        for token in reversed(parse(text)):
            if token.map is None:
                continue
            start, end = token.map[0], min(token.map[1], len(lines))
            if token.type == "inline":
                edited = self.line(token).split("\n")
                if edited == token.content.split("\n"):
                    continue
                for number, (old, new) in enumerate(
                    zip(token.content.split("\n"), edited, strict=True), start
                ):
                    line = lines[number]
                    at = line.rindex(old, 0, limit[1] if limit[0] == number else None)
                    lines[number] = line[:at] + new + line[at + len(old) :]
                    limit = (number, at)
                continue
            while end > start + 1 and not lines[end - 1].strip():
                end -= 1  # blank lines are no part of what is replaced
            found = self.block(token, lines[start:end], one_line)
            if found is not None:
                indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
                lines[start:end] = [f"{indent}{line}" if line else "" for line in found]
        return "\n".join(lines).strip("\n")

    def pieces(self, text: str) -> list[Piece]:
        """The Markdown of a cell: prose, exercises and solutions, in order."""
        lines, done, found = text.split("\n"), 0, []
        for token in parse(text):
            directive = Directive.of(token)
            if directive and directive.name in ("exercise", "solution") and token.map:
                found.append(Piece("prose", "", self.plain("\n".join(lines[done : token.map[0]]))))
                label = directive.options.get("label", directive.title)
                codes = tuple(code_spans(parse(directive.body)))
                found.append(Piece(directive.name, label, self.box(directive), codes))
                done = token.map[1]
        found.append(Piece("prose", "", self.plain("\n".join(lines[done:]))))
        return [piece for piece in found if piece.text]

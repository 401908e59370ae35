"""Markdown of the book as the tokens of myst-parser, with the places that it does not keep.

The tokens of a block know their lines. Roles and links within a line do not know where they are;
here they do, so that they can be replaced and all around them stays as it was written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

EXTENSIONS = {"amsmath", "colon_fence", "deflist", "dollarmath", "substitution", "tasklist"}
"""Those of _config.yml, but smartquotes: quotes stay as they were typed."""

Rule = Callable[[StateInline, bool], bool]


class Directive(NamedTuple):
    """A directive, from the token of its fence."""

    name: str
    title: str
    options: dict[str, str]
    body: str

    @classmethod
    def of(cls, token: Token) -> Directive | None:
        """The directive that a token is; None if it is none."""
        if token.type not in ("colon_fence", "fence") or not token.info.startswith("{"):
            return None
        name, _, title = token.info.removeprefix("{").partition("}")
        lines = token.content.split("\n")
        options = {}
        while lines and lines[0].startswith(":") and not lines[0].startswith("::"):
            key, _, value = lines.pop(0)[1:].partition(":")
            options[key] = value.strip()
        return cls(name, title.strip(), options, "\n".join(lines).strip("\n"))


def with_place(rule: Rule, kind: str) -> Rule:
    """A rule that notes in `meta["place"]` of its token where what it read begins and ends."""

    def placed(state: StateInline, silent: bool) -> bool:
        start, known = state.pos, len(state.tokens)
        found = rule(state, silent)
        if found and not silent:
            token = next(token for token in state.tokens[known:] if token.type == kind)
            token.meta = {**token.meta, "place": (start, state.pos)}
        return found

    return placed


@cache
def parser() -> MarkdownIt:
    """The parser of the site, with places."""
    config = MdParserConfig(enable_extensions=EXTENSIONS, dmath_double_inline=True)
    md = create_md_parser(config, RendererHTML)
    rules = dict(zip(md.get_active_rules()["inline"], md.inline.ruler.getRules(""), strict=True))
    for name, kind in (("myst_role", "myst_role"), ("link", "link_open")):
        md.inline.ruler.at(name, with_place(rules[name], kind))
    return md


def parse(text: str) -> list[Token]:
    """The tokens of Markdown; the content of a directive is one token (see :class:`Directive`)."""
    return parser().parse(text)

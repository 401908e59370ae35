"""A Sphinx extension: the first screen of the book is its paradox, as the introduction measures it.

The figure further down the page is shown below the sentence, too, with two ways to go on.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

FIGURE = "fig-intro-fine-tune"
WAYS = (("Start reading", "the-idea-in-words"), ("Choose a path", "choose-a-path"))


def with_first_screen(page: str) -> str:
    """The introduction with its figure and two buttons below the first paragraph."""
    picture = re.search(
        rf'<figure[^>]*id="{FIGURE}"[^>]*>.*?((?:<picture.*?</picture>)+)', page, flags=re.DOTALL
    )
    missing = [anchor for _, anchor in WAYS if f'id="{anchor}"' not in page]
    if picture is None or missing:
        raise ExtensionError(f"The introduction has no {FIGURE}, or no sections {missing}")
    buttons = "".join(f'<a class="way" href="#{anchor}">{name}</a>' for name, anchor in WAYS)
    first = f'<div class="landing">{picture[1]}<p class="ways">{buttons}</p></div>'
    return re.sub(
        r"(<article.*?</h1>.*?</p>)", lambda found: found[1] + first, page, count=1, flags=re.DOTALL
    )


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After the pages and the versions of their figures are written."""
    if exception is None and app.builder.format == "html":
        path = Path(app.outdir, "book", "intro.html")
        page = path.read_text(encoding="utf-8")
        path.write_text(with_first_screen(page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", finish, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""One explorable as HTML: a static table, its data, and the script that takes the table's place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from html import escape
from importlib.resources import files
from typing import Any

from torch import Tensor

SIZE_LIMIT = 200_000
"""Bytes of HTML, data and scripts together, that an explorable may add to its page."""

_BLOCK = """\
<div class="zo-explorable mathjax_ignore tex2jax_ignore" id="{id}" role="group" \
aria-labelledby="{id}-title">
<style>{style}</style>
<p class="zo-title" id="{id}-title">{title}</p>
<div class="zo-static">
{table}
<p>With JavaScript, this table is a figure with controls.</p>
</div>
</div>
<script>
(() => {{
"use strict";
{scripts}
for (const root of document.querySelectorAll('[id="{id}"]')) {{
  if (root.querySelector(".zo-static")) mount(root, explorables["{name}"], {data});
}}
}})();
</script>
"""


@dataclass(frozen=True)
class Table:
    """The static fallback: what is shown without JavaScript, in untrusted notebooks, in e-mail."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        """An HTML table with a caption and header cells."""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return (
            f"<table>\n<caption>{escape(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        )


@dataclass(frozen=True)
class Explorable:
    """A figure that computes in the page: no kernel, and nothing is fetched.

    A notebook shows it when it is the last value of a cell. The HTML is a function of the arguments
    alone, so that two builds give the same page.

    Args:
        chapter: whose JavaScript file has it.
        name: of the function, in Python and in that file.
        title: one line above the controls.
        data: what the page computes from, as JSON.
        table: shown where no script runs.

    Raises:
        ValueError: if the HTML would be larger than :data:`SIZE_LIMIT`.
    """

    chapter: str
    name: str
    title: str
    data: Mapping[str, Any]
    table: Table

    def __post_init__(self) -> None:
        size = len(self._repr_html_().encode())
        if size > SIZE_LIMIT:
            raise ValueError(
                f"{self.chapter}.{self.name}: {size:,} bytes of HTML, expected at most "
                f"{SIZE_LIMIT:,}; give fewer inputs, directions or steps"
            )

    def __repr__(self) -> str:
        return f"<explorable {self.chapter}.{self.name}>"

    def _repr_html_(self) -> str:
        data = json.dumps(self.data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        data = data.replace("<", "\\u003c")  # `</script>` or `<!--` would end or change the script
        digest = blake2b(data.encode(), digest_size=4).hexdigest()
        return _BLOCK.format(
            id=f"zo-{self.chapter}-{self.name}-{digest}".replace("_", "-"),
            style=_file("style.css"),
            title=escape(self.title),
            table=self.table.html(),
            scripts=scripts(self.chapter),
            name=self.name,
            data=data,
        )


@cache
def _file(name: str) -> str:
    return files("zotutor.explorables").joinpath("js", name).read_text(encoding="utf-8")


def scripts(chapter: str) -> str:
    """The JavaScript of a chapter's explorables, with what it builds on."""
    return "\n".join(map(_file, ("core.js", "streams.js", f"{chapter}.js")))


def rounded(values: Tensor, digits: int = 5) -> Any:
    """A tensor as nested lists of numbers with few digits, which make a small page.

    >>> import torch
    >>> rounded(torch.tensor([[0.1234567, 2.0]]), 3)
    [[0.123, 2.0]]
    """

    def short(value: Any) -> Any:
        return (
            [short(v) for v in value] if isinstance(value, list) else float(f"{value:.{digits}g}")
        )

    return short(values.tolist())

"""A Sphinx extension: `zo.entk`, in prose and in code, leads to its entry on the API page.

A name in a chapter is looked up as Python would: `zo.figures.one_step` and
`zo.figures.intro.one_step` are the same function, whose entry is under one of its names.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NAME = re.compile(r"zo(?:tutor)?((?:\.[A-Za-z_]\w*)+)(?=$|[^\w.])")
DOT = r'<span class="o">\.</span>'
IN_CODE = re.compile(rf'<span class="n">zo</span>((?:{DOT}<span class="n">\w+</span>)+)')


def resolved(dotted: str) -> Any:
    """What a dotted name under zotutor is, or None."""
    thing: Any = import_module("zotutor")
    for part in dotted.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            try:
                thing = import_module(f"{thing.__name__}.{part}")
            except (ImportError, AttributeError):
                return None
    return thing


class Entries:
    """The addresses of what has an entry."""

    def __init__(self, app: Sphinx) -> None:
        """Read the entries of a book whose pages were all read."""
        objects = app.env.domaindata["py"]["objects"]
        self.app = app
        self.by_name = {
            name.removeprefix("zotutor."): (entry.docname, entry.node_id)
            for name, entry in objects.items()
            if name.startswith("zotutor.")
        }
        self.by_thing = {}
        for name, place in self.by_name.items():
            thing = resolved(name)
            if thing is not None and getattr(thing, "__module__", "").startswith("zotutor"):
                self.by_thing[id(thing)] = place

    def find(self, dotted: str, page: str) -> str | None:
        """The address of a name as seen from a page; None without an entry."""
        place = self.by_name.get(dotted)
        if place is None:
            thing = resolved(dotted)
            place = self.by_thing.get(id(thing)) if thing is not None else None
        if place is None:
            return None
        assert self.app.builder is not None
        return f"{self.app.builder.get_relative_uri(page, place[0])}#{place[1]}"


def entries(app: Sphinx) -> Entries:
    """The entries, collected when they are first needed."""
    if not hasattr(app, "zotutor_entries"):
        app.zotutor_entries = Entries(app)  # type: ignore[attr-defined]
    found: Entries = app.zotutor_entries  # type: ignore[attr-defined]
    return found


def link_prose(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link code in running text that begins with a name of the package."""
    for code in list(doctree.findall(nodes.literal)):
        found = NAME.match(code.astext())
        if found is None or isinstance(code.parent, nodes.reference):
            continue
        address = entries(app).find(found[1][1:], page)
        if address is not None and not address.startswith("#"):
            link = nodes.reference("", "", internal=True, refuri=address, classes=["api"])
            code.replace_self(link)
            link += code


def link_code(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Link names in the code of a page that is about to be written."""

    def linked(found: re.Match[str]) -> str:
        parts = re.findall(r'<span class="n">(\w+)</span>', found[1])
        for count in range(len(parts), 0, -1):
            address = entries(app).find(".".join(parts[:count]), pagename)
            if address is not None:
                link, rest = found[0], ""
                if count < len(parts):
                    cut = [m.start() for m in re.finditer(DOT, found[0])][count]
                    link, rest = found[0][:cut], found[0][cut:]
                return f'<a class="api" href="{address}">{link}</a>{rest}'
        return found[0]

    if doctree is not None and "body" in context:
        context["body"] = IN_CODE.sub(linked, context["body"])


def mend_docs_links(app: Sphinx, exception: Exception | None) -> None:
    """Lead the [docs] links of source pages to entries, which have a longer name than they expect.

    The entry of `zotutor.laws.pair_terms` is looked for as `zotutor.pair_terms`.
    """
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_modules").rglob("*.html"):
        page = path.relative_to(app.outdir).with_suffix("").as_posix()
        module = page.removeprefix("_modules/zotutor/").replace("/", ".")

        def mended(found: re.Match[str], page: str = page, module: str = module) -> str:
            name = found[1].removeprefix("zotutor.")
            for dotted in (name, f"{module}.{name.rpartition('.')[2]}"):
                address = entries(app).find(dotted, page)
                if address is not None:
                    return f'<a class="viewcode-back" href="{address}"'
            return found[0]

        before = path.read_text(encoding="utf-8")
        after = re.sub(r'<a class="viewcode-back" href="[^"#]*#([\w.]+)"', mended, before)
        if after != before:
            path.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("doctree-resolved", link_prose)
    app.connect("html-page-context", link_code)
    app.connect("build-finished", mend_docs_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

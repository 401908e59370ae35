"""Checks the pages of a built site: raw markup, links that lead nowhere, files from other servers.

python tools/check_pages.py _build/html

tools/build_book.py calls this. Links to other sites are not followed (tools/check_links.py does);
those of the notebooks to the published site are taken for links to the built one.
"""

from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Prose(HTMLParser):
    """The text of a page's article, without code, formulas and pictures."""

    NOT_PROSE = frozenset("pre code script style svg dt".split())
    VOID = frozenset("area br col embed hr img input link meta source track wbr".split())

    def __init__(self) -> None:
        """Begin outside the article."""
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, bool]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note whether what follows is prose."""
        math = "math" in (dict(attrs).get("class") or "").split()
        if tag not in self.VOID:
            self.open.append((tag, math or tag in self.NOT_PROSE))

    def handle_endtag(self, tag: str) -> None:
        """Leave the element, and what was not closed in it; an end without a beginning is none."""
        if any(name == tag for name, _ in self.open):
            while self.open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        """Keep prose of the article."""
        names = [name for name, _ in self.open]
        if "article" in names and not any(skipped for _, skipped in self.open):
            self.text += data


def raw_markup(page: str) -> list[str]:
    r"""Places of a page where markup was not understood and is shown as it was typed.

    >>> raw_markup("<article><p>a table: | a | b |\n|---|---|</p><code>$</code></article>")
    ['a table: | a | b |\n|---|---|']
    """
    prose = Prose()
    prose.feed(page)
    found = re.finditer(r"\$|\|:?[-\u2013\u2014]+:?\||:::|`", prose.text)
    return [prose.text[max(0, m.start() - 30) : m.end() + 30] for m in found]


class Places(HTMLParser):
    """Where a page can be entered, and where its links lead."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note identifiers, and what links, pictures, scripts and styles refer to."""
        for name, value in attrs:
            if value and (name == "id" or (name == "name" and tag == "a")):
                self.ids.add(value)
            elif value and name in ("href", "src"):
                self.links.add(value)


class Loaded(HTMLParser):
    """What a page loads, other than from its own site."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__(convert_charrefs=True)
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a browser would fetch; links are for readers to follow."""
        given = dict(attrs)
        style = tag == "link" and {"stylesheet", "icon", "preload"} & {
            *(given.get("rel") or "").split()
        }
        address = given.get("href" if style else "src")
        if address and urlsplit(address).netloc:
            self.addresses.add(address)


def foreign(page: str) -> list[str]:
    """Scripts, styles, pictures and frames that a page would load from another server.

    >>> foreign('<a href="https://example.org"></a><img src="https://example.org/x.png">')
    ['https://example.org/x.png']
    """
    loaded = Loaded()
    loaded.feed(page)
    return sorted(loaded.addresses)


class Broken(NamedTuple):
    """A link that leads nowhere."""

    page: str
    link: str


def links_of_notebooks(site: Path, published: str) -> dict[Path, Places]:
    """What the notebooks of a site refer to on it, as seen from its first page.

    Args:
        site: the folder of the built site.
        published: its address, with a slash at the end.
    """
    found = {}
    for path in site.rglob("*.ipynb"):
        found[path] = Places()
        text = path.read_text(encoding="utf-8")
        for address in re.findall(rf"{re.escape(published)}([^)>\s\"\\]*)", text):
            found[path].links.add(os.path.relpath(site, path.parent) + "/" + address)
    return found


def broken_links(site: Path, published: str) -> list[Broken]:
    """Links within a site to files that do not exist, or to places that a page does not have."""
    pages = {path: Places() for path in site.rglob("*.html")}
    for path, places in pages.items():
        places.feed(path.read_text(encoding="utf-8"))
    pages |= links_of_notebooks(site, published)
    found = []
    for path, places in sorted(pages.items()):
        for link in sorted(places.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            missing = place and target in pages and place not in pages[target].ids
            if not target.exists() or missing:
                found.append(Broken(path.relative_to(site).as_posix(), link))
    return found


def main() -> int:
    """Print what is wrong with the pages; 1 if anything is."""
    if len(sys.argv) != 2 or not Path(sys.argv[1], "book").is_dir():
        sys.exit("Usage: python tools/check_pages.py FOLDER, where `make book` has put the site")
    from book_index import settings  # which needs what builds the site

    site = Path(sys.argv[1]).resolve()
    published = settings(Path(__file__).resolve().parent.parent)["html"]["baseurl"]
    broken = broken_links(site, published)
    found = [f"{page}: the link {link} leads nowhere" for page, link in broken]
    for path in sorted(site.joinpath("book").rglob("*.html")):
        page = path.read_text(encoding="utf-8")
        for place in raw_markup(page):
            found.append(f"{path.name}: shows markup as it was typed: {place!r}")
        found += [f"{path.name}: loads {address} from another server" for address in foreign(page)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

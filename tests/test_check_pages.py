"""What the build looks for on its pages: markup that was not understood, broken links."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_package import tool

check_pages = tool("check_pages")


@pytest.mark.parametrize(
    ("shown", "is_raw"),
    [
        ("a table: | a | b |\n|---|---|\n| 1 | 2 |", True),
        ("as smart dashes: |:\u2013|\u2013:|", True),
        ("and longer ones: |\u2014|\u2014|", True),
        ("it moves by with\n$$\nAfter", True),
        ("the error of $K_U$", True),
        (":::{admonition} Predict, then run", True),
        ("a `role` in vain", True),
        ("</span></p> an end without a beginning, then $", True),
        ("|K_U - K| and a | b, at most 5 - 3 ::", False),
        ("<code>`$x`</code> <pre>|---|</pre> <table><tr><td>1</td></tr></table>", False),
        ('<span class="math notranslate">$x$</span> <img alt="$"><br> words', False),
    ],
)
def test_raw_markup_is_found(shown: str, is_raw: bool) -> None:
    page = f"<html><p>$ outside</p><article><div>{shown}</div></article><p>` outside</p></html>"
    assert bool(check_pages.raw_markup(page)) == is_raw


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.mkdir()
    good = '<p id="here"></p><a href="#here"></a><a href="b.html?x=1#there"></a><a href="../c.zip">'
    bad = '<a href="#gone"></a><a href="b.html#gone"></a><img src="gone.svg"><a href="gone.html">'
    other = '<a href="https://example.org/x#y"></a><a href="mailto:a@example.org"></a>'
    (book / "a.html").write_text(good + bad + other, encoding="utf-8")
    (book / "b.html").write_text('<p id="there"></p>', encoding="utf-8")
    (tmp_path / "c.zip").touch()
    found = {broken.link for broken in check_pages.broken_links(tmp_path, "https://example.org/")}
    assert found == {"#gone", "b.html#gone", "gone.svg", "gone.html"}


def test_links_of_notebooks_to_the_published_site_are_followed_on_the_built_one(
    tmp_path: Path,
) -> None:
    book, sources = tmp_path / "book", tmp_path / "_sources" / "book"
    book.mkdir()
    sources.mkdir(parents=True)
    (book / "a.html").write_text('<p id="here"></p>', encoding="utf-8")
    good = "https://example.org/site/book/a.html#here"
    cell = f'[a]({good}) <{good}>\\n[b]({good}2), https://example.org/site/b.html", see other.org'
    (sources / "a.ipynb").write_text(cell, encoding="utf-8")
    found = check_pages.broken_links(tmp_path, "https://example.org/site/")
    assert {page for page, _ in found} == {"_sources/book/a.ipynb"}
    assert sorted(link.removeprefix("../../") for _, link in found) == [
        "b.html",
        "book/a.html#here2",
    ]


def test_what_a_page_loads_from_elsewhere_is_found() -> None:
    """Links to other sites are for readers to follow, and a canonical address loads nothing."""
    own = '<script src="../x.js"></script><img src="data:image/png;base64,AA"><svg></svg>'
    links = '<a href="https://example.org"></a><link rel="canonical" href="https://example.org/a">'
    assert check_pages.foreign(own + links) == []
    bad = '<script src="https://example.org/a.js"></script><img src="//example.org/b.png">'
    style = '<link rel="stylesheet" href="http://example.org/c.css">'
    assert check_pages.foreign(bad + style) == [
        "//example.org/b.png",
        "http://example.org/c.css",
        "https://example.org/a.js",
    ]

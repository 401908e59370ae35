"""The Sphinx extensions of the book: what they make of pages, without building any."""

from __future__ import annotations

import doctest
import re
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXTENSIONS = ROOT / "book" / "_ext"


def extension(name: str) -> ModuleType:
    """An extension of the book, imported; without the extra `site` there is none."""
    pytest.importorskip("jupyter_book")
    sys.path.insert(0, str(EXTENSIONS))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)


NAMES = sorted(path.stem for path in EXTENSIONS.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(extension(name), optionflags=flags).failed == 0


def test_every_extension_is_used() -> None:
    config = ROOT.joinpath("_config.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^    (\w+): book/_ext$", config, flags=re.MULTILINE)) == NAMES


def drawn(path: Path, panels: int, *, share: bool = False, picture: bool = False) -> Any:
    """A figure with panels side by side, written as the site writes it; the root of the drawing."""
    figure, axes = plt.subplots(
        1, panels, figsize=(3.5 * panels, 3), squeeze=False, sharey=share, layout="constrained"
    )
    for ax in axes[0]:
        if picture:
            ax.imshow(np.eye(3))
            ax.text(1, 1, "5", color="black")
        else:
            ax.plot([0, 1], [0, 1], color="#0072B2")
            ax.set_ylabel("error" if ax is axes[0, 0] or not share else "")
        ax.set_title("title")
    figure.savefig(path, format="svg", facecolor="white")
    plt.close(figure)
    return ElementTree.parse(path).getroot()


def colors(root: Any) -> set[str]:
    """All colors that a drawing names."""
    return set(re.findall(r"#[0-9a-f]{6}", ElementTree.tostring(root, encoding="unicode")))


def test_a_dark_drawing_has_no_white_ground_and_no_black_ink(tmp_path: Path) -> None:
    drawings = extension("drawings")
    root = drawn(tmp_path / "a.svg", 1)
    assert {"#ffffff", "#000000", "#0072b2"} <= colors(root)
    drawings.darkened(root)
    assert not {"#ffffff", "#000000", "#0072b2"} & colors(root)
    assert root.get("fill") == drawings.INK  # letters, which name no color


def test_what_is_written_on_a_picture_stays_black(tmp_path: Path) -> None:
    drawings = extension("drawings")
    root = drawn(tmp_path / "a.svg", 1, picture=True)
    drawings.darkened(root)
    assert "#000000" in colors(root)


@pytest.mark.parametrize(("panels", "share"), [(2, False), (3, False), (2, True)])
def test_panels_are_stacked_so_that_each_is_shown_once(
    panels: int, share: bool, tmp_path: Path
) -> None:
    drawings = extension("drawings")
    root = drawn(tmp_path / "a.svg", panels, share=share)
    views = drawings.views(root)
    assert len(views) == panels
    boxes = [panel.boxes[0] for panel in drawings.panels_of(root)]
    for strips, box in zip(views, boxes, strict=True):
        left, right = strips[-1]
        assert left <= box.left < box.right <= right
        others = [other for other in boxes if other is not box]
        assert all(right <= other.left or left >= other.right for other in others)
    assert [len(strips) for strips in views] == [1] + [2 if share else 1] * (panels - 1)
    stacked = drawings.stacked(root, views)
    width, height = (float(n) for n in stacked.get("viewBox").split()[2:])
    assert width < 320
    assert height == pytest.approx(panels * float(root.get("viewBox").split()[3]))


def test_ticks_between_panels_do_not_keep_them_side_by_side(tmp_path: Path) -> None:
    drawings = extension("drawings")
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 3), layout="constrained")
    for ax in axes:
        ax.loglog([1, 1000], [0.01, 10])  # a tick label is wider than the gap allows a turned one
    figure.savefig(tmp_path / "a.svg", format="svg")
    plt.close(figure)
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    (_, second) = drawings.panels_of(root)
    ((strip,), (other,)) = drawings.views(root)
    assert strip[1] == other[0] == second.beginning < second.left - 15  # with its labels


def test_rows_that_belong_together_are_not_torn_apart(tmp_path: Path) -> None:
    drawings = extension("drawings")
    figure, axes = plt.subplots(3, 2, figsize=(6.5, 6), layout="constrained")
    for picture, bars in axes:
        picture.imshow(np.eye(3))
        bars.bar([0, 1], [0, 1])
    figure.savefig(tmp_path / "a.svg", format="svg")
    plt.close(figure)
    assert not drawings.views(ElementTree.parse(tmp_path / "a.svg").getroot())


def test_one_panel_is_not_stacked(tmp_path: Path) -> None:
    drawings = extension("drawings")
    drawn(tmp_path / "a.svg", 1)
    assert not drawings.write_variants(tmp_path / "a.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-dark.svg", "a.svg"]


def test_mathjax_is_that_of_the_lock_and_another_is_refused(monkeypatch: Any) -> None:
    offline = extension("offline")
    assert offline.mathjax().joinpath(offline.FONTS).is_dir()
    monkeypatch.setattr(offline, "SHA256", "0" * 64)
    with pytest.raises(Exception, match=r"requirements\.lock"):
        offline.mathjax()


def test_claims_lead_to_the_theorem_of_their_longest_beginning() -> None:
    claims_page = extension("claims_page")
    row = '<td style="" data-label="Claim">The exact law of E|K|, LowRank(1)</td>'
    theorems = {"The exact law": "thm-a", "The exact law of E|K|, LowRank": "thm-b"}
    places = {"thm-a": "a.html#thm-a", "thm-b": "b.html#thm-b"}
    assert 'href="b.html#thm-b"' in claims_page.linked(row, theorems, places)
    assert claims_page.linked("<td>x</td>", theorems, places) == "<td>x</td>"
    with pytest.raises(Exception, match="thm-gone"):
        claims_page.linked(row, {"The": "thm-gone"}, places)


def test_every_beginning_is_that_of_a_claim() -> None:
    asserted = tomllib.loads((ROOT / "zotutor/data/claims.toml").read_text(encoding="utf-8"))
    claims = [row["claim"].partition("{")[0] for part in asserted.values() for row in part.values()]
    listed = (ROOT / "book/claim_theorems.yml").read_text(encoding="utf-8")
    starts = re.findall(r'^"(.+)": (?:thm|cor)-[a-z-]+$', listed, flags=re.MULTILINE)
    assert len(starts) > 50
    idle = [s for s in starts if not any(c.startswith(s) or s.startswith(c) for c in claims)]
    assert not idle, "No claim begins like this; see zotutor/data/claims.toml"


def test_claims_are_counted() -> None:
    claims_page = extension("claims_page")
    page = '<span class="verdict holds">' * 3 + '<span class="verdict fails">'
    assert "3 hold" in claims_page.totals(page)
    assert "1 do not hold" in claims_page.totals(page)


def test_a_term_leads_to_one_place(tmp_path: Path) -> None:
    search_terms = extension("search_terms")
    path = tmp_path / "terms.yml"
    path.write_text("a: [alignment]\nb: [Alignment]\n", encoding="utf-8")
    with pytest.raises(Exception, match="alignment"):
        search_terms.terms(path)


def test_the_archive_holds_the_site_and_is_the_same_each_time(tmp_path: Path) -> None:
    downloads = extension("downloads")
    tmp_path.joinpath("index.html").write_text("page", encoding="utf-8")
    downloads.write_archive(tmp_path)
    first = tmp_path.joinpath(downloads.ARCHIVE).read_bytes()
    downloads.write_archive(tmp_path)
    assert tmp_path.joinpath(downloads.ARCHIVE).read_bytes() == first
    with zipfile.ZipFile(tmp_path / downloads.ARCHIVE) as archive:
        assert archive.namelist() == ["zotutor-book/index.html"]

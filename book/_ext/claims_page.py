"""A Sphinx extension: on the page of claims, totals on top, and from each claim to its theorem."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import yaml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

CLAIM = re.compile(r'(<td style="[^"]*" data-label="Claim">)(.*?)(</td>)', flags=re.DOTALL)
VERDICT = re.compile(r'<span class="verdict (holds|fails)">')


def places(out: Path) -> dict[str, str]:
    """From labels of theorems to their addresses, as seen from the page of claims."""
    found = {}
    for path in sorted(out.joinpath("book").glob("*.html")):
        for label in re.findall(r' id="((?:thm|cor)-[\w-]+)"', path.read_text(encoding="utf-8")):
            found[label] = f"{path.name}#{label}"
    return found


def linked(page: str, theorems: dict[str, str], places: dict[str, str]) -> str:
    """A page whose claims lead to their theorems."""
    unknown = sorted(set(theorems.values()) - set(places))
    if unknown:
        raise ExtensionError(f"book/claim_theorems.yml: no page has these theorems: {unknown}")

    def link(found: re.Match[str]) -> str:
        statement = unescape(found[2])
        starts = [start for start in theorems if statement.startswith(start)]
        if not starts:
            return found[0]
        address = places[theorems[max(starts, key=len)]]
        return f'{found[1]}<a class="reference internal" href="{address}">{found[2]}</a>{found[3]}'

    return CLAIM.sub(link, page)


def totals(page: str) -> str:
    """How many claims hold, and how many are stated not to and do not, as two badges."""
    verdicts = VERDICT.findall(page)
    held = verdicts.count("holds")
    return (
        f'<p class="claim-totals"><span class="verdict holds">{held} hold</span> '
        f'<span class="verdict fails">{len(verdicts) - held} do not hold, as stated</span> '
        f"of {len(verdicts)} claims, measured again when this site was built.</p>"
    )


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    path = Path(app.outdir, "book", "claims.html")
    listed = Path(app.srcdir, "book", "claim_theorems.yml").read_text(encoding="utf-8")
    page = path.read_text(encoding="utf-8")
    total = totals(page)
    page = re.sub(
        r"(<article.*?</h1>)", lambda found: found[1] + total, page, count=1, flags=re.DOTALL
    )
    page = linked(page, yaml.safe_load(listed), places(Path(app.outdir)))
    path.write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", finish, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

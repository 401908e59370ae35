"""A Sphinx extension: the site as one archive, to be read offline, and llms.txt.

llms.txt lists the pages with what each is about, for programs that read sites for people.
"""

from __future__ import annotations

import re
import zipfile
from html import unescape
from pathlib import Path

from sphinx.application import Sphinx

ARCHIVE = "downloads/zotutor-book.zip"


def list_pages(app: Sphinx) -> str:
    """The pages in reading order, as Markdown."""
    out = Path(app.outdir)
    toc = Path(app.srcdir, "_toc.yml").read_text(encoding="utf-8")
    lines = [f"# {app.config.html_title or app.config.project}", ""]
    lines += ["> An executable book, and the Python package zotutor that its chapters call.", ""]
    for caption, name in re.findall(r'caption: "?([^"\n]+)|(?:root|file): (\S+)', toc):
        if caption:
            lines += ["", f"## {caption}", ""]
            continue
        page = out.joinpath(f"{name}.html").read_text(encoding="utf-8")
        about = re.search(r'<meta name="description" content="([^"]*)"', page)
        title = re.search(r"<title>(.*?) (?:&#8212;|\u2014)", page, flags=re.DOTALL)
        what = f": {unescape(about[1])}" if about else ""
        lines.append(f"- [{unescape(title[1]).strip() if title else name}]({name}.html){what}")
    return "\n".join(lines) + "\n"


def write_archive(site: Path) -> None:
    """Put the site into one file, with fixed dates: the same site makes the same archive."""
    path = site / ARCHIVE
    path.parent.mkdir(exist_ok=True)
    files = sorted(
        file for file in site.rglob("*") if file.is_file() and path.parent not in file.parents
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            name = "zotutor-book/" + file.relative_to(site).as_posix()
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After all that changes pages."""
    if exception is None and app.builder.format == "html":
        out = Path(app.outdir)
        out.joinpath("llms.txt").write_text(list_pages(app), encoding="utf-8")
        write_archive(out)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", finish, priority=990)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Makes one PDF of the whole book from the built site: _build/html/downloads/zotutor-book.pdf.

python tools/make_pdf.py

`make pdf` calls this after `make book`. Pages are printed by Chromium with the site's own style for
paper (tests/site/print.mjs) and joined here, with a bookmark for each page.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PDF = SITE / "downloads" / "zotutor-book.pdf"


def pages() -> list[str]:
    """The pages in reading order."""
    toc = ROOT.joinpath("_toc.yml").read_text(encoding="utf-8")
    return [f"{name}.html" for name in re.findall(r"(?:root|file): (\S+)", toc)]


def title(page: str) -> str:
    """The title of a page, without that of the book."""
    text = SITE.joinpath(page).read_text(encoding="utf-8")
    found = re.search(r"<title>(.*?)(?: (?:&#8212;|\u2014)[^<]*)?</title>", text, flags=re.DOTALL)
    return unescape(found[1]).strip() if found else page


def join(parts: list[Path], names: list[str], target: Path) -> int:
    """Join PDFs, with a bookmark at the beginning of each; the number of pages."""
    from pypdf import PdfReader, PdfWriter

    with PdfWriter() as writer:
        for part, name in zip(parts, names, strict=True):
            reader = PdfReader(part)
            first = len(writer.pages)
            writer.append(reader, import_outline=False)
            writer.add_outline_item(title=name, page_number=first)
        writer.add_metadata({"/Title": "Zeroth-Order Optimization: A Kernel Perspective"})
        target.parent.mkdir(exist_ok=True)
        writer.write(target)
        return len(writer.pages)


def link_from_status() -> None:
    """Offer the PDF on the status page, which is made without it."""
    path = SITE / "book" / "status.html"
    page = path.read_text(encoding="utf-8")
    link = f'<p id="pdf"><a href="../downloads/{PDF.name}">The whole book as one PDF</a>.</p>'
    if 'id="pdf"' not in page:
        page = re.sub(r'(<section id="to-take-along">.*?</p>)', rf"\1{link}", page, flags=re.DOTALL)
        path.write_text(page, encoding="utf-8")


def main() -> int:
    """Print, join, and say where the PDF is."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not SITE.joinpath("index.html").exists():
        sys.exit(f"There is no site in {SITE}: run `make book` first")
    listed = pages()
    with tempfile.TemporaryDirectory() as folder:
        command = ["sh", str(ROOT / "tools" / "site_browser.sh"), str(SITE), "print.mjs", folder]
        if subprocess.run([*command, *listed], check=False).returncode:
            sys.exit("The pages could not be printed: see above")
        parts = sorted(Path(folder).glob("*.pdf"))
        count = join(parts, [title(page) for page in listed], PDF)
    link_from_status()
    print(f"\n{count} pages: {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

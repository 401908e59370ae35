"""A Sphinx extension: pages load nothing from another origin, and nothing that they do not use.

MathJax is that of the package sphinx-mathjax-offline, byte for byte the release 3.2.2: the one
script that pages load, and its fonts. It is on every page: titles with formulas are in the
navigation of each.

The theme draws its icons twice, with fonts and with a script of 1.5 MB that replaces the same
letters by drawings; book/_templates/static leaves the script out. Source maps and fonts in a format
that no browser asks for go, too, and what the theme's scripts report on the console of each page.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
SCRIPT = "tex-chtml.js"
SHA256 = "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5"
FONTS = "output/chtml/fonts/woff-v2"
UNUSED = (
    "*.map",
    "*-macros.html",
    "vendor/**/*.ttf",
    "scripts/fontawesome.js*",
    "sphinx-thebe.*",
    "locales/**/*",
)


def mathjax() -> Path:
    """The folder that holds MathJax, checked."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ExtensionError(
            f"MathJax comes in the package {PACKAGE}, which is not installed: run `make env`, or "
            "pip install -r requirements.lock"
        ) from None
    folder = Path(str(distribution.locate_file(PACKAGE))) / "static" / "mathjax"
    given = hashlib.sha256(folder.joinpath(SCRIPT).read_bytes()).hexdigest()
    if given != SHA256:
        raise ExtensionError(
            f"{SCRIPT} of {PACKAGE} has SHA-256 {given}, expected {SHA256}: install the version of "
            "requirements.lock, or set the hash of the new one in book/_ext/offline.py"
        )
    return folder


def copy_mathjax(static: Path) -> None:
    """Put MathJax and its fonts where `mathjax_path` says."""
    source, target = mathjax(), static / "mathjax"
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)
    shutil.copyfile(source / SCRIPT, target / SCRIPT)


def leave_out_unused(static: Path) -> None:
    """Remove files that no page loads, and references to source maps."""
    for pattern in UNUSED:
        for path in static.rglob(pattern):
            if path.is_file():
                path.unlink()
    for path in [*static.rglob("*.css"), *static.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        found = re.sub(r"\n?(?:/\*|//)# sourceMappingURL=\S+(?: \*/|\*/)?\s*$", "\n", text)
        if path.suffix == ".js" and "mathjax" not in path.parts:
            found = found.replace("console.log(", "void(")
        if found != text:
            path.write_text(found, encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written."""
    if exception is None and app.builder.format == "html":
        static = Path(app.outdir) / "_static"
        copy_mathjax(static)
        leave_out_unused(static)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.set_html_assets_policy("always")
    app.connect("builder-inited", lambda _: mathjax() and None)  # before any work
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

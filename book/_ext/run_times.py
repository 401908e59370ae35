"""A Sphinx extension: how each chapter ran, in reading order, and with which versions.

It fills the places `<div data-fill="run-times">` and `<div data-fill="versions">` of a page. Times
and success come from myst-nb; the peak memory, from what tools/build_book.py has each kernel write.
"""

from __future__ import annotations

import hashlib
import json
import platform
import posixpath
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path

from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx

PACKAGES = ("zotutor", "torch", "numpy", "matplotlib", "scikit-learn", "transformers")


def identity(sources: Iterable[str]) -> str:
    """What a kernel that ran these cells wrote its memory under."""
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def peak_memory(cache: Path, notebook: Path) -> str:
    """The most memory that a chapter's kernel held, in words."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    path = cache / "memory" / f"{identity(code)}.json"
    if not path.exists():
        return "not measured"
    return f"{json.loads(path.read_text(encoding='utf-8'))['peak'] / 1e6:,.0f} MB"


def commit(root: Path) -> str:
    """The commit that a site is built from, and whether files differ from it."""
    try:
        name, changed = (
            subprocess.run(
                ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "not built from a clone"
    return f"{name[:12]}{' with changes' if changed else ''}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as the pages have them; cells are HTML."""
    head = "".join(f'<th class="head" scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        '<div class="pst-scrollable-table-container"><table class="table"><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def run_times(app: Sphinx, page: str) -> str:
    """One row a chapter, in reading order."""
    root = Path(app.srcdir)
    order = re.findall(r"(?:root|file): (\S+)", root.joinpath("_toc.yml").read_text("utf-8"))
    data = NbMetadataCollector.get_doc_data(app.env)
    rows = []
    for name in order:
        run = data.get(name, {}).get("exec_data")
        notebook = root / f"{name}.ipynb"
        if not notebook.exists():
            continue
        title = escape(app.env.titles[name].astext())
        link = posixpath.relpath(f"{name}.html", posixpath.dirname(page) or ".")
        seconds = f"{run['runtime']:.0f} s" if run and run["runtime"] else "not executed"
        when = f"{datetime.fromtimestamp(run['mtime'], UTC):%Y-%m-%d %H:%M}" if run else ""
        verdict = "" if not run else "yes" if run["succeeded"] else "NO"
        memory = peak_memory(root / "_build" / ".jupyter_cache", notebook)
        rows.append((f'<a href="{link}">{title}</a>', when, seconds, memory, verdict))
    return table(("Chapter", "Executed (UTC)", "Run time", "Peak memory", "Succeeded"), rows)


def versions(app: Sphinx, page: str) -> str:
    """With what the site was built."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    rows = [("commit", commit(Path(app.srcdir))), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in PACKAGES]
    rows += [("Sphinx", version("sphinx")), ("Jupyter Book", version("jupyter-book"))]
    rows += [("system", f"{platform.system()}, {platform.machine()}")]
    return table(("What", "Version"), [(escape(a), escape(b)) for a, b in rows])


def fill(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    fillers = {"run-times": run_times, "versions": versions}
    for path in Path(app.outdir, "book").rglob("*.html"):
        page = path.relative_to(app.outdir).as_posix()
        before = path.read_text(encoding="utf-8")
        after = re.sub(
            r'<div data-fill="([\w-]+)"></div>',
            lambda found, page=page: fillers[found[1]](app, page),  # type: ignore[misc]
            before,
        )
        if after != before:
            path.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", fill, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""A Sphinx extension: what the buttons of a chapter open is its reader's notebook.

The theme makes the addresses of Colab and Binder from `repository` in _config.yml, whose branch
holds the notebooks that tools/reader_notebooks.py writes; the workflow that publishes the site
publishes both. What the download button offers is replaced here. The numbers in the notebooks are
those of the site, or the build fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from book_index import Target, read_book, settings
from reader_notebooks import reader_notebooks

LOGGER = logging.getLogger(__name__)

Numbers = Mapping[str, Mapping[str, Mapping[str, tuple[int, ...]]]]
"""By page, kind and label, as Sphinx keeps them."""


def set_repository(app: Sphinx, config: Config) -> None:
    """Let the buttons lead to the repository that publishes, if the environment names one."""
    address = settings(Path(app.srcdir))["repository"]["url"]
    config.html_theme_options["repository_url"] = address.partition("@")[0]


def differences(targets: Mapping[str, Target], numbers: Numbers) -> Iterator[str]:
    """In which numbers the notebooks differ from the site.

    A figure that could not be drawn (see `zotutor fetch`) moves the numbers of those after it.
    """
    site = {
        label.removeprefix("equation-"): (page, number)
        for page, kinds in numbers.items()
        for labels in kinds.values()
        for label, (number, *_) in labels.items()
    }
    complete = True
    for label, (text, page, _) in targets.items():
        figure, number = text.startswith("Fig. "), text.rpartition(" ")[2].strip("()")
        complete &= not figure or label in site
        if not number.isdecimal() or (figure and not complete):
            continue
        if site.get(label) != (page, int(number)):
            yield f"{label} is {text} in the notebooks, and {site.get(label)} on the site"
    for label in sorted(site.keys() - targets.keys()):
        yield f"{label} is numbered on the site, and unknown to the notebooks"


def compare_numbers(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which fails the build, if the notebooks number anything as the site does not."""
    for line in differences(read_book(Path(app.srcdir)).targets, env.toc_fignumbers):
        LOGGER.warning("%s: see tools/book_index.py", line)


def replace_downloads(app: Sphinx, exception: Exception | None) -> None:
    """Put the reader's notebooks where the download button leads."""
    if exception is None and app.builder.format == "html":
        for page, text in reader_notebooks(Path(app.srcdir)).items():
            path = Path(app.outdir, "_sources", f"{page}.ipynb")
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("config-inited", set_repository)
    app.connect("env-check-consistency", compare_numbers)
    app.connect("build-finished", replace_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Checks that no file of a built site, nor of its archive, holds an answer of the problem set.

python tools/check_answers.py _build/html

tools/build_book.py calls this. An answer is known by its lines: those of the solutions in the
master notebook, and of the hidden tests, that are long enough to be nobody else's. They are found
in text, in notebooks and in highlighted code.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "course"
SHORTEST = 25  # characters of a line that is nobody else's
FILES = ("problem_set.ipynb", "hidden_checks.py", "autograder.zip")


def solution_lines(notebook: dict[str, list[dict[str, object]]]) -> set[str]:
    r"""The lines of the master notebook that students must not see.

    >>> raw, code = {"cell_type": "raw"}, {"cell_type": "code"}
    >>> cells = [raw | {"source": "# BEGIN SOLUTION"}, code | {"source": "def f():"}]
    >>> cells[1]["source"] += "\n    # BEGIN SOLUTION\n    return 42\n    # END SOLUTION\nf()"
    >>> solution_lines({"cells": cells})
    {'return 42'}
    """
    lines: set[str] = set()
    for cell in notebook["cells"]:
        source = cell["source"]
        text = "".join(source) if isinstance(source, list) else str(source)
        for part in re.findall(r"# BEGIN SOLUTION\n(.*?)# END SOLUTION", text, re.DOTALL):
            lines.update(line.strip() for line in part.splitlines())
    return lines - {""}


def answers() -> set[str]:
    """Lines that are in the answers or the hidden tests, and nowhere in the book or the package."""
    master = json.loads((COURSE / "problem_set.ipynb").read_text(encoding="utf-8"))
    found = solution_lines(master)
    hidden = (COURSE / "hidden_checks.py").read_text(encoding="utf-8")
    found.update(line.strip() for line in hidden.splitlines())
    public = {
        line
        for folder, kind in (("book", "*.ipynb"), ("zotutor", "*.py"), ("book", "*.md"))
        for path in sorted(ROOT.joinpath(folder).rglob(kind))
        for line in plain_lines(path.name, path.read_text(encoding="utf-8"))
    }
    return {line for line in found - public if len(line) >= SHORTEST}


def texts(site: Path) -> Iterator[tuple[str, str]]:
    """Names and contents of all files of a site, and of those in its archives."""
    for path in sorted(site.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    text = archive.read(name).decode("utf-8", errors="ignore")
                    yield f"{path.relative_to(site)}/{name}", text
        else:
            yield str(path.relative_to(site)), path.read_text(encoding="utf-8", errors="ignore")


def plain_lines(name: str, text: str) -> Iterator[str]:
    r"""The lines of a file as they would stand in a source.

    >>> list(plain_lines("x.html", "<span>a</span> <b>&lt; 1</b>"))
    ['a < 1']
    >>> list(plain_lines("x.ipynb", '"  f(\\"a\\")\\n",'))
    ['f("a")']
    """
    if name.endswith(".html"):
        text = unescape(re.sub(r"<[^>]+>", "", text))
    notebook = ".ipynb" in name
    for line in text.splitlines():
        line = line.strip()
        if notebook:
            line = re.sub(r'^"|(\\n)?",?$', "", line).replace('\\"', '"')
        yield line.strip()


def leaks(site: Path) -> list[str]:
    """Where a site shows an answer."""
    secret = answers()
    found = []
    for name, text in texts(site):
        if name.endswith(FILES):
            found.append(f"{name}: is no file for a site")
        shown = next((line for line in plain_lines(name, text) if line in secret), None)
        if shown:
            found.append(f"{name}: {shown}")
    return found


def main() -> int:
    """Check the site named on the command line."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("Usage: python tools/check_answers.py FOLDER, with the folder of a built site")
    found = leaks(Path(sys.argv[1]))
    for line in found:
        print(f"an answer of the problem set is on the site: {line}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

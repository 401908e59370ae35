"""Checks that the addresses in the book, its bibliography, the docs and the package still answer.

python tools/check_links.py
"""

from __future__ import annotations

import re
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READ = (
    "*.md",
    "*.cff",
    "_config.yml",
    "book/*.md",
    "book/*.ipynb",
    "book/*.bib",
    "zotutor/**/*.py",
)
ADDRESS = re.compile(r"https?://[^\s\"'`<>{}\\|]+")
OURS = re.compile(r"https?://(127\.0\.0\.1|localhost|github\.com/zotutor/)")


def addresses(root: Path = ROOT) -> dict[str, set[str]]:
    """Every address, with the files that name it; those of the repository itself left out."""
    found: dict[str, set[str]] = {}
    for pattern in READ:
        for path in root.glob(pattern):
            for match in ADDRESS.findall(path.read_text(encoding="utf-8")):
                address = match.rstrip(".,;:")
                while address.endswith(")") and address.count(")") > address.count("("):
                    address = address[:-1].rstrip(".,;:")
                if not OURS.match(address):
                    found.setdefault(address, set()).add(path.relative_to(root).as_posix())
    return found


def answer(address: str, tries: int = 3) -> str:
    """What is wrong with an address; empty if it answers."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    wrong = ""
    for attempt in range(tries):
        try:
            with urllib.request.urlopen(request, timeout=30):
                return ""
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 405, 429):  # there, but not for programs
                return ""
            wrong = f"{error.code} {error.reason}"
        except (OSError, ValueError) as error:
            wrong = str(error)
        time.sleep(2**attempt)
    return wrong


def main() -> int:
    """Ask every address; print those that do not answer."""
    found = addresses()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, found))
    broken = 0
    for (address, files), wrong in zip(found.items(), answers, strict=True):
        if wrong:
            broken += 1
            print(f"{address}: {wrong} (in {', '.join(sorted(files))})")
    print(f"{len(found)} addresses, {broken} without an answer")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

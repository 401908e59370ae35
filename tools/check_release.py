"""Checks that a tag may be published: version, citation and changelog say the same.

python tools/check_release.py v1.2.3
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """What is wrong with publishing this tag, each with what to do."""
    source = (root / "zotutor/__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)[0]
    found = []
    if tag != f"v{version}":
        found.append(f"The tag is {tag}, but zotutor/__init__.py says {version}: tag v{version}.")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {version}\n" not in citation:
        found.append(f"CITATION.cff has another version: set it to {version}.")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\](.*)\n((?:(?!^## ).*\n?)*)", changelog, flags=re.MULTILINE)
    by_name = {name: (date.strip(" -"), text.strip()) for name, date, text in sections}
    date, text = by_name.get(version, ("", ""))
    if not text:
        found.append(f"CHANGELOG.md has no section for {version}: write ## [{version}] - DATE.")
    elif not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        found.append(f"CHANGELOG.md dates {version} {date!r}: write it as 2026-01-31.")
    if by_name.get("Unreleased", ("", ""))[1]:
        found.append(f"CHANGELOG.md has unreleased entries: move them to {version}.")
    return found


def main() -> int:
    """Check the tag named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python tools/check_release.py v1.2.3")
    found = problems(sys.argv[1])
    print("\n".join(found) or f"{sys.argv[1]} may be published.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

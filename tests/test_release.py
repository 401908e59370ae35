"""The check before a release, and that workflows run what was reviewed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_package import tool

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "zotutor/__init__.py": '__version__ = "1.2.3"\n',
    "CITATION.cff": "cff-version: 1.2.0\nversion: 1.2.3\nlicense: X\n",
    "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n\n- Mended.\n",
}

pytestmark = pytest.mark.lint


def problems(folder: Path, tag: str = "v1.2.3", **changed: str) -> list[str]:
    for name, text in GOOD.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(changed.get(path.stem, text), encoding="utf-8")
    found: list[str] = tool("check_release").problems(tag, folder)
    return found


def test_a_release_that_is_consistent_may_be_published(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"tag": "v1.2.4"}, "tag v1.2.3"),
        ({"tag": "1.2.3"}, "tag v1.2.3"),
        ({"CITATION": "\nversion: 1.2.2\n"}, "CITATION"),
        ({"CHANGELOG": "## [Unreleased]\n\n- Mended.\n"}, "no section for 1.2.3"),
        ({"CHANGELOG": "## [1.2.3] - 2026-01-31\n\n## [1.2.2]\n- x\n"}, "no section for 1.2.3"),
        ({"CHANGELOG": "## [1.2.3]\n\n- Mended.\n"}, "dates 1.2.3 ''"),
        ({"CHANGELOG": "## [Unreleased]\n- x\n\n## [1.2.3] - 2026-01-31\n- y\n"}, "unreleased"),
    ],
)
def test_a_release_that_is_not_consistent_is_refused(
    changed: dict[str, Any], word: str, tmp_path: Path
) -> None:
    assert word in " ".join(problems(tmp_path, **changed))


WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_hash_and_named_by_version(path: Path) -> None:
    used = re.findall(r"uses: (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert used
    for action in used:
        assert action.startswith("./") or re.fullmatch(
            r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action
        ), action


def test_an_action_has_one_pin() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    pinned = set(re.findall(r"uses: ([\w-]+/[\w-]+)@(.+)", text))
    assert len({name for name, _ in pinned}) == len(pinned)

"""Links between files of the repository lead somewhere; addresses are found as they are written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from test_package import tool

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.lint


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_repository_s_pages_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_addresses_of_this_project_are_those_of_the_settings() -> None:
    settings = (ROOT / "_config.yml").read_text(encoding="utf-8")
    (repository,) = re.findall(r"^repository:\n  url: (\S+)$", settings, flags=re.MULTILINE)
    (site,) = re.findall(r"^  baseurl: (\S+)$", settings, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"]["Repository"] == repository
    assert project["urls"]["Homepage"] == site
    assert all(url.startswith((repository, site)) for url in project["urls"].values())
    # the index of packages shows README.md, where a relative link would lead nowhere
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = re.findall(rf"{repository}/blob/main/(\S+)", readme)
    assert len(files) >= 5
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert not re.findall(r"\]\((?!https?:|#)[^)]+\)", readme)


def test_addresses_end_where_the_sentence_does(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "See [a](https://example.org/a), (https://example.org/b_(c)). Or <https://example.org/d>; "
        '"https://example.org/e\\n". Ours: https://github.com/zotutor/zotutor, '
        "http://127.0.0.1:8000",
        encoding="utf-8",
    )
    found = tool("check_links").addresses(tmp_path)
    assert sorted(address.rpartition("/")[2] for address in found) == ["a", "b_(c)", "d", "e"]
    assert found["https://example.org/a"] == {"page.md"}

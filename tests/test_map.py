"""The map of the repository is what tools/map.py writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_package import tool

ROOT = Path(__file__).resolve().parent.parent


def test_what_a_source_uses_is_found() -> None:
    used = tool("map").used
    assert used("import zotutor as zo\nzo.entk") == {"kernels"}
    assert used("%pip install zotutor\nimport zotutor as zo\nzo.directions.Sphere()") == {
        "directions"
    }
    assert used("from zotutor.rounding import round_stochastically as r") == {"rounding"}
    assert used("import zotutor.claims\nzotutor.claims.near") == {"claims"}
    assert used("entk = 1\nzo.entk") == set()


@pytest.mark.lint
def test_the_map_is_current() -> None:
    written = (ROOT / "MAP.md").read_text(encoding="utf-8")
    assert tool("map").text() == written, "run: python tools/map.py"

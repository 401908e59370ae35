"""Random streams, directions, updates and ledgers are those of version 0.1.0.

Bits are compared where arithmetic is exact on any machine: integers, signs, sums and products of
few-digit binary fractions. Normals are compared to 1e-12.
"""

from __future__ import annotations

import json
from pathlib import Path

import golden_cases as cases
import pytest
import torch

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))


def test_words() -> None:
    assert cases.words() == GOLDEN["words"]


def test_numbers_without_rounding() -> None:
    assert cases.exact_numbers() == GOLDEN["exact_numbers"]


@pytest.mark.parametrize("name", GOLDEN["rounded_numbers"])
def test_normals_and_directions(name: str) -> None:
    found = torch.tensor(cases.rounded_numbers()[name], dtype=torch.float64)
    expected = torch.tensor(GOLDEN["rounded_numbers"][name], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", cases.RUNS)
def test_updates(name: str) -> None:
    assert cases.RUNS[name]() == GOLDEN["runs"][name]


def test_measured_steps() -> None:
    assert cases.measured() == GOLDEN["measured"]


def test_ledger(tmp_path: Path) -> None:
    assert cases.ledger(tmp_path) == GOLDEN["ledger"]

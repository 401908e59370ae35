"""The table that tools/measure_smollm2.py writes, from cells that were made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_package import tool as load

tool = load("measure_smollm2")


def put(folder: Path, name: str, seed: int, right: int, count: int, **changes: Any) -> None:
    """A finished cell, as ``run`` leaves one; ``changes`` as for one with --set."""
    tuned = {
        "losses": [1.0] * 10 + [0.5] * 10 + [9.0] * 3,
        "tokens": 700,
        "seconds": 12.34,
        "resident_mib": 1000.4,
        "peak_mib": 1501.6,
        "trainable": 10,
        "weights_bytes": 40,
        "ledger_bytes": 1200,
    }
    options = (tool.CELLS | tool.MEMORY)[name]
    about = {"date": f"2026-11-{20 + seed}", "machine": "made up", "changed": sorted(changes)}
    accuracy = {"accuracy": [right / count, 0.0, 1.0, count]} if name in tool.CELLS else {}
    found = options | tuned | about | accuracy | {"cell": name, "seed": seed} | changes
    path = folder / f"{tool.label(name, seed, changes)}.json"
    path.write_text(json.dumps(found))


def test_rows_pool_the_sentences_of_their_seeds(tmp_path: Path) -> None:
    for seed, right in ((2, 90), (0, 60), (1, 75)):
        put(tmp_path, "zo-float32", seed, right, 100)
    put(tmp_path, "zo-float32", 3, 1, 100, lr=1.0)  # an option was changed: no part of the table
    put(tmp_path, "zero-shot", 0, 50, 100)
    put(tmp_path, "memory, adamw, 512 tokens", 0, 0, 0)
    found = tool.table(tmp_path)
    assert [row["name"] for row in found["rows"]] == ["zero-shot", "ZO, float32"]
    zo = found["rows"][1]
    assert [run["seed"] for run in zo["runs"]] == [0, 1, 2]
    assert found["tried"] == [{"name": "ZO, float32", "lr": 1.0, "losses": [1.0, 0.5]}]
    value, low, high, count = zo["accuracy"]
    assert (value, count) == (0.75, 300)
    # Wilson's interval by its definition: the shares p with (value - p)^2 = z^2 p (1 - p) / count
    for p in (low, high):
        assert (value - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / count)
    assert zo["runs"][0]["losses"] == [1.0, 0.5]  # whole tens only
    assert "losses" not in found["rows"][0]["runs"][0]
    assert found["date"] == "2026-11-22"
    assert found["memory"] == [
        {
            "way": "adamw",
            "shape": "512 tokens",
            "batch_size": 4,
            "memory_mib": 501,
        }
    ]


def test_the_table_is_written_with_the_ledger_of_its_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run them first"):
        tool.table(tmp_path)
    put(tmp_path, "zo-float32", 0, 60, 100)
    run, data = tmp_path / tool.SHIPPED, tmp_path / "data"
    run.mkdir()
    data.mkdir()
    (run / "ledger.bin").write_bytes(b"numbers")
    tool.write(tmp_path, data)
    assert json.loads((data / "smollm2_snippets.json").read_text()) == tool.table(tmp_path)
    assert (data / "smollm2_snippets.ledger").read_bytes() == b"numbers"
    assert len(list(data.iterdir())) == 2


def test_every_way_has_a_title_and_a_memory_cell_each_shape() -> None:
    assert list(tool.TITLES) == list(tool.CELLS)
    assert len(tool.MEMORY) == len(tool.WAYS) * len(tool.SHAPES)

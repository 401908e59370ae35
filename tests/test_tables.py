"""The dated tables: that each can be read, says where it comes from, and agrees with its law."""

from __future__ import annotations

import json
import statistics
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from zotutor import fidelity, tables
from zotutor.llm import ledger
from zotutor.llm.tasks import accuracy
from zotutor.tables import (
    NAMES,
    minilm_as_markdown,
    minilm_table,
    mnist_as_markdown,
    mnist_table,
    performance,
    performance_as_markdown,
    performance_machines,
    smollm2_as_markdown,
    smollm2_costs,
    smollm2_ledger,
    table,
)


def test_every_table_that_ships_has_a_name() -> None:
    shipped = files("zotutor").joinpath("data").iterdir()
    names = [path.name for path in shipped if path.name.endswith(".json")]
    assert sorted(name.removesuffix(".json") for name in names) == sorted(NAMES)
    for name in NAMES:
        assert table(name)
    with pytest.raises(ValueError, match="name: given 'mnist', expected one of minilm_kernel, "):
        table("mnist")


def test_records_of_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="machine: given 'a-box' for the comparison 'none'"):
        performance("none", machine="a-box")
    assert performance_machines("none") == []
    way = {"way": "base", "seconds": 2e-6, "ratio": 1.0, "quartiles": [1.0, 1.0]}
    other = way | {"way": "ours", "seconds": 3.0, "ratio": 1.5, "quartiles": [1.4, 1.625]}
    other |= {"bytes": 25_000_000, "goal": 1.25}
    record: dict[str, Any] = dict.fromkeys(("machine", "clock", "torch", "date", "command"), "-")
    record |= {"title": "a fake", "cases": [{"case": "one", "base": "base", "ways": [way, other]}]}
    for machine in ("b", "a"):
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "fake.json").write_text(json.dumps(record))
    monkeypatch.setattr(tables, "_PERFORMANCE", tmp_path)
    assert performance_machines("fake") == ["a", "b"]
    assert performance_machines("none") == []
    assert performance("fake", machine="a") == record
    with pytest.raises(ValueError, match="expected one of a, b; to measure it, run: python -m"):
        performance("fake", machine="c")
    lines = performance_as_markdown(record).splitlines()
    assert lines[0].startswith("A fake: ")
    assert lines[-2:] == [
        "| one | base | 2\xa0µs | 1 |  |  |",
        "|  | ours | 3\xa0s | 1.5 (1.4 to 1.62) | 25\xa0MB | 1.25, not met |",
    ]


def test_every_record_that_ships_can_be_shown() -> None:
    shipped = files("zotutor").joinpath("data", "performance")
    for folder in shipped.iterdir() if shipped.is_dir() else ():
        for path in folder.iterdir():
            name = path.name.removesuffix(".json")
            assert folder.name in performance_machines(name)
            record = performance(name, machine=folder.name)
            assert record["comparison"] == name
            rows = performance_as_markdown(record).splitlines()[4:]
            assert len(rows) == sum(len(case["ways"]) for case in record["cases"])


def test_names_of_version_0_1_still_work() -> None:
    with pytest.warns(DeprecationWarning, match="use zotutor.tables.mnist_as_markdown"):
        assert fidelity.as_markdown is mnist_as_markdown


def test_table_of_mnist_says_where_it_comes_from_and_follows_the_law() -> None:
    table = mnist_table()
    for key in ("date", "command", "machine", "versions", "data", "model"):
        assert table[key]
    assert table["d"] == 29_624
    for state in table["states"].values():
        for group in state["groups"].values():
            for row in group["Gaussian"] + group["Rademacher"]:
                assert abs(row["relative_frobenius"] - row["law"]) < 4.5 * row["std_error"]


def test_table_in_markdown_has_a_row_for_each_group() -> None:
    table = mnist_table()
    lines = mnist_as_markdown(table, "trained", P=25).splitlines()
    assert len(lines) == 2 + len(table["states"]["trained"]["groups"])
    assert len({line.count("|") for line in lines}) == 1
    with pytest.raises(KeyError):
        mnist_as_markdown(table, "half trained")


def test_the_table_of_the_encoder() -> None:
    table = minilm_table()
    assert list(table["models"]) == ["all-MiniLM-L6-v2", "tiny"]
    assert table["models"]["all-MiniLM-L6-v2"]["d"] == 22_713_986
    lines = minilm_as_markdown(table).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| $d$ | 22,713,986 | 22,713,986 | 661,248 | 661,248 |"
    assert lines[-1].startswith("| telling apart, $P$ for 50 % | 35 |")
    assert " /" not in table["command"]
    for model in table["models"].values():
        for state in model["states"].values():
            for row in state["kernel"]["errors"]:
                assert row["relative_error"] == pytest.approx(row["law"], abs=5 * row["std_error"])


def test_the_table_of_the_language_model_agrees_with_itself_and_with_its_ledger() -> None:
    found = table("smollm2_snippets")
    rows = {row["name"]: row for row in found["rows"]}
    for row in found["rows"]:
        right = sum(round(run["accuracy"][0] * run["accuracy"][3]) for run in row["runs"])
        count = sum(run["accuracy"][3] for run in row["runs"])
        assert row["accuracy"] == list(accuracy(right, count))
        assert len({run["seed"] for run in row["runs"]}) == len(row["runs"])
    costs = smollm2_costs(found)
    assert list(costs) == [name for name in rows if name != "zero-shot"]
    for name, cost in costs.items():
        seconds = [run["seconds"] for run in rows[name]["runs"]]
        assert cost.seconds == pytest.approx(statistics.mean(seconds))
        if name != "ZO, float16":  # a peak, so at least the weights
            assert cost.memory * 1e9 > rows[name]["weights_bytes"]
    reached, took = (part.splitlines() for part in smollm2_as_markdown(found).split("\n\n"))
    assert len(reached) == 2 + len(rows)
    assert len(took) == 2 + len(costs)
    assert {line.count("|") for line in reached} == {5}  # few enough for a page
    assert {line.count("|") for line in took} == {7}
    steps = ledger.read(smollm2_ledger()).steps
    (run,) = (run for run in rows["ZO, float32"]["runs"] if run["seed"] == steps[0].seed)
    losses = [step.loss for step in steps]
    assert len(steps) == rows["ZO, float32"]["steps"]
    assert run["losses"] == [
        round(statistics.mean(losses[k : k + 10]), 4) for k in range(0, len(losses), 10)
    ]
    assert run["ledger_bytes"] == smollm2_ledger().stat().st_size

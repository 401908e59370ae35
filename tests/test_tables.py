"""The dated tables: that each can be read, says where it comes from, and agrees with its law."""

from __future__ import annotations

import statistics
from importlib.resources import files

import pytest

from zotutor import fidelity
from zotutor.llm import ledger
from zotutor.llm.tasks import accuracy
from zotutor.tables import (
    NAMES,
    minilm_as_markdown,
    minilm_table,
    mnist_as_markdown,
    mnist_table,
    smollm2_as_markdown,
    smollm2_costs,
    smollm2_ledger,
    table,
)


def test_every_table_that_ships_has_a_name() -> None:
    shipped = [path.name for path in files("zotutor").joinpath("data").iterdir()]
    tables = [name.removesuffix(".json") for name in shipped if name.endswith(".json")]
    assert sorted(tables) == sorted(NAMES)
    for name in NAMES:
        assert table(name)
    with pytest.raises(ValueError, match="name: given 'mnist', expected one of minilm_kernel, "):
        table("mnist")


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
    lines = smollm2_as_markdown(found).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    steps = ledger.read(smollm2_ledger()).steps
    (run,) = (run for run in rows["ZO, float32"]["runs"] if run["seed"] == steps[0].seed)
    losses = [step.loss for step in steps]
    assert len(steps) == rows["ZO, float32"]["steps"]
    assert run["losses"] == [
        round(statistics.mean(losses[k : k + 10]), 4) for k in range(0, len(losses), 10)
    ]
    assert run["ledger_bytes"] == smollm2_ledger().stat().st_size

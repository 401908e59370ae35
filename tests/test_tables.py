"""The dated tables: that each can be read, says where it comes from, and agrees with its law."""

from __future__ import annotations

from importlib.resources import files

import pytest

from zotutor import fidelity
from zotutor.tables import (
    NAMES,
    minilm_as_markdown,
    minilm_table,
    mnist_as_markdown,
    mnist_table,
    table,
)


def test_every_table_that_ships_has_a_name() -> None:
    shipped = files("zotutor").joinpath("data").iterdir()
    assert sorted(path.name.removesuffix(".json") for path in shipped) == sorted(NAMES)
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

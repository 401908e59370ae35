"""Tables that cells show: as Markdown, as text, and what is refused."""

from __future__ import annotations

import pytest

import zotutor as zo


def test_a_table_is_markdown_where_it_is_rendered_and_aligned_text_elsewhere() -> None:
    table = zo.Table("u | v", "$P$", "measured")
    table.add("a", 1, "0.50 ± 0.02")
    table.add("b | c", 12_345, "-1.25")
    table.add("d", 0.001, "inf")
    assert table.markdown().splitlines() == [
        "| u \\| v | $P$ | measured |",
        "|:--|--:|--:|",
        "| a | 1 | 0.50\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.02 |",
        "| b \\| c | 12,345 | -1.25 |",
        "| d | 0.001 | inf |",
    ]
    lines = str(table).splitlines()
    assert lines[0].split() == ["u", "|", "v", "P", "measured"]
    assert len({len(line) for line in lines}) == 1  # numbers end in one column
    assert not lines[0].count("$")


def test_columns_of_words_are_set_to_the_left() -> None:
    table = zo.Table("name", "")
    assert table.markdown().splitlines()[1] == "|:--|:--|"  # nothing yet
    table.add("digits", "")
    assert table.markdown().splitlines()[1] == "|:--|:--|"  # no number in sight
    assert str(table) == "name\ndigits"


def test_a_notebook_shows_it_as_a_table() -> None:
    formatting = pytest.importorskip("IPython.core.formatters")
    table = zo.Table("$d$")
    table.add(10)
    data, _ = formatting.DisplayFormatter().format(table)
    assert data["text/markdown"] == "| $d$ |\n|--:|\n| 10 |"
    assert data["text/plain"] == " d\n10"


def test_rows_that_do_not_fit_are_refused() -> None:
    table = zo.Table("a", "b")
    for cells in ((), ("1",), ("1", "2", "3")):
        with pytest.raises(ValueError, match=f"given {len(cells)}, expected 2, one for each of"):
            table.add(*cells)
    with pytest.raises(ValueError, match="titles: given none"):
        zo.Table()


def test_reports_and_findings_are_tables_in_a_notebook() -> None:
    from zotutor.llm.doctor import Finding, Report

    finding = Finding("eps", "bad", "eps = 0.3", "give eps=3e-03 or less")
    row = "| bad | eps | eps = 0.3 | give eps=3e-03 or less |"
    assert finding._repr_markdown_() == Report([finding])._repr_markdown_()
    assert finding._repr_markdown_().splitlines()[-1] == row

"""Tables as spreadsheets, pandas and GLUE write them, prompts to the letter, and clear refusals."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from zotutor.llm import Example, task
from zotutor.llm.data_files import read_rows

TEXTS = (
    "plain",
    'a 5" disc',
    '"all of it is quoted"',
    'it begins "and ends" otherwise',
    '"begins with a quote',
    "two\nlines",
    "a\ttab",
    '"""',
    "comma, semicolon;",
    "\u2028 and \x0c and \x85",
    "nan",
    "é 猫",
)


def table(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_and_pandas_quote_is_read_back(
    tmp_path: Path, quoting: Any, end: str, mark: str
) -> None:
    """The writer of the standard library, which is the one that pandas calls."""
    rows = [(str(n), text, n % 2) for n, text in enumerate(TEXTS)]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t", quoting=quoting, lineterminator=end)
    writer.writerows([("", "sentence", "label"), *rows])
    path = table(tmp_path / "train.tsv", mark + file.getvalue())
    table(tmp_path / "dev.tsv", file.getvalue())
    assert [row["sentence"] for _, row in read_rows(path)] == list(TEXTS)
    found = task("sst2", tmp_path).train
    assert found == tuple(Example(f"{text.strip()} It was", n % 2) for n, text in enumerate(TEXTS))


def test_quotes_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    """Two cells of GLUE's, of which one begins with a quote and the other ends with one, or one."""
    path = table(tmp_path / "train.tsv", 'x\ty\nfine\t1\n" it is\t1\ndull\t0\nother "\t0\na\t1\n')
    with pytest.raises(ValueError, match=r"row 3: its quotes can be read in two ways.*\.jsonl"):
        list(read_rows(path))


def test_random_cells_are_read_back(tmp_path: Path) -> None:
    """Of the characters that separate and quote, drawn 300 times; and unquoted ones, as in GLUE."""
    generator = random.Random(0)
    for _ in range(300):
        cells = ["".join(generator.choices('ab"\t\n ', k=generator.randint(1, 6))) for _ in "1234"]
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([("x", "y"), cells[:2], cells[2:]])
        path, lines = table(tmp_path / "t.tsv", file.getvalue()), file.getvalue().splitlines()
        if len(lines) != 3 and all(line.count("\t") == 1 for line in lines):
            with pytest.raises(ValueError, match="in two ways"):
                list(read_rows(path))
            continue
        assert [c for _, row in read_rows(path) for c in row.values()] == cells
        # a quote inside of a bare cell, which no writer that quotes leaves there
        bare = ['a"', *(cell.replace("\t", " ").replace("\n", " ") for cell in cells[1:])]
        lines = ["x\ty", "\t".join(bare[:2]), "\t".join(bare[2:])]
        path = table(tmp_path / "t.tsv", "\n".join(lines) + "\n")
        assert [c for _, row in read_rows(path) for c in row.values()] == bare


def test_a_row_is_named_by_the_line_it_begins_in(tmp_path: Path) -> None:
    path = table(tmp_path / "t.tsv", 'x\ty\n"two\nlines"\t1\nthree\t2\n')
    assert [number for number, _ in read_rows(path)] == [2, 4]


def test_glue_is_read_as_it_is(tmp_path: Path) -> None:
    lines = ["index\tsentence1\tsentence2\tlabel"]
    lines += ['0\t"We are," he said.\tHe said "no".\tentailment', "1\ta\tb\tnot_entailment", ""]
    for name in ("train.tsv", "dev.tsv"):
        table(tmp_path / name, "\n".join(lines))
    first, second = task("rte", tmp_path).train
    question = 'Does this mean that "He said "no"." is true? Yes or No?'
    assert first == Example(f'"We are," he said.\n{question}\n', 0)
    assert second.label == 1


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("is snow white", "Is snow white?"),
        ("is snow white?", "Is snow white?"),
        ("Is it?", "Is it?"),
        ("élan or not", "Élan or not?"),
    ],
)
def test_boolq_is_asked_as_in_mezo(tmp_path: Path, question: str, asked: str) -> None:
    row = {"passage": " Snow is white.", "question": question, "answer": False}
    for name in ("train.jsonl", "dev.jsonl"):
        table(tmp_path / name, json.dumps(row) + "\n")
    assert task("boolq", tmp_path).dev == (Example(f"Snow is white. {asked}\n", 0),)


@pytest.mark.parametrize("value", ["NaN", "true", "false", "Infinity", "-Infinity", "3", "1.5"])
@pytest.mark.parametrize("column", ["sentence", "other"])
def test_only_text_is_text(tmp_path: Path, value: str, column: str) -> None:
    line = f'{{"{column}": {value}, "sentence": "fine", "label": 1}}'
    if column == "sentence":
        line = f'{{"sentence": {value}, "label": 1}}'
    for name in ("train.jsonl", "dev.jsonl"):
        table(tmp_path / name, line + "\n")
    if column == "other":
        assert task("sst2", tmp_path).train == (Example("fine It was", 1),)
        return
    with pytest.raises(ValueError, match=r"train.jsonl, row 1: its sentence is .*; write it in qu"):
        task("sst2", tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"sentence": null, "label": 1}', "its sentence is empty"),
        ('{"sentence": ["a"], "label": 1}', r"its sentence is \['a'\], expected text"),
        ('{"sentence": {"a": "b"}, "label": 1}', "expected text"),
        ('{"sentence": "a", "label": NaN}', "has label nan, expected one of 0, 1"),
        ('{"sentence": "a", "label": true}', "has label True"),
        ('{"sentence": "a", "label": -1}', "has label -1"),
        ('{"sentence": "a", "label": null}', "has label None, expected one of 0, 1"),
        ('{"sentence": "a", "label": 0, "label": 1}', "the same name twice"),
        ('{"sentence": "a", "label": 1e999}', "has label inf"),
        ("[" * 100_000, "is not JSON"),
        ('{"sentence": "a", "label": ' + "9" * 5000 + "}", "is not JSON"),
        ("null", "expected a JSON object"),
        ('"text"', "expected a JSON object"),
    ],
)
def test_rows_of_json_that_are_no_examples(tmp_path: Path, line: str, says: str) -> None:
    for name in ("train.jsonl", "dev.jsonl"):
        table(tmp_path / name, line + "\n")
    with pytest.raises(ValueError, match=f"train.jsonl, row 1: .*{says}"):
        task("sst2", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sentence\tlabel\tsentence\na\t1\tb\n", "row 1: has several columns sentence; rename"),
        ('"sentence"\t"label"\n"a\tb"\t1\tc\n', "row 2: has 3 cells, expected 2"),
        ('sentence\tlabel\n"a\n"b"\t1\n', "row 2: has 1 cells, expected 2"),
        ("sentence\tlabel\na\t1\n\nb\t1\n", "row 3: has 0 cells, expected 2"),
        ('sentence\tlabel\n""\t1\n', "row 2: its sentence is empty"),
        ("sentence\tlabel\na\tnan\n", "row 2: has label 'nan'"),
        ("sentence\tlabel\na\t1.5\n", "row 2: has label '1.5'"),
        ('sentence,label\n"a",1\n', "expected sentence, label too"),
    ],
)
def test_tables_that_hold_no_examples(tmp_path: Path, text: str, says: str) -> None:
    for name in ("train.tsv", "dev.tsv"):
        table(tmp_path / name, text)
    with pytest.raises(ValueError, match=says):
        task("sst2", tmp_path)


def test_a_whole_number_is_a_label_however_it_is_written(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        table(tmp_path / name, "sentence\tlabel\na\t1.0\nb\t0.0\nc\t 1 \n")
    assert [example.label for example in task("sst2", tmp_path).train] == [1, 0, 1]

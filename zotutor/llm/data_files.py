"""Records in a file: .tsv with a header, as spreadsheets, pandas or GLUE write it, or .jsonl.

Both dialects of TSV are read. Spreadsheets and pandas enclose cells that contain a quote, a tab or
a newline in quotes, and double the quotes in them; GLUE quotes nothing, so that a cell may begin
with a quote of its own. A file is read as the first kind if all its quotes parse that way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^"\t\n]*))(\t|\n|\Z)')
"""A cell in quotes, or one without any, and what ends it."""

Row = tuple[int, Mapping[str, Any]]
"""The number of the line in which a record begins, and its cells by column."""


def read_rows(path: Path) -> Iterator[Row]:
    """The records of a .tsv or .jsonl file.

    Raises:
        ValueError: naming file and line, for what cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, row {row}: is not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from None
    # newlines only: splitlines() would cut a text at a form feed, or at U+2028, which JSON allows
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = text.removesuffix("\n")
    if not text:
        return iter(())
    return _json_rows(path, text) if path.suffix == ".jsonl" else _tsv_rows(path, text)


def _tsv_rows(path: Path, text: str) -> Iterator[Row]:
    lines = enumerate(text.split("\n"), start=1)
    plain = [(number, line.split("\t") if line else []) for number, line in lines]
    quoted = _quoted_rows(text) if '"' in text else None
    rows = plain
    if quoted is not None and (_same_width(quoted) or not _same_width(plain)):
        rows = quoted
        if len(quoted) != len(plain) and _same_width(plain):
            later = [n for n, (row, _) in enumerate(quoted, start=1) if n != row]
            number = (later or [len(quoted) + 1])[0] - 1
            raise ValueError(
                f"{path}, row {number}: its quotes can be read in two ways, as part of the text or "
                "around a cell that contains the end of a row; save the file as .jsonl"
            )
    _, header = rows[0]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}, row 1: has several columns {', '.join(repeated)}; rename them")
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, row {number}: has {len(cells)} cells, expected {len(header)} as in the "
                "header; rows are separated by newlines, cells by tabs, and a cell that holds "
                "either is put in quotes"
            )
        yield number, dict(zip(header, cells, strict=True))


def _same_width(rows: Sequence[tuple[int, list[str]]]) -> bool:
    return len({len(cells) for _, cells in rows}) == 1


def _quoted_rows(text: str) -> list[tuple[int, list[str]]] | None:
    """The records of a table whose quotes enclose cells; None if one quote does not."""
    rows: list[tuple[int, list[str]]] = []
    cells: list[str] = []
    place, line, first = 0, 1, 1
    while True:
        found = _CELL.match(text, place)
        if found is None:
            return None
        quoted, bare, end = found.groups()
        cells.append(bare if quoted is None else quoted.replace('""', '"'))
        line += found[0].count("\n")
        place = found.end()
        if end == "\t":
            continue
        rows.append((first, cells if cells != [""] else []))
        if not end:
            return rows
        cells, first = [], line


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("the same name twice in an object")
        return found

    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = json.loads(line, object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, row {number}: is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: expected a JSON object per line")
        yield number, row

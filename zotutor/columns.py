"""A table that a cell of a notebook shows: rows under titles."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[-+±]?(\d|inf\b)|$")
_TOGETHER = re.compile(r" (?=± )|(?<=±) |(?<=\d) (?=(?:[mµ]?s|[kMG]B)(?:\W|$))")
"""Spaces between a number and its error, and between a number and its unit."""


class Table:
    r"""Rows under titles: a table where Markdown is rendered, aligned text where it is not.

    Shown as the last value of a cell, or by ``display(table)``, in JupyterLab, in Colab and on the
    site; ``print`` writes it as text. Columns of numbers are set to the right.

    Args:
        titles: one for each column, at least one; formulas between dollar signs, and bars in them
            as ``\lvert x \rvert``, since a bar ends a cell.

    Raises:
        ValueError: without titles.

    Example:
        >>> table = Table("directions", "$d$", "measured", "law")
        >>> table.add("signs", 1000, "999.8 ± 0.4", "999")
        >>> table.add("normal", 10, "11.9 ± 0.1", "12")
        >>> table
        directions      d     measured  law
        signs       1,000  999.8 ± 0.4  999
        normal         10   11.9 ± 0.1   12
    """

    def __init__(self, *titles: str) -> None:
        if not titles:
            raise ValueError("titles: given none, expected one for each column")
        self._titles = titles
        self._rows: list[list[str]] = []

    def add(self, *cells: str | float) -> None:
        """Add a row.

        Args:
            cells: one for each title. Texts are taken as they are; an integer is shown with
                commas, another number to at most six digits.

        Raises:
            ValueError: for more cells or fewer than there are titles.

        Example:
            >>> Table("$P$", "law").add(1)
            Traceback (most recent call last):
            ...
            ValueError: cells: given 1, expected 2, one for each of: $P$, law
        """
        if len(cells) != len(self._titles):
            raise ValueError(
                f"cells: given {len(cells)}, expected {len(self._titles)}, one for each of: "
                + ", ".join(self._titles)
            )
        self._rows.append([_text(cell) for cell in cells])

    def markdown(self) -> str:
        """The table in Markdown.

        Example:
            >>> table = Table("$P$", "law")
            >>> table.add(1000, 0.5)
            >>> print(table.markdown())
            | $P$ | law |
            |--:|--:|
            | 1,000 | 0.5 |
        """
        rule = ["--:" if right else ":--" for right in self._to_the_right()]
        lines = [_row(self._titles), f"|{'|'.join(rule)}|"]
        return "\n".join(lines + [_row(row) for row in self._rows])

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def __repr__(self) -> str:
        rows = [[title.replace("$", "") for title in self._titles], *self._rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        columns = list(zip(widths, self._to_the_right(), strict=True))
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, (width, right) in zip(row, columns, strict=True)
            ).rstrip()
            for row in rows
        )

    def _to_the_right(self) -> list[bool]:
        """Whether each column holds numbers."""
        if not self._rows:
            return [False] * len(self._titles)
        return [
            any(column) and all(map(_NUMBER.match, column))
            for column in zip(*self._rows, strict=True)
        ]


def _text(cell: str | float) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:g}"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    """A line. A bar within a cell would end it; numbers, errors and units stay together."""
    shown = (_TOGETHER.sub("\N{NO-BREAK SPACE}", cell.replace("|", "\\|")) for cell in cells)
    return "| " + " | ".join(shown) + " |"

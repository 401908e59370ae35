"""A table of claims, each with a number and the range in which the claim holds.

What is claimed is data (``data/claims.toml``); the page of claims adds what it measures.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

from torch import Tensor

from zotutor.statistics import mean_with_error


class Claim(NamedTuple):
    """One sentence, and the number that decides it.

    A claim holds if ``low <= value <= high``. ``stated`` is False for a claim that the text says
    does *not* hold in general: then the range is where it would hold, and the value lies outside.

    Example:
        >>> half = Claim("the mean is 1/2", "probability", "mean of draws", 0.51, 0.48, 0.52)
        >>> half.holds, half.accepted()
        (True, '0.48 to 0.52')
    """

    statement: str
    source: str
    quantity: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    stated: bool = True

    @property
    def holds(self) -> bool:
        """Whether the value lies in the range; NaN does not."""
        return self.low <= self.value <= self.high

    @property
    def as_stated(self) -> bool:
        """Whether the claim holds, or fails, as the text says; a value that is NaN is neither."""
        return not math.isnan(self.value) and self.holds == self.stated

    def accepted(self) -> str:
        """The range in words."""
        low, high = _limit(self.low), _limit(self.high)
        if self.low == self.high:
            return f"exactly {low}"
        if math.isinf(self.high):
            return f"at least {low}"
        if math.isinf(self.low):
            return f"at most {high}"
        return f"{low} to {high}"

    def verdict(self) -> str:
        """The text of the last column."""
        word = "holds" if self.holds else "does not hold"
        if not self.as_stated:
            return f"{word}: NOT AS STATED"
        return word if self.stated else f"{word}, as stated"


def _number(value: float) -> str:
    """Four significant digits; without decimals if exact, so that 1.000 is rounded and 1 is not."""
    if not math.isfinite(value) or (value == round(value) and abs(value) < 1e5):
        return f"{value:,g}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.1e}"


def _limit(value: float) -> str:
    """A limit as it was chosen: without trailing zeros."""
    text = _number(value)
    if "e" in text:
        return f"{value:g}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_DEVIATIONS = 4.0


def near(
    expected: float, std_error: float, *, deviations: float = _DEVIATIONS
) -> tuple[float, float]:
    """The range (low, high) of an expected value plus and minus some standard errors.

    At 4 standard errors a true statement fails for one seed in 16,000 if the mean is normal. Means
    of squared errors have heavier tails: count on one seed in a thousand.

    Args:
        expected: what the law says.
        std_error: of the mean that was measured.
        deviations: how many standard errors to allow.

    Example:
        >>> near(1.0, 0.01)
        (0.96, 1.04)
    """
    return expected - deviations * std_error, expected + deviations * std_error


_COLUMNS = (
    ("Claim", "31%"),
    ("Source", "12%"),
    ("Measured quantity", "23%"),
    ("Value", "11%"),
    ("Accepted", "12%"),
    ("Verdict", "11%"),
)
_CELL = "text-align:left;vertical-align:top;padding:0.3em 0.6em;white-space:normal"
_TABLE = "border-collapse:collapse;table-layout:fixed;width:100%;min-width:50em;font-size:0.85em"


class ClaimTable(tuple[Claim, ...]):
    """Claims shown as a table: in HTML where there is a browser, as text elsewhere.

    Colors are those of the page, so that it can be read in light and in dark mode; the verdict is
    in words.

    Args:
        claims: at least one, each with a range.

    Raises:
        ValueError: for no claims, or a range that accepts everything or nothing.

    Example:
        >>> ClaimTable([Claim("two is even", "school", "2 modulo 2", 2 % 2, 0, 0)])
        two is even
          school; 2 modulo 2: 0 (exactly 0): holds
    """

    __slots__ = ()

    def __new__(cls, claims: Iterable[Claim]) -> ClaimTable:
        """Check that each claim can fail."""
        table = super().__new__(cls, claims)
        if not table:
            raise ValueError("claims: given none, expected at least one")
        for claim in table:
            everything = claim.low == -math.inf and claim.high == math.inf
            if everything or not claim.low <= claim.high:
                raise ValueError(
                    f"claims: {claim.statement!r} is given the range {claim.low} to {claim.high}, "
                    "which no value, or every value, is in; give low, high or both"
                )
        return table

    def __repr__(self) -> str:
        return "\n".join(
            f"{c.statement}\n  {c.source}; {c.quantity}: {_number(c.value)} ({c.accepted()}): "
            f"{c.verdict()}"
            for c in self
        )

    def _repr_html_(self) -> str:
        # Notebooks and book themes recognize a table by the class "dataframe". The site links rows
        # to theorems, counts verdicts, and makes a card of each row on a phone (the labels).
        head = "".join(
            f'<th scope="col" style="{_CELL};width:{width}">{name}</th>' for name, width in _COLUMNS
        )
        rows = "".join(f"<tr>{_cells(claim)}</tr>" for claim in self)
        return (
            '<div class="claims scrolls" style="overflow-x:auto">'
            f'<table class="dataframe" style="{_TABLE}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )


def _cells(claim: Claim) -> str:
    kind = "holds" if claim.holds else "fails"
    verdict = f'<span class="verdict {kind}">{escape(claim.verdict())}</span>'
    texts = [
        escape(claim.statement),
        escape(claim.source),
        escape(claim.quantity),
        _number(claim.value),
        claim.accepted(),
        verdict if claim.as_stated else f"<strong>{verdict}</strong>",
    ]
    return "".join(
        f'<td style="{_CELL}" data-label="{name}">{text}</td>'
        for (name, _), text in zip(_COLUMNS, texts, strict=True)
    )


def check_all(*tables: Iterable[Claim]) -> str:
    """Fail unless every claim is as stated.

    Args:
        tables: :class:`ClaimTable` or other iterables of claims.

    Returns:
        How many claims hold, and how many are stated not to hold and do not.

    Raises:
        AssertionError: naming every claim that is not as stated, with its value and range.
        ValueError: for no claims, or a statement that occurs twice.

    Example:
        >>> check_all([Claim("two is even", "school", "2 modulo 2", 2 % 2, 0, 0)])
        '1 claim holds; 0 do not hold in general, and are stated so.'
    """
    claims = ClaimTable(claim for table in tables for claim in table)
    statements = [claim.statement for claim in claims]
    twice = sorted({s for s in statements if statements.count(s) > 1})
    if twice:
        raise ValueError(f"claims: given twice {twice}, expected each statement once")
    wrong = [claim for claim in claims if not claim.as_stated]
    if wrong:
        raise AssertionError(f"{len(wrong)} not as stated:\n{ClaimTable(wrong)!r}")
    held = sum(claim.stated for claim in claims)
    noun = "claim holds" if held == 1 else "claims hold"
    return f"{held} {noun}; {len(claims) - held} do not hold in general, and are stated so."


Measured = float | Tensor | tuple[float, float] | tuple[Tensor, float]


def measured(
    table: str,
    values: Mapping[str, Measured | Mapping[str, Measured]],
    *,
    facts: Mapping[str, Any] | None = None,
) -> ClaimTable:
    """The claims of one table of ``data/claims.toml``, each with the value found for it.

    Args:
        table: a table of the file.
        values: for each claim of the table, by its name, a number; or, for a claim with an expected
            value, (mean, its standard error) or (samples (draws,), law), which stands for the mean
            of samples / law. A mapping from cases gives a row for each of them.
        facts: numbers for the braces in the claims' texts, and for limits given by name.

    Raises:
        ValueError: there is no such table, or the values are not those of its claims.

    Example:
        >>> found = measured("dynamics", {"first_order": 1.0, "missed_fo": 2.0, "same_digit": 1.5})
        >>> found[1].accepted()
        '1.95 to 2.05'
    """
    tables = tomllib.loads(files("zotutor").joinpath("data", "claims.toml").read_text("utf-8"))
    if table not in tables:
        raise ValueError(f"table: given {table!r}, expected one of {', '.join(tables)}")
    for names, wrong in (
        (tables[table].keys() - values.keys(), "none for"),
        (values.keys() - tables[table].keys(), "one for no claim:"),
    ):
        if names:
            raise ValueError(f"values: {wrong} {', '.join(sorted(names))} of the table {table!r}")
    return ClaimTable(
        row
        for name, claim in tables[table].items()
        for row in _rows(claim, values[name], dict(facts or {}))
    )


def _rows(
    claim: dict[str, Any], value: Measured | Mapping[str, Measured], facts: dict[str, Any]
) -> Iterator[Claim]:
    if isinstance(value, Mapping):
        for case, of_case in value.items():
            yield from _rows(claim, of_case, facts | {"case": case})
        return
    quantity = claim["quantity"].format(**facts)
    low, high = (
        facts[limit] if isinstance(limit, str) else limit
        for limit in (claim.get("low", -math.inf), claim.get("high", math.inf))
    )
    if isinstance(value, tuple):
        if isinstance(value[0], Tensor) and value[0].numel() > 1:
            quantity += f" ({len(value[0]):,} draws)"
            value = mean_with_error(value[0].double() / value[1])
        error = float(value[1]) + claim.get("slack", 0.0) / _DEVIATIONS
        low, high = near(claim["expected"], error)
        value = value[0]
    yield Claim(
        claim["claim"].format(**facts),
        claim.get("source", "this book"),
        quantity,
        float(value),
        low,
        high,
        claim.get("stated", True),
    )

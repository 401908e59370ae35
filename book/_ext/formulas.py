"""A Sphinx extension: formulas of docstrings, which are written to be read in a terminal, typeset.

What is set apart in a docstring and reads as a formula becomes one: norm(K)_F^2, sum_k, g_hat, <=.
Anything else, such as a program or a table, stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

GREEK = frozenset("alpha beta gamma delta epsilon eta theta kappa lambda sigma tau".split())
OPERATORS = {
    "E": r"\mathbb{E}\,",
    "Var": r"\operatorname{Var}",
    "tr": r"\operatorname{tr}",
    "ln": r"\ln",
    "max": r"\max",
    "sum": r"\sum",
    "eps": r"\varepsilon",
    "lr": r"\eta",
    "dx": "dx",
    "dt": "dt",
}
SIGNS = {
    "<=": r" \le ",
    ">=": r" \ge ",
    "<-": r" \leftarrow ",
    " . ": r" \cdot ",
    "<": r" \langle ",
    ">": r" \rangle ",
    "~": r"\ ",
}
NAME = re.compile(r"([A-Za-z]+)('*)(?:_([A-Za-z0-9]+|[+-]))?")
OTHER = re.compile(r"(?:[\d.]+(?<!\.)|<=|>=|<-| \. |[-\s+*/=()\[\]|,.;:<>~])")
FUNCTION = re.compile(r"(norm|sqrt)\(")
INDEX = re.compile(r"_(\w)")
POWER = re.compile(r"\^(T|\d+|[a-z])")
WORDS = re.compile(r"(?<=[a-z]{3}) (?=[a-z]{3})")
PROSE = re.compile(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}")


class NoFormulaError(ValueError):
    """A text that is no formula."""


def closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at a place."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise NoFormulaError(text)


def named(base: str, primes: str, sub: str | None) -> str:
    """A name with its index."""
    if base in GREEK:
        symbol = f"\\{base}"
    elif base in OPERATORS:
        symbol = OPERATORS[base]
    else:
        symbol = base if len(base) == 1 else rf"\mathrm{{{base}}}"
    if sub == "hat":
        return rf"\hat{{{symbol}}}{primes}"
    if sub and len(base) > 1 and len(sub) > 2:  # a name of several words
        return rf"\text{{{base} {sub}}}"
    return f"{symbol}{primes}" + (f"_{{{sub}}}" if sub else "") + " "


def pieces(text: str) -> Iterator[str]:
    """The TeX of a formula, from left to right."""
    place = 0
    while place < len(text):
        found = NAME.match(text, place)
        function = FUNCTION.match(text, place)
        if function:
            end = closing(text, function.end() - 1)
            inner = "".join(pieces(text[function.end() : end]))
            root = function[1] == "sqrt"
            yield rf"\sqrt{{{inner}}}" if root else rf"\lVert {inner} \rVert"
            if not root and (index := INDEX.match(text, end + 1)):
                yield f"_{index[1]}"
                end = index.end() - 1
            place = end + 1
        elif found:
            yield named(*found.groups())
            place = found.end()
        elif text.startswith("^(", place):
            end = closing(text, place + 1)
            yield f"^{{{''.join(pieces(text[place + 2 : end]))}}}"
            place = end + 1
        elif power := POWER.match(text, place):
            yield r"^\top " if power[1] == "T" else f"^{{{power[1]}}}"
            place = power.end()
        elif other := OTHER.match(text, place):
            yield SIGNS.get(other[0], other[0])
            place = other.end()
        else:
            raise NoFormulaError(text)


def typeset(text: str) -> str | None:
    r"""The TeX of a formula as docstrings write it; None for what is no formula.

    >>> typeset("E |g_hat|^2 <= norm(K_U - K)_F^2 / sqrt(2 P)")
    '\\mathbb{E}\\, |\\hat{g}|^{2}  \\le  \\lVert K_{U}  - K  \\rVert_F^{2} / \\sqrt{2 P }'
    >>> typeset("class Trainer(zo.llm.ZerothOrderSteps):")
    """
    if PROSE.search(text) or not re.search(r"[=/^]|sum_", text) or re.search(r"zo\.|==", text):
        return None
    lines = text.strip().splitlines()
    try:
        parts = ["".join(pieces(WORDS.sub("~", line.strip()))) for line in lines]
    except NoFormulaError:
        return None
    if len(parts) == 1:
        return parts[0]
    begins = [
        "& " if n == 0 or not line.startswith(" ") else r"& \qquad " for n, line in enumerate(lines)
    ]
    rows = "\\\\\n".join(begin + part for begin, part in zip(begins, parts, strict=True))
    return f"\\begin{{aligned}}\n{rows}\n\\end{{aligned}}"


def typeset_formulas(app: Sphinx, doctree: nodes.document) -> None:
    """Replace the literal blocks of docstrings that are formulas."""
    for content in doctree.findall(addnodes.desc_content):
        for block in list(content.findall(nodes.literal_block)):
            tex = typeset(block.astext())
            if tex:
                formula = nodes.math_block(tex, tex, nowrap=False, number=None, label=None)
                formula["docname"] = app.env.docname
                block.parent.replace(block, formula)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("doctree-read", typeset_formulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

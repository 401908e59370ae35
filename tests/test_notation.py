"""Every letter in a displayed formula is in book/notation.md, with one meaning."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
CHAPTERS = sorted(path for path in BOOK.glob("*.ipynb") if path.stem != "claims")
NOTATION = (BOOK / "notation.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.lint

# Names of functions and words inside of a formula, layout, and keys of references.
WORDS = re.compile(
    r"\\(?:text|mathrm|operatorname|begin|end|label)\*?\{[^{}]*\}|\^\\top|\\[bB]ig+[lrm]?"
)
# A decorated letter, a blackboard or bold letter, a command, or a letter.
TOKEN = re.compile(r"\\(?:hat|tilde|bar|mathbb|mathbf|mathcal)\s*\{?\\?[A-Za-z]+\}?|\\?[A-Za-z]+")
# What a letter is called in LaTeX; all other commands are operators, relations and layout.
GREEK = re.compile(
    r"\\(?:var)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho"
    r"|sigma|tau|upsilon|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
    r"|ell)"
)


def letters(formula: str) -> set[str]:
    """The letters of a formula: x, \\theta, \\hat g; words and operators are none."""
    found = set()
    for token in TOKEN.findall(WORDS.sub(" ", formula)):
        token = re.sub(r"[\s{}]", "", token)
        if re.match(r"\\(hat|tilde|bar|mathbb|mathbf|mathcal)", token) or GREEK.fullmatch(token):
            found.add(token)
        elif not token.startswith("\\"):
            found.update(token)  # xy is x times y
    return found


def inline(text: str) -> set[str]:
    """The letters of all formulas within a line of text."""
    return set().union(*map(letters, re.findall(r"\$([^$]+)\$", text)))


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the table below a heading of the page."""
    section = NOTATION.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| $")]
    assert rows, f"{heading}: no row begins with a formula"
    return [[cell.strip(" |") for cell in row] for row in rows]


GLOBAL = [inline(row[0]) for row in table("Symbols of the whole book")]
LOCAL = [(row[1].split(", "), inline(row[0])) for row in table("Letters of one place")]
CONVENTIONS = inline(NOTATION.split("## Abbreviations and conventions\n", 1)[1])


def displayed(chapter: Path) -> list[str]:
    """The displayed formulas of a chapter."""
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    prose = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.findall(r"\$\$(.+?)\$\$", prose, flags=re.DOTALL)


def test_letters_are_told_from_words_and_operators() -> None:
    formula = r"\frac{\hat{g}}{2 \varepsilon} \le \operatorname{tr}(H)\, \text{for } x_o^\top"
    assert letters(formula) == {r"\hatg", r"\varepsilon", "H", "x", "o"}
    assert letters(r"\mathbb{E} \lVert K_U \rVert_F \tag{a}") >= {r"\mathbbE", "K", "U"}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_letters_of_displayed_formulas_are_listed(chapter: Path) -> None:
    here = set().union(*(found for chapters, found in LOCAL if chapter.stem in chapters))
    known = set().union(*GLOBAL) | here | CONVENTIONS
    missing = {
        letter: formula.strip()
        for formula in displayed(chapter)
        for letter in letters(formula) - known
    }
    assert not missing, f"List these in book/notation.md, or use a letter that is there: {missing}"


def test_chapters_of_local_letters_exist() -> None:
    named = {chapter for chapters, _ in LOCAL for chapter in chapters}
    assert named <= {path.stem for path in CHAPTERS}


def test_no_symbol_is_listed_twice() -> None:
    first = [row[0] for row in table("Symbols of the whole book")]
    symbols = [symbol for cell in first for symbol in re.findall(r"\$([^$]+)\$", cell)]
    assert len(set(symbols)) == len(symbols)
    for (chapters, found), (others, again) in combinations(LOCAL, 2):
        both = found & again - {"k", "l", "i", "j"}
        assert not (set(chapters) & set(others) and both), f"{both}: two meanings in one chapter"

"""Writes the notebooks that readers open in Colab, on Binder or at home, from the chapters.

python tools/reader_notebooks.py FOLDER

FOLDER then holds what the branch `notebooks` of the repository does: book/*.ipynb, in which the
Markdown is plain, and what Binder reads. After each exercise there is an empty cell for
the answer and one that checks it; solutions and their code are folded, and "Run all" does not run
them. The same notebooks are what the site offers for download (book/_ext/notebooks.py).
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

from book_index import Book, read_book, settings
from reader_markdown import Piece, Reader

ROOT = Path(__file__).resolve().parent.parent
HIDDEN = {"hide-cell", "hide-input", "remove-input"}
NEEDS_MODEL = '"smollm2"'
"""What is in the code of a chapter that shows the language model that `zotutor fetch` brings."""

Cell = dict[str, Any]


def markdown(name: str, text: str) -> Cell:
    """A Markdown cell."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": lines(text)}


def code(name: str, text: str, *, hidden: bool = False) -> Cell:
    """A code cell that was not run; JupyterLab and Colab show a hidden one as one line."""
    metadata = {"cellView": "form", "jupyter": {"source_hidden": True}} if hidden else {}
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata,
        "outputs": [],
        "source": lines(text),
    }


def lines(text: str) -> list[str]:
    """The source of a cell, as notebooks have it."""
    return text.splitlines(keepends=True)


def install(source: str, book: Book, *, model: bool) -> str:
    """The first code cell: where the package is installed from, and the model if it is shown."""
    known = 'source = "git+'
    begin = source.index(known) + len(known)
    source = source[:begin] + book.repository + source[source.index('"', begin) :]
    if model:
        source = source.replace('"zotutor[book] @', '"zotutor[book,llm] @')
        source += "\n    !zotutor fetch"
    return source


def answer_and_check(exercise: Piece) -> list[Cell]:
    """An empty cell for the answer, and one that checks what is in it once something is."""
    calls = [span for span in exercise.codes if span.startswith("zo.exercises.check_")]
    if not calls:
        return []
    (call,) = calls
    name = ast.unparse(ast.parse(call, mode="eval").body.args[0])  # type: ignore[attr-defined]
    check = f'if "{name}" in globals():  # once you have answered\n    {call}'
    return [
        code(f"{exercise.label}-answer", ""),
        code(f"{exercise.label}-check", check),
    ]


def figure_caption(cell: Cell, reader: Reader) -> list[Cell]:
    """The number and the caption of the figure that a code cell shows."""
    figure = cell["metadata"].get("mystnb", {}).get("figure")
    if not figure:
        return []
    number = reader.book.targets[figure["name"]].text
    text = f"**{number}** {reader.plain(figure['caption'])}"
    return [markdown(f"{cell['id']}-caption", text)]


def prose(cell: Cell, reader: Reader) -> tuple[list[Cell], bool]:
    """The cells that stand for a Markdown cell; whether it ends with a solution."""
    found: list[Cell] = []
    for number, piece in enumerate(pieces := reader.pieces("".join(cell["source"])), start=1):
        if piece.kind == "exercise":
            found += [markdown(piece.label, piece.text), *answer_and_check(piece)]
        elif piece.kind == "solution":
            if reader.book.solutions:
                found.append(markdown(f"{piece.label}-solution", piece.text))
        else:
            name = cell["id"] if number == 1 else f"{cell['id']}-{number}"
            found.append(markdown(name, piece.text))
    return found, pieces[-1].kind == "solution"


def add_code(solution: Cell, source: str) -> None:
    """Put code below the text of a folded solution, where it is read and not run."""
    text = "".join(solution["source"]).removesuffix("\n\n</details>")
    solution["source"] = lines(f"{text}\n\n```python\n{source}\n```\n\n</details>")


def reader_notebook(page: str, content: dict[str, Any], book: Book) -> dict[str, Any]:
    """The notebook of a chapter for its readers.

    Args:
        page: as in _toc.yml, book/zo_sgd.
        content: the chapter, as JSON.
        book: what its references lead to.
    """
    reader = Reader(book)
    model = any(NEEDS_MODEL in "".join(cell["source"]) for cell in content["cells"])
    cells: list[Cell] = []
    solved = False  # whether the cell before is a solution
    for cell in content["cells"]:
        source, tags = "".join(cell["source"]), set(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "markdown":
            found, solved = prose(cell, reader)
            cells += found
        elif solved and "hide-cell" in tags:
            if book.solutions:
                add_code(cells[-1], source)
        else:
            solved = False
            if cell["id"] == "colab-setup":
                source = install(source, book, model=model)
            hidden = bool(tags & HIDDEN)
            cells += [code(cell["id"], source, hidden=hidden), *figure_caption(cell, reader)]
    cells[0]["source"] += ["\n", "\n", f"[This chapter in the book]({book.site}{page}.html)"]
    name = f"{page.rpartition('/')[2]}.ipynb"
    metadata = content["metadata"] | {"colab": {"name": name, "toc_visible": True}}
    return content | {"cells": cells, "metadata": metadata}


def reader_notebooks(root: Path = ROOT) -> dict[str, str]:
    """The notebooks as text, by page, in reading order."""
    book = read_book(root)
    found = {}
    for page in book.titles:
        path = root / f"{page}.ipynb"
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            notebook = reader_notebook(page, content, book)
            found[page] = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return found


def write(folder: Path, root: Path = ROOT) -> None:
    """Write the notebooks, and what Binder installs."""
    for page, text in reader_notebooks(root).items():
        path = folder / f"{page}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    requirement = f"zotutor[book,llm] @ git+{settings(root)['repository']['url']}\n"
    folder.joinpath("requirements.txt").write_text(requirement, encoding="utf-8")
    folder.joinpath("runtime.txt").write_text("python-3.12\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python tools/reader_notebooks.py FOLDER")
    write(Path(sys.argv[1]))

"""The notebooks that readers open: plain Markdown, the site's numbers, and room for answers."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from test_package import tool
from test_site_extensions import extension

pytest.importorskip("myst_parser")  # comes with the extra `site`
book_index, myst_tokens = tool("book_index"), tool("myst_tokens")
reader_markdown, reader_notebooks = tool("reader_markdown"), tool("reader_notebooks")

ROOT = Path(__file__).resolve().parent.parent
BOOK = book_index.read_book(ROOT)
NOTEBOOKS: dict[str, str] = reader_notebooks.reader_notebooks()

each_notebook = pytest.mark.parametrize("page", sorted(NOTEBOOKS))


def plain(text: str) -> str:
    """Markdown as readers get it."""
    found: str = reader_markdown.Reader(BOOK).plain(text)
    return found


def cells(page: str, kind: str) -> Iterator[tuple[str, str]]:
    """(id, source) of the cells of a kind."""
    for cell in json.loads(NOTEBOOKS[page])["cells"]:
        if cell["cell_type"] == kind:
            yield cell["id"], "".join(cell["source"])


# ---- Markdown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{cite:t}`li2026kernel,girard1989fast` and {cite:p}`avron2011randomized`.",
            (
                "[Li et al. (2026)](https://arxiv.org/abs/2605.03373) and "
                "[Girard (1989)](https://doi.org/10.1007/BF01395775) and "
                "([Avron and Toledo, 2011](https://doi.org/10.1145/1944345.1944349))."
            ),
        ),
        (
            "By **{prf:ref}`thm-one-direction`**, `{eq}` and {eq}`eq-zo-step`",
            (
                "By **[Theorem 1](SITE/intro.html#thm-one-direction)**, `{eq}` and "
                "[(1)](SITE/intro.html#equation-eq-zo-step)"
            ),
        ),
        ("[*a*](zo_sgd.ipynb) <https://a.org>", "[*a*](SITE/zo_sgd.html) <https://a.org>"),
        ("[a](status.md#b) [c](https://d.org)", "[a](SITE/status.html#b) [c](https://d.org)"),
        ("$$\na\n$$ (eq-zo-step)\n\nb", "$$\na\n\\tag{1}\n$$\n\nb"),
        (
            "| a {eq}`eq-zo-step` | {eq}`eq-zo-step` |\n|---|---|\n| {eq}`eq-zo-step` | $x$ |",
            "| a [(1)](EQ) | [(1)](EQ) |\n|---|---|\n| [(1)](EQ) | $x$ |",
        ),
        (
            ":::{prf:theorem} Of $x$\n:label: thm-one-direction\n\nLet\n\n$$\na\n= b\n$$\n:::\n\nc",
            "> **Theorem 1** (Of $x$)\n>\n> Let\n>\n> $$ a = b $$\n\nc",
        ),
        (
            ":::{prf:proof}\n:class: dropdown\n1. *See* {eq}`eq-zo-step`\n   so\n2. b\n:::",
            "<details>\n<summary>Proof</summary>\n\n1. *See* [(1)](EQ)\n   so\n2. b\n\n</details>",
        ),
        (":::{note}\nHere.\n:::", "> **Note**\n>\n> Here."),
        ("::::{note}\n:::{tip}\na\n:::\n::::", "> **Note**\n>\n> > **Tip**\n> >\n> > a"),
        ("(a-label)=\n## A section\n\nb", "## A section\n\nb"),
        ('"a" -- b\\*c\n- [ ] d', '"a" -- b\\*c\n- [ ] d'),
    ],
)
def test_markdown_of_the_book_becomes_plain(source: str, expected: str) -> None:
    site = f"{BOOK.site}book"
    expected = expected.replace("EQ", f"{site}/intro.html#equation-eq-zo-step")
    assert plain(source) == expected.replace("SITE", site)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{prf:ref}`thm-gone`", KeyError),
        ("{cite:t}`gone2026`", KeyError),
        ("{abbr}`a`", ValueError),
        ("[a](gone.ipynb)", ValueError),
        (":::{dropdown} a\nb\n:::", ValueError),
    ],
)
def test_what_there_is_no_rule_for_is_an_error(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        plain(source)


def marks(text: str) -> Iterator[str]:
    """What only MyST knows, by its tokens, also in folded text and in quotations."""

    def walk(tokens: list[Any]) -> Iterator[str]:
        for token in tokens:
            known = token.type in ("math_inline", "math_inline_double", "math_block")
            if "myst" in token.type or "label" in token.type or token.type.startswith("colon"):
                yield token.type
            elif token.type == "fence" and token.info.startswith("{"):
                yield token.info
            elif not known:
                yield from walk(token.children or [])

    yield from walk(myst_tokens.parse(text))


def test_marks_are_found() -> None:
    text = "a {eq}`b`\n\n(c)=\n\n```{note}\nd\n```\n\n:::{e}\nf\n:::\n\n$$\ng\n$$ (h)\n\n+++"
    assert len(list(marks(text))) == 6


@each_notebook
def test_no_directive_role_or_label_is_left(page: str) -> None:
    for name, text in cells(page, "markdown"):
        assert list(marks(text)) == [], name
        found = re.search(r":::|```\{|\{[a-z:]+\}`|^\([\w-]+\)=|\$\$ \([a-z]|^:\w+:", text, re.M)
        assert found is None, f"{name}: {found}"


@each_notebook
def test_formulas_of_quotations_are_on_one_line(page: str) -> None:
    """JupyterLab takes all between two $$ for the formula, and with it the > of the next line."""
    for name, text in cells(page, "markdown"):
        quotation = [line for line in text.split("\n") if line.startswith(">")]
        assert all(line.count("$$") in (0, 2) for line in quotation), name


# ---- numbers ------------------------------------------------------------------------------------


def numbers() -> dict[str, dict[str, dict[str, tuple[int, ...]]]]:
    """As Sphinx keeps them, and as they are in the notebooks."""
    found: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {}
    for label, (text, page, _) in BOOK.targets.items():
        number = re.fullmatch(r"(?:\w+\.? |\()(\d+)\)?", text)
        if number:
            kinds = found.setdefault(page, {}).setdefault("any", {})
            kinds["equation-" * text.startswith("(") + label] = (int(number[1]),)
    return found


def test_a_number_that_is_not_that_of_the_site_is_found() -> None:
    differences = extension("notebooks").differences
    site = numbers()
    assert list(differences(BOOK.targets, site)) == []
    site["book/zo_sgd"]["any"]["equation-eq-batch"] = (7,)
    assert len(list(differences(BOOK.targets, site))) == 1
    del site["book/proofs"]["any"]["thm-lower-tail"]
    site["book/intro"]["any"]["fig-new"] = (2,)
    assert len(list(differences(BOOK.targets, site))) == 3
    # a figure that is not drawn, as without the language model, moves those after it
    shifted = numbers()
    del shifted["book/intro"]["any"]["fig-intro-fine-tune"]
    shifted["book/zo_sgd"]["any"]["fig-zo-sgd-lr"] = (10,)
    assert list(differences(BOOK.targets, shifted)) == []


# ---- cells --------------------------------------------------------------------------------------


@each_notebook
def test_notebooks_are_valid_and_empty(page: str) -> None:
    notebook = nbformat.reads(NOTEBOOKS[page], as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9-]{1,64}", name) for name in ids)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert code[0].id == "colab-setup"


def test_notebooks_are_the_same_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        reader_notebooks.write(tmp_path)
        written = {
            path.relative_to(tmp_path).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
            for path in tmp_path.rglob("*.ipynb")
        }
        assert written == NOTEBOOKS


@each_notebook
def test_every_exercise_has_an_empty_cell_and_a_folded_solution_that_is_not_run(page: str) -> None:
    text = "".join(source for _, source in cells(page, "markdown"))
    code = dict(cells(page, "code"))
    exercises = [label for label, target in BOOK.targets.items() if "Exercise" in target.text]
    here = [label for label in exercises if BOOK.targets[label].page == page]
    for label in here:
        assert code[f"{label}-answer"] == ""
        assert f"<summary>Solution to {BOOK.targets[label].text}</summary>" in text
        assert code.pop(f"{label}-check").count("zo.exercises.check_") == 1
    assert "zo.exercises.check_" not in "".join(code.values())
    assert text.count("zo.exercises.check_") >= 2 * len(here)  # in the exercise and its solution


@each_notebook
def test_a_course_can_hide_the_solutions(page: str) -> None:
    chapter = json.loads(ROOT.joinpath(f"{page}.ipynb").read_text(encoding="utf-8"))
    hidden = BOOK._replace(solutions=False)
    without = reader_notebooks.reader_notebook(page, chapter, hidden)["cells"]
    public = json.loads(NOTEBOOKS[page])["cells"]
    assert without == [cell for cell in public if not cell["id"].endswith("-solution")]
    assert "Solution to" not in json.dumps(without)


OWN_NAMES = ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.ListComp | ast.GeneratorExp
"""What keeps the names within it to itself."""


def made_by(tree: ast.Module) -> set[str]:
    """The names that a cell gives a value to."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if not isinstance(node, OWN_NAMES):
            todo += ast.iter_child_nodes(node)
    return found


@each_notebook
def test_an_answer_has_a_name_that_nothing_else_in_the_chapter_has(page: str) -> None:
    """Else an empty answer would be checked, or an answer overwrite what the chapter made."""
    made: set[str] = set()
    asked: list[str] = []
    for name, source in cells(page, "code"):
        tree = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE))
        made |= made_by(tree)
        asked += re.findall(r'^if "(\w+)" in globals', source) if name.endswith("-check") else []
    assert len(set(asked)) == len(asked)
    assert not made & set(asked), "Rename these in the chapter"


def test_an_empty_answer_is_not_checked_and_an_answer_is(tmp_path: Path) -> None:
    code = dict(cells("book/intro", "code"))
    check = code["ex-best-factor-check"]
    answer = "def best_factor(d, kurtosis):\n    return 1 - 1 / (d + kurtosis - 1)"
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(source)
            for source in ("import zotutor as zo", code["ex-best-factor-answer"], check)
        ]
    )
    resources = {"metadata": {"path": str(tmp_path)}}
    for text, printed in (("", []), (answer, ["Correct"])):
        notebook.cells[1].source = text
        NotebookClient(notebook, resources=resources, kernel_name="python3").execute()
        assert [output.text[:7] for output in notebook.cells[2].outputs] == printed


# ---- where the package comes from ---------------------------------------------------------------


def test_the_package_is_installed_from_the_repository_that_publishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOOK_REPOSITORY", "https://example.org/someone/fork@0123abc")
    found = reader_notebooks.reader_notebooks()
    for page, text in found.items():
        setup = next(cell for cell in json.loads(text)["cells"] if cell["id"] == "colab-setup")
        assert '"git+https://example.org/someone/fork@0123abc"' in "".join(setup["source"])
        rest = text.replace("fork@0123abc", "")
        assert "git+https" not in rest.replace("git+https://example.org/someone/", ""), page
    monkeypatch.delenv("BOOK_REPOSITORY")
    text = reader_notebooks.reader_notebooks()["book/intro"]
    assert text.count(f'\\"git+{book_index.settings(ROOT)["repository"]["url"]}\\"') == 1


def test_buttons_lead_to_the_branch_that_the_workflow_of_the_repository_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    branch = book_index.settings(ROOT)["repository"]["branch"]
    workflow = ROOT.joinpath(".github/workflows/book.yml").read_text(encoding="utf-8")
    assert f"git push --force origin {branch}\n" in workflow
    assert "BOOK_REPOSITORY: ${{ github.server_url }}/${{ github.repository }}@" in workflow
    monkeypatch.setenv("BOOK_REPOSITORY", "https://example.org/someone/fork@0123abc")
    options: dict[str, str] = {}
    extension("notebooks").set_repository(
        SimpleNamespace(srcdir=ROOT), SimpleNamespace(html_theme_options=options)
    )
    assert options == {"repository_url": "https://example.org/someone/fork"}


def test_the_download_button_offers_the_same(tmp_path: Path) -> None:
    (tmp_path / "_sources" / "book").mkdir(parents=True)
    app = SimpleNamespace(srcdir=ROOT, outdir=tmp_path, builder=SimpleNamespace(format="html"))
    extension("notebooks").replace_downloads(app, None)
    for page, text in NOTEBOOKS.items():
        path = tmp_path / "_sources" / f"{page}.ipynb"
        assert path.read_text(encoding="utf-8") == text


@each_notebook
def test_the_language_model_is_fetched_where_it_is_shown(page: str) -> None:
    code = dict(cells(page, "code"))
    shown = '"smollm2"' in "".join(code.values())
    assert code["colab-setup"].endswith("\n    !zotutor fetch") == shown
    assert ("[book,llm]" in code["colab-setup"]) == shown

"""Every public docstring, rendered with the settings of the site: what is written is what is shown.

A docstring is written to be read in a terminal. Sphinx reads it as markup, in which a line that
begins with + opens a list, and an asterisk makes what follows italic; then a formula is printed
wrong, without a word. Here Sphinx reads all of them, as for the page on the API, and each line of a
docstring must be found in what it makes of it.
"""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import zotutor

sphinx_application = pytest.importorskip("sphinx.application", reason="needs the site extra")
pytest.importorskip("sphinx_proof", reason="needs the site extra")
yaml = pytest.importorskip("yaml", reason="needs the site extra")
from docutils import nodes  # noqa: E402
from sphinx import addnodes  # noqa: E402
from sphinx.util.docutils import docutils_namespace, patch_docutils  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(zotutor.__path__, "zotutor.")
    if not any(part.startswith("_") for part in module.name.split("."))
)
ROLE = re.compile(r":[\w:]+:`([^`]*)`")
SECTION = re.compile(r"(Args|Returns|Yields|Raises|Example|Examples|References|Note|Attributes):")


def functions() -> Iterator[Any]:
    """All functions and methods of the package."""
    for name in MODULES:
        for thing in vars(importlib.import_module(name)).values():
            members = vars(thing).values() if inspect.isclass(thing) else ()
            yield from filter(inspect.isfunction, (thing, *members))


@contextmanager
def signatures_left_alone() -> Iterator[None]:
    """Undo what autodoc_preserve_defaults sets on functions, which typer would read."""
    had = {id(f) for f in functions() if "__signature__" in vars(f)}
    try:
        yield
    finally:
        for function in functions():
            if id(function) not in had:
                vars(function).pop("__signature__", None)


class Rendered:
    """What Sphinx makes of the docstrings of given modules."""

    def __init__(self, modules: list[str], folder: Path) -> None:
        """Read the modules."""
        settings = yaml.safe_load(ROOT.joinpath("_config.yml").read_text(encoding="utf-8"))
        options: dict[str, Any] = settings["sphinx"]["config"]
        prefixes = ("autodoc_", "napoleon_", "python_", "default_role", "smartquotes")
        self.docstrings: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.trees: dict[str, nodes.document] = {}
        self.warnings = io.StringIO()
        (folder / "index.rst").write_text(":orphan:\n", encoding="utf-8")
        for name in modules:
            page = f":orphan:\n\n.. automodule:: {name}\n   :members:\n   :ignore-module-all:\n"
            (folder / f"{name}.rst").write_text(page, encoding="utf-8")
        with patch_docutils(str(folder)), docutils_namespace():
            app = sphinx_application.Sphinx(
                str(folder),
                None,
                str(folder / "out"),
                str(folder / "trees"),
                "dummy",
                confoverrides={
                    **{k: v for k, v in options.items() if k.startswith(prefixes)},
                    "extensions": ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_fixes"],
                },
                status=None,
                warning=self.warnings,
            )
            app.connect("autodoc-process-docstring", self.note, priority=0)
            app.build()
            for name in modules:
                self.trees[name] = app.env.get_doctree(name)
        for tree in self.trees.values():
            for entry in tree.findall(addnodes.desc):
                for signature in entry.findall(addnodes.desc_signature):
                    if signature.parent is entry and signature["ids"]:
                        content = entry.next_node(addnodes.desc_content)
                        self.texts[signature["ids"][0]] = plain(content.astext())

    def note(self, app: Any, what: str, name: str, thing: Any, options: Any, lines: Any) -> None:
        """Keep a docstring as it was before anything read it."""
        self.docstrings[name] = "\n".join(lines)


def plain(text: str) -> str:
    """A text without markup of code and with single blanks."""
    return re.sub(r"\s+", " ", text.replace("`", "").replace("\\", "")).strip()


def lines_of(docstring: str) -> Iterator[str]:
    """Each line that is text, as it is to be found on the page; a pattern."""
    literal = ROLE.sub("\0", docstring)  # a reference is shown by its last name
    for line in literal.splitlines():
        text = line.strip().removesuffix("::").removeprefix("- ")
        if not text or SECTION.fullmatch(text) or text.startswith(".. "):
            continue
        # an entry of a section, whose name is shown apart from its description
        found = re.fullmatch(r"(\*{0,2}[\w, .*]+): (.*)", text) if line.startswith(" ") else None
        yield re.escape(plain(found[2] if found else text)).replace("\0", ".+?")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    with pytest.MonkeyPatch.context() as patch, signatures_left_alone():
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        return Rendered(MODULES, tmp_path_factory.mktemp("docstrings"))


def test_sphinx_reads_them_without_a_warning(rendered: Rendered) -> None:
    assert rendered.warnings.getvalue() == ""
    for tree in rendered.trees.values():
        assert not [found.astext() for found in tree.findall(nodes.system_message)]


def test_all_of_the_package_is_read(rendered: Rendered) -> None:
    for name in zotutor.__all__:
        thing = getattr(zotutor, name, None)
        module = getattr(thing, "__module__", "")
        if callable(thing) and module.startswith("zotutor"):
            assert f"{module}.{thing.__name__}" in rendered.docstrings
    for name in MODULES:
        assert importlib.import_module(name).__doc__


def misread(tree: nodes.document) -> Iterator[str]:
    """Texts that were read as markup which no docstring here means."""
    for content in tree.findall(addnodes.desc_content):
        for found in content.findall(nodes.bullet_list):
            if not isinstance(found.parent, nodes.field_body) and found.get("bullet") != "-":
                yield found.astext()
        for kind in (nodes.enumerated_list, nodes.block_quote, nodes.problematic):
            yield from (found.astext() for found in content.findall(kind))
        for found in content.findall(lambda node: type(node) in (nodes.emphasis, nodes.strong)):
            yield found.astext()


def test_nothing_is_taken_for_markup(rendered: Rendered) -> None:
    found = {name: list(misread(tree)) for name, tree in rendered.trees.items()}
    assert not {name: texts for name, texts in found.items() if texts}


def test_every_line_is_shown(rendered: Rendered) -> None:
    lost = {
        name: missing
        for name, docstring in rendered.docstrings.items()
        if name in rendered.texts
        and (
            missing := [
                line for line in lines_of(docstring) if not re.search(line, rendered.texts[name])
            ]
        )
    }
    assert not lost


def test_the_central_law_is_one_formula(rendered: Rendered) -> None:
    (law,) = (
        block.astext()
        for tree in rendered.trees.values()
        for entry in tree.findall(addnodes.desc)
        if entry.next_node(addnodes.desc_signature)["ids"][:1]
        == [f"{zotutor.kernel_error_law.__module__}.kernel_error_law"]
        for block in entry.findall(nodes.literal_block)
        if "kappa" in block.astext()
    )
    assert law.startswith("[norm(J_o)_F^2 norm(J_u)_F^2 + norm(K)_F^2")
    assert law.splitlines()[1].strip().startswith("+ (kappa - 3) sum_k")


def test_a_parameter_is_set_off_by_a_dash(rendered: Rendered) -> None:
    assert " – " in rendered.texts["zotutor.figures.sliders.explore"]
    assert not any(" -- " in text for text in rendered.texts.values())


def literal_blocks(tree: nodes.document) -> Iterator[str]:
    """What is set apart in the docstrings of a module."""
    for content in tree.findall(addnodes.desc_content):
        yield from (block.astext() for block in content.findall(nodes.literal_block))


def test_formulas_are_typeset_and_nothing_in_them_is_lost(rendered: Rendered) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        typeset = importlib.import_module("formulas").typeset
    found = {
        text: typeset(text) for tree in rendered.trees.values() for text in literal_blocks(tree)
    }
    formulas = {text: tex for text, tex in found.items() if tex}
    assert len(formulas) >= 18
    for text, tex in formulas.items():
        assert tex.count("{") == tex.count("}")
        shown = tex.replace(r"\eta", r"\eta lr").replace(r"\varepsilon", "eps").replace("V", "r")
        for word in re.findall(r"[A-Za-z]+|\d+", text.replace("norm", "Vert").replace("V", "r")):
            assert word in shown or word == "T", (text, tex)
        for sign in "+=|[]":
            assert tex.count(sign) == re.sub("[<>]=", "", text).count(sign), (text, tex)
        assert tex.count("^") == text.count("^")
    left = [text for text, tex in found.items() if not tex and re.search(r"\^|sum_|sqrt", text)]
    assert not left, "Write these as formulas, or teach book/_ext/formulas.py to read them"


def test_the_central_law_is_typeset() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        typeset = importlib.import_module("formulas").typeset
    law = "[norm(J_o)_F^2 + norm(K)_F^2\n + (kappa - 3) sum_k (sum_i J_o[i,k]^2)] / P;"
    assert re.sub(r"\s+", "", typeset(law)) == re.sub(
        r"\s+",
        "",
        r"\begin{aligned}& [\lVert J_{o}\rVert_F^{2} + \lVert K\rVert_F^{2}\\"
        r"&\qquad + (\kappa-3)\sum_{k} (\sum_{i} J_{o}[i,k]^{2})] / P;\end{aligned}",
    )

"""Writes MAP.md: from each chapter to the modules it uses, from each module to its tests.

python tools/map.py

A chapter uses a module if a cell names something that is defined there (zo.entk is in kernels.py).
The tests of a module are the file of its name, or, where there is none, the files that use it.
tests/test_map.py fails when MAP.md is not what this prints.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

import zotutor

ROOT = Path(__file__).resolve().parent.parent
MAP = ROOT / "MAP.md"
HEAD = """# Map

Where things are, for whoever changes them: from each chapter to the modules it uses, and from each
module to its tests. Written by `python tools/map.py`; do not edit it by hand. The order of the
modules, and how to add one, is in [CONTRIBUTING.md](CONTRIBUTING.md).
"""


def modules() -> dict[str, ModuleType]:
    """Every module of the package with code of its own, by its name without `zotutor.`."""
    found = {}
    for info in pkgutil.walk_packages(zotutor.__path__, "zotutor."):
        if not info.name.endswith("__main__"):
            found[info.name.removeprefix("zotutor.")] = importlib.import_module(info.name)
    return found


def home(names: list[str]) -> str | None:
    """The module that defines zotutor.a.b.c, without `zotutor.`; None for the package itself."""
    value: object = zotutor
    where = "zotutor"
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an old name leads to its new home
            there = getattr(value, name, None)
        if there is None:
            try:
                there = importlib.import_module(f"{where}.{name}")
            except ImportError:
                break
        value = there
        if not isinstance(value, ModuleType):
            where = getattr(value, "__module__", None) or where
            break
        where = value.__name__
    if not where.startswith("zotutor."):
        return None
    return where.removeprefix("zotutor.")


def used(source: str) -> set[str]:
    """The modules of the package that a Python source uses."""
    magics_out = re.sub(r"^( *)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    tree = ast.parse(magics_out)
    aliases, chains = {"zotutor"}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "zotutor":
                    aliases.add(alias.asname or alias.name)
                elif alias.name.startswith("zotutor."):
                    chains.append(alias.name.split(".")[1:])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zotutor":
            inner = (node.module or "").split(".")[1:]
            chains += [[*inner, alias.name] for alias in node.names]
    for node in ast.walk(tree):
        names: list[str] = []
        part: ast.expr | None = node if isinstance(node, ast.Attribute) else None
        while isinstance(part, ast.Attribute):
            names.insert(0, part.attr)
            part = part.value
        if names and isinstance(part, ast.Name) and part.id in aliases:
            chains.append(names)
    return {name for name in map(home, chains) if name}


def chapters() -> list[tuple[str, str, set[str]]]:
    """(file, title, modules) of each notebook, in the order of the table of contents."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    found = []
    for name in re.findall(r"(?:root|file): book/(\S+)", toc):
        path = ROOT / "book" / f"{name}.ipynb"
        if not path.exists():
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title = re.findall(r"^# (.+)$", "".join(cells[0]["source"]), flags=re.MULTILINE)[0]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found.append((name, title, used("\n".join(sources))))
    return found


def tests(names: set[str]) -> dict[str, list[str]]:
    """The test files of each module."""
    users: dict[str, set[str]] = {name: set() for name in names}
    own: dict[str, set[str]] = {name: set() for name in names}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        where = path.relative_to(ROOT).as_posix()
        uses = used(path.read_text(encoding="utf-8"))
        for name in names:
            if name in uses:
                users[name].add(where)
            last = name.split(".")[-1]
            if path.stem == f"test_{name.replace('.', '_')}" or (
                path.stem == f"test_{last}" and ("." not in name or name in uses)
            ):
                own[name].add(where)
    return {name: sorted(own[name] or users[name]) for name in names}


def text() -> str:
    """The whole of MAP.md."""
    there = modules()
    lines = [HEAD, "## Chapters", "", "| chapter | modules of `zotutor` |", "|---|---|"]
    for name, title, uses in chapters():
        packages = {module.rpartition(".")[0] for module in uses}
        listed = ", ".join(f"`{module}`" for module in sorted((uses & set(there)) - packages))
        lines.append(f"| [{title}](book/{name}.ipynb) | {listed} |")
    lines += ["", "## Modules", "", "| module | what it is | tests |", "|---|---|---|"]
    of = tests(set(there))
    for name, module in sorted(there.items()):
        line = (module.__doc__ or "").strip().partition("\n")[0].replace("|", "\\|")
        path = Path(module.__file__ or "").relative_to(ROOT).as_posix()
        links = ", ".join(f"[{Path(t).stem.removeprefix('test_')}]({t})" for t in of[name])
        lines.append(f"| [`{name}`]({path}) | {line} | {links or 'none of its own'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write MAP.md."""
    MAP.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

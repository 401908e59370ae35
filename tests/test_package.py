"""What holds the package together: its lock, its wheel, its page in the book.

Those marked lint read files only, and are part of `make lint`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import zotutor

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"

lint = pytest.mark.lint


def tool(name: str) -> ModuleType:
    """A script of tools/, imported."""
    sys.path.insert(0, os.fspath(ROOT / "tools"))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)


@lint
def test_public_names_are_on_the_pages_of_the_package() -> None:
    page = "\n".join(path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("api*.md")))
    documented = set(re.findall(r"^\.\. auto\w+:: zotutor\.(\S+)$", page, flags=re.MULTILINE))
    assert {"datasets", "exercises", "figures", "models"} <= documented  # these as a whole
    public = {n for n in zotutor.__all__ if not isinstance(getattr(zotutor, n), ModuleType)}
    missing = sorted(public - documented)
    assert not missing, f"Add a line to one of book/api_*.md for {missing}"
    for name in documented:
        module, value = "zotutor", cast("Any", zotutor)
        for part in name.split("."):
            if isinstance(value, ModuleType) and not hasattr(value, part):
                import_module(
                    f"{module}.{part}"
                )  # a module that the package does not import itself
            module, value = f"{module}.{part}", getattr(value, part)


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def requirements(*extras: str) -> dict[str, str]:
    """What the package and these extras require, by name; the specifier as text."""
    optional = project()["optional-dependencies"]
    lines = [*project()["dependencies"], *(line for extra in extras for line in optional[extra])]
    split = (re.fullmatch(r"([\w.-]+)(.*)", line) for line in lines)
    return {match[1]: match[2] for match in split if match}


def pins(path: Path) -> dict[str, str]:
    """The exact versions in a lock or constraint file, by name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    exact = [re.fullmatch(r"([a-z0-9-]+)==(\S+)(?: ; .+)?", line) for line in lines]
    assert all(exact), [line for line, match in zip(lines, exact, strict=True) if not match]
    return {match[1]: match[2] for match in exact if match}


@lint
def test_the_package_bounds_nothing_from_above() -> None:
    bounds = requirements("book", "llm", "site", "dev")
    capped = {name for name, bound in bounds.items() if "<" in bound or "==" in bound}
    # why: see pyproject.toml
    assert capped == {"ipykernel", "jupyter-book", "sphinx-book-theme"}


@lint
def test_the_lock_is_complete() -> None:
    locked = pins(ROOT / "requirements.lock")
    assert locked["torch"] == "2.13.0"  # a CPU build of it is what installs quickly
    assert locked["jupyter-book"] == "1.0.4.post1"  # 2 is another program
    missing = set(requirements("book", "llm", "site", "dev")) - set(locked)
    assert missing == {"datasets"}  # optional, and large


@lint
def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """CI runs the tests with .ci/oldest.txt, so what pyproject.toml allows there has been tried."""
    bounds = requirements("book", "llm")
    del bounds["torch"]  # an old one is too large to fetch
    oldest = {name: f">={version}" for name, version in pins(ROOT / ".ci/oldest.txt").items()}
    assert oldest == bounds


@lint
def test_the_extras_of_the_chapters_replace_nothing_in_colab() -> None:
    """What Colab has satisfies them, and its Jupyter is not among them."""
    colab = pins(ROOT / ".ci/colab.txt")
    for name, bound in requirements("book").items():
        if name != "torch":
            assert release(colab[name]) >= release(bound.removeprefix(">=")), name
    core = {
        "ipykernel",
        "ipython",
        "jupyter",
        "jupyter-client",
        "jupyterlab",
        "notebook",
        "tornado",
    }
    assert not core & set(requirements("book", "llm"))


def release(version: str) -> tuple[int, ...]:
    """A version as numbers, for comparison."""
    return tuple(int(part) for part in version.split("."))


@lint
def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {zotutor.__version__}\n" in citation


# ---- README -------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """The code blocks of README.md in a language ("" for those that name none)."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def installed_by(extras: set[str]) -> set[str]:
    """The distributions that `pip install ".[extras]"` brings, those they need among them."""
    found: set[str] = set()
    todo = [Requirement(f"{name}") for name in requirements(*extras)]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # datasets, which the lock leaves out
            continue
        found.add(name)
        for need in map(Requirement, needs):
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
            ):
                todo.append(need)
    return found


def run_with(extras: set[str], program: str, folder: Path) -> str:
    """Run a program that can import only what the package and these extras install; its output."""
    there = installed_by(extras)
    blocked = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & there
    } - {"zotutor", "pip", "setuptools"}
    guard = f"""
import sys
from importlib.machinery import PathFinder
there = PathFinder.find_spec
PathFinder.find_spec = lambda name, *place: (
    None if name.partition(".")[0] in {blocked!r} else there(name, *place)
)
"""
    command = [sys.executable, "-c", guard + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_the_readme_runs_after_what_the_readme_installs(tmp_path: Path) -> None:
    (install,) = (
        text for text in blocks("") if text.startswith("pip install") and "llm" not in text
    )
    (program,) = blocks("python")
    extras = set(re.findall(r"\w+", install.partition("[")[2]))
    printed = run_with(extras, program, tmp_path)
    assert 0 < float(printed.removeprefix("tensor([[").partition("]")[0]) < 1
    with pytest.raises(AssertionError, match="scikit-learn"):  # and the guard can fail
        run_with(set(), program, tmp_path)


def test_the_commands_of_the_readme_run_after_what_the_readme_installs(tmp_path: Path) -> None:
    (text,) = (text for text in blocks("") if "zotutor finetune" in text)
    install, *commands = text.splitlines()
    extras = set(re.findall(r"\w+", install.partition("[")[2]))
    for line in commands:
        assert line.startswith("zotutor ")
        words = shlex.split(line.replace("--steps 500", "--steps 3"))
        run_with(
            extras, f"sys.argv = {words!r}\nfrom zotutor.__main__ import main\nmain()", tmp_path
        )
    assert (tmp_path / "again").is_dir()


def test_a_change_of_the_package_drops_the_results_of_chapters(tmp_path: Path) -> None:
    fingerprint = tool("build_book").fingerprint
    module = tmp_path / "module.py"
    module.write_text("a = 1", encoding="utf-8")
    seen = [fingerprint(tmp_path)]
    module.write_text("a = 2", encoding="utf-8")
    seen.append(fingerprint(tmp_path))
    module.rename(tmp_path / "other.py")
    seen.append(fingerprint(tmp_path))
    assert len(set(seen)) == 3
    cache = tmp_path / "__pycache__" / "other.pyc"
    cache.parent.mkdir()
    cache.write_bytes(b"compiled")
    assert fingerprint(tmp_path) == seen[-1]


def test_the_wheel_holds_the_package_and_chapters_run_on_it_alone(tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    command = [sys.executable, os.fspath(ROOT / "tools" / "chapters_alone.py"), os.fspath(folder)]
    subprocess.run(command, check=True, cwd=tmp_path)

    package = ROOT / "zotutor"
    source = {p.relative_to(ROOT) for p in package.rglob("*") if "__pycache__" not in p.parts}
    source = {path for path in source if (ROOT / path).is_file()}
    site = folder / "site"
    assert {p.relative_to(site) for p in site.glob("zotutor/**/*") if p.is_file()} == source
    assert {p.name for p in folder.glob("chapters/*/*")} == {p.name for p in BOOK.glob("*.ipynb")}

    # The kernel that is written there must import the wheel, not the source tree.
    specification = json.loads((folder / "jupyter/kernels/python3/kernel.json").read_text())
    kernel = [specification["argv"][0], "-c", "import zotutor; print(zotutor.__file__)"]
    environment = os.environ | specification["env"]
    seen = subprocess.run(
        kernel, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert Path(seen.stdout.strip()) == site / "zotutor" / "__init__.py"

"""What holds the package together: its lock, its wheel, its page in the book.

Those marked lint read files only, and are part of `make lint`.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

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
def test_public_names_are_on_the_page_of_the_package() -> None:
    page = (BOOK / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: zotutor\.(\S+)$", page, flags=re.MULTILINE))
    assert {"datasets", "exercises", "figures", "models"} <= documented  # these as a whole
    public = {n for n in zotutor.__all__ if not isinstance(getattr(zotutor, n), ModuleType)}
    missing = sorted(public - documented)
    assert not missing, f"Add a line to book/api.md for {missing}"
    for name in documented:
        pkgutil.resolve_name(f"zotutor.{name}")


def requirements() -> dict[str, str]:
    """What pyproject.toml asks for, by package; the specifier as text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    split = (re.fullmatch(r"([\w.-]+)(.*)", line) for group in groups for line in group)
    return {match[1]: match[2] for match in split if match}


@lint
def test_the_package_bounds_nothing_from_above() -> None:
    capped = {name for name, bounds in requirements().items() if "<" in bounds or "==" in bounds}
    assert capped == {"jupyter-book", "sphinx-book-theme"}  # why: see pyproject.toml


@lint
def test_the_lock_is_exact_and_complete() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    exact = [re.fullmatch(r"([a-z0-9-]+)==(\S+)(?: ; .+)?", line) for line in pins]
    assert all(exact), [line for line, match in zip(pins, exact, strict=True) if not match]
    locked = {match[1]: match[2] for match in exact if match}
    assert locked["torch"] == "2.13.0"  # a CPU build of it is what installs quickly
    assert locked["jupyter-book"] == "1.0.4.post1"  # 2 is another program
    assert set(requirements()) - set(locked) == {"datasets"}  # optional, and large


@lint
def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {zotutor.__version__}\n" in citation


def test_the_readme_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


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

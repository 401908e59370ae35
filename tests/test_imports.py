"""Public names, what importing them needs, and that imports go one way."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zotutor as zo

PACKAGE = Path(zo.__file__).parent
LAZY = ("datasets", "exercises", "experiments", "explorables", "figures", "llm", "models")
READING_ORDER = (
    "parameters checks deprecation statistics columns tables streams directions closure fused "
    "probe rounding estimators optim calling jacobians factors recorder uses sketches kernels "
    "tiles similarity fidelity laws pairs bounds concentration batches contraction orthogonal "
    "tails dynamics trajectories planning moments curvature step_size run_planning claims "
    "downloads datasets models experiments figures exercises llm explorables cli_messages "
    "cli_options cli __main__"
).split()
"""A module may need those before it in this list, and none after."""


# ---- imports go one way -------------------------------------------------------------------------


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports, wherever in the file it does."""
    name = module_name(path, root)
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if name == root.name:  # the package itself loads some modules only on first use
        tree.body = [node for node in tree.body if not isinstance(node, (ast.If, ast.FunctionDef))]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= (inner & modules) | ({source} if inner - modules else set())
    return (found & modules) - {name}


def graph(root: Path) -> dict[str, set[str]]:
    paths = [path for path in root.rglob("*.py") if "__pycache__" not in path.parts]
    modules = {module_name(path, root) for path in paths}
    return {module_name(path, root): imports(path, root, modules) for path in paths}


def upward(needs: dict[str, set[str]], order: list[str]) -> list[str]:
    """'a needs b' for each a above b in the order, however long the way from a to b."""
    part = {name: [*name.split("."), "__init__"][1] for name in needs}
    found = []
    for start in needs:
        if part[start] not in order:
            continue
        todo, seen = [start], {start}
        while todo:
            new = needs[todo.pop()] - seen
            seen |= new
            todo += new
        last = order.index(part[start])
        found += [
            f"{start} needs {name}"
            for name in sorted(seen)
            if part[name] in order[last + 1 :] or part[name] == "__init__"
        ]
    return found


def test_imports_go_one_way() -> None:
    needs = graph(PACKAGE)
    assert {"zotutor.jacobians", "zotutor.checks"} <= needs["zotutor.kernels"]
    tuple(TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle
    assert not upward(needs, READING_ORDER)


def test_every_module_has_its_place_in_the_reading_order() -> None:
    there = {name.split(".")[1] for name in graph(PACKAGE) if "." in name}
    assert there - set(READING_ORDER) == set(), "give these a place in READING_ORDER, above"
    assert set(READING_ORDER) - there == set(), "these are gone: remove them from READING_ORDER"
    assert len(set(READING_ORDER)) == len(READING_ORDER)


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ({"a": "", "b": "from .a import x", "c": "from . import a, b"}, None),
        ({"a": "from .b import x", "b": ""}, "p.a needs p.b"),
        ({"a": "from . import b", "b": ""}, "p.a needs p.b"),
        ({"a": "import p.b", "b": ""}, "p.a needs p.b"),
        ({"a": "from p import b", "b": ""}, "p.a needs p.b"),
        ({"a": "from p.b import x", "b": ""}, "p.a needs p.b"),
        ({"a": "def f():\n    from .b import x", "b": ""}, "p.a needs p.b"),
        ({"a": "try:\n    from p.b import x\nfinally:\n    pass", "b": ""}, "p.a needs p.b"),
        ({"a": "from . import unlisted", "unlisted": "from . import c", "c": ""}, "p.a needs p.c"),
        ({"a": "from .b.inner import x", "b/__init__": "", "b/inner": ""}, "p.a needs p.b.inner"),
        ({"a": "from p import something"}, "p.a needs p"),
        ({"a": "", "b/__init__": "from .inner import x", "b/inner": "from ..a import y"}, None),
        ({"b/__init__": "", "b/inner": "from ..c import y", "c": ""}, "p.b.inner needs p.c"),
    ],
)
def test_the_order_can_be_violated(
    files: dict[str, str], finding: str | None, tmp_path: Path
) -> None:
    root = tmp_path / "p"
    for name, text in {"__init__": "", **files}.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert upward(graph(root), ["a", "b", "c"]) == ([finding] if finding else [])


def test_a_circle_is_found(tmp_path: Path) -> None:
    for name, text in {
        "__init__": "",
        "x": "from . import y",
        "y": "def f():\n import p.x",
    }.items():
        path = tmp_path / "p" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(graph(tmp_path / "p")).static_order())


# ---- what an import needs -----------------------------------------------------------------------

BLOCKED = """
import sys
from importlib.machinery import ModuleSpec

class Blocker:
    names = {
        "IPython", "datasets", "ipywidgets", "matplotlib", "pandas", "safetensors", "scipy",
        "sklearn", "tokenizers", "tqdm", "transformers", "typer",
    }

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(program: str) -> str:
    command = [sys.executable, "-W", "error", "-c", BLOCKED + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_works_with_torch_and_numpy_only() -> None:
    """All of the core computes, though nothing else can be imported; nor is anything else tried."""
    program = """
import numpy, torch, torch.func
before = set(sys.modules)
import zotutor as zo
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert new - {"numpy", "torch"} == {"zotutor"}, new
assert not {"zotutor." + name for name in %r} & set(sys.modules)
assert set(zo.__all__) <= set(dir(zo)), "a notebook could not complete these"
model = torch.nn.Linear(3, 2)
x, y = torch.eye(3), torch.tensor([0, 1, 1])
for P in (None, 2):
    assert zo.one_step(model, x, x, y, lr=0.1, P=P, seed=0).residual.isfinite().all()
assert zo.entk(model, x, x).shape == zo.zo_entk(model, x, x, P=2, seed=0).shape == (3, 3, 2, 2)
optimizer = zo.ZOSGD(model.parameters(), lr=0.1, seed=0)
assert optimizer.step(lambda: torch.nn.functional.cross_entropy(model(x), y)).isfinite()
print("computed")
"""
    assert run(program % (LAZY,)) == "computed\n"


def test_without_the_extras_an_error_says_which_to_install() -> None:
    program = """
import zotutor as zo

def refused(call):
    try:
        call()
    except ImportError as error:
        return "zotutor[book]" in str(error)

assert zo.models.mlp(seed=0)(zo.directions.torch.zeros(1, 64)).shape == (1, 10)
assert zo.datasets.mnist
assert refused(zo.datasets.digits), "datasets"
assert refused(lambda: zo.figures), "figures"
print("refused")
"""
    assert run(program) == "refused\n"


# ---- public names -------------------------------------------------------------------------------

PROMISED = """
Gaussian Rademacher Uniform Sphere Sparse LowRank perturbed estimate_gradient ZOSGD jacobian jvp
vjp entk zo_entk one_step alignment effective_rank relative_frobenius directions estimators optim
jacobians kernels dynamics datasets models figures exercises NonFiniteLossError
""".split()


def test_the_promised_names_are_there() -> None:
    assert set(PROMISED) <= set(zo.__all__)


def test_all_lists_public_names_once_and_each_is_there() -> None:
    assert len(zo.__all__) == len(set(zo.__all__))
    for name in zo.__all__:
        assert getattr(zo, name) is not None
        assert not name.startswith("_")


def test_star_import_gives_all() -> None:
    namespace: dict[str, Any] = {}
    exec("from zotutor import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(zo.__all__)


@pytest.mark.parametrize("name", LAZY)
def test_lazy_modules_are_the_modules(name: str) -> None:
    assert getattr(zo, name) is import_module(f"zotutor.{name}")
    assert isinstance(getattr(zo, name), ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'zotutor' has no attribute 'entkk'"):
        zo.entkk  # noqa: B018
    with pytest.raises(ImportError):
        exec("from zotutor import entkk")


CALLABLES = [name for name in PROMISED if callable(getattr(zo, name))]


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_callable_is_documented(name: str) -> None:
    value = getattr(zo, name)
    doc = inspect.getdoc(value) or ""
    if inspect.isclass(value) and issubclass(value, Exception):
        assert doc
        return
    assert ">>>" in doc, "an example that runs"
    parameters = [p for p in inspect.signature(value).parameters if p != "self"]
    if parameters:
        assert "Args:" in doc
        missing = [p for p in parameters if f"{p}:" not in doc and f"{p}," not in doc]
        assert not missing, f"Args do not say what {missing} are"


@pytest.mark.parametrize("name", CALLABLES)
def test_options_are_keyword_only_and_the_seed_is_explicit(name: str) -> None:
    value = getattr(zo, name)
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    parameters = list(inspect.signature(value).parameters.values())
    for p in parameters:
        if p.default is not p.empty:
            assert p.kind is p.KEYWORD_ONLY, f"{p.name} is an option"
        if p.name in ("P", "directions", "eps", "seed", "step"):
            assert p.kind is p.KEYWORD_ONLY, p.name
        if p.name == "seed" and name != "one_step":
            assert p.default is p.empty


def test_the_version_is_one() -> None:
    parts = zo.__version__.split(".")
    assert len(parts) == 3
    assert all(part.isdigit() for part in parts[:2])


def test_lists_in_this_file_are_in_order() -> None:
    assert all(a != b for a, b in pairwise(READING_ORDER))
    assert list(LAZY) == sorted(LAZY)

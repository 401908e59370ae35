"""Explorables compute in the page what `zotutor` computes, and their HTML stands alone."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from explorable_cases import VECTORS, vectors
from nbclient import NotebookClient

import zotutor as zo
from zotutor.explorables import Explorable
from zotutor.explorables.page import SIZE_LIMIT, Table, scripts

STORED: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))
NAMES = [f"{one['chapter']}.{one['name']}" for one in STORED]
PACKAGE = Path(zo.__file__).parent / "explorables"
NODE = shutil.which("node")
each = pytest.mark.parametrize("stored", STORED, ids=NAMES)


def differences(found: Any, expected: Any, rtol: float, at: str = "") -> list[str]:
    """Where two values of JSON differ; of a found list or object, only what is expected."""
    if expected is None:
        return []
    if isinstance(expected, dict):
        pairs = [(f"{at}.{key}", found[key], value) for key, value in expected.items()]
    elif isinstance(expected, list):
        pairs = [
            (f"{at}[{k}]", found[k] if k < len(found) else None, value)
            for k, value in enumerate(expected)
        ]
    elif isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        close = math.isclose(found, expected, rel_tol=rtol, abs_tol=rtol * 1e-2)
        return [] if close else [f"{at}: {found}, expected {expected}"]
    else:
        return [] if found == expected else [f"{at}: {found}, expected {expected}"]
    return [line for name, left, right in pairs for line in differences(left, right, rtol, name)]


def test_differences_are_found() -> None:
    found = {"a": [1.0, 2.0, 3.0], "b": 1}
    assert not differences(found, {"a": [1.0, None]}, 1e-9)
    assert differences(found, {"a": [1.0, 2.1]}, 1e-9) == [".a[1]: 2.0, expected 2.1"]
    assert differences(found, {"a": [1.0, 2.0, 3.0, 4.0]}, 1e-9)


# ---- what JavaScript computes -------------------------------------------------------------------


def test_the_vectors_are_those_of_this_package() -> None:
    """Each number in the file is what tests/explorable_cases.py computes now."""
    now = json.loads(json.dumps(vectors()))
    assert [one["name"] for one in now] == [one["name"] for one in STORED]
    for fresh, stored in zip(now, STORED, strict=True):
        # sums of another machine may round otherwise; the ledger's numbers may not
        found = differences(fresh, stored, 0.0 if fresh["name"] == "ledger" else 1e-4)
        assert not found, f"run `python tests/explorable_cases.py`: {found[:3]}"


@pytest.mark.skipif(NODE is None, reason="node is not installed; make site-test does the same")
@each
def test_javascript_computes_what_zotutor_does(stored: dict[str, Any]) -> None:
    program = (
        f'"use strict";\n{scripts(stored["chapter"])}\n'
        'const { name, data, cases } = JSON.parse(require("fs").readFileSync(0, "utf8"));\n'
        "const found = cases.map(({ values }) => explorables[name].compute(data, values));\n"
        "console.log(JSON.stringify(found));\n"
    )
    done = subprocess.run(
        [str(NODE), "-e", program],
        input=json.dumps(stored),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for found, case in zip(json.loads(done.stdout), stored["cases"], strict=True):
        wrong = differences(found, case["result"], stored["rtol"])
        assert not wrong, f"{case['values']}: {wrong[:3]}"


# ---- the page -----------------------------------------------------------------------------------


def stored_explorable(stored: dict[str, Any]) -> Explorable:
    table = Table("caption", ["a"], [["1"]])
    return Explorable(stored["chapter"], stored["name"], "Title", stored["data"], table)


@each
def test_html_stands_alone_and_is_small(stored: dict[str, Any]) -> None:
    found = stored_explorable(stored)._repr_html_()
    assert len(found.encode()) <= SIZE_LIMIT
    without_namespace = found.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(
        r"https?:|//\w+\.|import\(|fetch\(|XMLHttp|localStorage", without_namespace
    )
    assert found == stored_explorable(stored)._repr_html_()
    assert found.count("<script") == found.count("</script") == 1
    assert found.index("zo-static") < found.index("<script")


def test_data_cannot_end_the_script() -> None:
    table = Table("<caption>", ["<a>"], [["<b>"]])
    found = Explorable("beyond", "structured", "<T>", {"where": "</script><!--"}, table)
    text = found._repr_html_()
    assert text.count("</script") == 1
    assert "<!--" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_a_page_that_is_too_large_is_refused() -> None:
    table = Table("caption", ["a"], [["1"]])
    with pytest.raises(ValueError, match=r"bytes of HTML, expected at most 200,000; give fewer"):
        Explorable("beyond", "structured", "Title", {"M": list(range(60_000))}, table)


@each
def test_other_data_gets_another_id(stored: dict[str, Any]) -> None:
    def identity(data: dict[str, Any]) -> str:
        table = Table("caption", ["a"], [["1"]])
        text = Explorable(stored["chapter"], stored["name"], "T", data, table)._repr_html_()
        (found,) = set(re.findall(r'<div class="zo-explorable[^>]* id="([^"]+)"', text))
        return str(found)

    assert identity(stored["data"]) != identity({**stored["data"], "more": 1})


def test_every_chapter_of_explorables_has_its_script() -> None:
    chapters = {one["chapter"] for one in STORED}
    assert chapters == {path.stem for path in PACKAGE.glob("js/*.js")} - {"core", "streams"}
    assert chapters == set(zo.explorables.__all__) - {"Explorable"}


def test_a_kernel_shows_the_page_and_its_table(tmp_path: Path) -> None:
    """What a reader's kernel sends is the HTML; text stands in where there is none."""
    cell = "import zotutor as zo\nzo.explorables.zo_sgd.quadratic(seed=0)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    resources = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(
        notebook, timeout=120, resources=resources, kernel_name="python3"
    ).execute()
    (output,) = done.cells[0].outputs
    assert output["data"]["text/plain"] == "<explorable zo_sgd.quadratic>"
    assert output["data"]["text/html"] == zo.explorables.zo_sgd.quadratic(seed=0)._repr_html_()


@pytest.mark.lint
def test_every_chapter_with_a_lab_has_an_explorable_of_its_own() -> None:
    """Where sliders need a kernel, another figure needs none; the site's tests move these."""
    book = Path(__file__).resolve().parent.parent / "book"
    code = {path.stem: path.read_text(encoding="utf-8") for path in book.glob("*.ipynb")}
    with_lab = {name for name, text in code.items() if "zo.figures.explore(" in text}
    with_own = {name for name, text in code.items() if f"zo.explorables.{name}." in text}
    moved = (Path(__file__).parent / "site" / "explorables.test.mjs").read_text(encoding="utf-8")
    assert with_lab <= with_own
    assert with_own == {name for name in code if f'"{name}"' in moved}


# ---- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zo.explorables.zo_sgd.quadratic(seed=1 << 53), "seed"),
        (lambda: zo.explorables.jl_lemma.distortion(seed=-1), "seed"),
        (
            lambda: zo.explorables.gradients_from_values.estimator_error(torch.zeros(4), seed=0),
            "gradient: all entries are 0",
        ),
        (lambda: zo.explorables.kernel_fidelity.planner({"x": 1.5}), r"alignments\['x'\]: given"),
        (
            lambda: zo.explorables.dimension_free.gram_sweep(
                {"s": ("d", {1: torch.ones(3, 3)})}, seed=0
            ),
            r"expected \(2 V, 2 V\)",
        ),
        (
            lambda: zo.explorables.dimension_free.gram_sweep(
                {"s": ("d", {1: torch.tensor([[1.0, 2.0], [2.0, 1.0]])})}, seed=0
            ),
            "not positive semi-definite",
        ),
        (
            lambda: zo.explorables.beyond.structured(
                torch.ones(2, 3), torch.ones(3, 2), where="w", seed=0
            ),
            "expected one",
        ),
        (
            lambda: zo.explorables.kernel_emerges.entries(
                torch.nn.Linear(2, 2), torch.eye(2), names=["same", "same"], P=2, seed=0
            ),
            "expected 2 different ones",
        ),
    ],
)
def test_arguments_are_checked(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def run_of(header: dict[str, Any], seeds: tuple[int, ...] = (3,)) -> Any:
    from zotutor.llm.runs.ledger import Contents, Step

    steps: list[Any] = [Step(k, seed, 1.0, 0.5, (0.25,)) for k, seed in enumerate(seeds)]
    return Contents(header, steps, 48, b"")


@pytest.mark.parametrize(
    ("contents", "parameter", "dtype", "message"),
    [
        (run_of({"directions": "gaussian"}), "weight", torch.float32, "expected rademacher"),
        (
            run_of({"directions": "rademacher", "momentum": 0.9}),
            "weight",
            torch.float32,
            "momentum is 0.9, expected 0",
        ),
        (run_of({"directions": "rademacher"}), "wait", torch.float32, "one of weight, bias"),
        (run_of({"directions": "rademacher"}), "bias", torch.float32, "8 entries"),
        (run_of({"directions": "rademacher"}), "weight", torch.bfloat16, "float32"),
        (run_of({"directions": "rademacher"}, ()), "weight", torch.float32, "0 steps"),
        (run_of({"directions": "rademacher"}, (1, 2)), "weight", torch.float32, "one seed"),
    ],
)
def test_other_runs_are_not_replayed(
    contents: Any, parameter: str, dtype: torch.dtype, message: str
) -> None:
    net = torch.nn.Linear(16, 8, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        zo.explorables.llm_finetuning.ledger(contents, net, net, parameter=parameter)

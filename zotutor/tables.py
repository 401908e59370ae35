"""Dated tables that ship with the package: what was measured, when, by which command.

:func:`table` reads any of them. The scripts in ``tools/`` and ``benchmarks/`` write them.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .columns import Table

NAMES = (
    "minilm_kernel",
    "mnist_fidelity",
    "smollm2_snippets",
    "sst2_minilm",
    "step_size",
    "study",
)
"""The tables that ship."""


def table(name: str) -> dict[str, Any]:
    """One dated table, as its script wrote it.

    Args:
        name: one of :data:`NAMES`.

    Returns:
        What ``zotutor/data/NAME.json`` holds.

    Raises:
        ValueError: for another name.

    Example:
        >>> table("mnist_fidelity")["d"]
        29624
    """
    if name not in NAMES:
        raise ValueError(f"name: given {name!r}, expected one of {', '.join(NAMES)}")
    text = files("zotutor").joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


_PERFORMANCE = files("zotutor").joinpath("data", "performance")


def performance_machines(comparison: str) -> list[str]:
    """The folders of the machines on which a comparison was measured, in alphabetical order.

    Args:
        comparison: such as "step"; ``python -m benchmarks`` knows the others.

    Returns:
        Names for :func:`performance`; an empty list if there are none.

    Example:
        >>> performance_machines("no such comparison")
        []
    """
    if not _PERFORMANCE.is_dir():
        return []
    folders = [folder for folder in _PERFORMANCE.iterdir() if folder.is_dir()]
    return sorted(f.name for f in folders if f.joinpath(f"{comparison}.json").is_file())


def performance(comparison: str, *, machine: str) -> dict[str, Any]:
    """The record of a comparison on one machine, as ``python -m benchmarks --record`` wrote it.

    Args:
        comparison: such as "step".
        machine: one of :func:`performance_machines`.

    Returns:
        Title, date, command, machine and versions, and under "cases" for each case the median
        seconds of each way, the ratio to those of the base, its quartiles, and peak memory.

    Raises:
        ValueError: for a machine without a record of this comparison.
    """
    known = performance_machines(comparison)
    if machine not in known:
        where = f"one of {', '.join(known)}" if known else "a comparison that was recorded"
        raise ValueError(
            f"machine: given {machine!r} for the comparison {comparison!r}, expected {where}; "
            f"to measure it, run: python -m benchmarks {comparison} --record"
        )
    path = _PERFORMANCE.joinpath(machine, f"{comparison}.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def performance_as_markdown(record: dict[str, Any]) -> str:
    """A record of :func:`performance` as a table in Markdown.

    Args:
        record: as :func:`performance` returns.

    Returns:
        A line that says what was measured on what, a header, and a row for each way: its median
        time, the ratio to the base with quartiles, the memory it adds, and the goal if there is
        one.

    Example:
        >>> way = {"way": "a", "seconds": 0.25, "ratio": 1.0, "quartiles": [1.0, 1.0]}
        >>> case = {"case": "one", "base": "a", "ways": [way]}
        >>> keys = ("title", "machine", "clock", "torch", "date", "command")
        >>> text = performance_as_markdown({"cases": [case]} | dict.fromkeys(keys, "-"))
        >>> text.splitlines()[-1].split()[:9]
        ['|', 'one', '|', 'a', '|', '250', 'ms', '|', '1']
    """
    about = [record[key] for key in ("machine", "clock", "date")]
    title = record["title"].rstrip(".")
    head = f"{title}: {', '.join(about)}, torch {record['torch']}; `{record['command']}`"
    table = Table("case", "way", "time", "over the base (quartiles)", "memory", "goal")
    for case in record["cases"]:
        for number, row in enumerate(case["ways"]):
            low, high = row["quartiles"]
            is_base = row["way"] == case["base"]
            ratio = "1" if is_base else f"{row['ratio']:.3g} ({low:.3g} to {high:.3g})"
            memory = f"{row['bytes'] / 1e6:,.0f} MB" if "bytes" in row else ""
            goal = ""
            if "goal" in row:
                met = "met" if row["ratio"] <= row["goal"] else "not met"
                goal = f"{row['goal']:g}, {met}"
            name = "" if number else case["case"]
            table.add(name, row["way"], _duration(row["seconds"]), ratio, memory, goal)
    return f"{head[:1].upper() + head[1:]}\n\n{table.markdown()}"


def _duration(seconds: float) -> str:
    """Seconds to three digits, in a unit that fits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def mnist_table() -> dict[str, Any]:
    """The numbers that ``tools/measure_mnist.py`` measured on MNIST, with their date and data.

    >>> mnist_table()["d"]
    29624
    """
    return table("mnist_fidelity")


def minilm_table() -> dict[str, Any]:
    """The numbers that ``tools/measure_minilm.py`` measured, with their date and data.

    >>> sorted(minilm_table())[:2]
    ['command', 'data']
    """
    return table("minilm_kernel")


def mnist_as_markdown(table: dict[str, Any], state: str, *, P: int = 125) -> str:
    """One state of :func:`mnist_table` at one P, as a table in Markdown.

    Args:
        table: as :func:`mnist_table` returns.
        state: "at initialization" or "trained".
        P: number of perturbations, one of those measured.

    Returns:
        A header and a row for each group of pairs: alignment; relative error with Gaussian and
        Rademacher directions, each with its standard error; the law; CKA; Wasserstein distance;
        the bound over the law, as lengths, at P = 125.

    Raises:
        KeyError, StopIteration: for a state or P that was not measured.

    Example:
        >>> print(mnist_as_markdown(mnist_table(), "at initialization").splitlines()[0])
        | pair | $a$ | Gaussian | law | Rademacher | CKA | $W$ | bound / law |
    """
    shown = Table("pair", "$a$", "Gaussian", "law", "Rademacher", "CKA", "$W$", "bound / law")
    for name, group in table["states"][state]["groups"].items():
        gaussian, signs = (
            next(row for row in group[family] if row["P"] == P)
            for family in ("Gaussian", "Rademacher")
        )
        cells = [name, f"{group['alignment']:.4f}"]
        cells.append(f"{gaussian['relative_frobenius']:.3f} ± {gaussian['std_error']:.3f}")
        cells.append(f"{gaussian['law']:.3f}")
        cells.append(f"{signs['relative_frobenius']:.3f} ± {signs['std_error']:.3f}")
        cells += [f"{gaussian['cka']:.3f}", f"{gaussian['wasserstein']:.3f}"]
        shown.add(*cells, f"{group['bound_over_law']:.1f}")
    return shown.markdown()


def minilm_as_markdown(table: dict[str, Any]) -> str:
    """:func:`minilm_table` as a table in Markdown: a column for each model and state.

    Args:
        table: as :func:`minilm_table` returns.

    Returns:
        A header, and rows for the alignment of three kinds of pairs; the relative error of the
        kernel of two different inputs, measured and by the law; what the predictions of FO and ZO
        steps of two sizes leave over; alignment and error of a step on a batch; telling apart.

    Example:
        >>> print(minilm_as_markdown(minilm_table()).splitlines()[0].count("|"))
        6
    """
    columns = [
        (f"{name}, {state}", model["d"], numbers)
        for name, model in table["models"].items()
        for state, numbers in model["states"].items()
    ]
    shown = Table("", *(name for name, _, _ in columns))
    shown.add("$d$", *(d for _, d, _ in columns))
    for kind, title in (
        ("itself", "an input with itself"),
        ("same label", "two inputs of one label"),
        ("other label", "two of different labels"),
    ):
        cells = [f"{n['kernel']['alignment'][kind]:.3f}" for _, _, n in columns]
        shown.add(f"alignment, {title}", *cells)
    for i, first in enumerate(columns[0][2]["kernel"]["errors"]):
        found = [n["kernel"]["errors"][i] for _, _, n in columns]
        cells = [
            f"{e['relative_error']:.2f} ± {e['std_error']:.2f} ({e['law']:.2f})" for e in found
        ]
        shown.add(f"error of $K_U$, $P = {first['P']}$ (law)", *cells)
    for i, first in enumerate(columns[0][2]["one_step"]["steps"]):
        order = "FO" if first["P"] is None else f"ZO, $P = {first['P']}$"
        found = [n["one_step"]["steps"][i] for _, _, n in columns]
        title = f"residual, {order}, FO change {first['change']:g}"
        shown.add(title, *(f"{100 * s['relative_residual']:.1f} %" for s in found))
    steps = [n["one_step"]["fidelity"] for _, _, n in columns]
    shown.add("alignment of a step on a batch", *(f"{s['alignment']:.3f}" for s in steps))
    cells = [f"{s['relative_error']:.2f} ± {s['std_error']:.2f} ({s['law']:.2f})" for s in steps]
    shown.add(f"error of the step, $P = {steps[0]['P']}$ (law)", *cells)
    apart = [n["telling_apart"] for _, _, n in columns]
    shown.add("telling apart, cosine", *(f"{a['cosine']:.3f}" for a in apart))
    shown.add("telling apart, $P$ for 50 %", *(f"{a['P_for_half']:,}" for a in apart))
    return shown.markdown()


class Costs(NamedTuple):
    """What one way of fine-tuning reached, and what it took."""

    accuracy: tuple[float, float, float]
    """Over all seeds, with its 95 % interval: value, low, high."""
    seeds: int
    steps: int
    seconds: float
    """Of one core, for all steps of a run; mean over seeds."""
    memory: float
    """Peak during two steps on sentences in GB, weights included; NaN where not measured."""


def smollm2_costs(table: dict[str, Any]) -> dict[str, Costs]:
    """Accuracy and costs of each way in the table "smollm2_snippets" that took steps, by its name.

    Args:
        table: as ``table("smollm2_snippets")`` returns.

    Example:
        >>> costs = smollm2_costs(table("smollm2_snippets"))
        >>> costs["ZO, bfloat16"].memory < costs["AdamW"].memory
        True
    """
    peaks = {
        cell["way"]: cell["memory_mib"] * 2**20 / 1e9
        for cell in table["memory"]
        if cell["shape"] == "sentences"
    }
    return {
        row["name"]: Costs(
            accuracy=(row["accuracy"][0], row["accuracy"][1], row["accuracy"][2]),
            seeds=len(row["runs"]),
            steps=row["steps"],
            seconds=sum(run["seconds"] for run in row["runs"]) / len(row["runs"]),
            memory=peaks.get(row["way"], math.nan),
        )
        for row in table["rows"]
        if row["method"]
    }


def smollm2_ledger() -> Path:
    """The ledger of one run of that table: ZO on all weights in float32, of seed 0.

    :func:`~zotutor.llm.replay` makes the tuned model of it, from ``zotutor.llm.load("smollm2")``.
    """
    return Path(str(files("zotutor").joinpath("data", "smollm2_snippets.ledger")))


def smollm2_as_markdown(table: dict[str, Any]) -> str:
    """The table "smollm2_snippets" in Markdown: what each way of fine-tuning reached and took.

    Args:
        table: as ``table("smollm2_snippets")`` returns.

    Returns:
        Two tables with a row for each way. Accuracy of all seeds, with its 95 % interval, and of
        each; loss of the last ten batches. Trained parameters, steps, learning rate, seconds, and
        the ledger in bytes.

    Example:
        >>> lines = smollm2_as_markdown(table("smollm2_snippets")).splitlines()
        >>> lines[2].startswith("| zero-shot |")
        True
    """
    reached = Table("", "accuracy, %", "of each seed", "last loss")
    took = Table("", "trained", "steps", "lr", "seconds", "ledger, bytes")
    for row in table["rows"]:
        runs = row["runs"]
        value, low, high = (100 * x for x in row["accuracy"][:3])
        each = ", ".join(f"{100 * run['accuracy'][0]:.1f}" for run in runs)
        loss = ""
        if row["method"]:
            loss = f"{sum(run['losses'][-1] for run in runs) / len(runs):.2f}"
            seconds = sum(run["seconds"] for run in runs) / len(runs)
            ledger = f"{runs[0]['ledger_bytes']:,}" if runs[0]["ledger_bytes"] else ""
            cells = (row["trainable"], row["steps"], row["lr"], f"{seconds:.0f}", ledger)
            took.add(row["name"], *cells)
        reached.add(row["name"], f"{value:.1f} ({low:.1f} to {high:.1f})", each, loss)
    return f"{reached.markdown()}\n\n{took.markdown()}"


def step_size_as_markdown(table: dict[str, Any]) -> str:
    """The table "step_size" in Markdown, a row for each model and family of directions.

    Args:
        table: as ``table("step_size")`` returns.

    Returns:
        A header, and a row each: parameters; steps and batch; the border of divergence, predicted
        (geometric mean of a few plans) over measured, with their ratio; the automatic learning
        rate over the best of a sweep, with their ratio, and how much of the best rate's decrease
        of the loss the automatic rate has (between two rates of the sweep, interpolated).

    Example:
        >>> lines = step_size_as_markdown(table("step_size")).splitlines()
        >>> lines[2].startswith("| digits, signs |")
        True
    """
    names = {"digits": "digits", "tiny": "tiny", "smollm2": "SmolLM2"}
    signs = {"rademacher": "signs", "gaussian": "normal"}
    border = ("border: predicted / measured", "ratio")
    rate = ("$\\eta$: automatic / best", "ratio", "gain")
    shown = Table("", "$d$", "$T$, $B$", *border, *rate)
    for row in table["rows"]:
        name = f"{names[row['model']]}, {signs[row['family']]}"
        cells: list[str] = []
        for found, wanted in (("predicted", "measured"), ("automatic", "best")):
            cells += [f"{row[found]:.2g} / {row[wanted]:.2g}", f"{row[found] / row[wanted]:.2f}"]
        cells.append(f"{100 * _share_of_gain(row):.0f} %")
        shown.add(name, row["d"], f"{row['steps']}, {row['batch_size']}", *cells)
    return shown.markdown()


def _share_of_gain(row: dict[str, Any]) -> float:
    """The decrease of the loss at the automatic learning rate, over that at the best one."""
    rates, losses = np.array([[lr, loss] for lr, loss, _ in row["ends"]]).T
    there = np.interp(math.log(row["automatic"]), np.log(rates), losses)
    return float((row["loss"] - there) / (row["loss"] - losses.min()))

"""Run comparisons, and write their dated records.

python -m benchmarks [NAME ...] [--only CASE] [--record] [--output FOLDER] [--device cpu]

Without names: all of them, each in a process of its own. --record writes to the folder of records
that the book reads, zotutor/data/performance/MACHINE; --output writes to another folder.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from zotutor.llm.runs.disk import write_json

from . import machine
from .runner import Comparison, measure, peak_of

NAMES = (
    "step",
    "kernel",
    "gram",
    "forward_sketch",
    "sketch",
    "prediction",
    "scaling",
    "fidelity",
    "processes",
)
"""The comparisons, each a module of this package with a ``COMPARISON``."""

RECORDS = Path(__file__).resolve().parent.parent / "zotutor" / "data" / "performance"


def load(name: str) -> Comparison:
    """The comparison of this name."""
    found: Comparison = importlib.import_module(f"benchmarks.{name}").COMPARISON
    return found


def write(record: dict[str, Any], folder: Path) -> Path:
    """Write a record to ``folder``/MACHINE/NAME.json, replacing the one before it."""
    path = folder / machine.folder_name(record["machine"]) / f"{record['comparison']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    return path


def options(args: argparse.Namespace) -> list[str]:
    """The options of a command line, for one comparison of several."""
    words = ["--device", args.device, "--threads", str(args.threads), "--only", args.only]
    words += ["--record"] * args.record + ["--no-memory"] * (not args.memory)
    return words + (["--output", str(args.output)] if args.output else [])


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--record", action="store_true", help=f"write to {RECORDS.name}/")
    parser.add_argument("--output", type=Path, help="write to this folder")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.names or list(NAMES)
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no comparison {min(unknown)}; expected some of {', '.join(NAMES)}")
    if args.only and args.record:
        parser.error("--record wants all cases; leave --only out, or write with --output")
    torch.set_num_threads(args.threads)
    if args.memory_of:
        machine.return_freed_memory()
        case_name, way = args.memory_of
        case = next(case for case in load(names[0]).cases(args.device) if case.name == case_name)
        print(peak_of(case.prepare(args.device)[way], args.device))
        return
    if args.record:
        lacking = [case.missing() for name in names for case in load(name).cases(args.device)]
        if any(lacking):
            parser.error(f"--record wants all cases; {next(filter(None, lacking))}")
    if len(names) > 1:
        for name in names:
            subprocess.run([sys.executable, "-m", "benchmarks", name, *options(args)], check=True)
        return
    machine.keep_freed_memory()
    memory = args.memory and (args.device == "cuda" or machine.has_memory_counters())
    record = measure(load(names[0]), args.device, memory=memory, only=args.only)
    if not record["cases"]:
        return
    for folder in filter(None, (RECORDS if args.record else None, args.output)):
        print(f"written: {write(record, folder).name}")


if __name__ == "__main__":
    main()

"""What one ZO step costs at language-model scale, against the time of two forward passes.

python benchmarks/zo_step.py [--model opt-125m] [--device cpu] [--dtype float32] [--json FILE]

Random weights of the named configuration: nothing is downloaded. All steps run in turn in one
process, so that a busy machine slows all of them; a ratio is the median, over the rounds, of a
step's time over that of two plain forward passes in the same round. Steps without a limit are timed
in every third round. On Linux the process keeps the memory that it frees: otherwise new pages,
depending on their layout, change any time by up to a tenth, that of two forward passes included.

Memory, on a CPU each step in a process of its own: what its peak adds to that of plain inference,
in units of the largest parameter. Several copies in one batch are compared with inference on as
many copies.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine, models
from benchmarks.step import BASE, BOTH, FOUR, NORMALS, language_losses, ways
from zotutor.llm.runs.disk import write_json

MODELS = {name.lower().replace(" ", "-"): name for name in models.OPT}
SHAPES = ((16, 64), (4, 32))
"""Batches: sentences x tokens."""
VOCABULARY = 50_000
COPIES = {BOTH: 2, FOUR: 8}
"""How many copies of the batch a forward holds; 1 for the other steps."""
LIMITS = {
    ("Rademacher", "16x64"): 1.3,
    ("Rademacher", "4x32"): 3.0,
    (BOTH, "16x64"): 1.15,
    (BOTH, "4x32"): 1.4,
}
"""Largest ratio to two forward passes."""


def make_model(args: argparse.Namespace) -> nn.Module:
    """The configuration of an OPT model with random weights, in eval mode."""
    return models.opt(MODELS[args.model], args.device, getattr(torch, args.dtype))


def steps_for(model: nn.Module, tokens: Tensor) -> dict[str, Callable[[], Any]]:
    """Each way to take a step, by name; the first is two forward passes."""
    return ways(model, language_losses(model, tokens), also=[NORMALS, BOTH, FOUR])


def seconds(step: Callable[[], Any], device: str) -> float:
    """Wall time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_of(step: Callable[[], Any], device: str) -> int:
    """The most memory held during one call: CUDA's tensors, or the process's resident size."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    machine.forget_peak()
    step()
    return machine.resident_bytes(peak=True)


def memory_of(name: str, copies: int, batch: str, args: argparse.Namespace) -> int:
    """Peak memory of one step (or of inference on ``copies``) in a process of its own."""
    command = [sys.executable, __file__, "--model", args.model, "--device", args.device]
    command += ["--dtype", args.dtype, "--threads", str(args.threads)]
    command += ["--memory-of", name, "--shape", batch, "--copies", str(copies)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.strip().splitlines()[-1])


def peak_in_this_process(model: nn.Module, name: str, copies: int, batch: str, device: str) -> int:
    """Peak memory of one step (or of inference on ``copies``) with the model at hand."""
    rows, length = map(int, batch.split("x"))
    tokens = models.batch_of(rows, length, device, VOCABULARY)
    step = steps_for(model, tokens)[name]
    if name == BASE:
        losses = language_losses(model, tokens)
        step = torch.no_grad()(lambda: losses(copies))
    return peak_of(step, device)


def times_of(
    steps: dict[str, Callable[[], Any]], batch: str, args: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """For each step, its seconds and those of two forward passes, round by round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for step in steps.values():  # warm-up
        step()
    for k in range(args.rounds):
        base = seconds(steps[BASE], args.device)
        times[BASE].append((base, base))
        for name, step in steps.items():
            if name != BASE and ((name, batch) in LIMITS or k % 3 == 0):
                times[name].append((seconds(step, args.device), base))
    return times


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The table: printed, and returned with what it was measured on."""
    model = make_model(args)
    parameters = list(model.parameters())
    largest = max(p.numel() * p.element_size() for p in parameters)
    d = sum(p.numel() for p in parameters)
    print(
        f"{args.model}: d = {d:,}, {args.dtype}, {args.device}, {torch.get_num_threads()} threads"
    )

    def peak(name: str, copies: int, batch: str) -> int:
        if args.device == "cuda":  # which counts tensors, and may not hold a second model
            return peak_in_this_process(model, name, copies, batch, args.device)
        return memory_of(name, copies, batch, args)

    rows = []
    for shape in SHAPES:
        batch = f"{shape[0]}x{shape[1]}"
        print(f"\n{shape[0]} x {shape[1]} tokens, {args.rounds} rounds")
        times = times_of(
            steps_for(model, models.batch_of(*shape, args.device, VOCABULARY)), batch, args
        )
        for name, found in times.items():
            row: dict[str, Any] = {
                "batch": batch,
                "step": name,
                "seconds": round(statistics.median(step for step, _ in found), 4),
                "ratio": round(statistics.median(step / base for step, base in found), 3),
            }
            text = f"  {name:38s} {row['seconds']:8.3f} s {row['ratio']:7.2f} x"
            if args.memory:
                copies = COPIES.get(name, 1)
                inference = peak(BASE, copies, batch)
                own = inference if name == BASE else peak(name, copies, batch)
                row |= {"extra_bytes": own - inference, "largest_bytes": largest}
                text += (
                    f"   extra memory {(own - inference) / largest:5.2f} of the largest parameter"
                )
            print(text, flush=True)
            rows.append(row)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python benchmarks/zo_step.py", *args.given]),
        "machine": args.machine or f"{platform.machine()}, {args.threads} threads",
        "model": args.model,
        "d": d,
        "dtype": args.dtype,
        "device": args.device,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "rounds": args.rounds,
        "rows": rows,
        "limits": limits_of(rows),
    }


def limits_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each limit on time and memory, with the value found and whether it is met."""
    limits = []
    for row in rows:
        here = f"{row['step']}, {row['batch']}"
        bounds = []
        if (row["step"], row["batch"]) in LIMITS:
            bound = LIMITS[row["step"], row["batch"]]
            bounds.append((f"{here}: time over two forward passes", bound, row["ratio"]))
        if "extra_bytes" in row and row["step"].startswith(("Rademacher", "LowRank")):
            share = round(row["extra_bytes"] / row["largest_bytes"], 3)
            bounds.append((f"{here}: memory over inference, in largest parameters", 1.0, share))
        for name, bound, value in bounds:
            limits.append({"name": name, "limit": bound, "value": value, "met": value <= bound})
    return limits


def main() -> None:
    """Measure and print; with --json also write a dated record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="opt-125m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--machine", default="", help="the machine in words, for the record")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--copies", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.given = [
        *(f"--{name} {getattr(args, name)}" for name in ("model", "device", "dtype", "rounds")),
        *(["--threads", str(args.threads)] if args.device == "cpu" else []),
        *([] if args.memory else ["--no-memory"]),
    ]
    torch.set_num_threads(args.threads)
    if args.memory_of:
        machine.return_freed_memory()
        model = make_model(args)
        print(peak_in_this_process(model, args.memory_of, args.copies, args.shape, args.device))
        return
    machine.keep_freed_memory()
    record = measure(args)
    print()
    for limit in record["limits"]:
        met = "met" if limit["met"] else "NOT MET"
        print(f"  {limit['name']}: {limit['value']}, limit {limit['limit']}: {met}")
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    main()

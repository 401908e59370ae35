"""One, two and four processes share the 8 perturbations of each step.

The processes are started by torchrun on this machine; with as many cores as processes the time
should fall in proportion. Each call is a run of its own, of which the steps are timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from typing import Any

import torch

from .runner import Call, Case, Comparison, Timed

STEPS, P = 20, 8
COUNTS = (1, 2, 4)


def run(count: int) -> Timed:
    """Seconds of STEPS steps on ``count`` processes, and the loss of the last."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *launch, "-m", "benchmarks.processes"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Timed(found["seconds"], found["loss"])


def ways(_: str) -> dict[str, Call]:
    """The same run on each number of processes."""
    return {f"{n} process{'es' if n > 1 else ''}": partial(run, n) for n in COUNTS}


def work() -> None:
    """One of the processes: the first prints its seconds and the last loss."""
    from zotutor.llm import Ranks, finetune, load, task

    torch.set_num_threads(1)
    model, tokenizer = load("tiny")
    with Ranks.join() as ranks:
        options: dict[str, Any] = {"lr": 1e-4, "P": P, "dev": 8, "ranks": ranks}
        start = time.perf_counter()
        done = finetune(model, tokenizer, task("reviews"), steps=STEPS, progress=False, **options)
        if ranks.rank == 0:
            seconds = (time.perf_counter() - start) / STEPS
            print(json.dumps({"seconds": seconds, "loss": float(done.losses[-1])}))


COMPARISON = Comparison(
    "processes",
    f"a step with P = {P} of the small language model, on several processes",
    lambda _: [
        Case("tiny", ways, "1 process", tolerance=1e-6, memory=False, seconds=20.0, wall=True)
    ],
)

if __name__ == "__main__":
    work()

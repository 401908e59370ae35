"""One, two and four processes share the 8 perturbations of each step.

With as many cores as processes the time should fall in proportion. Each call is a run of its own,
of which the steps are timed; the processes are forked from one that has imported everything.
"""

from __future__ import annotations

import os
import socket
import time
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from .runner import Call, Case, Comparison, Timed

STEPS, P = 5, 8
COUNTS = (1, 2, 4)
PRELOAD = ["zotutor.llm", "transformers.models.opt.modeling_opt", "torch.distributed"]


def free_port() -> int:
    """A port on this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def run(count: int) -> Timed:
    """Seconds per step on ``count`` processes, and the loss of the last step."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    results, port = context.SimpleQueue(), free_port()
    processes = [
        context.Process(target=work, args=(rank, count, port, results)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a process of {count} ended with {process.exitcode}; see above")
    seconds, loss = results.get()
    return Timed(seconds, loss)


def work(rank: int, count: int, port: int, results: Any) -> None:
    """One of the processes: the first sends its seconds per step and the last loss."""
    from zotutor.llm import Ranks, finetune, load, task

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    model, tokenizer = load("tiny")
    with Ranks.join() as ranks:
        options: dict[str, Any] = {"lr": 1e-4, "P": P, "dev": 8, "ranks": ranks}
        start = time.perf_counter()
        done = finetune(model, tokenizer, task("reviews"), steps=STEPS, progress=False, **options)
        if rank == 0:
            results.put(((time.perf_counter() - start) / STEPS, done.losses[-1]))


def ways(_: str) -> dict[str, Call]:
    """The same run on each number of processes."""
    return {f"{n} process{'es' if n > 1 else ''}": partial(run, n) for n in COUNTS}


COMPARISON = Comparison(
    "processes",
    f"a step with P = {P} of the small language model, on several processes",
    lambda _: [
        Case("tiny", ways, "1 process", tolerance=1e-6, memory=False, seconds=10.0, wall=True)
    ],
)

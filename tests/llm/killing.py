"""Kills a run again and again, at random moments, and prints how it ended as JSON.

    python killing.py FOLDER KILLS SEED

Each session is a process of its own, forked from this one, which has loaded everything: to start
Python and torch again takes longest. It is killed with SIGKILL: half of the times as soon as some
more steps are in the ledger, half of the times when some time has passed, which may be while the
folder is opened or the ledger replayed.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from small import save_model, toy_task

from zotutor import llm

STEPS = 600


def session(base: torch.nn.Module, tokenizer: object, output: Path) -> int:
    """The run, in a process of its own; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        llm.finetune(
            copy.deepcopy(base),
            tokenizer,
            toy_task(),
            steps=STEPS,
            lr=1e-3,
            momentum=0.5,
            batch_size=2,
            evaluate_every=20,
            hash_every=7,
            seed=3,
            output=output,
            progress=False,
        )
        code = 0
    finally:
        os._exit(code)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    model, tokenizer = llm.load(save_model(folder / "model", layers=1))
    os.waitpid(session(model, tokenizer, folder / "never"), 0)
    output, random_ = folder / "killed", random.Random(seed)
    places, book = [], output / "ledger.bin"
    for k in range(kills):
        before = size(book)
        child = session(model, tokenizer, output)
        # at most half of a session's share of the steps is awaited, so that none ends by itself
        share = STEPS // kills // 2
        grown = before + 48 * (random_.randrange(share) if k % 2 else share)
        latest = time.monotonic() + (60 if k % 2 else random_.uniform(0, 0.25))
        while (
            size(book) < grown
            and time.monotonic() < latest
            and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        ):
            time.sleep(1e-4)
        if k % 2:
            time.sleep(random_.uniform(0, 4e-3))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"session {k} ended by itself: {status}"
        places.append(size(book))
    _, status = os.waitpid(session(model, tokenizer, output), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    found = llm.replay(output, copy.deepcopy(model))
    same = {
        name: (output / name).read_bytes() == (folder / "never" / name).read_bytes()
        for name in ("ledger.bin", "metrics.jsonl", "config.json", "plot.png")
    }
    print(json.dumps({"places": places, "same": same, "steps": found.steps, "at": found.checked}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

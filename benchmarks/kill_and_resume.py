"""Compares a run on the shipped model that is killed again and again with one that is not.

python benchmarks/kill_and_resume.py [--steps 2000] [--kills 20] [--seed 0] [--P 1] [--dtype D]

Each session is the command `zotutor finetune` in a process of its own, killed with SIGKILL while it
works on a step drawn by the seed, some milliseconds into it. Prints which files are the same to the
last byte, the sizes of the ledger and of the weights, and how long a replay takes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zotutor.llm.runs.ledger import read, record_size


def command(output: Path, args: argparse.Namespace) -> list[str]:
    """The command of one session."""
    options = {"model": "tiny", "task": "reviews", "lr": args.lr, "dev": 200, "P": args.P}
    options |= {"steps": args.steps, "evaluate-every": 500, "dtype": args.dtype, "output": output}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "zotutor", "finetune", *words]


def killed_at(step: int, output: Path, args: argparse.Namespace, delay: float) -> int:
    """Start a session, and kill it ``delay`` seconds after this step; how many steps it left."""
    path, size = output / "ledger.bin", record_size(args.P)
    with subprocess.Popen(command(output, args), stdout=subprocess.DEVNULL) as process:
        while not path.exists() or path.stat().st_size < step * size:
            if process.poll() is not None:
                raise SystemExit(f"the session ended by itself, with {process.returncode}")
            time.sleep(1e-3)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    return len(read(path).steps)


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--P", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        never, often = Path(folder, "never"), Path(folder, "killed")
        begun = time.perf_counter()
        subprocess.run(command(never, args), check=True)
        print(f"never killed: {time.perf_counter() - begun:.0f} s")
        draw = random.Random(args.seed)
        begun, places = time.perf_counter(), []
        for step in sorted(draw.sample(range(1, args.steps - 20), args.kills)):
            places.append(killed_at(step, often, args, draw.uniform(0, 0.05)))
            print(f"killed with {places[-1]} steps in the ledger", flush=True)
        subprocess.run(command(often, args), check=True)
        print(f"killed {args.kills} times: {time.perf_counter() - begun:.0f} s")
        same = True
        for name in ("ledger.bin", "metrics.jsonl", "config.json", "plot.png"):
            equal = (never / name).read_bytes() == (often / name).read_bytes()
            print(f"{name}: {'the same bytes' if equal else 'DIFFERENT'}")
            same = same and equal
        begun = time.perf_counter()
        words = ["replay", os.fspath(often), "--model", "tiny", "--save", f"{folder}/tuned"]
        subprocess.run([sys.executable, "-m", "zotutor", *words], check=True)
        seconds = time.perf_counter() - begun
        book = (often / "ledger.bin").stat().st_size
        weights = Path(folder, "tuned", "model.safetensors").stat().st_size
        print(f"replayed and saved in {seconds:.0f} s, start of Python included")
        print(f"ledger {book:,} bytes, weights {weights:,} bytes")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()

"""What one ZO step costs at language-model scale, against the time of two forward passes.

python benchmarks/zo_step.py [--model opt-125m] [--device cpu] [--dtype float32] [--json FILE]

Random weights of the named configuration: nothing is downloaded. All steps run in turn in one
process, so that a busy machine slows all of them; the table gives medians, and ratios of medians to
two plain forward passes of the same run. Peak memory is what a step adds to the model and one
forward pass, in units of the largest parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo

MODELS = {
    "opt-tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt-125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "opt-350m-wide": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "opt-1.3b": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32},
    "opt-13b": {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40},
    "opt-30b": {"hidden_size": 7168, "num_hidden_layers": 48, "num_attention_heads": 56},
}
SHAPES = ((16, 64), (4, 32))
"""Batches: sentences x tokens."""


def make_model(name: str, dtype: torch.dtype, device: str) -> nn.Module:
    """The configuration of an OPT model with random weights, in eval mode."""
    from transformers import OPTConfig, OPTForCausalLM

    shape: Any = MODELS[name]
    config = OPTConfig(
        vocab_size=50272,
        ffn_dim=4 * shape["hidden_size"],
        word_embed_proj_dim=shape["hidden_size"],
        max_position_embeddings=2048,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                model = OPTForCausalLM(config)
        finally:
            torch.set_default_dtype(default)
    return model.eval()


def losses_of(model: nn.Module, tokens: Tensor) -> Callable[[int], Tensor]:
    """The language-model loss of each of so many copies of a batch."""

    def losses(copies: int) -> Tensor:
        repeated = tokens.repeat(copies, 1)
        logits = model(input_ids=repeated, use_cache=False).logits
        flat = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), repeated[:, 1:].flatten(), reduction="none"
        )
        return flat.float().view(copies, -1).mean(1)

    return losses


def seed_replay_step(model: nn.Module, loss: Callable[[], Tensor], lr: float, eps: float) -> None:
    """The step as usually written: move all weights in place along replayed normals, four times."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator(device=parameters[0].device)

    def move(scale: float) -> None:
        generator.manual_seed(0)
        for p in parameters:
            z = torch.normal(0.0, 1.0, p.shape, generator=generator, dtype=p.dtype, device=p.device)
            p.data = p.data + scale * z

    with torch.no_grad():
        move(eps)
        above = loss()
        move(-2 * eps)
        below = loss()
        move(eps)
        move(-lr * float(above - below) / (2 * eps))


def steps_for(model: nn.Module, tokens: Tensor) -> dict[str, Callable[[], Any]]:
    """Each way to take a step, by name; the first is two forward passes."""
    losses = losses_of(model, tokens)

    def loss() -> Tensor:
        return losses(1)[0]

    def two_forwards() -> None:
        with torch.no_grad():
            loss()
            loss()

    dense = zo.ZOSGD(model.parameters(), 1e-7, seed=0)
    normal = zo.ZOSGD(model.parameters(), 1e-7, seed=0, directions=zo.Gaussian())
    thin = zo.ZOSGD(model.parameters(), 1e-7, seed=0, directions=zo.LowRank(1))
    four = zo.ZOSGD(model.parameters(), 1e-7, seed=0, directions=zo.LowRank(1), P=4)
    eps = dense.eps
    return {
        "two forward passes": two_forwards,
        "Rademacher": lambda: dense.step(loss),
        "Gaussian": lambda: normal.step(loss),
        "LowRank(1), one after the other": lambda: thin.step(loss),
        "LowRank(1), both signs in one batch": lambda: thin.step_batched(losses),
        "LowRank(1), P = 4 in one batch": lambda: four.step_batched(losses),
        "seed replay in place": lambda: seed_replay_step(model, loss, 1e-7, eps),
    }


def seconds(step: Callable[[], Any], device: str) -> float:
    """Wall time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class PeakMemory:
    """The largest resident size during a block, sampled each millisecond (CPU), or CUDA's own."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._done = threading.Event()
        self.peak = 0

    def _resident(self) -> int:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.peak = max(self.peak, self._resident())

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._watch)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._cuda:
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._thread.join()


def memory_of(name: str, model_name: str, shape: tuple[int, int], args: argparse.Namespace) -> int:
    """Peak memory of one step in a process of its own."""
    command = [sys.executable, __file__, "--model", model_name, "--device", args.device]
    command += ["--dtype", args.dtype, "--threads", str(args.threads)]
    command += ["--memory-of", name, "--shape", f"{shape[0]}x{shape[1]}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The table's rows."""
    dtype = getattr(torch, args.dtype)
    model = make_model(args.model, dtype, args.device)
    parameters = list(model.parameters())
    largest = max(p.numel() * p.element_size() for p in parameters)
    d = sum(p.numel() for p in parameters)
    print(
        f"{args.model}: d = {d:,}, {args.dtype}, {args.device}, {torch.get_num_threads()} threads"
    )
    rows = []
    for shape in SHAPES:
        tokens = torch.randint(5, 50000, shape, generator=torch.Generator().manual_seed(1)).to(
            args.device
        )
        steps = steps_for(model, tokens)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():  # warm-up
            step()
        for _ in range(args.rounds):
            for name, step in steps.items():
                times[name].append(seconds(step, args.device))
        base = statistics.median(times["two forward passes"])
        memory = {}
        if args.memory:
            memory = {name: memory_of(name, args.model, shape, args) for name in steps}
        print(f"\n{shape[0]} x {shape[1]} tokens, {args.rounds} rounds")
        for name, found in times.items():
            median = statistics.median(found)
            row = {
                "batch": f"{shape[0]}x{shape[1]}",
                "step": name,
                "seconds": round(median, 4),
                "ratio": round(median / base, 3),
                "pairwise": round(
                    statistics.median(
                        t / b for t, b in zip(found, times["two forward passes"], strict=True)
                    ),
                    3,
                ),
            }
            text = f"  {name:38s} {median:8.3f} s {row['ratio']:7.2f} x"
            if memory:
                extra = memory[name] - memory["two forward passes"]
                row["extra_bytes"], row["largest_bytes"] = extra, largest
                text += f"   extra memory {extra / largest:5.2f} of the largest parameter"
            print(text, flush=True)
            rows.append(row)
    return rows


def main() -> None:
    """Measure and print; with --json also write a dated record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="opt-125m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--machine", default="", help="the machine in words, for the record")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        model = make_model(args.model, getattr(torch, args.dtype), args.device)
        batch, length = map(int, args.shape.split("x"))
        tokens = torch.randint(
            5, 50000, (batch, length), generator=torch.Generator().manual_seed(1)
        ).to(args.device)
        step = steps_for(model, tokens)[args.memory_of]
        with PeakMemory(args.device) as watched:
            step()
        print(watched.peak)
        return
    rows = measure(args)
    if args.json:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": args.machine or f"{platform.machine()}, {args.threads} threads",
            "model": args.model,
            "dtype": args.dtype,
            "device": args.device,
            "torch": torch.__version__,
            "rows": rows,
        }
        aside = args.json.with_suffix(".part")
        aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        aside.replace(args.json)


if __name__ == "__main__":
    main()

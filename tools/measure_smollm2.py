"""Fine-tunes SmolLM2-135M on rated movie-review sentences, for the tables of *Fine-tuning*.

    python tools/measure_smollm2.py run FOLDER [--cells NAME ...] [--seeds 0 1 2]
    python tools/measure_smollm2.py table FOLDER      writes zotutor/data/smollm2_snippets.json

Needs ``zotutor fetch`` and, for the cells with LoRA, the package peft. A cell (a way and a seed)
runs in a process of its own on one thread, so that its processor time and its peak memory are its
own, and leaves one JSON file in FOLDER; a cell whose file is there is skipped. One that was stopped
begins again. ``table`` takes whatever cells are there.

What is compared. Every way starts from the same weights; the seed draws the batches, the
directions and LoRA's initial factors. Each seed is scored once, after the last step, on a third of
dev of its own, so that the pooled interval counts no sentence twice. Learning rates were compared
by the loss of the batches, on seed 0, never on dev. Peak memory is that of the process during the
steps, without the evaluation.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LENGTH, BATCH, THIRDS = 40, 16, 3
ZO: dict[str, Any] = {"method": "zo", "lr": 2e-5, "steps": 200, "dtype": "float32"}
ADAMW: dict[str, Any] = {"method": "adamw", "lr": 2e-5, "steps": 40, "dtype": "float32"}
CELLS: dict[str, dict[str, Any]] = {
    "zero-shot-float32": {"method": None, "dtype": "float32"},
    "zero-shot-bfloat16": {"method": None, "dtype": "bfloat16"},
    "adamw-float32": ADAMW,
    "zo-bfloat16": ZO | {"dtype": "bfloat16"},
    "zo-float32": ZO,
    "lora-adamw": ADAMW | {"lr": 1e-3, "lora": True},
    "lora-zo": ZO | {"lr": 5e-3, "lora": True},
    "zo-bfloat16-long": ZO | {"dtype": "bfloat16", "steps": 600},
    "zo-float16": ZO | {"dtype": "float16", "steps": 30},
}


def memory() -> tuple[float, float]:
    """Resident memory of this process in MB: now, and its peak since :func:`forget_peak`."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def forget_peak() -> None:
    """Let the peak of the resident memory begin at what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def cell(name: str, seed: int, folder: Path, changes: dict[str, Any]) -> None:
    """Run one cell and write its file."""
    import torch

    import zotutor as zo

    torch.set_num_threads(1)
    options = {"batch_size": BATCH, "length": LENGTH, "scored": True} | CELLS[name] | changes
    model, tokenizer = zo.llm.load("smollm2", dtype=getattr(torch, options["dtype"]))
    if options.get("lora"):
        import peft

        torch.manual_seed(seed)
        config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config).eval()
    task = zo.llm.task("snippets")
    found = {"cell": name, "seed": seed, "changed": sorted(changes), **options}
    if options["method"] is not None:
        found |= tuned(model, tokenizer, task, options, seed, folder / label(name, seed, changes))
    if options["dtype"] == "float16":
        model.float()  # exact; scoring in float16 is slow on a CPU
    begun = time.process_time()
    if options.pop("scored"):
        third = task.dev[seed % THIRDS :: THIRDS]
        scored = zo.llm.evaluate(
            model, tokenizer, third, task.words, batch_size=32, length=options["length"]
        )
        found["accuracy"] = [scored.value, scored.low, scored.high, scored.examples]
    found |= {
        "evaluation_seconds": time.process_time() - begun,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread; torch {torch.__version__}",
    }
    path = folder / f"{label(name, seed, changes)}.json"
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(found) + "\n")
    aside.replace(path)


def tuned(
    model: Any, tokenizer: Any, task: Any, options: dict[str, Any], seed: int, run: Path
) -> dict[str, Any]:
    """Take the steps of a cell; what they cost."""
    import zotutor as zo

    recorded = options["method"] == "zo" and not options.get("lora")  # a ledger holds no adapter
    shutil.rmtree(run, ignore_errors=True)
    forget_peak()
    resident, begun = memory()[0], time.process_time()
    result = zo.llm.finetune(
        model,
        tokenizer,
        task,
        steps=options["steps"],
        lr=options["lr"],
        method=options["method"],
        batch_size=options["batch_size"],
        length=options["length"],
        dev=2,  # the accuracy is measured when the clock and the memory have been read
        seed=seed,
        output=run if recorded else None,
        progress=False,
    )
    return {
        "losses": result.losses,
        "tokens": result.tokens,
        "seconds": time.process_time() - begun,
        "resident_mb": resident,
        "peak_mb": memory()[1],
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "ledger_bytes": (run / "ledger.bin").stat().st_size if recorded else None,
    }


def label(name: str, seed: int, changes: dict[str, Any]) -> str:
    """File name of a cell."""
    return "-".join([name, *(f"{k}={v}" for k, v in changes.items()), f"seed{seed}"])


def main() -> None:
    """Run the cells named, one process each; or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "cell", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", nargs="*", default=list(CELLS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="lr=1e-4 steps=50: changes to try")
    given = parser.parse_args()
    changes = {k: json.loads(v) for k, v in (item.split("=") for item in given.set)}
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "cell":
        cell(given.cells[0], given.seeds[0], given.folder, changes)
        return
    for seed in given.seeds:
        for name in given.cells:
            path = given.folder / f"{label(name, seed, changes)}.json"
            if path.exists():
                continue
            command = [sys.executable, __file__, "cell", str(given.folder), "--cells", name]
            command += ["--seeds", str(seed), "--set", *given.set]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            found = json.loads(path.read_text())
            losses = found.get("losses", [])
            ends = [sum(part) / max(1, len(part)) for part in (losses[:10], losses[-10:])]
            seconds = found.get("seconds", 0.0)
            print(path.stem, f"{ends[0]:.3f} {ends[1]:.3f}", found.get("accuracy"), f"{seconds:.0f} s")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

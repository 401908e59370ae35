"""Fine-tune SmolLM2-135M on rated movie-review sentences in every way the book compares.

    python tools/measure_smollm2.py run FOLDER [--cells NAME ...] [--seeds 0 1 2]
    python tools/measure_smollm2.py table FOLDER      writes zotutor/data/smollm2_snippets.json

Needs ``zotutor fetch``. Each cell (a way and a seed) runs in a process of its own on one thread, so
that its peak memory and its processor time are its own, and leaves one JSON file in FOLDER; a cell
whose file is there is skipped, and a run that was stopped resumes from its ledger.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LENGTH, BATCH, DEV = 64, 16, 500
CELLS: dict[str, dict[str, Any]] = {
    "zo-float32": {"method": "zo", "lr": 2e-5, "steps": 200, "dtype": "float32"},
    "adamw-float32": {"method": "adamw", "lr": 2e-5, "steps": 60, "dtype": "float32"},
    "lora-adamw": {"method": "adamw", "lr": 3e-4, "steps": 60, "dtype": "float32", "lora": True},
    "lora-zo": {"method": "zo", "lr": 1e-3, "steps": 200, "dtype": "float32", "lora": True},
    "zo-bfloat16": {"method": "zo", "lr": 2e-5, "steps": 200, "dtype": "bfloat16"},
    "zo-float16": {"method": "zo", "lr": 2e-5, "steps": 200, "dtype": "float16"},
}


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cell(name: str, seed: int, folder: Path, changes: dict[str, Any]) -> None:
    """Run one cell and write its file."""
    import torch

    import zotutor as zo

    torch.set_num_threads(1)
    options = CELLS[name] | changes
    model, tokenizer = zo.llm.load("smollm2", dtype=getattr(torch, options["dtype"]))
    if options.get("lora"):
        import peft

        torch.manual_seed(seed)
        config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config).eval()
    task = zo.llm.task("snippets")
    before, started = peak(), time.process_time()
    output = None
    if options["method"] == "zo" and not options.get("lora"):
        output = folder / f"{label(name, seed, changes)}.run"
    run = zo.llm.finetune(
        model,
        tokenizer,
        task,
        steps=options["steps"],
        lr=options["lr"],
        method=options["method"],
        batch_size=BATCH,
        length=LENGTH,
        evaluate_every=options.get("evaluate_every", 50),
        dev=options.get("dev", DEV),
        seed=seed,
        output=output,
        progress=False,
    )
    ledger = 0 if output is None else (output / "ledger.bin").stat().st_size
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = {
        "cell": name,
        "seed": seed,
        **options,
        "batch_size": BATCH,
        "length": LENGTH,
        "trainable": trainable,
        "evaluations": [[n, a.value, a.low, a.high, a.examples] for n, a in run.evaluations],
        "losses": run.losses,
        "processor_seconds": time.process_time() - started,
        "peak_mb": peak(),
        "peak_before_mb": before,
        "ledger_bytes": ledger,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread; torch {torch.__version__}",
    }
    path = folder / f"{label(name, seed, changes)}.json"
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(found) + "\n")
    aside.replace(path)


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
            seconds = found["processor_seconds"]
            print(path.stem, found["evaluations"], f"{seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()

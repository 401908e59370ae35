"""Fine-tunes SmolLM2-135M on rated movie-review sentences, for the tables of *Fine-tuning*.

    python tools/measure_smollm2.py run FOLDER [--cells NAME ...] [--seeds 0 1 2]
    python tools/measure_smollm2.py table FOLDER

Needs ``zotutor fetch``, peft for the cells with LoRA, and Linux for the peak memory. A
cell (a way and a seed) runs in a process of its own on one thread, so that its processor time and
its peak memory are its own, and leaves one JSON file in FOLDER; a cell whose file is there is
skipped. One that was stopped begins again. ``table`` takes whatever cells are there and writes
zotutor/data/smollm2_snippets.json, and the ledger of one run.

What is compared. Every way starts from the same weights; the seed draws the batches, the
directions and LoRA's initial factors. Each seed is scored once, after the last step, on a third of
dev of its own, so that the pooled interval counts no sentence twice. Learning rates were compared
by the loss of the batches, on seed 0, never on dev. Memory is the peak of the resident memory
during the steps, without the evaluation, less what was resident before them. Loading only maps the
weights, and the first forward pass reads them, so that it includes the weights and no library.
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

DATA = Path(__file__).resolve().parent.parent / "zotutor" / "data"
SHIPPED = "zo-float32-seed0"
"""The run whose ledger ships, so that a reader can replay it."""
LENGTH, BATCH, THIRDS = 40, 16, 3
ZO: dict[str, Any] = {"method": "zo", "lr": 2e-5, "steps": 200, "dtype": "float32"}
ADAMW: dict[str, Any] = {"method": "adamw", "lr": 2e-5, "steps": 30, "dtype": "float32"}
CELLS: dict[str, dict[str, Any]] = {
    "zero-shot": {"method": None, "dtype": "float32"},
    "adamw": ADAMW,
    "lora-adamw": ADAMW | {"lr": 1e-3, "lora": True},
    "zo-float32": ZO,
    "zo-bfloat16": ZO | {"dtype": "bfloat16"},
    "zo-float16": ZO | {"dtype": "float16", "steps": 10},
    "lora-zo": ZO | {"lr": 3e-3, "steps": 100, "lora": True},
}
TITLES = {
    "zero-shot": "zero-shot",
    "adamw": "AdamW",
    "lora-adamw": "AdamW, LoRA",
    "zo-float32": "ZO, float32",
    "zo-bfloat16": "ZO, bfloat16",
    "zo-float16": "ZO, float16",
    "lora-zo": "ZO, LoRA",
}
SHAPES: dict[str, dict[str, Any]] = {
    "sentences": {"batch_size": BATCH, "length": LENGTH},
    "512 tokens": {"batch_size": 4, "length": 512, "long": True},
}
WAYS: dict[str, dict[str, Any]] = {
    "inference": {"method": "inference"},
    "zo": {"method": "zo", "lr": 2e-5},
    "zo-bfloat16": {"method": "zo", "lr": 2e-5, "dtype": "bfloat16"},
    "lora-zo": {"method": "zo", "lr": 1e-2, "lora": True},
    "lora-adamw": {"method": "adamw", "lr": 1e-3, "lora": True},
    "adamw": {"method": "adamw", "lr": 2e-5},
}
MEMORY: dict[str, dict[str, Any]] = {
    f"memory, {way}, {shape}": {"dtype": "float32", "steps": 2, "scored": False} | how | size
    for shape, size in SHAPES.items()
    for way, how in WAYS.items()
}
"""Two steps each, for the peak memory: on the sentences as they are, and on long texts."""


def memory() -> tuple[float, float]:
    """Resident memory of this process in MiB: now, and its peak since :func:`forget_peak`."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, most = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def forget_peak() -> None:
    """Let the peak of the resident memory begin at what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def cell(name: str, seed: int, folder: Path, changes: dict[str, Any]) -> None:
    """Run one cell and write its file."""
    import torch

    import zotutor as zo
    from zotutor.llm.runs.disk import write_json

    torch.set_num_threads(1)
    options: dict[str, Any] = {"batch_size": BATCH, "length": LENGTH, "scored": True}
    options |= (CELLS | MEMORY)[name] | changes
    model, tokenizer = zo.llm.load("smollm2", dtype=getattr(torch, options["dtype"]))
    if options.get("lora"):
        import peft

        torch.manual_seed(seed)
        config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config).eval()
    task = zo.llm.task("snippets")
    if options.pop("long", False):
        task = lengthened(task)
    found: dict[str, Any] = {"cell": name, "seed": seed, "changed": sorted(changes), **options}
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
    write_json(path, found, indent=None)


def lengthened(task: Any) -> Any:
    """A task of few examples, each long enough to be cut to any length that is measured."""
    import zotutor as zo

    long = [
        zo.llm.Example(" ".join(e.text for e in task.train[60 * k : 60 * k + 60]), k % 2)
        for k in range(40)
    ]
    return task._replace(train=long, dev=long[:2])


def tuned(
    model: Any, tokenizer: Any, task: Any, options: dict[str, Any], seed: int, run: Path
) -> dict[str, Any]:
    """Take the steps of a cell; what they cost."""
    import zotutor as zo

    recorded = options["method"] == "zo" and not options.get("lora")  # a ledger holds no adapter
    shutil.rmtree(run, ignore_errors=True)
    forget_peak()
    resident, begun = memory()[0], time.process_time()
    if options["method"] == "inference":
        size, length = options["batch_size"], options["length"]
        prompts = task.train[: 2 * size]
        zo.llm.evaluate(model, tokenizer, prompts, task.words, batch_size=size, length=length)
        return {"resident_mib": resident, "peak_mib": memory()[1]}
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
        "resident_mib": resident,
        "peak_mib": memory()[1],
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "ledger_bytes": (run / "ledger.bin").stat().st_size if recorded else None,
    }


def label(name: str, seed: int, changes: dict[str, Any]) -> str:
    """File name of a cell."""
    return "-".join([name, *(f"{k}={v}" for k, v in changes.items()), f"seed{seed}"])


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cells of a folder, by seed: those with the options of this file, and those tried."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found.sort(key=lambda c: c["seed"])
    return [c for c in found if not c["changed"]], [c for c in found if c["changed"]]


def of_ten(losses: list[float]) -> list[float]:
    """Means of ten losses each; what is left over counts for nothing."""
    return [round(sum(losses[k : k + 10]) / 10, 4) for k in range(0, len(losses) - 9, 10)]


def pooled(accuracies: list[list[float]]) -> list[float]:
    """The accuracy over the sentences of all seeds, with Wilson's interval."""
    from zotutor.llm.tasks import accuracy

    right = sum(round(value * count) for value, _, _, count in accuracies)
    return list(accuracy(right, sum(int(a[3]) for a in accuracies)))


def row(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table says about one way: its options, a run for each seed, and their pool."""
    first = cells[0]
    found: dict[str, Any] = {
        "name": TITLES[name],
        "way": {"zo-float32": "zo"}.get(name, name),  # among the memory cells
        "accuracy": pooled([c["accuracy"] for c in cells]),
    }
    for key in ("method", "dtype", "lora", "lr", "steps", "trainable", "weights_bytes"):
        found[key] = first.get(key)
    found["runs"] = [{"seed": c["seed"], "accuracy": c["accuracy"]} for c in cells]
    if first["method"] is None:
        return found
    for run, c in zip(found["runs"], cells, strict=True):
        run |= {"losses": of_ten(c["losses"]), "seconds": round(c["seconds"], 1)}
        run |= {key: c[key] for key in ("tokens", "ledger_bytes")}
    return found


def table(folder: Path) -> dict[str, Any]:
    """The table of the cells in a folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    cells, tried = read(folder)
    by = {name: [c for c in cells if c["cell"] == name] for name in [*CELLS, *MEMORY]}
    if not any(by[name] for name in CELLS):
        raise FileNotFoundError(f"{folder}: has no finished cells; run them first")
    newest = max(cells, key=lambda c: c["date"])
    return {
        "command": "python tools/measure_smollm2.py run FOLDER, then table FOLDER",
        "date": newest["date"],
        "machine": newest["machine"],
        "model": "SmolLM2-135M-Instruct, from 4-bit weights",
        "data": "snippets: sentences of movie reviews",
        "batch_size": BATCH,
        "length": LENGTH,
        "losses": "means of ten steps each, of the batches before each step",
        "memory_mib": "peak resident memory during the steps, less that before them",
        "tried": [
            {"name": TITLES[c["cell"]], "lr": c["lr"], "losses": of_ten(c["losses"])} for c in tried
        ],
        "rows": [row(name, by[name]) for name in CELLS if by[name]],
        "memory": [
            {
                "way": way,
                "shape": shape,
                "batch_size": SHAPES[shape]["batch_size"],
                "memory_mib": round(c["peak_mib"] - c["resident_mib"]),
            }
            for shape in SHAPES
            for way in WAYS
            for c in by[f"memory, {way}, {shape}"]
        ],
    }


def write(folder: Path, data: Path = DATA) -> None:
    """Write the table, and the ledger that ships if its run is there."""
    from zotutor.llm.runs.disk import write_json

    path = data / "smollm2_snippets.json"
    write_json(path, table(folder))
    ledger = folder / SHIPPED / "ledger.bin"
    if ledger.exists():
        shutil.copyfile(ledger, data / "smollm2_snippets.ledger")


def report(cell: dict[str, Any]) -> str:
    """A finished cell in one line."""
    losses = cell.get("losses", [])
    ends = [f"{sum(part) / max(1, len(part)):.3f}" for part in (losses[:10], losses[-10:])]
    what = (cell.get("accuracy"), f"{cell.get('seconds', 0):.0f} s", cell.get("peak_mib"))
    return " ".join(map(str, [*ends, *what]))


def main() -> None:
    """Run the cells named, one process each; or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "cell", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", nargs="*", default=[*CELLS, *MEMORY])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="lr=1e-4 steps=50: changes to try")
    given = parser.parse_args()
    changes = {k: json.loads(v) for k, v in (item.split("=") for item in given.set)}
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "cell":
        cell(given.cells[0], given.seeds[0], given.folder, changes)
        return
    if given.what == "table":
        write(given.folder)
        return
    for seed in given.seeds:
        for name in given.cells:
            if name in MEMORY and seed != given.seeds[0]:
                continue  # once is enough
            path = given.folder / f"{label(name, seed, changes)}.json"
            if path.exists():
                continue
            command = [sys.executable, __file__, "cell", str(given.folder), "--cells", name]
            command += ["--seeds", str(seed), "--set", *given.set]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            print(path.stem, report(json.loads(path.read_text())), flush=True)


if __name__ == "__main__":
    main()

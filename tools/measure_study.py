"""The language-model study of Li et al. (2026), in float32, with the law that predicts its outcome.

    python tools/measure_study.py run FOLDER [--model smollm2] [--P 1 5 20] [--families rademacher]
    python tools/measure_study.py digest FOLDER RUNS.csv SGD.csv    their published runs
    python tools/measure_study.py table FOLDER                      zotutor/data/study.json

From the same weights and on the same batches, one run of SGD and runs of ZO-SGD, seen from the
label-word logits of five held-out sentences. Each run leaves one JSON file in FOLDER when it is
complete, and a run whose file is there is not repeated, so that the command can be stopped and
given again. One thread. The runs planned in SETTINGS take about five minutes of processor time for
the tiny model, and for SmolLM2 (which needs ``zotutor fetch``) about eight. The full grid is
``--P 1 5 10 20 50 100 --steps 200``, in a folder of its own, with ``--device cuda`` for SmolLM2.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import zotutor as zo
from zotutor.directions import from_name
from zotutor.experiments.llm_dynamics import first_order_logits, zeroth_order_logits
from zotutor.llm.runs.disk import write_json
from zotutor.statistics import rms

OUTPUT = Path(__file__).resolve().parent.parent / "zotutor" / "data" / "study.json"
FAMILIES = ("rademacher", "gaussian")
SENTENCES = 5


class Setting(NamedTuple):
    """What is run of one model."""

    task: str
    lr: float
    steps: int
    batch_size: int
    longest: int
    """Sentences with more tokens are left out."""
    refresh: int
    """Steps between two computations of J, for the prediction."""
    seeds: dict[str, dict[int, int]]
    """For each family and P, the number of runs."""


SETTINGS = {
    "tiny": Setting(
        "reviews",
        2.5e-4,
        50,
        8,
        32,
        10,
        {
            "rademacher": {1: 6, 5: 3, 10: 1, 20: 1, 50: 1, 100: 1},
            "gaussian": {1: 3, 5: 1, 10: 1, 20: 1},
        },
    ),
    "smollm2": Setting(
        "snippets",
        5e-6,
        10,
        8,
        20,
        10,
        {"rademacher": {1: 3, 5: 1, 20: 1}, "gaussian": {1: 1}},
    ),
}


class Prepared(NamedTuple):
    """A model, the batches of all steps, and what is observed."""

    rows: zo.llm.Rows
    batches: list[tuple[Tensor, Tensor]]
    observe: Tensor
    sentences: list[str]
    record: list[int]


def prepare(name: str, setting: Setting, device: str) -> Prepared:
    """Load, choose the sentences and draw the batches: the same for every run of a model."""
    model, tokenizer = zo.llm.load(name, device=device)
    task = zo.llm.task(setting.task)

    def fits(text: str) -> bool:
        return len(tokenizer(text)["input_ids"]) <= setting.longest

    train = [e for e in task.train if fits(e.text)]
    held_out = [e.text for e in task.dev if fits(e.text)][:SENTENCES]
    tokens = zo.llm.encode(tokenizer, [e.text for e in train]).to(device)
    labels = torch.tensor([e.label for e in train], device=device)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(setting.steps):
        chosen = torch.randint(len(train), (setting.batch_size,), generator=generator).to(device)
        longest = int((tokens[chosen] != -1).sum(1).max())
        batches.append((tokens[chosen, -longest:], labels[chosen]))  # padded on the left
    words = zo.llm.word_ids(tokenizer, task.words, held_out)
    record = sorted({round(setting.steps * k / 8) for k in range(9)})
    observe = zo.llm.encode(tokenizer, held_out).to(device)
    return Prepared(zo.llm.Rows(model, words=words), batches, observe, held_out, record)


def cells(setting: Setting, counts: list[int] | None, families: list[str]) -> Iterator[Any]:
    """(family, P, seed), the first seed of all cells before the second of any."""
    most = max(max(of_P.values()) for of_P in setting.seeds.values())
    for seed in range(most):
        for family in families:
            planned = setting.seeds[family]
            for P in counts or planned:
                if seed < planned.get(P, 1):
                    yield family, P, seed


def run(name: str, folder: Path, given: argparse.Namespace) -> None:
    """Every run of a model whose file is missing."""
    setting = SETTINGS[name]
    if given.steps:
        setting = setting._replace(steps=given.steps)
    todo = [
        (cell, folder / f"{name}-{cell[0]}-{cell[1]}-{cell[2]}.json")
        for cell in cells(setting, given.P, given.families)
    ]
    first = folder / f"{name}-sgd.json"
    if first.exists() and all(path.exists() for _, path in todo):
        return
    ready = prepare(name, setting, given.device)
    about = {
        "model": name,
        "d": sum(p.numel() for p in ready.rows.parameters()),
        **setting._replace(seeds={})._asdict(),
        "record": ready.record,
        "sentences": ready.sentences,
        "date": datetime.date.today().isoformat(),
        "machine": f"{given.device}, {platform.machine()}; torch {torch.__version__}",
    }
    common: dict[str, Any] = {"observe": ready.observe, "lr": setting.lr, "record": ready.record}
    if not first.exists():
        started = time.process_time()
        known = {family: from_name(family) for family in FAMILIES}
        sgd = first_order_logits(
            ready.rows, ready.batches, families=known, refresh=setting.refresh, **common
        )
        seconds = time.process_time() - started
        write_json(
            first,
            about | {"logits": sgd.logits.tolist(), "variances": sgd.variances, "seconds": seconds},
            indent=None,
        )
        print(f"{name} SGD: {seconds:.0f} s", flush=True)
    for (family, P, seed), path in todo:
        if path.exists():
            continue
        started = time.process_time()
        logits = zeroth_order_logits(
            ready.rows, ready.batches, directions=from_name(family), P=P, seed=seed, **common
        )
        cell: dict[str, Any] = {"family": family, "P": P, "seed": seed, "logits": logits.tolist()}
        cell["seconds"] = time.process_time() - started
        write_json(path, about | cell, indent=None)
        print(f"{name} {family} P = {P}, seed {seed}: {cell['seconds']:.0f} s", flush=True)


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def collected(name: str, folder: Path) -> dict[str, Any]:
    """All runs of a model: deviations at each recorded step, and those that the law predicts."""
    sgd = json.loads((folder / f"{name}-sgd.json").read_text())
    start = torch.tensor(sgd["logits"], dtype=torch.float64)  # (R, N_o, V)
    kept = ("d", "task", "lr", "steps", "batch_size", "longest", "refresh", "record", "sentences")
    table = {key: sgd[key] for key in (*kept, "date", "machine")}
    table["sgd_change"] = [rounded(rms(z - start[0])) for z in start]
    table["law"] = {
        family: [rounded(math.sqrt(v / start[0].numel())) for v in values]
        for family, values in sgd["variances"].items()
    }
    table["runs"] = []
    for path in sorted(folder.glob(f"{name}-*-*-*.json")):
        found = json.loads(path.read_text())
        if any(found[key] != sgd[key] for key in kept):
            raise ValueError(f"{path}: is of other settings than {name}-sgd.json; delete one")
        off = torch.tensor(found["logits"], dtype=torch.float64) - start
        row = {key: found[key] for key in ("family", "P", "seed")}
        row["deviation"] = [rounded(rms(z)) for z in off]
        row["end"] = [rounded(float(z)) for z in off[-1].flatten()]
        row["seconds"] = round(found["seconds"])
        table["runs"].append(row)
    table["runs"].sort(key=lambda row: (row["family"], row["P"], row["seed"]))
    return table


def size(off: dict[Any, Tensor], P: int, model: str | None = None) -> float:
    """The root mean square over all keys (model, ..., P) with this P, and this model if given."""
    return rounded(
        rms(torch.stack([z for k, z in off.items() if k[-1] == P and model in (None, k[0])]))
    )


def slope_of_runs(off: dict[Any, Tensor]) -> list[float]:
    """The exponent of P in the deviation of single runs, by least squares, and its error."""
    x = torch.tensor([math.log(key[-1]) for key in off], dtype=torch.float64)
    y = torch.stack([z.square().mean().sqrt().log() for z in off.values()])
    x, y = x - x.mean(), y - y.mean()
    slope = x @ y / (x @ x)
    error = ((y - slope * x).square().sum() / (len(x) - 2) / (x @ x)).sqrt()
    return [rounded(float(slope)), rounded(float(error))]


def digest(runs: Path, sgd: Path) -> dict[str, Any]:
    """What the published runs say: deviations from SGD of the first sentence's two logits."""
    end = {
        (row["model"], int(row["t"])): (float(row["a"]), float(row["b"]))
        for row in csv.DictReader(sgd.read_text().splitlines())
    }
    found: dict[str, Any] = {}
    rows = list(csv.DictReader(runs.read_text().splitlines()))
    for t in (50, 100, 200):
        off = {}  # (model, family, P): deviation of two logits
        for row in rows:
            a, b = end[row["model"], t]
            z = torch.tensor([float(row[f"zo{t}_a"]) - a, float(row[f"zo{t}_b"]) - b])
            off[row["model"], row["dist"], int(row["P"])] = z.double()
        models, counts = sorted({key[0] for key in off}), sorted({key[2] for key in off})

        half = {
            (m, P): (off[m, "gaussian", P] - off[m, "bernoulli", P]) / 2
            for m in models
            for P in counts
        }
        shared = {key: off[key[0], "gaussian", key[1]] - value for key, value in half.items()}
        found[str(t)] = {
            "P": counts,
            "slope": slope_of_runs(off),
            "deviation": [size(off, P) for P in counts],
            "by_model": {m: [size(off, P, m) for P in counts] for m in models},
            "half_difference": [size(half, P) for P in counts],
            "mean_of_families": [size(shared, P) for P in counts],
        }
    return found


def main() -> None:
    """Run, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "digest", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*", help="of digest")
    parser.add_argument("--model", choices=list(SETTINGS), action="append")
    parser.add_argument("--P", type=int, nargs="+", help="by default those of SETTINGS")
    parser.add_argument("--families", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        torch.set_num_threads(1)
        for name in given.model or list(SETTINGS):
            run(name, given.folder, given)
    elif given.what == "digest":
        write_json(given.folder / "published.json", digest(*given.files), indent=None)
    else:
        table = {
            "command": "python tools/measure_study.py run FOLDER",
            "models": {n: collected(n, given.folder) for n in SETTINGS},
            "published": json.loads((given.folder / "published.json").read_text()),
            "source": "github.com/RogerRogerUSC/ZO-Learning-Dynamics",
        }
        write_json(OUTPUT, table)


if __name__ == "__main__":
    main()

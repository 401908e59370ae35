"""Measure at which learning rate ZO-SGD diverges, and which is best, and what is predicted.

    python tools/measure_step_size.py run FOLDER [--models digits tiny smollm2]
    python tools/measure_step_size.py table FOLDER      writes zotutor/data/step_size.json

Each cell (a model, a family of directions, a learning rate and a seed) leaves one JSON file in
FOLDER, and a cell whose file is there is skipped. SmolLM2 needs ``zotutor fetch``; on one core its
cells take half an hour, those of the other models some minutes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.llm.preparing import prepare
from zotutor.llm.runs.disk import write_json
from zotutor.llm.stepping import Batches
from zotutor.models import mlp, train

FAMILIES = {"rademacher": zo.Rademacher(), "gaussian": zo.Gaussian()}
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "steps": 100,
        "batch_size": 16,
        "seeds": 8,
        "lrs": [0.064 * 2 ** (-k / 2) for k in range(15)],
    },
    "tiny": {
        "steps": 100,
        "batch_size": 16,
        "seeds": 3,
        "lrs": [1.1e-3, 8e-4, 1.6e-3, 4e-4, 5.7e-4, 2e-4, 2.8e-4, 1e-4, 5e-5],
    },
    "smollm2": {
        "steps": 32,
        "batch_size": 4,
        "seeds": 3,
        "samples": 16,
        "lrs": [7.1e-5, 1e-4, 5e-5, 2e-4, 2.8e-4, 1.4e-4, 3.5e-5],
    },
}

Losses = Callable[[int], Tensor]


def digits(batch_size: int) -> tuple[nn.Module, Callable[[int], Losses]]:
    """A network of 3,466 parameters after 40 steps of SGD on 256 digits."""
    data = zo.datasets.digits()
    model = mlp(32, 2, seed=0)
    train(model, data.x_train[:256], y=data.y_train[:256], lr=20 / 82, steps=40)

    def of_run(seed: int) -> Losses:
        def losses(number: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            rows = torch.randint(len(data.x_train), (batch_size,), generator=generator)
            z = model(data.x_train[rows])
            return nn.functional.cross_entropy(z, data.y_train[rows], reduction="none")

        return losses

    return model, of_run


def language_model(
    name: str, batch_size: int, *, length: int | None = None
) -> tuple[nn.Module, Callable[[int], Losses]]:
    """A language model and the batches that `finetune` draws."""
    model, tokenizer = zo.llm.load(name)
    task = zo.llm.task("reviews" if name == "tiny" else "snippets")
    texts, labels = [e.text for e in task.train], [e.label for e in task.train]
    prepared = prepare(model, tokenizer, task.words, texts, length=length)
    ids = prepared.prompts.ids(texts)

    def of_run(seed: int) -> Losses:
        batches = Batches(ids, labels, size=batch_size, seed=seed)

        def losses(number: int) -> Tensor:
            tokens, wanted = batches(number)
            z = prepared.rows(tokens).float()
            return nn.functional.cross_entropy(z, wanted, reduction="none")

        return losses

    return model, of_run


def made(name: str, batch_size: int) -> tuple[nn.Module, Callable[[int], Losses]]:
    """A model, and the losses of the examples in a run's batches."""
    if name == "digits":
        return digits(batch_size)
    return language_model(name, batch_size, length=64 if name == "smollm2" else None)


def mean_loss(losses: Losses, number: int) -> Tensor:
    """The loss of a batch."""
    return losses(number).mean()


def run(model: nn.Module, losses: Losses, *, lr: float, family: str, seed: int, steps: int) -> Any:
    """The losses of a run's steps; a run whose loss is not finite ends there."""
    directions = FAMILIES[family]
    optimizer = zo.ZOSGD(model.parameters(), lr=lr, directions=directions, seed=seed)
    found: list[float] = []
    for step in range(steps):
        try:
            found.append(float(optimizer.step(partial(mean_loss, losses, step))))
        except zo.NonFiniteLossError:
            break
    return found


def cells(name: str) -> Iterator[tuple[int, float, str]]:
    """Seeds, learning rates and families, the most informative first."""
    for seed in range(SETTINGS[name]["seeds"]):
        for family in FAMILIES:
            for lr in SETTINGS[name]["lrs"]:
                yield seed, lr, family


def measure(name: str, folder: Path) -> None:
    """All cells of a model that are not there yet."""
    settings = SETTINGS[name]
    model, of_run = made(name, settings["batch_size"])
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for seed, lr, family in cells(name):
        path = folder / f"{name}-{family}-{lr:.2g}-{seed}.json"
        if path.exists():
            continue
        model.load_state_dict(start)
        options = {"lr": lr, "family": family, "seed": seed, "steps": settings["steps"]}
        losses = run(model, of_run(seed), **options)
        write_json(path, {"model": name, **options, "losses": losses})
        print(
            path.stem, [round(loss, 3) for loss in losses[:: max(1, len(losses) // 4)]], flush=True
        )


def ends(folder: Path, name: str, family: str) -> dict[float, tuple[float, int]]:
    """For each learning rate: the mean loss of the last quarters of runs, and how many runs.

    Of seeds with which every learning rate was run, since those of one seed see the same batches.
    """
    found: dict[float, dict[int, float]] = {}
    steps = SETTINGS[name]["steps"]
    for path in sorted(folder.glob(f"{name}-{family}-*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        last = cell["losses"][-(steps // 4) :] if len(cell["losses"]) == steps else [math.inf]
        found.setdefault(cell["lr"], {})[cell["seed"]] = sum(last) / len(last)
    seeds = set.intersection(*(set(of_seed) for of_seed in found.values())) if found else set()
    if not seeds:
        return {}
    means = {lr: sum(of_seed[s] for s in seeds) / len(seeds) for lr, of_seed in found.items()}
    return {lr: (mean, len(seeds)) for lr, mean in sorted(means.items())}


def crossing(losses: dict[float, tuple[float, int]], limit: float) -> float | None:
    """Where the loss passes the limit, between two learning rates on a logarithmic scale."""
    pairs = sorted((lr, loss) for lr, (loss, _) in losses.items())
    for (lr, loss), (above, over) in pairwise(pairs):
        if loss <= limit < over:
            share = math.log(limit / loss) / math.log(over / loss) if math.isfinite(over) else 0.5
            return lr * (above / lr) ** share
    return None


def compared(name: str, family: str, folder: Path) -> dict[str, Any] | None:
    """What was measured and predicted for a model and a family, if there are runs."""
    settings = SETTINGS[name]
    losses = ends(folder, name, family)
    if not losses:
        return None
    model, of_run = made(name, settings["batch_size"])
    options = {"steps": settings["steps"], "directions": FAMILIES[family]}
    options["samples"] = settings.get("samples", 64)
    plans = [zo.plan(of_run(777 + seed), model, **options, seed=seed) for seed in range(3)]
    loss = sum(plan.loss.value for plan in plans) / 3
    best = min(losses, key=lambda lr: losses[lr][0])
    return {
        "model": name,
        "family": family,
        "d": sum(p.numel() for p in model.parameters()),
        **{key: settings[key] for key in ("steps", "batch_size")},
        "loss": loss,
        "predicted": statistics.geometric_mean(plan.border.value for plan in plans),
        "predictions": [plan.border.value for plan in plans],
        "measured": crossing(losses, 1.5 * loss),
        "automatic": statistics.geometric_mean(plan.lr for plan in plans),
        "best": best,
        "ends": [[lr, *found] for lr, found in losses.items()],
    }


def table(folder: Path) -> None:
    """Write zotutor/data/step_size.json."""
    rows = [compared(name, family, folder) for name in SETTINGS for family in FAMILIES]
    found = {
        "command": "python tools/measure_step_size.py run FOLDER; ... table FOLDER",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread; torch {torch.__version__}",
        "border": "the mean loss of the last quarter, over seeds, is 1.5 times that at the start",
        "rows": [row for row in rows if row is not None],
    }
    write_json(Path(zo.__file__).parent / "data" / "step_size.json", found)


def main() -> None:
    """Run the cells, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="*", default=list(SETTINGS))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if given.what == "run":
        for name in given.models:
            measure(name, given.folder)
    else:
        table(given.folder)


if __name__ == "__main__":
    main()

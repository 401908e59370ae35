"""Measures the fidelity of the ZO eNTK on MNIST, for the table in the chapter *Kernel fidelity*.

python tools/measure_mnist.py FOLDER [--output FILE] [--draws N] [--part PART]

FOLDER holds MNIST's IDX files. Writes zotutor/data/mnist_fidelity.json, with the date, the
versions and the data. Takes about a quarter of an hour on two cores. ``--part theirs`` measures
again only the network in the state in which Li et al. (2026) measure theirs, some minutes, and
``--part ours`` only the others; the rest of the file is kept, and seeds of
theirs that it has are not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zotutor as zo
from zotutor.datasets import Split, examples, mnist
from zotutor.fidelity import (
    kernel_fidelity,
    mean_over_pairs,
    pair_law,
    pairs_of_classes,
)
from zotutor.llm.runs.disk import write_json

OUTPUT = Path(__file__).resolve().parent.parent / "zotutor" / "data" / "mnist_fidelity.json"
COUNTS = (1, 5, 25, 125, 625)
CLASSES = (0, 1, 4, 9)
IMAGES = 8
GROUPS = {
    "4 and 9": (4, 9),
    "0 and 1": (0, 1),
    "two 0s": (0, 0),
    "two 1s": (1, 1),
    "two 4s": (4, 4),
    "two 9s": (9, 9),
}
FAMILIES: dict[str, zo.directions.Directions] = {
    "Gaussian": zo.Gaussian(),
    "Rademacher": zo.Rademacher(),
}
DELTA = 0.01
SEEDS = range(6)
STEPS, BATCH, RATE = 300, 64, 0.05

# the setting of Li et al. (2026), by their repository
THEIR_FAMILIES = {**FAMILIES, "Uniform": zo.Uniform()}
THEIR_IMAGES, THEIR_EPOCHS, THEIR_BATCH = 2_000, 100, 64
THEIR_SGD: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
THEIR_MEAN, THEIR_STD = 0.1307, 0.3081
THEIR_SEEDS = 3


def train(model: nn.Module, split: Split) -> None:
    """SGD with momentum, 300 batches of 64."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    for _ in range(STEPS):
        indices = torch.randint(len(split.x_train), (BATCH,), generator=generator)
        loss = F.cross_entropy(model(split.x_train[indices]), split.y_train[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the test images whose largest logit is that of their label."""
    with torch.no_grad():
        return float((model(split.x_test).argmax(1) == split.y_test).float().mean())


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def bound_over_law(J: Tensor, pairs: Tensor, P: int) -> float:
    """The paper's bound over the law, as lengths, mean over pairs; Gaussian directions."""
    ratios = []
    for o, u in pairs.tolist():
        bound = zo.kernel_error_bound(J[o], J[u], P=P, delta=DELTA, directions=zo.Gaussian())
        law = zo.kernel_error_law(J[o], J[u], P=P, directions=zo.Gaussian())
        ratios.append((bound / law) ** 0.5)
    return sum(ratios) / len(ratios)


def measured(J: Tensor, model: nn.Module, groups: dict[str, Tensor], draws: int) -> dict[str, Any]:
    """All numbers at one theta."""
    alignment = zo.alignment(J[:, None], J[None])
    rank = zo.effective_rank(torch.einsum("nid,njd->nij", J, J))
    table: dict[str, Any] = {
        "effective_rank": [rounded(float(r)) for r in (rank.min(), rank.mean(), rank.max())],
        "groups": {
            name: {
                "pairs": len(pairs),
                "alignment": rounded(float(alignment[pairs[:, 0], pairs[:, 1]].mean())),
                "bound_over_law": rounded(bound_over_law(J, pairs, 125)),
            }
            for name, pairs in groups.items()
        },
    }
    for family, P, found, laws in fidelities(J, model, groups, draws):
        first = 0
        for name, pairs in groups.items():
            part = slice(first, first + len(pairs))
            first = part.stop
            value, std_error = mean_over_pairs(found.relative_frobenius[:, part])
            row = {
                "P": P,
                "draws": len(found.cka),
                "relative_frobenius": rounded(value),
                "std_error": rounded(std_error),
                "law": rounded(float((laws[part] / P).sqrt().mean())),
                "cka": rounded(float(found.cka[:, part].mean())),
                "wasserstein": rounded(float(found.wasserstein[:, part].mean())),
            }
            table["groups"][name].setdefault(family, []).append(row)
    return table


def fidelities(
    J: Tensor, model: nn.Module, groups: dict[str, Tensor], draws: int
) -> Iterator[tuple[str, int, zo.fidelity.Fidelity, Tensor]]:
    """(family, P, Fidelity, law at P = 1) over all pairs, group after group."""
    pairs = torch.cat(list(groups.values()))
    for family, directions in FAMILIES.items():
        laws = pair_law(J, pairs, directions=directions)
        for P in COUNTS:
            count = max(draws // 10, min(draws, draws * 100 // P))
            found = kernel_fidelity(
                J, pairs, model, P=P, directions=directions, draws=count, seed=0
            )
            print(family, P, flush=True)
            yield family, P, found, laws


def law_over_seeds(x: Tensor, groups: dict[str, Tensor]) -> dict[str, list[float]]:
    """The law's relative error at P = 125, Gaussian, for other initial weights: one per seed."""
    laws: dict[str, list[float]] = {name: [] for name in groups}
    for seed in SEEDS:
        J = zo.jacobian(zo.models.lenet(seed=seed), x)
        for name, pairs in groups.items():
            law = pair_law(J, pairs, directions=zo.Gaussian())
            laws[name].append(rounded(float((law / 125).sqrt().mean())))
    return laws


def their_lenet(seed: int) -> nn.Sequential:
    """LeNet, initialized by torch's defaults."""
    model = zo.models.lenet(seed=seed)
    torch.manual_seed(seed)
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.reset_parameters()
    return model


def train_as_they_do(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
    """100 epochs of SGD, shuffled batches of 64."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), **THEIR_SGD)
    for _ in range(THEIR_EPOCHS):
        for indices in torch.randperm(len(x), generator=generator).split(THEIR_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[indices]), y[indices]).backward()
            optimizer.step()


def spread(values: Tensor) -> list[float]:
    """The 10 %, 50 % and 90 % quantiles."""
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return [rounded(q) for q in values.double().flatten().quantile(levels).tolist()]


def in_their_state(J: Tensor, model: nn.Module, groups: dict[str, Tensor]) -> dict[str, Any]:
    """Relative and absolute errors: the spread over pairs, and over the draws of one pair."""
    sizes = torch.einsum("nid,mjd->nmij", J, J).square().sum((2, 3)).sqrt()  # (N, N): |K|_F
    alignment = zo.alignment(J[:, None], J[None])
    found: dict[str, Any] = {
        name: {
            "pairs": len(pairs),
            "size": spread(sizes[tuple(pairs.T)]),
            "alignment": spread(alignment[tuple(pairs.T)]),
        }
        for name, pairs in groups.items()
    }
    pairs = torch.cat(list(groups.values()))
    for family, directions in THEIR_FAMILIES.items():
        laws = pair_law(J, pairs, directions=directions)
        for P in COUNTS:
            draws = max(8, min(40, 4000 // P))
            drawn = kernel_fidelity(
                J, pairs, model, P=P, directions=directions, draws=draws, seed=1
            ).relative_frobenius  # (draws, pairs)
            first = 0
            for name, own in groups.items():
                part = slice(first, first + len(own))
                first = part.stop
                errors = drawn[:, part].square().mean(0).sqrt()
                row = {"P": P, "draws": draws, "law": spread((laws[part] / P).sqrt())}
                row["relative"] = spread(errors)
                row["absolute"] = spread(errors * sizes[tuple(own.T)])
                row["one_pair"] = spread(drawn[:, part.start])  # over draws
                found[name].setdefault(family, []).append(row)
            print(family, P, flush=True)
    return found


def theirs(split: Split, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The state in which Li et al. measure: trained, single pairs, three families.

    Yields after each seed; seeds that ``found`` has are not repeated.
    """
    shifted = split._replace(
        x_train=(split.x_train - THEIR_MEAN) / THEIR_STD,
        x_test=(split.x_test - THEIR_MEAN) / THEIR_STD,
    )
    x = torch.cat([examples(shifted.x_test, split.y_test, label=c, n=IMAGES) for c in CLASSES])
    y = torch.tensor(CLASSES).repeat_interleave(IMAGES)
    names = ("4 and 9", "0 and 1", "two 4s")
    groups = pairs_of_classes(y, {name: GROUPS[name] for name in names})
    settings = ", ".join(f"{name} {value:g}" for name, value in THEIR_SGD.items())
    found["date"] = datetime.date.today().isoformat()
    found["training"] = (
        f"{THEIR_IMAGES:,} images, {THEIR_EPOCHS} epochs, batches of {THEIR_BATCH}, SGD, {settings}"
    )
    found["source"] = "github.com/RogerRogerUSC/ZO-Learning-Dynamics"
    states = found.setdefault("states", {"at initialization": {}, "trained": {}})
    done = len(states["trained"].get("accuracy", []))
    for seed in range(done, THEIR_SEEDS):
        model = their_lenet(seed)
        parts: dict[str, Any] = {}
        for state in states:
            if state == "trained":
                images, labels = shifted.x_train[:THEIR_IMAGES], split.y_train[:THEIR_IMAGES]
                train_as_they_do(model, images, labels, seed)
            J = zo.jacobian(model, x)
            law = {
                name: spread((pair_law(J, pairs, directions=zo.Gaussian()) / 125).sqrt())
                for name, pairs in groups.items()
            }
            parts[state] = rounded(accuracy(model, shifted)), law
            print(state, seed, parts[state][0], flush=True)
        if seed == 0:
            states["trained"]["groups"] = in_their_state(J, model, groups)
        for state, (share, law) in parts.items():
            states[state].setdefault("accuracy", []).append(share)
            for name, quantiles in law.items():
                of_seeds = states[state].setdefault("law_at_125", {})
                of_seeds.setdefault(name, []).append(quantiles)
        yield found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with MNIST's IDX files")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--draws", type=int, default=100, help="draws of U where P is small")
    parser.add_argument("--part", choices=["ours", "theirs"], help="measure only this part")
    given = parser.parse_args()
    split = mnist(given.folder)
    table = json.loads(given.output.read_text()) if given.part else {}
    if given.part != "theirs":
        table |= ours(split, given.draws)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.output, table)
    if given.part != "ours":
        for found in theirs(split, table.get("theirs", {})):
            write_json(given.output, table | {"theirs": found})


def ours(split: Split, draws: int) -> dict[str, Any]:
    """Our network, at its initial weights and after some training."""
    own = len(split.x_train) == 60_000
    x = torch.cat([examples(split.x_test, split.y_test, label=c, n=IMAGES) for c in CLASSES])
    y = torch.tensor(CLASSES).repeat_interleave(IMAGES)
    groups = pairs_of_classes(y, GROUPS)
    model = zo.models.lenet(seed=0)
    states = {}
    for name in ("at initialization", "trained"):
        if name == "trained":
            train(model, split)
        states[name] = {
            "accuracy": rounded(accuracy(model, split)),
            **measured(zo.jacobian(model, x), model, groups, draws),
        }
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python tools/measure_mnist.py FOLDER",
        "machine": f"{os.cpu_count()} {platform.machine()} cores, no GPU",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "zotutor": zo.__version__,
        },
        "data": (
            "MNIST's own 60,000 images to train and 10,000 to test"
            if own
            else "the 10,000 test images of MNIST, 9,000 of them to train and 1,000 to test, so "
            "that accuracies are not MNIST test accuracies"
        )
        + f"; pairs of the first {IMAGES} images of each class among those to test",
        "model": "zotutor.models.lenet(seed=0)",
        "d": sum(p.numel() for p in model.parameters()),
        "training": f"SGD, {STEPS} batches of {BATCH}, lr {RATE}, momentum 0.9",
        "delta": DELTA,
        "law_over_seeds": law_over_seeds(x, groups),
        "states": states,
    }


if __name__ == "__main__":
    main()

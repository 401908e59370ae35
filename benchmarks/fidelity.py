"""Fidelity per second: how accurate a step of SmolLM2 each family of directions buys for its time.

The relative error of a ZO step's predicted change, by the exact law, is C / sqrt(P) with a constant
C of the family; a probe takes s seconds. Reaching relative error r takes s (C / r)^2 seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

import zotutor as zo
from zotutor import dynamics
from zotutor.llm import Rows, encode, load, word_ids

from .models import missing_smollm2
from .runner import Call, Case, Comparison, DisagreementError

BASE = "two forward passes"
FAMILIES: dict[str, zo.directions.Directions] = {
    "Rademacher": zo.Rademacher(),
    "Gaussian": zo.Gaussian(),
    "Sparse(0.1)": zo.directions.Sparse(0.1),
    "LowRank(1)": zo.LowRank(1),
    "LowRank(4)": zo.LowRank(4),
}
TEXTS = (
    "The plot was dull and the jokes were worse. It was",
    "A gem from the first scene to the last. It was",
    "I left after ten minutes and do not regret it. It was",
    "Warm, funny and beautifully acted. It was",
)
SAMPLES = 16


def texts(name: str) -> tuple[Rows, Tensor, Tensor]:
    """The model over two label words, four texts and their labels."""
    model, tokenizer = load(name)
    rows = Rows(model, words=word_ids(tokenizer, ["terrible", "great"]))
    return rows, encode(tokenizer, list(TEXTS)), torch.tensor([0, 1, 0, 1])


def ways(name: str, _: str) -> dict[str, Call]:
    """One direction's two probes, for each family."""
    rows, x, y = texts(name)

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(rows(x), y)

    def two_forwards() -> None:
        with torch.no_grad():
            loss()
            loss()

    def probe(family: zo.directions.Directions) -> Call:
        optimizer = zo.ZOSGD(rows.parameters(), 1e-7, seed=0, directions=family)

        def step() -> Any:
            optimizer.steps_taken += 1  # new directions each time
            return optimizer.measure(loss)

        return step

    return {BASE: two_forwards} | {key: probe(family) for key, family in FAMILIES.items()}


def constants(name: str, _: str) -> dict[str, Any]:
    """C of each family: the relative error of a step on the texts, at P = 1, at the texts."""
    rows, x, y = texts(name)
    change = dynamics.change_of_log_probs(rows, x, dynamics.loss_gradient(rows, x, y).g)
    size = float(change.norm())
    found, errors = {}, {}
    for key, family in FAMILIES.items():
        options: dict[str, Any] = {"directions": family, "samples": SAMPLES, "seed": 0}
        law = zo.planning.estimate_dynamics_error(rows, x, x, y, P=1, lr=1.0, **options)
        found[key] = math.sqrt(law.value) / size
        errors[key] = law.std_error / (2 * law.value) * found[key]
    d = zo.parameters.resolve(rows).d
    return {"d": d, "texts": len(TEXTS), "C": found, "C_std_error": errors, "samples": SAMPLES}


def check(found: Mapping[str, Call]) -> None:
    """Each family's mean loss over its two probes is about that at theta."""
    losses = {key: call().loss for key, call in found.items() if key != BASE}
    if max(losses.values()) - min(losses.values()) > 0.05 * max(losses.values()):
        raise DisagreementError(f"the families' losses differ: {losses}")


def derive(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds to a relative error of 1/2, for each family, and its P."""
    seconds, needed = {}, {}
    for case in cases:
        for row in case["ways"]:
            if row["way"] != case["base"]:
                P = math.ceil((case["about"]["C"][row["way"]] / 0.5) ** 2)
                needed[row["way"]], seconds[row["way"]] = P, float(f"{P * row['seconds']:.4g}")
    return {"P": needed, "seconds": seconds}


def case(name: str, title: str) -> Case:
    """A model that :func:`zotutor.llm.load` knows."""
    about = partial(constants, name)
    options: dict[str, Any] = {"check": check, "about": about, "memory": False}
    if name == "smollm2":
        options["missing"] = missing_smollm2
    return Case(title, partial(ways, name), BASE, **options)


COMPARISON = Comparison(
    "fidelity",
    "one direction's probes by family, and the time to a relative error of 1/2",
    lambda _: [case("smollm2", "SmolLM2-135M-Instruct, 4 texts")],
    derive=derive,
)

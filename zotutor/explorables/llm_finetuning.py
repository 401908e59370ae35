"""Explorables of *Fine-tuning a language model*."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from zotutor.checks import check_integer
from zotutor.parameters import resolve

from .arguments import check_seed
from .page import Explorable, Table

if TYPE_CHECKING:
    from zotutor.llm.runs.ledger import Contents

COLUMNS = 16


def ledger(
    contents: Contents, base: nn.Module, tuned: nn.Module, *, parameter: str, entries: int = 128
) -> Explorable:
    """A run's ledger replayed in the page: the weights of one layer, bit for bit.

    The page draws the same random signs from the seed and adds the same updates in float32, for the
    first entries of one parameter, and compares their bits with those of the run.

    Args:
        contents: of the ledger, as ``zotutor.llm.ledger.read`` returns it; random signs, float32,
            without momentum or weight decay.
        base: the model before the run.
        tuned: the model after all steps of the ledger.
        parameter: the name of a trainable parameter.
        entries: how many of its entries, in row-major order; a multiple of 16.

    Raises:
        ValueError: for another kind of run, or a name that is no parameter of the model.

    Example:
        >>> import zotutor as zo
        >>> from zotutor.llm.runs.ledger import Contents, Step
        >>> base, tuned = nn.Linear(16, 8), nn.Linear(16, 8)
        >>> _ = tuned.load_state_dict(base.state_dict())
        >>> zo.ZOSGD(tuned.parameters(), lr=0.5, seed=3).replay([0.25])
        >>> header = {"directions": "rademacher"}
        >>> contents = Contents(header, [Step(0, 3, 1.0, 0.5, (0.25,))], 48, b"")
        >>> ledger(contents, base, tuned, parameter="weight")
        <explorable llm_finetuning.ledger>
    """
    check_integer("entries", entries, low=COLUMNS)
    steps = contents.steps
    _check_kind(contents, entries)
    found = resolve(base)
    names = list(found.named())
    if parameter not in names:
        raise ValueError(f"parameter: given {parameter!r}, expected one of {', '.join(names)}")
    i = names.index(parameter)
    before, after = (
        resolve(model).tensors[i].detach().flatten()[:entries] for model in (base, tuned)
    )
    if before.dtype != torch.float32 or after.dtype != torch.float32 or len(before) < entries:
        raise ValueError(
            f"parameter: {parameter} has {len(before)} entries of {before.dtype}, expected at "
            f"least {entries} of float32; choose a larger one, or another run"
        )
    bytes_of_all = sum(t.numel() * t.element_size() for t in found.tensors)
    return Explorable(
        "llm_finetuning",
        "ledger",
        "The ledger, replayed in this page",
        {
            "seed": check_seed(steps[0].seed),
            "parameter": i,
            "where": parameter,
            "columns": COLUMNS,
            "steps": [{"lr": s.lr, "coefficients": list(s.coefficients)} for s in steps],
            "base": _exact(before),
            "final": _exact(after),
        },
        Table(
            f"What is kept of the run, and the first weights of {parameter}",
            ["", "bytes or value"],
            [
                ["all weights", f"{bytes_of_all:,}"],
                ["the ledger's steps", f"{len(steps) * (40 + 8 * len(steps[0].coefficients)):,}"],
                *([f"weight {k}", f"{float(after[k]):.7f}"] for k in range(3)),
            ],
        ),
    )


def _check_kind(contents: Contents, entries: int) -> None:
    """Refuse a run that the page could not replay."""
    header, steps = contents.header, contents.steps
    if not steps or len({step.seed for step in steps}) > 1 or entries % COLUMNS:
        raise ValueError(
            f"contents, entries: given {len(steps)} steps and {entries} entries, expected at least "
            f"one step, all of one seed, and a multiple of {COLUMNS} entries"
        )
    if header.get("directions") != "rademacher":
        raise ValueError(
            f"contents: directions are {header.get('directions')}, expected rademacher, whose "
            "numbers every machine computes alike; give a run with those"
        )
    for name in ("momentum", "weight_decay"):
        if header.get(name):
            raise ValueError(f"contents: {name} is {header[name]}, expected 0; give a run without")


def _exact(values: torch.Tensor) -> list[float]:
    """float32 numbers in the fewest digits that round to them again."""
    return [float(str(value)) for value in values.numpy()]

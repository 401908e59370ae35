"""The weights after any step of a run, bit for bit, from its base model and its ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from zotutor.checks import check_integer, check_path
from zotutor.directions import from_name, name_of
from zotutor.optim import ZOSGD
from zotutor.parameters import resolve

from .ledger import Contents, LedgerError, Step, WeightsHash, read
from .weights import dtypes, weights_hash


class Replay(NamedTuple):
    """The result of :func:`replay`."""

    steps: int
    """The number of steps taken."""
    checked: int
    """The last step after which the weights matched a hash in the ledger; 0 for none."""
    sha256: str
    """The hash of the weights after these steps."""


def header_of(model: nn.Module, optimizer: ZOSGD, *, base: str | None = None) -> dict[str, Any]:
    """Everything that replay needs in addition to the numbers of each step.

    Args:
        model: before its first step.
        optimizer: over its parameters; one group.
        base: the hash of the model's weights, if known.
    """
    (group,) = optimizer.param_groups
    return {
        "dtype": dtypes(model),
        "d": resolve(model).d,
        "base": base or weights_hash(model),
        "directions": name_of(optimizer.directions),
        "P": optimizer.P,
        "eps": optimizer.eps,
        "momentum": float(group["momentum"]),
        "weight_decay": float(group["weight_decay"]),
        "seed": optimizer.seed,
    }


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("d", "P", "seed"), int),
    **dict.fromkeys(("dtype", "base", "directions"), str),
    **dict.fromkeys(("eps", "momentum", "weight_decay"), (float, int)),
}


def check_header(header: Mapping[str, Any], place: Path) -> None:
    """Refuse a header that lacks an entry of :func:`header_of`, or has one of another type.

    Raises:
        LedgerError: naming the entry.
    """
    for name, kind in _TYPES.items():
        value = header.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LedgerError(
                f"{place}: its header has {name} = {value!r}, with which no run is written; take "
                "an unchanged copy of the file"
            )


def check_base(model: nn.Module, header: Mapping[str, Any], place: Path) -> None:
    """Refuse a model other than the one that a ledger's run began with.

    Raises:
        LedgerError: naming dtype, number of trainable parameters, or hash.
    """
    given = {"dtype": dtypes(model), "d": resolve(model).d}
    check_header(header, place)
    for name, value in given.items():
        if value != header[name]:
            raise LedgerError(
                f"{place}: its run began with a model of {name} = {header[name]}, and this model's "
                f"is {value}; load that model, with the same dtype and trainable parameters"
            )
    found = weights_hash(model)
    if found != header["base"]:
        raise LedgerError(
            f"{place}: its run began with weights of SHA-256 {header['base'][:16]}..., and this "
            f"model's are {found[:16]}...; load the base model that was fine-tuned, as it was "
            "before its first step"
        )


def optimizer_for(model: nn.Module, header: Mapping[str, Any]) -> ZOSGD:
    """The optimizer that a ledger's header describes."""
    return ZOSGD(
        model.parameters(),
        0.0,
        eps=header["eps"],
        P=header["P"],
        directions=from_name(header["directions"]),
        momentum=header["momentum"],
        weight_decay=header["weight_decay"],
        seed=header["seed"],
    )


def check_hash(model: nn.Module, recorded: WeightsHash, place: Path) -> str:
    """The hash of the model's weights, compared with the one that was recorded.

    Raises:
        LedgerError: if they differ.
    """
    found, expected = weights_hash(model), recorded.sha256.hex()
    if found != expected:
        raise LedgerError(
            f"{place}: after {recorded.number} steps the weights have SHA-256 {found[:16]}..., and "
            f"{expected[:16]}... was recorded; replay where the run was made, with the same "
            "versions of torch and zotutor (normal directions differ between devices in their last "
            "bits, random signs do not)"
        )
    return found


def check_seeds(steps: Sequence[Step], seed: int, place: Path) -> None:
    """Refuse steps whose directions were drawn from another seed than the run's.

    Raises:
        LedgerError: naming the first of them.
    """
    for step in steps:
        if step.seed != seed:
            raise LedgerError(
                f"{place}: step {step.number} is of seed {step.seed}, expected {seed}; take an "
                "unchanged copy of the file"
            )


def ledger_in(path: str | Path) -> Path:
    """The path of a ledger, given that or the folder of its run.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = check_path("run", path)
    path = path / "ledger.bin" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: No such file or directory; give the output folder of a run, or its ledger"
        )
    return path


def replay(path: str | Path, model: nn.Module, *, steps: int | None = None) -> Replay:
    """Tune a model again from a ledger, without data and without a single forward pass.

    theta_t+1 = theta_t - (lr_t / P) sum_p g_tp u_tp, with the projected gradients g from the ledger
    and the directions u from its seed. The weights are bit for bit those of the run, which is
    checked against the last hash that it recorded.

    Args:
        path: a ledger, or the output folder of a run.
        model: the base model, as it was before the first step; tuned in place.
        steps: how many steps to take; None for all there are.

    Returns:
        Named tuple: the steps taken, the last of them after which the weights matched a recorded
        hash, and the hash of the weights.

    Raises:
        FileNotFoundError: if there is no ledger.
        LedgerError: for a damaged ledger, another base model, or weights that do not match a
            recorded hash.
        TypeError, ValueError: for steps out of range.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from zotutor.llm.runs.ledger import Ledger, Step
        >>> model = nn.Linear(3, 1).requires_grad_(True)
        >>> base = {name: p.detach().clone() for name, p in model.named_parameters()}
        >>> optimizer = ZOSGD(model.parameters(), lr=0.1, seed=0)
        >>> path = Path(tempfile.mkdtemp()) / "ledger.bin"
        >>> with Ledger.create(path, header_of(model, optimizer)) as ledger:
        ...     found = optimizer.measure(lambda: model(torch.ones(1, 3)).square().sum())
        ...     ledger.append(Step(0, 0, found.loss, 0.1, found.coefficients))
        ...     optimizer.replay(found.coefficients)
        >>> tuned = weights_hash(model)
        >>> _ = model.load_state_dict(base)
        >>> replay(path, model).sha256 == tuned
        True
    """
    place = ledger_in(path)
    contents = read(place)
    taken = _first(contents, steps, place)
    check_base(model, contents.header, place)
    check_seeds(taken, contents.header["seed"], place)
    optimizer = optimizer_for(model, contents.header)
    recorded = [entry for entry in contents.hashes if entry.number <= len(taken)]
    found = ""
    for number, step in enumerate(taken, start=1):
        optimizer.param_groups[0]["lr"] = step.lr
        optimizer.replay(step.coefficients)
        if recorded and number == recorded[-1].number:
            found = check_hash(model, recorded[-1], place)
    checked = recorded[-1].number if recorded else 0
    if checked != len(taken) or not found:
        found = weights_hash(model)
    return Replay(len(taken), checked, found)


def _first(contents: Contents, steps: int | None, place: Path) -> list[Step]:
    there = contents.steps
    if steps is None:
        return there
    check_integer("steps", steps, low=0)
    if steps > len(there):
        raise ValueError(f"steps: given {steps}, but {place} holds {len(there)}; ask for fewer")
    return there[:steps]

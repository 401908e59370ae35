"""The files of a run's output folder, besides its ledger: written as a whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from . import lm
from .ledger import RunStoppedError, Step, read, sync_folder, write_aside
from .replay import ledger_in
from .tasks import Accuracy, Task

CONFIG, LEDGER, METRICS, LOCK = "config.json", "ledger.bin", "metrics.jsonl", "lock"
PLOT, WEIGHTS = "plot.png", "weights"


class RunError(ValueError):
    """An output folder that this run may not be written to."""


def lock(folder: Path) -> Any:
    """The lock of a folder, taken; the system gives it back when the process ends, however.

    Raises:
        RunError: if another process has it.
    """
    from filelock import FileLock, Timeout

    taken = FileLock(folder / LOCK)
    try:
        taken.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"output: another process is writing to {folder}; wait for it to end, or choose "
            "another folder"
        ) from None
    return taken


def unwritable(path: Path, error: Exception) -> Exception:
    """What to raise for a file or folder that the system will not write."""
    if isinstance(error, RunStoppedError):
        return error
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return RunStoppedError(
            f"{path}: no space left ({error}); make room, and run the same again"
        )
    return RunError(
        f"output: {path} cannot be written to ({error}); choose another folder, or change its "
        "permissions"
    )


def check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunStoppedError(
            f"{folder}: its disk has {free:,} bytes left, and {needed:,} are needed; make room, or "
            "choose a folder on another disk"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        RunError: if it cannot be read.
    """
    path = folder / CONFIG
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != 1:
        raise RunError(
            f"{path}: is damaged, or of a newer zotutor; put back the file that belongs there, or "
            "choose another folder"
        )
    return found


def step_line(step: Step) -> str:
    """A step's line of metrics; its loss is at the weights after ``step.number`` steps."""
    return json.dumps({"step": step.number, "loss": step.loss, "lr": step.lr}) + "\n"


LONGEST = Step(10**9, 0, -1 / 3, -1e-8 / 3, ())
"""A step whose line of metrics is about as long as one gets."""


def evaluation_line(number: int, accuracy: Accuracy) -> str:
    """The line of metrics of an evaluation after ``number`` steps."""
    entry = {"step": number, "accuracy": accuracy.value, "low": accuracy.low}
    return json.dumps(entry | {"high": accuracy.high, "examples": accuracy.examples}) + "\n"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """What can be read of a run's metrics, an entry a line; none without the file."""
    found = []
    path = folder / METRICS
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            found.append(entry)
    return found


def write_plot(path: Path, losses: list[float], evaluations: dict[int, Accuracy]) -> None:
    """The curves of a run as a picture; none without Matplotlib."""
    try:
        from matplotlib import pyplot

        from zotutor.figures import run_curves
    except ImportError:
        return
    figure, picture = run_curves(losses, sorted(evaluations.items())), io.BytesIO()
    figure.savefig(picture, format="png")
    pyplot.close(figure)
    try:
        write_aside(path, picture.getvalue())
    except OSError as error:
        raise unwritable(path, error) from error


def examples_hash(task: Task) -> str:
    """SHA-256 of a task's words and examples: what a run was trained and tested on."""
    text = json.dumps([task.words, task.train, task.dev], separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def summary(path: str | Path) -> dict[str, Any]:
    """What a run's folder, or its ledger alone, says: options, how far it came, how well it did.

    Raises:
        FileNotFoundError, RunError, LedgerError: for a folder or file that is not one, or damaged.
    """
    path = Path(path).expanduser()
    contents, is_run = read(ledger_in(path)), (path / CONFIG).exists()
    steps, size = contents.steps, ledger_in(path).stat().st_size
    found = read_config(path) if is_run else dict(contents.header)
    found.setdefault("steps", len(steps))
    found["steps_taken"] = len(steps)
    if is_run:
        found["finished"] = len(steps) == found["steps"]
        entries = [entry for entry in read_metrics(path) if "accuracy" in entry]
        found["accuracies"] = {e["step"]: e["accuracy"] for e in entries if e["step"] <= len(steps)}
    found["last_loss"] = steps[-1].loss if steps else None
    found["sealed_at"] = contents.seals[-1].number if contents.seals else 0
    found["sha256"] = contents.seals[-1].sha256.hex() if contents.seals else None
    return found | {"ledger_bytes": size}


def save_pretrained(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to a folder, under another name first: all or nothing.

    Beside the folder, ``folder.part``, and if it is there already ``folder.old``, are written over.
    """
    from safetensors import SafetensorError

    aside, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    check_room(folder.parent, sum(tensor.nbytes for tensor in model.parameters()))
    saved: Any = model
    try:
        with lm.quiet(lm.transformers(), local=True):
            saved.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        for path in aside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise RunStoppedError(
            f"{folder}: the weights could not be written ({error}); make room, and run the same "
            "again: they come from the ledger"
        ) from error
    replacing = folder.exists()
    if replacing:
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    aside.replace(folder)
    sync_folder(folder.parent)
    if replacing:
        shutil.rmtree(old, ignore_errors=True)

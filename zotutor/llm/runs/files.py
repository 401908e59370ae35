"""The files of a run's output folder other than its ledger, written as a whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from zotutor.checks import check_path
from zotutor.llm.tasks import Accuracy, Task

from .disk import RunError, RunStoppedError, write_atomically
from .ledger import Step, read
from .replay import ledger_in

CONFIG, LEDGER, METRICS = "config.json", "ledger.bin", "metrics.jsonl"
PLOT, WEIGHTS, INITIAL = "plot.png", "weights", "initial"


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        RunError: if it cannot be read.
    """
    path = folder / CONFIG
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
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


def evaluation(entry: Mapping[str, Any]) -> Accuracy | None:
    """The accuracy in a line of metrics; None for a line without one, or a damaged one."""
    shares: list[Any] = [entry.get(name) for name in ("low", "accuracy", "high")]
    examples = entry.get("examples")
    if type(examples) is not int or examples < 1 or not all(type(s) is float for s in shares):
        return None
    low, value, high = shares
    inside = -1e-9 <= low <= value + 1e-9 and value <= high + 1e-9 and high <= 1 + 1e-9
    return Accuracy(value, low, high, examples) if inside else None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The readable entries of a run's metrics, one per line; none without the file."""
    found = []
    path = folder / METRICS
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and type(entry.get("step")) is int:
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
        write_atomically(path, picture.getvalue())
    except OSError as error:
        raise RunStoppedError(
            f"{path}: could not be written ({error}); free space or make it writable, and run "
            "the same again"
        ) from error


def examples_hash(task: Task) -> str:
    """SHA-256 of a task's words and examples, which identifies a run's data."""
    text = json.dumps([task.words, task.train, task.dev], separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def summary(path: str | Path) -> dict[str, Any]:
    """A summary of a run's folder, or of its ledger alone: options, progress, accuracies.

    Raises:
        FileNotFoundError, RunError, LedgerError: for a folder or file that is not one, or damaged.
    """
    path = check_path("run", path)
    contents, is_run = read(ledger_in(path)), (path / CONFIG).exists()
    steps, size = contents.steps, ledger_in(path).stat().st_size
    found = read_config(path) if is_run else dict(contents.header)
    found.setdefault("steps", len(steps))
    found["steps_taken"] = len(steps)
    if is_run:
        found["finished"] = len(steps) == found["steps"]
        entries = [entry for entry in read_metrics(path) if evaluation(entry)]
        found["accuracies"] = {e["step"]: e["accuracy"] for e in entries if e["step"] <= len(steps)}
    found["last_loss"] = steps[-1].loss if steps else None
    found["hashed_at"] = contents.hashes[-1].number if contents.hashes else 0
    found["sha256"] = contents.hashes[-1].sha256.hex() if contents.hashes else None
    return found | {"ledger_bytes": size}

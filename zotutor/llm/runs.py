"""The output folder of a run: what is in it, who may write to it, and how it is taken up again.

``config.json`` says what was asked for, ``ledger.bin`` holds each step, ``metrics.jsonl`` the same
for people and plots, ``plot.png`` the curves, and ``weights`` the tuned model if it was asked for.
Nothing in them depends on the clock: of two runs of the same call, one of them killed and taken up
again, no file differs but for what a newer version of this package says about itself.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from torch import nn

from .ledger import (
    Ledger,
    LedgerError,
    RunStoppedError,
    Seal,
    Step,
    read,
    record_size,
    sync_folder,
    write_aside,
)
from .replay import check_seal, ledger_in, weights_hash
from .tasks import Accuracy, Task

CONFIG, LEDGER, METRICS, LOCK = "config.json", "ledger.bin", "metrics.jsonl", "lock"
PLOT, WEIGHTS = "plot.png", "weights"
_ABOUT = ("zotutor", "torch", "device")
"""Entries of the configuration that may change from one session to the next."""
_MEANS = {
    "base": "base model (SHA-256 of its weights; give it as it was before its first step)",
    "examples": "examples (SHA-256 of prompts and labels)",
    "d": "number of trainable parameters",
}


class RunError(ValueError):
    """An output folder that this run may not be written to."""


class Memory:
    """A run that is not written anywhere."""

    def __init__(self) -> None:
        self.past: list[Step] = []
        self.evaluations: dict[int, Accuracy] = {}

    def write(self, step: Step) -> None:
        """Write down a step, before it is taken."""

    def taken(self, step: Step, model: nn.Module, *, seal: bool) -> None:
        """Write down that it was taken, and, if ``seal``, the hash of the weights now."""

    def evaluated(self, number: int, accuracy: Accuracy) -> None:
        """Write down the accuracy after ``number`` steps."""
        self.evaluations[number] = accuracy

    def finish(self, model: nn.Module, tokenizer: Any, *, save: bool) -> None:
        """Write the weights, if asked for."""

    def close(self) -> None:
        """Have everything reach the disk."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()


class Folder(Memory):
    """The output folder of a run, locked; new, or with what an earlier session left there.

    Args:
        path: the folder; made if need be.
        header: of the ledger, see :func:`~zotutor.llm.replay.header_of`.
        options: everything else that fixes the run, as JSON: its numbers of steps, its data.
        about: what is worth knowing but fixes nothing: versions, device.

    Raises:
        RunError: for a folder that another process writes to, or that holds something else: another
            run (the message names the option that differs), or other files.
        LedgerError: for a damaged ledger.
        OSError: for a folder that cannot be written to.
    """

    def __init__(
        self,
        path: str | Path,
        header: Mapping[str, Any],
        options: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._seals: dict[int, Seal] = {}
        self.path = Path(path).expanduser()
        self._new_or_own()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path)
            try:
                self._open(dict(header), dict(options), dict(about))
            except BaseException:
                self._lock.release()
                raise
        except (OSError, NotImplementedError) as error:
            raise _unwritable(self.path, error) from error

    def _open(self, header: dict[str, Any], options: dict[str, Any], about: dict[str, Any]) -> None:
        config = {"format": 1, **options, **header, **about}
        if self._new_or_own():
            self._compare(read_config(self.path), config)
        if (self.path / LEDGER).exists():
            ledger = read(self.path / LEDGER)
            if ledger.header != header:
                raise LedgerError(
                    f"{self.path}: its {LEDGER} is of another run than its {CONFIG} says; put back "
                    "the file that belongs there, or choose another folder"
                )
            self.past, self._seals = ledger.steps, {seal.number: seal for seal in ledger.seals}
        elif (self.path / METRICS).exists():
            raise RunError(
                f"output: {self.path} has lost its {LEDGER}; put it back, or choose another folder"
            )
        if len(self.past) > config["steps"]:
            raise RunError(
                f"steps: given {config['steps']}, but the run in {self.path} has taken "
                f"{len(self.past)}; give at least so many, or choose another folder"
            )
        self._old_evaluations()
        steps = config["steps"] - len(self.past)
        _check_room(self.path, steps * (record_size(header["P"]) + len(_step_line(_LONGEST))))
        # everything was read and found right: from here on the folder is written to
        write_aside(self.path / CONFIG, (json.dumps(config, indent=1) + "\n").encode())
        if not (self.path / LEDGER).exists():
            Ledger.create(self.path / LEDGER, header).close()
        self.ledger = Ledger.resume(self.path / LEDGER)
        write_aside(self.path / METRICS, "".join(self._lines()).encode())
        self._metrics = (self.path / METRICS).open("ab", buffering=0)

    def _new_or_own(self) -> bool:
        """Whether there is a run in the folder; a RunError if there is something else."""
        if (self.path / CONFIG).exists():
            return True
        ours = {LOCK, f"{CONFIG}.part"}
        there = self.path.iterdir() if self.path.is_dir() else ()
        others = sorted(path.name for path in there if path.name not in ours)
        if others:
            raise RunError(
                f"output: {self.path} holds {', '.join(others[:5])} and no {CONFIG}, so it is not "
                "the folder of a run; choose a new or an empty one"
            )
        return False

    def _compare(self, there: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        extended = config.get("schedule") == "constant"
        for name in dict.fromkeys((*config, *there)):
            if name in _ABOUT or (name == "steps" and extended):
                continue
            if there.get(name) != config.get(name):
                raise RunError(
                    f"output: {self.path} holds another run: its {_MEANS.get(name, name)} is "
                    f"{there.get(name)!r}, and {config.get(name)!r} was given; choose another "
                    "folder, or give the same"
                )

    def _old_evaluations(self) -> None:
        """Take up the evaluations of an earlier session; what cannot be read is made anew."""
        for entry in read_metrics(self.path):
            numbers: list[Any] = [entry.get(n) for n in ("accuracy", "low", "high", "examples")]
            if entry["step"] <= len(self.past) and None not in numbers:
                self.evaluations[entry["step"]] = Accuracy(*numbers)

    def _lines(self) -> Iterator[str]:
        for step in self.past:
            if step.number in self.evaluations:
                yield _evaluation_line(step.number, self.evaluations[step.number])
            yield _step_line(step)
        if len(self.past) in self.evaluations:
            yield _evaluation_line(len(self.past), self.evaluations[len(self.past)])

    def _log(self, line: str) -> None:
        try:
            written = self._metrics.write(line.encode())
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
        except OSError as error:
            raise RunStoppedError(
                f"{self.path / METRICS}: could not be written ({error}); make room or give it "
                f"back, and run the same again: it goes on behind step {self.ledger.steps}"
            ) from error

    def write(self, step: Step) -> None:
        """Write down a step, before it is taken."""
        self.ledger.append(step)

    def taken(self, step: Step, model: nn.Module, *, seal: bool) -> None:
        """Go on to the next step: a line of metrics, and the hash of the weights.

        The last hash that was there is compared; behind it one is added where ``seal`` asks so.
        """
        number, last = step.number + 1, max(self._seals, default=0)
        if step.number >= len(self.past):
            self._log(_step_line(step))
        if number == last:
            check_seal(model, self._seals[last], self.path / LEDGER)
        elif seal and number > last:
            self.ledger.append(Seal(number, bytes.fromhex(weights_hash(model))))

    def evaluated(self, number: int, accuracy: Accuracy) -> None:
        """Write down the accuracy after ``number`` steps."""
        super().evaluated(number, accuracy)
        self._log(_evaluation_line(number, accuracy))

    def finish(self, model: nn.Module, tokenizer: Any, *, save: bool) -> None:
        """Write the weights, if asked for, to a folder that ``from_pretrained`` reads."""
        if save:
            save_pretrained(model, tokenizer, self.path / WEIGHTS)

    def __exit__(self, *exception: object) -> None:
        """Close it, with a plot of what there is; say to an interrupt how the run goes on."""
        self.close()
        error = exception[1]
        if isinstance(error, KeyboardInterrupt):
            error.add_note(
                f"{self.path}: {self.ledger.steps} steps are written down; the same call, with the "
                "base model, takes the run up again"
            )

    def close(self) -> None:
        """Have everything reach the disk, and let others write to the folder."""
        try:
            self.ledger.close()
        finally:
            self._metrics.close()
            self._lock.release()


_LONGEST = Step(10**9, 0, -1 / 3, -1e-8 / 3, ())
"""A step whose line of metrics is about as long as one gets."""


def _unwritable(path: Path, error: Exception) -> Exception:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return RunStoppedError(
            f"{path}: no space left ({error}); make room, and run the same again"
        )
    return RunError(
        f"output: {path} cannot be written to ({error}); choose another folder, or change its "
        "permissions"
    )


def _check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunStoppedError(
            f"{folder}: its disk has {free:,} bytes left, and {needed:,} are needed; make room, or "
            "choose a folder on another disk"
        )


def _step_line(step: Step) -> str:
    return json.dumps({"step": step.number, "loss": step.loss, "lr": step.lr}) + "\n"


def _evaluation_line(number: int, accuracy: Accuracy) -> str:
    entry = {"step": number, "accuracy": accuracy.value, "low": accuracy.low}
    return json.dumps(entry | {"high": accuracy.high, "examples": accuracy.examples}) + "\n"


def examples_hash(task: Task) -> str:
    """SHA-256 of a task's words and examples: what a run was trained and tested on."""
    text = json.dumps([task.words, task.train, task.dev], separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


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


def summary(path: str | Path) -> dict[str, Any]:
    """What a run's folder, or its ledger alone, says: options, how far it came, how well it did.

    Raises:
        FileNotFoundError, RunError, LedgerError: for a folder or file that is not one, or damaged.
    """
    path = Path(path)
    contents = read(ledger_in(path))
    steps, size = contents.steps, ledger_in(path).stat().st_size
    found = read_config(path) if path.is_dir() else dict(contents.header)
    found.setdefault("steps", len(steps))
    found["steps_taken"] = len(steps)
    if path.is_dir():
        found["finished"] = len(steps) == found["steps"]
        entries = [entry for entry in read_metrics(path) if "accuracy" in entry]
        found["accuracies"] = {e["step"]: e["accuracy"] for e in entries if e["step"] <= len(steps)}
    found["last_loss"] = steps[-1].loss if steps else None
    found["sealed_at"] = contents.seals[-1].number if contents.seals else 0
    found["sha256"] = contents.seals[-1].sha256.hex() if contents.seals else None
    return found | {"ledger_bytes": size}


def save_pretrained(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to a folder, under another name first: all or nothing."""
    from safetensors import SafetensorError

    aside, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    shutil.rmtree(aside, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(folder.parent, sum(tensor.nbytes for tensor in model.parameters()))
    saved: Any = model
    try:
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
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    aside.replace(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A context that an interrupt waits for: what is in it is done as a whole or not begun.

    Only in the main thread, where interrupts arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[tuple[Any, Any]] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, frame: asked.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
    if asked and callable(before):
        before(*asked[0])

"""The output folder of a run: what is in it, who may write to it, and how it is taken up again.

``config.json`` says what was asked for, ``ledger.bin`` holds each step, ``metrics.jsonl`` the same
for people and plots, ``plot.png`` the curves, and ``weights`` the tuned model if it was asked for.
Nothing in them depends on the clock: of two runs of the same call, one of them killed and taken up
again, no file differs but for what a newer version of this package says about itself.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from torch import nn

from .files import (
    CONFIG,
    LEDGER,
    LOCK,
    LONGEST,
    METRICS,
    PLOT,
    WEIGHTS,
    RunError,
    check_room,
    evaluation_line,
    lock,
    read_config,
    read_metrics,
    save_pretrained,
    step_line,
    unwritable,
    write_plot,
)
from .ledger import Ledger, LedgerError, RunStoppedError, Seal, Step, read, record_size, write_aside
from .replay import check_seal, weights_hash
from .tasks import Accuracy

_ABOUT = ("zotutor", "torch", "device")
"""Entries of the configuration that may change from one session to the next."""
_MEANS = {
    "base": "base model (SHA-256 of its weights; give it as it was before its first step)",
    "examples": "examples (SHA-256 of prompts and labels)",
    "d": "number of trainable parameters",
}


class Memory:
    """A run that is not written anywhere."""

    def __init__(self) -> None:
        self.past: list[Step] = []
        self.evaluations: dict[int, Accuracy] = {}

    def write(self, step: Step) -> None:
        """Write down a step, before it is taken."""

    def taken(self, step: Step, model: nn.Module, *, seal: bool, sha256: str | None = None) -> None:
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
        self._metrics: BinaryIO | None = None
        self.path = Path(path).expanduser()
        try:
            self._new_or_own()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path)
            try:
                self._open(dict(header), dict(options), dict(about))
            except BaseException:
                self._lock.release()
                raise
        except (OSError, NotImplementedError) as error:
            raise unwritable(self.path, error) from error

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
        check_room(self.path, steps * (record_size(header["P"]) + len(step_line(LONGEST))))
        # everything was read and found right: from here on the folder is written to
        write_aside(self.path / CONFIG, (json.dumps(config, indent=1) + "\n").encode())
        if not (self.path / LEDGER).exists():
            Ledger.create(self.path / LEDGER, header).close()
        self.ledger = Ledger.resume(self.path / LEDGER)

    def _new_or_own(self) -> bool:
        """Whether there is a run in the folder; a RunError if there is something else."""
        there = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set[str]()
        others = sorted(there - {LOCK, f"{CONFIG}.part"})
        # the configuration of a model has the same name
        if CONFIG in there and (others == [CONFIG] or there & {LOCK, LEDGER}):
            return True
        if others:
            raise RunError(
                f"output: {self.path} holds {', '.join(others[:5])} and no {LEDGER}, so it is not "
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
            known = all(isinstance(number, (int, float)) for number in numbers)
            if entry["step"] <= len(self.past) and known:
                self.evaluations[entry["step"]] = Accuracy(*numbers)

    def _lines(self) -> Iterator[str]:
        """The metrics of the steps that were there, and what is known behind the last."""
        for step in self.past:
            if step.number in self.evaluations:
                yield evaluation_line(step.number, self.evaluations[step.number])
            yield step_line(step)
        if len(self.past) in self.evaluations:
            yield evaluation_line(len(self.past), self.evaluations[len(self.past)])

    def _log(self, *lines: str) -> None:
        """Write lines of metrics; the first time, those of the past before them.

        Until then the file of an earlier session stays, and with it what is costly to make anew.
        """
        path = self.path / METRICS
        try:
            if self._metrics is None:
                write_aside(path, "".join(self._lines()).encode())
                self._metrics = path.open("ab", buffering=0)
            for line in lines:
                written = self._metrics.write(line.encode())
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes were written")
        except OSError as error:
            raise RunStoppedError(
                f"{path}: could not be written ({error}); make room or give it back, and run the "
                f"same again: it goes on behind step {self.ledger.steps}"
            ) from error

    def write(self, step: Step) -> None:
        """Write down a step, before it is taken."""
        self._log()
        self.ledger.append(step)

    def taken(self, step: Step, model: nn.Module, *, seal: bool, sha256: str | None = None) -> None:
        """Go on to the next step: a line of metrics, and the hash of the weights.

        The last hash that was there is compared; behind it one is added where ``seal`` asks so:
        ``sha256`` if it is known already.
        """
        number, last = step.number + 1, max(self._seals, default=0)
        if step.number >= len(self.past):
            self._log(step_line(step))
        if number == last:
            check_seal(model, self._seals[last], self.path / LEDGER)
        elif seal and number > last:
            self.ledger.append(Seal(number, bytes.fromhex(sha256 or weights_hash(model))))

    def evaluated(self, number: int, accuracy: Accuracy) -> None:
        """Write down the accuracy after ``number`` steps."""
        if number >= len(self.past):
            self._log(evaluation_line(number, accuracy))
        super().evaluated(number, accuracy)

    def finish(self, model: nn.Module, tokenizer: Any, *, save: bool) -> None:
        """Write the weights, if asked for, to a folder that ``from_pretrained`` reads.

        Those that an earlier session wrote are not left behind those of the ledger.
        """
        self._log()
        if save or (self.path / WEIGHTS).exists():
            save_pretrained(model, tokenizer, self.path / WEIGHTS)
            shutil.rmtree(self.path / f"{WEIGHTS}.old", ignore_errors=True)  # of a killed session

    def __exit__(self, *exception: object) -> None:
        """Close it, with a plot of what there is; say to an interrupt how the run goes on."""
        error = exception[1]
        try:
            if error is None or isinstance(error, KeyboardInterrupt):
                losses = [entry["loss"] for entry in read_metrics(self.path) if "loss" in entry]
                write_plot(self.path / PLOT, losses, self.evaluations)
        finally:
            self.close()
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
            if self._metrics is not None:
                self._metrics.close()
            self._lock.release()


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

"""The output folder of a run: its contents, its lock, and how a run resumes.

``config.json`` holds the options, ``ledger.bin`` each step, ``metrics.jsonl`` the same for people
and plots, ``plot.png`` the curves, and ``weights`` the tuned model if saving was requested. Of a
model with an adapter, ``initial`` holds that adapter as it was before the first step, and
``weights`` the tuned one. Nothing in them depends on the clock: a run that was killed and resumed
has the same files as one that was not, except for the versions recorded in its configuration.

Nothing is written until the first new step has been measured. An error before that, in this module
or in the step itself, leaves the folder unchanged.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from torch import nn

from zotutor.checks import check_path
from zotutor.llm.tasks import Accuracy
from zotutor.probe import NonFiniteLossError

from .disk import (
    LOCK,
    Claim,
    RunError,
    RunStoppedError,
    check_free_space,
    unwritable,
    write_atomically,
    write_json,
)
from .files import (
    CONFIG,
    INITIAL,
    LEDGER,
    LONGEST,
    METRICS,
    PLOT,
    WEIGHTS,
    evaluation,
    evaluation_line,
    read_config,
    read_metrics,
    step_line,
    write_plot,
)
from .ledger import Ledger, LedgerError, Step, WeightsHash, read, record_size
from .replay import check_hash, check_seeds
from .weights import save_pretrained, weights_hash

_ABOUT = ("zotutor", "torch", "device", "adapter", "micro_batch")
"""Entries of the configuration that may change from one session to the next."""
_MEANS = {
    "base": "base model (SHA-256 of its weights; give it as it was before its first step)",
    "examples": "examples (SHA-256 of prompts and labels)",
    "d": "number of trainable parameters",
    "seal_every": "hash_every",
}
_REFUSALS = (ValueError, TypeError, OSError, ImportError, NotImplementedError)


class Memory:
    """A run in memory only, and the interface of :class:`Folder`."""

    def __init__(self) -> None:
        self.past: list[Step] = []
        self.evaluations: dict[int, Accuracy] = {}

    def write(self, step: Step) -> None:
        """Record a step, before it is taken."""

    def taken(
        self, step: Step, model: nn.Module, *, hash_due: bool, sha256: str | None = None
    ) -> None:
        """Record that a step was taken, and, if ``hash_due``, the hash of the weights now."""

    def evaluated(self, number: int, accuracy: Accuracy) -> None:
        """Record the accuracy after ``number`` steps."""
        self.evaluations[number] = accuracy

    def finish(self, model: nn.Module, tokenizer: Any, *, save: bool) -> None:
        """Write the weights, if ``save``."""

    def close(self) -> None:
        """Flush everything to the disk."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()


class Folder(Memory):
    """The output folder of a run, locked; new, or with the steps of earlier sessions.

    Args:
        path: the folder; created if it does not exist.
        header: of the ledger, see :func:`~zotutor.llm.runs.replay.header_of`.
        options: everything else that determines the run, as JSON, such as steps and data.
        about: information that determines nothing, such as versions and device.
        adapted: the model before its first step, if it has an adapter to keep.

    Raises:
        RunError: for a folder that another process is writing to, that is not writable, or that
            holds something else: another run (the message names the option that differs), or
            other files. It is left unchanged.
        LedgerError: for a damaged ledger.
        RunStoppedError: if the disk lacks space for the run.
    """

    def __init__(
        self,
        path: str | Path,
        header: Mapping[str, Any],
        options: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        adapted: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._adapted = adapted
        self.path = check_path("output", path)
        self._header = dict(header)
        self._config = {"format": 1, **options, **header, **about}
        self._hashes: dict[int, WeightsHash] = {}
        self._due: WeightsHash | None = None  # of the last replayed step, not written yet
        self._ledger: Ledger | None = None  # None until the first write
        self._metrics: BinaryIO | None = None
        self._evaluated = False
        try:
            self._holds_run()
            self._claim = Claim(self.path)
            try:
                self._look()
            except BaseException:
                self._claim.release(keep=False)
                raise
        except (OSError, NotImplementedError) as error:
            raise unwritable(self.path, error) from error

    # ---- reading: nothing is changed

    def _look(self) -> None:
        """Read the folder, and refuse contents that do not match this run."""
        if self._holds_run():
            self._compare(read_config(self.path))
        self._check_access()
        if (self.path / LEDGER).exists():
            contents = read(self.path / LEDGER)
            if contents.header != self._header:
                raise LedgerError(
                    f"{self.path}: its {LEDGER} is of another run than its {CONFIG} says; put back "
                    "the file that belongs there, or choose another folder"
                )
            self.past = contents.steps
            check_seeds(self.past, self._header["seed"], self.path / LEDGER)
            self._hashes = {entry.number: entry for entry in contents.hashes}
        elif (self.path / METRICS).exists():
            raise RunError(
                f"output: {self.path} has lost its {LEDGER}; put it back, or choose another folder"
            )
        left = self._config["steps"] - len(self.past)
        if left < 0:
            raise RunError(
                f"steps: given {self._config['steps']}, but the run in {self.path} has taken "
                f"{len(self.past)}; give at least that many, or choose another folder"
            )
        self._old_evaluations()
        size = record_size(self._header["P"]) + len(step_line(LONGEST))  # bytes per step
        check_free_space(self.path, left * size)

    def _holds_run(self) -> bool:
        """Whether there is a run in the folder; a RunError if there is something else."""
        there = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set[str]()
        others = sorted(there - {LOCK, f"{CONFIG}.part"})
        # a model's folder has a config.json as well
        if CONFIG in there and (others == [CONFIG] or there & {LOCK, LEDGER}):
            return True
        if others:
            raise RunError(
                f"output: {self.path} holds {', '.join(others[:5])} and no {LEDGER}, so it is not "
                "the folder of a run; choose a new or an empty one"
            )
        return False

    def _check_access(self) -> None:
        """Refuse a folder or file without permission to write now, not after an hour's work."""
        files = [self.path / name for name in (LEDGER, METRICS, PLOT)]
        for path in (self.path, *(path for path in files if path.exists())):
            if not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(f"no permission to write {path.name}")
            if path != self.path and not path.is_file():
                raise RunError(f"output: {path} is not a file; remove it, or choose another folder")

    def _compare(self, there: Mapping[str, Any]) -> None:
        config = self._config
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
        """Read earlier sessions' evaluations; unreadable ones will be computed again."""
        for entry in read_metrics(self.path):
            known = evaluation(entry)
            if known and 0 <= entry["step"] <= len(self.past):
                self.evaluations[entry["step"]] = known

    # ---- writing

    def _begin(self) -> Ledger:
        """The open ledger; created before the first write, together with the configuration."""
        if self._ledger is None:
            write_json(self.path / CONFIG, self._config)
            if not (self.path / LEDGER).exists():
                if self._adapted is not None:
                    save_pretrained(self._adapted, None, self.path / INITIAL)
                Ledger.create(self.path / LEDGER, self._header).close()
            self._ledger = Ledger.resume(self.path / LEDGER)
            if self._due:
                self._ledger.append(self._due)
        return self._ledger

    def _log(self, *lines: str) -> Ledger:
        """Append lines of metrics; the first call rewrites those of earlier sessions first.

        Until then the file of an earlier session remains, with the evaluations in it.
        """
        path = self.path / METRICS
        try:
            ledger = self._begin()
            if self._metrics is None:
                write_atomically(path, "".join(self._lines()).encode())
                self._metrics = path.open("ab", buffering=0)
            for line in lines:
                written = self._metrics.write(line.encode())
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes were written")
        except RunStoppedError:
            raise
        except OSError as error:
            raise RunStoppedError(
                f"{path}: could not be written ({error}); free space or make it writable, and run "
                f"the same again: it resumes after step {self._steps_written}"
            ) from error
        return ledger

    def _lines(self) -> Iterator[str]:
        """The metrics of earlier sessions' steps, and of evaluations up to the last of them."""
        for step in self.past:
            if step.number in self.evaluations:
                yield evaluation_line(step.number, self.evaluations[step.number])
            yield step_line(step)
        if len(self.past) in self.evaluations:
            yield evaluation_line(len(self.past), self.evaluations[len(self.past)])

    @property
    def _steps_written(self) -> int:
        return len(self.past) if self._ledger is None else self._ledger.steps

    def write(self, step: Step) -> None:
        """Record a step, before it is taken."""
        self._log().append(step)

    def taken(
        self, step: Step, model: nn.Module, *, hash_due: bool, sha256: str | None = None
    ) -> None:
        """Record that a step was taken: a line of metrics, and the hash of the weights.

        At the last hash of earlier sessions, the weights are compared with it. After it, if
        ``hash_due``, a hash is added: ``sha256`` if it is known already.
        """
        number, last = step.number + 1, max(self._hashes, default=0)
        if step.number >= len(self.past):
            self._log(step_line(step))
        if number == last:
            check_hash(model, self._hashes[last], self.path / LEDGER)
        elif hash_due and number > last:
            found = WeightsHash(number, bytes.fromhex(sha256 or weights_hash(model)))
            if self._ledger is None:
                self._due = found
            else:
                self._ledger.append(found)

    def evaluated(self, number: int, accuracy: Accuracy) -> None:
        """Record the accuracy after ``number`` steps; in memory until the first write."""
        if self._ledger is not None:
            self._log(evaluation_line(number, accuracy))
        self._evaluated = True
        super().evaluated(number, accuracy)

    def finish(self, model: nn.Module, tokenizer: Any, *, save: bool) -> None:
        """Write the weights, if ``save``, to a folder that ``from_pretrained`` reads.

        Weights saved by an earlier session are replaced, so that they always match the ledger.
        """
        self._log()
        if save or (self.path / WEIGHTS).exists():
            save_pretrained(model, tokenizer, self.path / WEIGHTS)
            shutil.rmtree(self.path / f"{WEIGHTS}.old", ignore_errors=True)  # of a killed session

    # ---- leaving

    def __exit__(self, *exception: object) -> None:
        """Plot the run so far and close the folder; errors get a note on how to resume.

        Raises:
            RunStoppedError: in place of an error after the first write, when the folder is no
                longer as it was before the call.
        """
        error = exception[1]
        try:
            if isinstance(error, (KeyboardInterrupt, RunStoppedError)) and self._evaluated:
                with suppress(RunStoppedError):  # an evaluation may have taken long
                    self._log()
            if self._ledger is not None and (error is None or isinstance(error, KeyboardInterrupt)):
                losses = [entry["loss"] for entry in read_metrics(self.path) if "loss" in entry]
                write_plot(self.path / PLOT, losses, self.evaluations)
        finally:
            self.close()
        state = f"{self.path}: {self._steps_written} steps are written down"
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"{state}; the same call, with the base model, resumes the run")
        elif isinstance(error, NonFiniteLossError) and self._ledger is not None:
            error.add_note(f"{state}; give the next run, with other options, another folder.")
        elif (
            isinstance(error, _REFUSALS)
            and not isinstance(error, RunStoppedError)
            and self._ledger is not None
        ):
            raise RunStoppedError(
                f"{state}, then the run stopped: {error}; remove the cause, and run the same again"
            ) from error

    def close(self) -> None:
        """Flush everything to the disk, and release the folder's lock."""
        try:
            if self._ledger is not None:
                self._ledger.close()
        finally:
            if self._metrics is not None:
                self._metrics.close()
            self._claim.release(keep=self._ledger is not None)

"""Disk operations of a run: atomic writes, a lock, checks of free space, clear errors."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LOCK = "lock"


class RunError(ValueError):
    """An output folder that cannot be used for this run."""


class RunStoppedError(OSError):
    """Writing the run failed; what was written is intact, and the run can be resumed."""


class Claim:
    """A lock on a folder, which is created if needed: no other run may write to it.

    The system releases the lock when the process ends, however it ends.

    Args:
        folder: which.

    Raises:
        RunError: if another process holds the lock.
        OSError: if it cannot be created, or is not a folder. Folders created on the way are
            removed.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        self._made = make_folder(folder)
        self._file, self._lock = folder / LOCK, FileLock(folder / LOCK)
        self._new = not self._file.exists()
        try:
            self._lock.acquire(timeout=0)
        except BaseException as error:
            remove_empty(self._made)
            if isinstance(error, Timeout):
                raise RunError(
                    f"output: another process is writing to {folder}; wait for it to end, or "
                    "choose another folder"
                ) from None
            raise

    def release(self, *, keep: bool) -> None:
        """Release the lock; unless ``keep``, also remove what was created."""
        if not keep and self._new:
            self._file.unlink(missing_ok=True)
        self._lock.release()
        if not keep:
            remove_empty(self._made)


def make_folder(folder: Path) -> list[Path]:
    """Create a folder and its missing parents; returns those created, outermost first.

    Raises:
        OSError: if one cannot be created, or exists but is not a folder; none is left then.
    """
    made: list[Path] = []
    try:
        for path in reversed((folder, *folder.parents)):
            if not path.is_dir():
                path.mkdir()
                made.append(path)
    except BaseException:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that :func:`make_folder` created, as long as they are empty."""
    with suppress(OSError):
        for path in reversed(folders):
            path.rmdir()


def unwritable(path: Path, error: Exception) -> Exception:
    """The error to raise for a file or folder that cannot be written."""
    if isinstance(error, RunStoppedError):
        return error
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return RunStoppedError(
            f"{path}: no space left ({error}); free space, and run the same again"
        )
    return RunError(
        f"output: {path} cannot be written to ({error}); choose another folder, or change its "
        "permissions"
    )


def check_free_space(folder: Path, needed: int) -> None:
    """Refuse to begin a write for which the disk lacks space."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunStoppedError(
            f"{folder}: its disk has {free:,} bytes left, and {needed:,} are needed; free space, "
            "or choose a folder on another disk"
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name, flush it to the disk, and rename it: all or nothing."""
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    """Write a value as a file of JSON, all or nothing."""
    write_atomically(path, (json.dumps(value, indent=indent) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system supports it."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

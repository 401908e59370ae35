"""What a run asks of the disk: files that are whole or not there, a lock, room, clear refusals."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LOCK = "lock"


class RunError(ValueError):
    """An output folder that this run may not be written to."""


class RunStoppedError(OSError):
    """The run could not be written on; what was written is whole, and the run can be resumed."""


class Claim:
    """A folder, made if need be, that no other process may write to meanwhile.

    The system gives the lock back when the process ends, however it ends.

    Args:
        folder: which.

    Raises:
        RunError: if another process has it.
        OSError: if it cannot be made, or is something else. What was made on the way is removed.
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
        """Let others write to the folder; unless ``keep``, leave the place as it was."""
        if not keep and self._new:
            self._file.unlink(missing_ok=True)
        self._lock.release()
        if not keep:
            remove_empty(self._made)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; the ones that were not there, outermost first.

    Raises:
        OSError: if one cannot be made, or the folder is something else; then none was made.
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
    """Remove folders that :func:`make_folder` made, as far as nothing is in them."""
    with suppress(OSError):
        for path in reversed(folders):
            path.rmdir()


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


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name, have it reach the disk, and rename it: all or nothing."""
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


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, where the system can."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

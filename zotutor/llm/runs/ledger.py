"""A run on disk as the numbers that determine it.

A zeroth-order step measures P numbers. The base weights and these numbers determine all later
weights: the directions come from the seed, and each update is replayed bit for bit. So a ledger
replaces checkpoints: 48 bytes per step at P = 1, whatever the size of the model.

The file, all integers and floats little-endian::

    magic "zoledger" (8 bytes), version (4), n (4), n bytes of JSON, digest (8)
    then records of 40 + 8 P bytes:
    a step: number (8), seed (8), loss (8), learning rate (8), projected gradients (8 P), digest (8)
    a hash: number (8), SHA-256 of the weights after that many steps (32), zeros, digest (8)

The highest bit of the number marks a hash. A digest is BLAKE2b of the previous digest and the
record, so that changing, moving or omitting a record invalidates all later digests; the first
digest covers the header, which identifies the run. Records are appended, so only the last one can
be incomplete. Reading a ledger needs only the standard library.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
import warnings
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from .disk import RunStoppedError, write_atomically

MAGIC = b"zoledger"
VERSION = 1
_HEAD = struct.Struct("<8sII")
_DIGEST = 8
_IS_HASH = 1 << 63


class LedgerError(ValueError):
    """A file that is not a ledger, or not as it was written."""


class Step(NamedTuple):
    """The measurement of one step; ``number`` counts from 0."""

    number: int
    seed: int
    loss: float
    lr: float
    coefficients: tuple[float, ...]


class WeightsHash(NamedTuple):
    """The SHA-256 of the weights after ``number`` steps."""

    number: int
    sha256: bytes


Record = Step | WeightsHash


class Contents(NamedTuple):
    """The contents of a ledger: header, records, their size in bytes, and the last digest."""

    header: dict[str, Any]
    records: list[Record]
    size: int
    digest: bytes

    @property
    def steps(self) -> list[Step]:
        """The steps, in order, without gaps."""
        return [record for record in self.records if isinstance(record, Step)]

    @property
    def hashes(self) -> list[WeightsHash]:
        """The recorded hashes of the weights, in order."""
        return [record for record in self.records if isinstance(record, WeightsHash)]

    @property
    def seals(self) -> list[WeightsHash]:
        """Deprecated name of :attr:`hashes`."""
        warnings.warn("seals: renamed to hashes", DeprecationWarning, stacklevel=2)
        return self.hashes


def __getattr__(name: str) -> Any:
    if name == "Seal":
        warnings.warn("Seal: renamed to WeightsHash", DeprecationWarning, stacklevel=2)
        return WeightsHash
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def record_size(P: int) -> int:
    """Bytes per record.

    >>> record_size(1)
    48
    """
    return 40 + 8 * P


def _digest(before: bytes, record: bytes) -> bytes:
    return blake2b(before + record, digest_size=_DIGEST).digest()


def _packed(record: Record, P: int) -> bytes:
    # both kinds have 32 + 8 P bytes before the digest, so that record n has a known place
    if isinstance(record, WeightsHash):
        return struct.pack("<Q32s", record.number | _IS_HASH, record.sha256) + bytes(8 * (P - 1))
    return struct.pack(
        f"<QQdd{P}d", record.number, record.seed, record.loss, record.lr, *record.coefficients
    )


def _unpacked(data: bytes, P: int) -> Record:
    (number,) = struct.unpack_from("<Q", data)
    if number & _IS_HASH:
        return WeightsHash(number ^ _IS_HASH, data[8:40])
    _, seed, loss, lr, *coefficients = struct.unpack(f"<QQdd{P}d", data)
    return Step(number, seed, loss, lr, tuple(coefficients))


def _header(header: Mapping[str, Any]) -> bytes:
    """The bytes before the first record; the same header gives the same bytes."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    whole = _HEAD.pack(MAGIC, VERSION, len(text)) + text
    return whole + _digest(b"", whole)


def _read_header(path: Path, data: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where it ends."""

    def damaged(what: str) -> LedgerError:
        return LedgerError(
            f"{path}: {what}; it is not a whole ledger, and cannot be replayed: take a copy that "
            "is, or start the run again in an empty folder"
        )

    if data[:8] != MAGIC[: len(data)] or len(data) == 0:
        raise damaged(f"begins with {data[:8].hex() or 'nothing'}, expected {MAGIC.hex()}")
    if len(data) < _HEAD.size:
        raise damaged(f"ends within its header, after {len(data)} bytes")
    _, version, length = _HEAD.unpack_from(data)
    if version > VERSION:
        raise LedgerError(
            f"{path}: is of format {version}, and this zotutor reads formats up to {VERSION}; "
            "install a newer zotutor (or the file is damaged there)"
        )
    end = _HEAD.size + length + _DIGEST
    # complete, then intact, then meaningful: the message names the first that fails
    if len(data) < end:
        raise damaged(f"ends within its header, after {len(data)} of {end} bytes")
    if _digest(b"", data[: end - _DIGEST]) != data[end - _DIGEST : end]:
        raise damaged("its header does not match its checksum")
    if version < 1:
        raise damaged(f"is of format {version}, expected 1 to {VERSION}")
    try:
        header = json.loads(data[_HEAD.size : end - _DIGEST])
    except (ValueError, RecursionError):
        header = None
    P = header.get("P") if isinstance(header, dict) else None
    if type(P) is not int or not 1 <= P < 1 << 32:
        raise damaged("its header is not an object of JSON with a number P")
    return header, end


def read(path: str | Path) -> Contents:
    """The contents of a ledger, checked.

    An incomplete last record, as a killed process or a power cut leaves it (cut short, or padded
    with zeros), is ignored: that step was not taken yet.

    Raises:
        FileNotFoundError: if there is no such file.
        LedgerError: for a file that is not as it was written: another kind of file, a truncated
            header, a newer format, a record that was changed, moved or omitted.

    Example:
        >>> import tempfile
        >>> from zotutor.llm.runs.ledger import Ledger, Step, read
        >>> path = Path(tempfile.mkdtemp()) / "ledger.bin"
        >>> with Ledger.create(path, {"P": 1}) as ledger:
        ...     ledger.append(Step(0, 7, 0.69, 1e-3, (0.25,)))
        >>> read(path).steps[0].coefficients
        (0.25,)
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # reading a pipe would wait for its writer
        raise LedgerError(f"{path}: is not a file; give a ledger, or the folder of a run")
    data = path.read_bytes()
    header, size = _read_header(path, data)
    P, digest = int(header["P"]), data[size - _DIGEST : size]
    length, records, steps = record_size(P), list[Record](), 0
    while size < len(data):
        whole = data[size : size + length]
        body, given = whole[:-_DIGEST], whole[-_DIGEST:]  # (32 + 8 P bytes, 8 bytes)
        expected = _digest(digest, body)
        if len(whole) < length or given != expected:
            # torn: cut short, or its digest and all that follows never reached the disk
            if len(whole) < length or not any(data[size + length - _DIGEST :]):
                break
            raise LedgerError(
                f"{path}: record {len(records)} (after {steps} steps, at byte {size}) has checksum "
                f"{given.hex()}, expected {expected.hex()}: it, or one before it, was changed, "
                "moved or left out; take an unchanged copy of the file"
            )
        record = _unpacked(body, P)
        if record.number != steps:
            raise LedgerError(
                f"{path}: record {len(records)} is of step {record.number}, expected {steps}; "
                "take an unchanged copy of the file"
            )
        steps += isinstance(record, Step)
        records.append(record)
        digest, size = given, size + length
    return Contents(header, records, size, digest)


class Ledger:
    """A ledger open for appending; made by :meth:`create` or :meth:`resume`.

    Args:
        file: the open file, unbuffered, at the end of its last whole record.
        path: its name, for messages.
        contents: its contents so far.
        sync_every: seconds between two calls of fsync. Killing the process loses nothing; a power
            cut loses at most the steps of that many seconds, and the rest still resumes.
    """

    def __init__(
        self, file: BinaryIO, path: Path, contents: Contents, *, sync_every: float = 1.0
    ) -> None:
        self._file, self.path, self.header = file, path, contents.header
        self._P, self._digest, self._size = (
            int(contents.header["P"]),
            contents.digest,
            contents.size,
        )
        self.steps = len(contents.steps)
        self.sync_every, self._synced = sync_every, time.monotonic()

    @classmethod
    def create(cls, path: str | Path, header: Mapping[str, Any], **options: Any) -> Self:
        """A new ledger, whose header is written as a whole or not at all.

        Args:
            path: of a file that does not exist yet.
            header: what replay needs, as JSON; "P" is the number of projected gradients per step.
            options: as for the class.

        Raises:
            FileExistsError: if the file exists.
        """
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path}: is there already; resume it, or choose another name")
        write_atomically(path, _header(header))
        return cls.resume(path, **options)

    @classmethod
    def resume(cls, path: str | Path, **options: Any) -> Self:
        """The ledger at ``path``, to append to; an incomplete last record is removed.

        Raises:
            LedgerError: as :func:`read`.
        """
        path = Path(path)
        contents = read(path)
        file = path.open("r+b", buffering=0)  # a killed process must leave nothing in a buffer
        file.truncate(contents.size)
        file.seek(contents.size)
        return cls(file, path, contents, **options)

    def append(self, record: Record) -> None:
        """Append one record.

        Raises:
            ValueError: for a record of the wrong number or size, or with a number not finite.
            RunStoppedError: if it could not be written, as on a full disk; the ledger is then
                unchanged.
        """
        if isinstance(record, Step):
            numbers = (record.loss, record.lr, *record.coefficients)
            if len(record.coefficients) != self._P or not all(map(math.isfinite, numbers)):
                raise ValueError(f"record: given {record}, expected {self._P} finite coefficients")
        if record.number != self.steps:
            raise ValueError(f"record: given number {record.number}, expected {self.steps}")
        body = _packed(record, self._P)
        digest = _digest(self._digest, body)
        try:  # one call of write per record: the fewer, the less a kill can cut apart
            written = self._file.write(body + digest)
            if written != len(body) + _DIGEST:
                raise OSError(f"only {written} of {len(body) + _DIGEST} bytes were written")
            self._digest, self._size = digest, self._size + written
            self.steps += isinstance(record, Step)
            if time.monotonic() - self._synced > self.sync_every:
                self.sync()
        except OSError as error:
            raise self._stopped(error) from error

    def sync(self) -> None:
        """Flush everything so far to the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._stopped(error) from error
        self._synced = time.monotonic()

    def _stopped(self, error: OSError) -> RunStoppedError:
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            pass  # an incomplete record is ignored when the ledger is read
        return RunStoppedError(
            f"{self.path}: could not be written ({error}); free space or restore it, and run the "
            f"same again: it resumes after step {self.steps}"
        )

    def close(self) -> None:
        """Flush everything to the disk, and close the file."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

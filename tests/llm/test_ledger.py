"""The ledger's file: what is read is what was written, whole records only, or a clear refusal."""

from __future__ import annotations

import errno
import json
import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zotutor.llm.runs import ledger
from zotutor.llm.runs.disk import RunStoppedError
from zotutor.llm.runs.ledger import (
    Ledger,
    LedgerError,
    Record,
    Step,
    WeightsHash,
    read,
)

HEADER: dict[str, Any] = {"P": 2, "base": "00" * 32, "seed": 5}


def steps(count: int, P: int = 2) -> list[Record]:
    """Steps with a hash after each second one."""
    found: list[Record] = []
    for k in range(count):
        found.append(Step(k, 5, 0.7 / (k + 1), 1e-3, tuple(0.1 * k - p for p in range(P))))
        if k % 2:
            found.append(WeightsHash(k + 1, bytes([k]) * 32))
    return found


def written(path: Path, records: list[Record], header: dict[str, Any] | None = None) -> bytes:
    path.unlink(missing_ok=True)
    with Ledger.create(path, header or HEADER) as book:
        append_all(book, records)
    return path.read_bytes()


def append_all(book: Ledger, records: list[Record]) -> None:
    for record in records:
        book.append(record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.bin"


# ---- what is written is what is read ------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2**64 - 1), finite, finite, finite, finite), max_size=5),
    hashes=st.booleans(),
)
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, float, float, float, float]],
    hashes: bool,
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.bin"
    records: list[Record] = []
    for k, (seed, loss, lr, *coefficients) in enumerate(rows):
        records.append(Step(k, seed, loss, lr, tuple(coefficients)))
        if hashes:
            records.append(WeightsHash(k + 1, os.urandom(32)))
    data = written(path, records)
    found = read(path)
    assert repr(found.records) == repr(records)  # repr tells -0.0 from 0.0
    assert (found.header, found.size) == (HEADER, len(data))
    assert found.steps == [record for record in records if isinstance(record, Step)]
    assert found.hashes == [record for record in records if isinstance(record, WeightsHash)]


def test_a_step_takes_48_bytes_at_one_perturbation(path: Path) -> None:
    header = HEADER | {"P": 1}
    sizes = [len(written(path, steps(n, 1), header)) for n in (0, 1)]
    assert sizes[1] - sizes[0] == ledger.record_size(1) == 48


def test_the_format_is_what_the_page_says(path: Path) -> None:
    """Read here by hand, so that a change of the format cannot go unnoticed."""
    data = written(path, [Step(0, 7, 0.5, 1e-3, (2.0, -3.0)), WeightsHash(1, bytes(range(32)))])
    magic, version, length = struct.unpack_from("<8sII", data)
    assert (magic, version) == (b"zoledger", 1)
    text, rest = data[16 : 16 + length], data[16 + length :]
    assert json.loads(text) == HEADER
    digest = blake2b(data[: 16 + length], digest_size=8).digest()
    assert rest[:8] == digest
    step, recorded = rest[8:64], rest[64:120]
    assert struct.unpack("<QQdddd", step[:48]) == (0, 7, 0.5, 1e-3, 2.0, -3.0)
    digest = blake2b(digest + step[:48], digest_size=8).digest()
    assert step[48:] == digest
    assert struct.unpack("<Q32s8s", recorded[:48]) == (2**63 + 1, bytes(range(32)), bytes(8))
    assert recorded[48:] == blake2b(digest + recorded[:48], digest_size=8).digest()
    assert len(rest) == 120


def test_written_in_two_sessions_or_one_it_is_the_same_file(path: Path) -> None:
    records = steps(6)
    whole = written(path, records)
    for cut in range(len(records)):
        written(path, records[:cut])
        with Ledger.resume(path) as book:
            assert book.steps == sum(isinstance(record, Step) for record in records[:cut])
            append_all(book, records[cut:])
        assert path.read_bytes() == whole


# ---- cut anywhere, changed anywhere -------------------------------------------------------------


def test_cut_at_every_byte_it_is_refused_or_goes_on_to_the_same_file(path: Path) -> None:
    records = steps(4)
    whole = written(path, records)
    start = len(whole) - len(records) * ledger.record_size(2)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        if cut < start:
            with pytest.raises(LedgerError, match=r"header|begins with"):
                read(path)
            with pytest.raises(LedgerError):
                Ledger.resume(path)
            assert path.read_bytes() == whole[:cut]
            continue
        there = (cut - start) // ledger.record_size(2)
        assert read(path).records == records[:there]
        assert path.stat().st_size == cut, "reading changes nothing"
        with Ledger.resume(path) as book:
            append_all(book, records[there:])
        assert path.read_bytes() == whole


def test_every_bit_flipped_is_refused(path: Path) -> None:
    whole = written(path, steps(2, 1), {"P": 1, "seed": 5})
    for position in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(LedgerError) as refused:
            Ledger.resume(path)
        assert str(path) in str(refused.value)
        assert any(word in str(refused.value) for word in ("take a", "install"))
    assert path.read_bytes() == bytes(flipped), "a refusal changes nothing"


def test_zeros_at_the_end_as_a_power_cut_leaves_them_are_cut_off(path: Path) -> None:
    """The file had grown already, but what was in it from somewhere on had not reached the disk."""
    records = steps(4)
    whole = written(path, records)
    size = ledger.record_size(2)
    last = len(whole) - size
    for kept in range(last - size, last - 7):  # up to where the digest of the last but one begins
        for length in (last - 1, last, last + 1, len(whole), len(whole) + 4096):
            path.write_bytes(whole[:kept] + bytes(length - kept))
            assert read(path).records == records[:-2]
    for zeros in (1, size - 1, size, 4096):
        path.write_bytes(whole[:last] + bytes(zeros))
        assert read(path).records == records[:-1]
    Ledger.resume(path).close()
    assert path.read_bytes() == whole[:last]


def test_a_record_moved_or_left_out_is_found(path: Path) -> None:
    records = steps(4)
    whole = written(path, records)
    size = ledger.record_size(2)
    start = len(whole) - len(records) * size
    rows = [whole[start + k * size : start + (k + 1) * size] for k in range(len(records))]
    for other in (
        [rows[1], rows[0], *rows[2:]],
        rows[1:],
        [*rows[:2], *rows[3:]],
        [rows[0], *rows],
        [*rows, rows[-1]],
    ):
        path.write_bytes(whole[:start] + b"".join(other))
        with pytest.raises(LedgerError, match="changed, moved or left out"):
            read(path)


def test_records_of_another_run_do_not_fit(path: Path) -> None:
    whole, other = written(path, steps(3)), written(path, steps(3), HEADER | {"seed": 6})
    size = 4 * ledger.record_size(2)
    path.write_bytes(whole[:-size] + other[-size:])
    with pytest.raises(LedgerError, match="record 0"):
        read(path)


def test_a_gap_with_valid_checksums_is_found(path: Path) -> None:
    with Ledger.create(path, HEADER) as book:
        book.append(Step(0, 5, 0.5, 1e-3, (1.0, 2.0)))
        book.steps = 7  # as a program with a mistake might
        book.append(Step(7, 5, 0.5, 1e-3, (1.0, 2.0)))
    with pytest.raises(LedgerError, match="record 1 is of step 7, expected 1"):
        read(path)


def test_a_newer_version_says_what_to_install(path: Path) -> None:
    data = bytearray(written(path, steps(1)))
    struct.pack_into("<I", data, 8, ledger.VERSION + 1)
    path.write_bytes(data)
    with pytest.raises(LedgerError, match=r"format 2.*reads formats up to 1.*newer zotutor"):
        read(path)


def test_another_file_is_not_a_ledger(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 a model that was pickled")
    with pytest.raises(LedgerError, match=r"begins with 504b0304.*expected 7a6f6c6564676572"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(path.with_name("none"))


# ---- writing ------------------------------------------------------------------------------------


def test_a_ledger_is_not_written_over(path: Path) -> None:
    whole = written(path, steps(2))
    with pytest.raises(FileExistsError, match="resume it"):
        Ledger.create(path, HEADER)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["ledger.bin"], "nothing is left aside"


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Step(1, 5, 0.5, 1e-3, (1.0, 2.0)), "given number 1, expected 0"),
        (Step(0, 5, 0.5, 1e-3, (1.0,)), "expected 2 finite"),
        (Step(0, 5, float("nan"), 1e-3, (1.0, 2.0)), "expected 2 finite"),
        (Step(0, 5, 0.5, 1e-3, (1.0, float("inf"))), "expected 2 finite"),
        (WeightsHash(3, bytes(32)), "given number 3, expected 0"),
    ],
)
def test_what_could_not_be_replayed_is_not_written(path: Path, record: Record, says: str) -> None:
    with Ledger.create(path, HEADER) as book:
        before = path.stat().st_size
        with pytest.raises(ValueError, match=says):
            book.append(record)
        assert path.stat().st_size == before


class Full:
    """A file on a disk with space for a number of further bytes, then for none."""

    def __init__(self, file: Any, room: int, *, short: bool, truncates: bool = True) -> None:
        self.file, self.room, self.short, self.truncates = file, room, short, truncates

    def write(self, data: bytes) -> int:
        if len(data) <= self.room:
            self.room -= len(data)
            return int(self.file.write(data))
        if not self.short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(data[: self.room]))

    def truncate(self, size: int) -> None:
        if not self.truncates:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.file.truncate(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("truncates", [True, False])
@pytest.mark.parametrize("short", [True, False])
def test_a_full_disk_leaves_whole_records(path: Path, short: bool, truncates: bool) -> None:
    records = steps(4)
    whole = written(path, records)
    size = ledger.record_size(2)
    for room in range(0, 3 * size, 5):
        path.unlink()
        book = Ledger.create(path, HEADER)
        book._file = Full(book._file, room, short=short, truncates=truncates)  # type: ignore[assignment]
        with pytest.raises(RunStoppedError, match=r"(No space left|were written).*same again"):
            append_all(book, records)
        there = room // size
        assert read(path).records == records[:there]
        if truncates:
            assert path.stat().st_size == len(whole) - (len(records) - there) * size
        book.close()
        with Ledger.resume(path) as book:
            append_all(book, records[there:])
        assert path.read_bytes() == whole


def test_what_does_not_reach_the_disk_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Ledger.create(path, HEADER, sync_every=-1.0)

    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunStoppedError, match="resumes after step 1"):
        book.append(steps(1)[0])
    with pytest.raises(RunStoppedError):
        book.close()
    assert read(path).records == steps(1)


def test_nothing_half_written_stays_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        Ledger.create(path, HEADER)
    assert not list(path.parent.iterdir())

"""What people and programs get wrong on a command line, and in the files that it names.

``OPTIONS`` gives each option values that no run should end in a traceback over, ``TREES`` files and
folders of every wrong kind. A case is one of them, the rest of the command being right.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

HUGE = str(1 << 64)
INTEGERS = ["0", "-1", HUGE, "-" + HUGE, "9" * 5000, "1.5", "nan", "", "1e3", "0x10", "٣"]
REALS = ["nan", "inf", "-inf", "-1", "-0.0", "0", "1e300", "1e-300", "1e999", "", "1,5", "9" * 400]
WORDS = ["", " ", "FLOAT32", "none", "\udcff", "a\0b", "☃", "a" * 5000]
PATHS = [
    "",
    "/",
    ".",
    "~nobody-here/x",
    "a\0b",
    "\udcff",
    "\ud800",
    "new/" + "a" * 300,
    "a" * 5000,
    "/dev/null",
    "/dev/null/x",
    "{tree}/loop",
    "{tree}/dangling",
    "{tree}/pipe",
    "{tree}/empty",
    "{tree}/zeros",
    "{tree}/folder",
    "{tree}/closed",
]
FAMILIES = [
    "rademacher:",
    "rademacher:1",
    "sparse:nan",
    "sparse:inf",
    "sparse:-0.0",
    "sparse:1e-300",
    "sparse:1e300",
    "lowrank:" + HUGE,
    "lowrank:-1",
    "lowrank:1e3",
    "lowrank:" + "9" * 5000,
    ":",
    *WORDS,
]
DEVICES = ["meta", "cpu:7", "cuda:99", "cuda:-1", "cuda:" + HUGE, "cpu:" + HUGE, "mps:1", *WORDS]

MODEL: dict[str, list[str]] = {
    "model": [*PATHS, *WORDS, "tiny ", "tiny/", "a/b/c", "facebook/opt-125m", "--help"],
    "dtype": WORDS,
    "device": DEVICES,
    "kind": WORDS,
    "revision": [*WORDS, "main", "0" * 40],
}
DATA: dict[str, list[str]] = {
    "task": [*WORDS, "sst2 ", "rte", "boolq"],
    "data": PATHS,
    "length": INTEGERS,
    "data-revision": WORDS,
}
OPTIONS: dict[str, dict[str, list[str]]] = {
    "finetune": {
        **MODEL,
        **DATA,
        "steps": [s for s in INTEGERS if s != HUGE],  # no room on any disk
        "lr": REALS,
        "output": PATHS,
        "seed": INTEGERS,
        "P": INTEGERS,
        "directions": FAMILIES,
        "eps": REALS,
        "schedule": WORDS,
        "momentum": REALS,
        "weight-decay": REALS,
        "batch-size": INTEGERS,
        "shots": INTEGERS,
        "evaluate-every": INTEGERS,
        "dev": INTEGERS,
        "hash-every": INTEGERS,
        "split": WORDS,
        "timeout": REALS,
    },
    "plan": {
        **MODEL,
        **DATA,
        "budget": [s for s in INTEGERS if s != HUGE],
        "P": INTEGERS,
        "eps": REALS,
        "batch-size": INTEGERS,
        "directions": FAMILIES,
        "samples": [s for s in INTEGERS if s != HUGE],
        "seed": INTEGERS,
    },
    "perturbations": {
        **MODEL,
        **DATA,
        "error": REALS,
        "inputs": INTEGERS,
        "directions": FAMILIES,
        "samples": [s for s in INTEGERS if s != HUGE],  # work without end, as ordered
        "seed": INTEGERS,
    },
    "replay": {**MODEL, "RUN": PATHS, "save": PATHS, "steps": INTEGERS, "labels": INTEGERS},
    "info": {"RUN": PATHS},
}


def cases() -> Iterator[tuple[str, str, str]]:
    """(command, option, value)."""
    for command, options in OPTIONS.items():
        for option, values in options.items():
            for value in dict.fromkeys(values):
                yield command, option, value


def plant(tree: Path) -> None:
    """Make what the paths above name."""
    (tree / "loop").symlink_to(tree / "loop")
    (tree / "dangling").symlink_to(tree / "nothing")
    os.mkfifo(tree / "pipe")
    (tree / "empty").write_bytes(b"")
    (tree / "zeros").write_bytes(bytes(1000))
    (tree / "folder").mkdir()
    (tree / "folder" / "letter.txt").write_text("mine")
    (tree / "closed").mkdir(mode=0)


DEEP = "[" * 100_000
NUMBERS = "1" * 5000

JSONS: dict[str, bytes] = {
    "nothing": b"",
    "deep": DEEP.encode(),
    "deep object": ('{"a":' * 100_000).encode(),
    "long number": NUMBERS.encode(),
    "a list": b"[]",
    "a string": b'"text"',
    "null": b"null",
    "NaN": b"NaN",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "half a character": b'{"format": 1, "task": "\\ud800"}',
    "cut": b'{"format": 1',
    "zeros": bytes(1000),
}
TYPES: list[Any] = [None, True, -1, 1.5, 10**30, "text", "\ud800", [], {}, [[[]]]]


def replaced(path: Path, key: str, value: Any) -> None:
    """A JSON file with one entry of the wrong type."""
    found = json.loads(path.read_text(encoding="utf-8"))
    found[key] = value
    path.write_text(json.dumps(found), encoding="utf-8")


def instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else where a file was."""

    def put(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return put


OTHERS: dict[str, Callable[[Path], None]] = {
    "folder": instead(lambda path: path.mkdir()),
    "pipe": instead(lambda path: os.mkfifo(path)),
    "loop": instead(lambda path: path.symlink_to(path)),
    "missing": instead(lambda path: None),
    "device": instead(lambda path: path.symlink_to("/dev/full")),
}


def with_header(text: bytes) -> bytes:
    """A ledger without records whose checksum is right, whatever its header."""
    whole = struct.pack("<8sII", b"zoledger", 1, len(text)) + text
    return whole + blake2b(whole, digest_size=8).digest()


def forged(ledger: bytes, key: str, value: Any) -> bytes:
    """A ledger with another entry in its header, and right checksums, without its records."""
    (length,) = struct.unpack_from("<I", ledger, 12)
    header = json.loads(ledger[16 : 16 + length]) | {key: value}
    return with_header(json.dumps(header).encode())

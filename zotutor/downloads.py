"""Downloads: fetched completely, checked, and only then given their names.

The SHA-256 is that of the decompressed contents. That of the .gz file would differ from mirror to
mirror, since a gzip header contains a file name and a time.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import sys
import urllib.request
import uuid
import zlib
from pathlib import Path

__all__ = ["bad_file", "cache_folder", "check_contents", "fetch", "gunzipped"]

_TIMEOUT = 30.0  # seconds without an answer from the server


def cache_folder() -> Path:
    """Return the folder for downloads: `zotutor` in the system's folder for caches.

    `$XDG_CACHE_HOME` where that is set to an absolute path; else `~/.cache` on Linux,
    `~/Library/Caches` on macOS and `%LOCALAPPDATA%` on Windows. The folder is not made here.

    Example:
        >>> cache_folder().name
        'zotutor'
    """
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():
        return xdg / "zotutor"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "zotutor"
    parts = ("Library", "Caches") if sys.platform == "darwin" else (".cache",)
    return Path.home().joinpath(*parts, "zotutor")


def fetch(url: str, path: Path, *, size: int, sha256: str) -> None:
    """Download a file, check its contents, write it under another name, and rename it.

    Args:
        url: where it is.
        path: where it goes, in an existing folder. It is written as downloaded, gzipped or not.
        size: of its contents, gunzipped, in bytes.
        sha256: of its contents, gunzipped, in hexadecimal.

    Raises:
        ConnectionError: there was no answer, or it was incomplete.
        ValueError: the contents have another hash.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"{url}: could not be downloaded ({error}), expected an answer over the network; check "
            f"the connection and call again, or put {path.name} into a folder and name that folder"
        ) from error
    check_contents(data, url, size=size, sha256=sha256)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_contents(data: bytes, source: Path | str, *, size: int, sha256: str) -> None:
    """Compare the SHA-256 of `data`, gunzipped, with the expected one.

    Raises:
        ValueError: they differ, or `data` is damaged gzip data; it names `source`.
    """
    given = hashlib.sha256(gunzipped(data, source, limit=size + 1)).hexdigest()
    if given != sha256:
        raise bad_file(source, f"contents of SHA-256 {given}", sha256)


def gunzipped(data: bytes, source: Path | str, *, limit: int = -1) -> bytes:
    """Return the contents of gzip data, at most `limit` bytes; other data is returned unchanged.

    Raises:
        ValueError: the data is truncated or damaged; it names `source`.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(limit)
    except (EOFError, OSError, zlib.error) as error:
        raise bad_file(source, f"damaged gzip data ({error})", "a whole gzip file") from error


def bad_file(source: Path | str, given: str, expected: str) -> ValueError:
    """Return the error for a file that is not what it should be."""
    return ValueError(
        f"{source}: given {given}, expected {expected}; if it is a file here, delete it or name "
        "another folder, then copy or download it again"
    )

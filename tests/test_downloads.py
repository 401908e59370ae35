"""Downloads: whole and right, or not there at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from zotutor.downloads import cache_folder, check_contents, fetch, gunzipped


class Server:
    """A server on 127.0.0.1 that answers with `files`, in full or cut off."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sent: dict[str, int] = {}  # how much of a file to send, where not all of it
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                owner.asked.append(name)
                if name not in owner.files:
                    self.send_error(404)
                    return
                body = owner.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: owner.sent.get(name, len(body))])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")  # a proxy of the machine knows nothing of 127.0.0.1
    serving = Server()
    thread = Thread(target=serving.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.http.shutdown()
    thread.join()
    serving.http.server_close()


CONTENTS = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


def test_the_file_is_kept_as_it_was_sent(server: Server, tmp_path: Path) -> None:
    for name, body in {"plain": CONTENTS, "packed.gz": gzip.compress(CONTENTS)}.items():
        server.files[name] = body
        fetch(server.url + name, tmp_path / name, size=len(CONTENTS), sha256=SHA256)
        assert (tmp_path / name).read_bytes() == body
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed.gz", "plain"]


@pytest.mark.parametrize(
    "body",
    [
        CONTENTS[:-1],
        CONTENTS + b"\0",
        b"<html>Please log in</html>",
        b"",
        gzip.compress(CONTENTS + b"\0"),
        gzip.compress(bytes(10**7)),  # much larger than its size says: read no further than that
    ],
)
def test_other_contents_are_refused_and_leave_nothing(
    server: Server, tmp_path: Path, body: bytes
) -> None:
    server.files["name"] = body
    with pytest.raises(ValueError, match=f"name: given contents of SHA-256 .* expected {SHA256}"):
        fetch(server.url + "name", tmp_path / "name", size=len(CONTENTS), sha256=SHA256)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sent", [0, 1, 5000, len(CONTENTS) - 1])
def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path, sent: int) -> None:
    server.files["name"] = CONTENTS
    server.sent["name"] = sent
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        fetch(server.url + "name", tmp_path / "name", size=len(CONTENTS), sha256=SHA256)
    assert not list(tmp_path.iterdir())
    del server.sent["name"]
    fetch(server.url + "name", tmp_path / "name", size=len(CONTENTS), sha256=SHA256)
    assert (tmp_path / "name").read_bytes() == CONTENTS


def test_a_missing_file_and_a_missing_network_say_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionError, match=r"404.*put name into a folder"):
        fetch(server.url + "name", tmp_path / "name", size=1, sha256=SHA256)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    with pytest.raises(ConnectionError, match=f"{closed}name: .*check the connection"):
        fetch(closed + "name", tmp_path / "name", size=1, sha256=SHA256)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    server.files["name"] = CONTENTS
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server.url + "name", tmp_path / "name", size=len(CONTENTS), sha256=SHA256)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_in_one_go(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "name"
    path.write_bytes(b"before")
    seen = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        seen.append(path.read_bytes())
        fsync(descriptor)

    server.files["name"] = CONTENTS
    monkeypatch.setattr(os, "fsync", watch)
    fetch(server.url + "name", path, size=len(CONTENTS), sha256=SHA256)
    assert seen == [b"before"]  # all of the new file was on disk before it took the name
    assert path.read_bytes() == CONTENTS


def test_gunzipped_contents_are_compared() -> None:
    early, late = gzip.compress(CONTENTS, mtime=1), gzip.compress(CONTENTS, mtime=2)
    assert early != late
    for data in (early, late, CONTENTS):
        check_contents(data, "here", size=len(CONTENTS), sha256=SHA256)
    with pytest.raises(ValueError, match="here: given contents"):
        check_contents(CONTENTS[::-1], "here", size=len(CONTENTS), sha256=SHA256)


def test_every_truncation_of_gzip_data_is_noticed() -> None:
    packed = gzip.compress(CONTENTS)
    assert gunzipped(packed, "here") == CONTENTS
    assert gunzipped(packed, "here", limit=7) == CONTENTS[:7]
    for length in range(2, len(packed)):
        with pytest.raises(ValueError, match="here: given damaged gzip data"):
            gunzipped(packed[:length], "here")


def test_damaged_gzip_data_is_noticed() -> None:
    packed = bytearray(gzip.compress(CONTENTS))
    packed[-5] ^= 1  # in the checksum of the contents
    with pytest.raises(ValueError, match="damaged gzip data"):
        gunzipped(bytes(packed), "here")
    packed = bytearray(gzip.compress(CONTENTS))
    packed[10] = 0xFF  # no such kind of block
    with pytest.raises(ValueError, match="damaged gzip data"):
        gunzipped(bytes(packed), "here")


@pytest.mark.parametrize(
    ("platform", "parts"),
    [
        ("linux", (".cache", "zotutor")),
        ("darwin", ("Library", "Caches", "zotutor")),
        ("win32", ("AppData", "Local", "zotutor")),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, parts: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    for unusable in (None, "", "relative/folder"):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if unusable is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == tmp_path.joinpath(*parts)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    if platform == "win32":
        assert cache_folder() == tmp_path / "local" / "zotutor"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "zotutor"
    assert not list(tmp_path.iterdir())

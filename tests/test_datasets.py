"""Datasets: real digits, fixed splits, strict reading, checked downloads."""

from __future__ import annotations

import gzip
import hashlib
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from zotutor import datasets
from zotutor.datasets import Split, digits, examples, mnist

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
needs_mnist = pytest.mark.skipif(
    not SHARED.is_dir(), reason="MNIST's test files are not next to the repository"
)
PARTS = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


def global_state() -> tuple[object, ...]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.get_rng_state().tolist(), str(numpy_state), random.getstate()


class Idx(NamedTuple):
    """One file as a naive reader sees it."""

    magic: int
    sizes: tuple[int, ...]
    elements: bytes


def read_naively(path: Path) -> Idx:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    (magic,) = struct.unpack(">I", data[:4])
    dimensions = magic & 0xFF
    sizes = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return Idx(magic, sizes, data[4 + 4 * dimensions :])


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_part(folder: Path, part: str, n: int, *, packed: bool = True) -> None:
    """Write n images, pixel values and labels all different enough to be distinguished."""
    generator = np.random.default_rng(n)
    for name, array in {
        f"{part}-images-idx3-ubyte": generator.integers(0, 256, (n, 28, 28), dtype=np.uint8),
        f"{part}-labels-idx1-ubyte": generator.integers(0, 10, n, dtype=np.uint8),
    }.items():
        data = idx(array)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data, mtime=n) if packed else data)


def row_set(x: torch.Tensor, y: torch.Tensor) -> list[bytes]:
    return sorted(
        row.numpy().tobytes() + bytes([label]) for row, label in zip(x, y.tolist(), strict=True)
    )


# ---- digits


def test_digits_are_those_of_scikit_learn_each_once() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    split = digits()
    assert isinstance(split, Split)
    assert [tuple(t.shape) for t in split] == [(1437, 1, 8, 8), (1437,), (360, 1, 8, 8), (360,)]
    assert [t.dtype for t in split] == [torch.float32, torch.int64] * 2
    expected = [
        (image / 16).astype(np.float32).tobytes() + bytes([label])
        for image, label in zip(source.images, source.target.tolist(), strict=True)
    ]
    found = row_set(split.x_train, split.y_train) + row_set(split.x_test, split.y_test)
    assert sorted(found) == sorted(expected)


def test_digits_are_the_same_for_everyone() -> None:
    assert [digest(tensor) for tensor in digits()] == [
        "bc15cdd465ea6254",
        "b177ef963d630ea0",
        "512e29f2740e958e",
        "2cf70f225bf0287d",
    ]


def test_a_fifth_of_each_digit_is_kept_for_testing() -> None:
    split = digits()
    train, test = torch.bincount(split.y_train), torch.bincount(split.y_test)
    assert len(train) == len(test) == 10
    shares = (train + test) * 360 / 1797
    assert bool(((test - shares).abs() < 1).all())
    for x in (split.x_train, split.x_test):
        assert float(x.min()) == 0
        assert float(x.max()) == 1
        assert bool((x * 16 == (x * 16).round()).all())


def test_reading_leaves_global_random_state_alone(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 30)
    before = global_state()
    digits()
    mnist(tmp_path)
    assert global_state() == before


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "zotutor\[book\]"'):
        digits()


# ---- the split


@pytest.mark.parametrize("seed", range(20))
def test_a_split_is_stratified_and_spread_over_the_source(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(50, 400))
    weights = generator.dirichlet(np.ones(10))
    y = torch.from_numpy(generator.choice(10, n, p=weights))  # some classes may be missing
    test = int(generator.integers(0, n // 3))
    split = datasets._split(torch.arange(n), y, test=test)
    assert len(split.y_test) == test
    assert sorted(torch.cat([split.x_train, split.x_test]).tolist()) == list(range(n))
    for x, labels in ((split.x_train, split.y_train), (split.x_test, split.y_test)):
        assert torch.equal(x, x.sort().values)  # in the order of the source
        assert torch.equal(y[x], labels)
    for label in range(10):
        rows = (y == label).nonzero()[:, 0].tolist()
        taken = [rows.index(row) for row in split.x_test.tolist() if y[row] == label]
        assert abs(len(taken) - len(rows) * test / n) < 1
        if len(taken) > 1:  # even steps, up to rounding
            steps = np.diff(taken)
            assert steps.max() - steps.min() <= 1


def test_ties_go_to_the_lower_label() -> None:
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    assert datasets._split(y, y, test=2).y_test.tolist() == [0, 1]


# ---- MNIST from a folder


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_with_all_files_gives_mnists_own_parts(tmp_path: Path, packed: bool) -> None:
    write_part(tmp_path, "train", 40, packed=packed)
    write_part(tmp_path, "t10k", 20, packed=packed)
    split = mnist(tmp_path)
    for part, x, y in (
        ("train", split.x_train, split.y_train),
        ("t10k", split.x_test, split.y_test),
    ):
        suffix = ".gz" if packed else ""
        images = read_naively(tmp_path / f"{part}-images-idx3-ubyte{suffix}")
        labels = read_naively(tmp_path / f"{part}-labels-idx1-ubyte{suffix}")
        assert (images.magic, labels.magic) == (2051, 2049)
        assert x.shape == (images.sizes[0], 1, 28, 28)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert bytes((x * 255).round().to(torch.uint8).flatten().tolist()) == images.elements
        assert bytes(y.tolist()) == labels.elements
        assert float(x.max()) == 1


def test_a_folder_with_the_t10k_files_only_is_split(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 100)
    split = mnist(str(tmp_path))
    assert (len(split.x_train), len(split.x_test)) == (90, 10)
    images = read_naively(tmp_path / "t10k-images-idx3-ubyte.gz").elements
    labels = read_naively(tmp_path / "t10k-labels-idx1-ubyte.gz").elements
    pixels = (torch.cat([split.x_train, split.x_test]) * 255).round().to(torch.uint8)
    expected = sorted(images[784 * i : 784 * (i + 1)] + labels[i : i + 1] for i in range(100))
    assert row_set(pixels, torch.cat([split.y_train, split.y_test])) == expected
    assert all(torch.equal(a, b) for a, b in zip(split, mnist(tmp_path), strict=True))


def test_names_with_a_dot_are_found_and_plain_files_come_first(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 30, packed=False)
    expected = mnist(tmp_path)
    for name in PARTS[2:]:
        path = tmp_path / f"{name}-ubyte"
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"not read")
        if name.endswith("idx1"):
            path.rename(tmp_path / "t10k-labels.idx1-ubyte")
            (tmp_path / f"{name}-ubyte.gz").unlink()
    assert all(torch.equal(a, b) for a, b in zip(expected, mnist(tmp_path), strict=True))


@needs_mnist
def test_the_real_test_images_are_mnists() -> None:
    for name in PARTS[2:]:
        contents = gzip.decompress((SHARED / f"{name}-ubyte.gz").read_bytes())
        size, sha256 = datasets.MNIST_CONTENTS[f"{name}-ubyte"]
        assert len(contents) == size
        assert hashlib.sha256(contents).hexdigest() == sha256
    images = read_naively(SHARED / "t10k-images-idx3-ubyte.gz")
    labels = read_naively(SHARED / "t10k-labels-idx1-ubyte.gz").elements
    split = mnist(SHARED)
    assert [len(t) for t in split] == [9000, 9000, 1000, 1000]
    x, y = torch.cat([split.x_train, split.x_test]), torch.cat([split.y_train, split.y_test])
    expected = sorted(
        images.elements[784 * i : 784 * (i + 1)] + labels[i : i + 1] for i in range(10_000)
    )
    assert row_set((x * 255).round().to(torch.uint8), y) == expected
    counts = [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]  # of the test set, as published
    assert torch.bincount(y).tolist() == counts
    kept = torch.bincount(split.y_test)
    assert bool(((kept - torch.tensor(counts) / 10).abs() < 1).all())
    assert [digest(t) for t in (split.x_test, split.y_test)] == [
        "6551387595bb0e6a",
        "1adb47d6a428b8c2",
    ]


# ---- damaged files


def cut(length: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:length]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut(0), "given 0 bytes, expected a header of 16 bytes"),
        (cut(3), "given 3 bytes, expected a header of 16 bytes"),
        (cut(15), "given 15 bytes, expected a header of 16 bytes"),
        (cut(16), r"given 0 elements \(truncated\), expected 23520 for its shape \(30, 28, 28\)"),
        (cut(-1), r"given 23519 elements \(truncated\), expected 23520"),
        (lambda data: data + b"\0", r"given 23521 elements \(bytes left over\), expected 23520"),
        (lambda data: b"\1" + data[1:], "magic number 01 00 08 03, expected 00 00 08 03"),
        (lambda data: data[:2] + b"\x0d" + data[3:], "magic number 00 00 0d 03"),
        (lambda data: data[:3] + b"\1" + data[4:], "magic number 00 00 08 01, .*3-dimensional"),
        (
            lambda data: data[:4] + struct.pack(">I", 2**32 - 1) + data[8:],
            r"expected 3367254359280 for its shape \(4294967295, 28, 28\)",
        ),
        (
            lambda data: data[:8] + struct.pack(">II", 56, 14) + data[16:],
            "given images of 56 x 14, expected 28 x 28",
        ),
    ],
)
def test_damaged_images_are_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str, packed: bool
) -> None:
    write_part(tmp_path, "t10k", 30, packed=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    data = damage(path.read_bytes())
    if packed:
        path.unlink()
        path = path.with_name(f"{path.name}.gz")
        data = gzip.compress(data)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        mnist(tmp_path)
    assert str(path) in str(caught.value)
    assert "download it again" in str(caught.value)


@pytest.mark.parametrize("length", [2, 9, 10, 25, 1000, -9, -8, -1])
def test_a_gzip_file_cut_off_anywhere_is_named(tmp_path: Path, length: int) -> None:
    write_part(tmp_path, "t10k", 30)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged gzip data") as caught:
        mnist(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(29, np.uint8), "given 29 labels for the 30 images of t10k-images-idx3-ubyte"),
        (np.zeros(31, np.uint8), "given 31 labels for the 30 images"),
        (np.full(30, 10, np.uint8), "given a label 10, expected labels 0 to 9"),
        (np.zeros((30, 1), np.uint8), "magic number 00 00 08 02, .*1-dimensional"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    tmp_path: Path, labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], message: str
) -> None:
    write_part(tmp_path, "t10k", 30, packed=False)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(ValueError, match=message):
        mnist(tmp_path)


def test_files_without_images_are_refused(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 0)
    with pytest.raises(ValueError, match="given 0 labels for the 0 images"):
        mnist(tmp_path)


@pytest.mark.parametrize("missing", PARTS)
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_part(tmp_path, "train", 30)
    write_part(tmp_path, "t10k", 20)
    (tmp_path / f"{missing}-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"given no {missing}-ubyte") as caught:
        mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "download=True" in str(caught.value)


# ---- MNIST downloaded


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror of a small MNIST, and an empty cache for it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_part(folder, "train", 40)
    write_part(folder, "t10k", 20)
    known = {}
    for path in folder.iterdir():
        contents = gzip.decompress(path.read_bytes())
        known[path.stem] = (len(contents), hashlib.sha256(contents).hexdigest())
    assert known.keys() == datasets.MNIST_CONTENTS.keys()
    monkeypatch.setattr(datasets, "MNIST_CONTENTS", known)
    monkeypatch.setattr(datasets, "MNIST_URL", f"{folder.as_uri()}/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_goes_to_the_cache_and_is_found_there(mirror: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "zotutor" / "mnist"
    with pytest.raises(FileNotFoundError, match=r"mnist is not there.*download=True"):
        mnist()
    assert not cache.exists()
    split = mnist(download=True)
    assert [len(t) for t in split] == [40, 40, 20, 20]
    assert names(cache) == names(mirror)
    for path in mirror.iterdir():
        path.unlink()  # from here on there is no network
    for again in (mnist(), mnist(download=True), mnist(cache)):
        assert all(torch.equal(a, b) for a, b in zip(split, again, strict=True))


def test_only_what_a_folder_lacks_is_downloaded(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in mirror.glob("t10k*"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    split = mnist(folder, download=True)
    assert [len(t) for t in split] == [40, 40, 20, 20]
    assert len(names(folder)) == 4
    assert not (tmp_path / "cache").exists()


def test_a_file_of_the_users_is_checked_and_never_overwritten(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_part(folder, "t10k", 25)  # in MNIST's format, and something else
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: given contents of SHA"):
        mnist(folder, download=True)
    assert all((folder / name).read_bytes() == data for name, data in before.items())


@pytest.mark.parametrize("name", PARTS)
def test_a_wrong_checksum_keeps_the_file_out(mirror: Path, tmp_path: Path, name: str) -> None:
    path = mirror / f"{name}-ubyte.gz"
    contents = bytearray(gzip.decompress(path.read_bytes()))
    contents[-1] ^= 1  # still a valid file, one bit another image
    path.write_bytes(gzip.compress(bytes(contents)))
    with pytest.raises(ValueError, match=f"{name}-ubyte.gz: given contents of SHA-256"):
        mnist(download=True)
    assert f"{name}-ubyte.gz" not in names(tmp_path / "cache" / "zotutor" / "mnist")
    assert not list(tmp_path.rglob("*.part"))


def test_without_network_the_error_says_what_to_do(mirror: Path) -> None:
    (mirror / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ConnectionError, match=r"t10k-images.*check the connection.*into a folder"):
        mnist(download=True)


# ---- examples


def test_examples_are_the_first_of_their_label() -> None:
    split = digits()
    for label in range(10):
        rows = [i for i, y in enumerate(split.y_train.tolist()) if y == label][:3]
        found = examples(split.x_train, split.y_train, label=label, n=3)
        assert torch.equal(found, torch.stack([split.x_train[i] for i in rows]))
    assert examples(split.x_test, split.y_test, label=9).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, y: examples(x, y, label=2), ValueError, ["n: given 1", "[0, 1]", "label 2"]),
        (lambda x, y: examples(x, y, label=0, n=3), ValueError, ["n: given 3", "at most 2"]),
        (lambda x, y: examples(x, y, label=0, n=0), ValueError, ["n: given 0"]),
        (lambda x, y: examples(x, y, label=-1), ValueError, ["label: given -1"]),
        (lambda x, y: examples(x, y, label=0.0), TypeError, ["label", "0.0"]),  # type: ignore[arg-type]
        (lambda x, y: examples(x, y[:2], label=0), ValueError, ["y", "(2,)", "(3,)"]),
        (lambda x, y: examples(x, y.float(), label=0), TypeError, ["y", "float32"]),
        (lambda x, y: examples(x[:0], y[:0], label=0), ValueError, ["x", "(0, 1)"]),
        (lambda x, y: examples(x.tolist(), y, label=0), TypeError, ["x", "list"]),
    ],
)
def test_bad_arguments_of_examples_are_named(
    call: Callable[[torch.Tensor, torch.Tensor], object], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        call(torch.zeros(3, 1), torch.tensor([0, 1, 0]))
    for word in words:
        assert word in str(caught.value)

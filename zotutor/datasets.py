"""Real handwritten digits: `digits` comes with scikit-learn, `mnist` is read or downloaded.

Both return a `Split` of float32 images in [0, 1] and int64 labels. Nothing here is random: a split
is a function of the labels alone, so that every reader, on any machine and with any version of a
library, sees the same images under the same index.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_batch, check_integer, check_labels, check_path
from .downloads import bad_file, cache_folder, check_contents, fetch, gunzipped

__all__ = ["Split", "digits", "examples", "mnist"]

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""Where `mnist(download=True)` finds the four files: the mirror that torchvision uses."""

MNIST_CONTENTS = {
    "train-images-idx3-ubyte": (
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
"""Size in bytes and SHA-256 of each file of MNIST, decompressed."""

_UNSIGNED_BYTE = 0x08  # the IDX code of the one element type that MNIST uses


class Split(NamedTuple):
    """Images and labels to train on, and others to test on.

    Images are float32 in [0, 1], shape (N, 1, H, W); labels are int64 in 0..9, shape (N,).
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def digits() -> Split:
    """Return the 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels each.

    A pixel of 0 to 16 is divided by 16, which is exact in float32. The test images are taken evenly
    from each class in the order of the source, in proportion to its size (360 in all, largest
    remainders first); both parts stay in that order.

    Returns:
        Split: x_train (1437, 1, 8, 8), y_train (1437,), x_test (360, 1, 8, 8), y_test (360,).

    Raises:
        ImportError: scikit-learn is not installed.

    When to use it: by default; it needs no download, and a step on it takes milliseconds. `mnist`
    has 28 x 28 pixels and up to 70,000 images.

    References:
        E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998 (its test part).

    Example:
        >>> split = digits()
        >>> split.x_train.shape, split.y_test[:4]
        (torch.Size([1437, 1, 8, 8]), tensor([0, 1, 2, 3]))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed; "
            'install it with: pip install "zotutor[book]"'
        ) from error
    source = load_digits()
    x = torch.from_numpy(source.images.astype(np.float32)) / 16  # (1797, 8, 8)
    return _split(x[:, None], torch.from_numpy(source.target.astype(np.int64)), test=360)


def mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = False) -> Split:
    """Return MNIST, handwritten digits of 28 x 28 pixels, from IDX files or downloaded.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`
    and `t10k-labels-idx1-ubyte`, plain or with `.gz`. A pixel of 0 to 255 is divided by 255.

    - A folder with all four gives MNIST's own parts: 60,000 images to train, 10,000 to test.
    - A folder with the two t10k files only gives these divided by the rule of `digits`, a tenth of
      them to test: 9,000 and 1,000. **Numbers found so are not MNIST test accuracies.**

    Args:
        folder: where the files are. None is `zotutor.downloads.cache_folder() / "mnist"`.
        download: fetch the files that the folder lacks (11.6 MB in all; the folder is created if
            needed), and check the SHA-256 of all four. A file is written under another name and
            renamed, so that no incomplete file appears. With False, the network is not used, and
            checksums are not compared: any files in MNIST's format will do.

    Returns:
        Split: images (N, 1, 28, 28), labels (N,).

    Raises:
        FileNotFoundError: the folder, or a file of a pair, is missing.
        ValueError: a file is damaged, or is not what its name says: wrong magic number, element
            type, number of dimensions or size; truncated; with bytes left over; labels above 9; as
            many labels as there are not images; or, with download=True, a wrong checksum.
        ConnectionError: a file could not be downloaded.

    When to use it: for the paper's own figures. `digits` needs no download and is faster.

    References:
        Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.

    Example:
        >>> split = mnist(download=True)  # doctest: +SKIP
        >>> split.x_train.shape  # doctest: +SKIP
        torch.Size([60000, 1, 28, 28])
    """
    where = cache_folder() / "mnist" if folder is None else check_path("folder", folder)
    if download:
        _download_missing(where)
    if not where.is_dir():
        raise FileNotFoundError(
            f"folder: {where} is not there, expected a folder with MNIST's IDX files; "
            "name the folder that has them, or pass download=True to fetch them"
        )
    x_test, y_test = _read_pair(where, "t10k")
    if _find(where, "train-images-idx3-ubyte") or _find(where, "train-labels-idx1-ubyte"):
        return Split(*_read_pair(where, "train"), x_test, y_test)
    return _split(x_test, y_test, test=len(y_test) // 10)


def examples(x: Tensor, y: Tensor, *, label: int, n: int = 1) -> Tensor:
    """Return the first `n` inputs that carry `label`: x[y == label][:n].

    Args:
        x: inputs (N, ...), any dtype.
        y: their labels (N,), integers.
        label: the class to look for.
        n: how many, at least 1.

    Returns:
        Inputs (n, ...), a batch that `entk` and `one_step` take as x_o or x_u.

    Raises:
        TypeError: x is not a tensor, y is not integers, or label or n is not an integer.
        ValueError: x is empty, y does not fit x, or fewer than n inputs carry the label.

    Example:
        >>> x_train, y_train, _, _ = digits()
        >>> examples(x_train, y_train, label=4, n=2).shape
        torch.Size([2, 1, 8, 8])
    """
    check_batch("x", x)
    label = check_integer("label", label, low=0)
    n = check_integer("n", n, low=1)
    y = check_labels("y", y, count=len(x), classes=2**63 - 1)
    chosen = (y == label).nonzero()[:n, 0]
    if len(chosen) < n:
        raise ValueError(
            f"n: given {n} for label {label}, expected at most {len(chosen)}, since no more of the "
            f"{len(x)} inputs carry it (labels here: {sorted(set(y.tolist()))}); ask for fewer, or "
            "for another label"
        )
    return x[chosen]


def _split(x: Tensor, y: Tensor, *, test: int) -> Split:
    """Split off `test` images, from each class in proportion, evenly spaced in its order."""
    counts = torch.bincount(y)
    takes = counts * test // len(y)
    remainders = counts * test % len(y)
    by_remainder = torch.argsort(remainders, descending=True, stable=True)  # ties: lower label
    takes[by_remainder[: test - int(takes.sum())]] += 1
    in_test = torch.zeros(len(y), dtype=torch.bool)
    for label, (count, take) in enumerate(zip(counts.tolist(), takes.tolist(), strict=True)):
        indices = (y == label).nonzero()[:, 0]  # (count,)
        in_test[indices[(2 * torch.arange(take) + 1) * count // max(2 * take, 1)]] = True
    return Split(x[~in_test], y[~in_test], x[in_test], y[in_test])


def _read_pair(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return the images (N, 1, 28, 28) and labels (N,) of one part, "train" or "t10k"."""
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = [_find(folder, name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if path is None:
            raise FileNotFoundError(
                f"{folder}: given no {name}, plain or with .gz, expected {' and '.join(names)}; "
                "put the file there, name another folder, or pass download=True"
            )
    images_path, labels_path = (path for path in paths if path is not None)
    images, labels = _read_idx(images_path, dimensions=3), _read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (28, 28):
        raise bad_file(images_path, f"images of {images.shape[1]} x {images.shape[2]}", "28 x 28")
    if len(images) == 0 or len(images) != len(labels):
        raise bad_file(
            labels_path,
            f"{len(labels)} labels for the {len(images)} images of {images_path.name}",
            "one label an image, and at least one",
        )
    if labels.max() > 9:
        raise bad_file(labels_path, f"a label {labels.max()}", "labels 0 to 9")
    x = torch.from_numpy(images.astype(np.float32)) / 255  # (N, 28, 28)
    return x[:, None], torch.from_numpy(labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path | None:
    """Return the file of that name, gzipped or not; some copies write `.idx` for `-idx`."""
    dotted = name.replace("-idx", ".idx")
    candidates = (folder / n for n in (name, f"{name}.gz", dotted, f"{dotted}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(path: Path, *, dimensions: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the array in an IDX file of unsigned bytes: magic number, sizes, then the elements."""
    data = gunzipped(path.read_bytes(), path)
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if len(data) < header:
        raise bad_file(path, f"{len(data)} bytes", f"a header of {header} bytes (truncated?)")
    if data[:4] != magic:
        kind = f"{magic.hex(' ')} ({dimensions}-dimensional, unsigned bytes)"
        raise bad_file(path, f"the magic number {data[:4].hex(' ')}", kind)
    shape = tuple(np.frombuffer(data, ">u4", dimensions, offset=4).tolist())
    given, expected = len(data) - header, math.prod(shape)
    if given != expected:
        cause = "truncated" if given < expected else "bytes left over"
        raise bad_file(path, f"{given} elements ({cause})", f"{expected} for its shape {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _download_missing(folder: Path) -> None:
    """Fetch the files of MNIST that `folder` lacks, and check the contents of those it has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (size, sha256) in MNIST_CONTENTS.items():
        path = _find(folder, name)
        if path is None:
            fetch(f"{MNIST_URL}{name}.gz", folder / f"{name}.gz", size=size, sha256=sha256)
        else:
            check_contents(path.read_bytes(), path, size=size, sha256=sha256)

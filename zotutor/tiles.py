"""One kernel number for each pair of inputs, for data sets: tiles of a matrix (N_o, N_u)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .calling import SomeOutputs, resolve_model
from .checks import check_batch, check_integer, check_path
from .kernels import check_kernel
from .parameters import Parameters, at_least_float32, resolve
from .uses import Uses, inner_products, record

_LARGEST = 1024
"""Inputs of a tile at most."""
_BLOCK = 1 << 25
"""Numbers kept of the inputs of a tile: 128 MB in float32."""
_KEPT = 1 << 28
"""Numbers kept of all inputs, where these suffice: each is then recorded once. 1 GB in float32."""


def gram(
    model: nn.Module,
    x_o: Tensor,
    *,
    x_u: Tensor | None = None,
    of: Literal["trace", "sum"] | int = "trace",
    tile: int | None = None,
    file: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Tensor:
    r"""A scalar eNTK for every pair of inputs of a data set, or of two.

    The blocks :math:`K(x_o, x_u)` of :func:`~zotutor.entk` reduced to one number each, without
    forming them:

    - ``"trace"``: :math:`\operatorname{tr} K = \sum_i K_{ii}` (neural-tangents takes the mean,
      which is this over V);
    - ``"sum"``: :math:`\sum_{ij} K_{ij}`, the kernel of the sum of all logits, whose multiple by
      1/V is the pseudo-NTK;
    - a number i: :math:`K_{ii}`, the kernel of logit i alone.

    The matrix is computed in tiles, of one set against itself only those on and above the diagonal.
    "sum" and one logit need one backward pass of each batch, the trace V, and a check one more.
    Where ``torch.distributed`` is initialized, as under ``torchrun``, the processes share the tiles
    and each returns the whole matrix.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: inputs (N_o, ...).
        x_u: other inputs (N_u, ...); by default x_o, whose matrix is symmetric.
        of: "trace", "sum", or the number of one logit.
        tile: inputs of a tile; by default at most 1,024, as many as keep 2^25 numbers.
        file: where to write the matrix as a NumPy file (.npy), mapped into memory, if it does not
            fit there. It appears when it is whole. The processes must see the same file.
        progress: show a bar; needs tqdm.

    Returns:
        Shape (N_o, N_u), float32 at least; with ``file`` on the CPU, a copy-on-write map of it.

    Raises:
        TypeError, ValueError: for a bad batch, model, ``of``, ``tile`` or ``file``; ValueError
            where NaN or infinity comes out, with the place it comes from.
        FileExistsError: if ``file`` exists.
        OSError: if ``file`` cannot be written, or does not fit on the disk.

    For whole blocks use :func:`~zotutor.entk`.

    References:
        Mohamadi, Bae and Sutherland (2023), "A fast, well-founded approximation to the empirical
        neural tangent kernel", for the kernel of the sum.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> gram(nn.Linear(2, 2, bias=False), x)
        tensor([[10.,  6.],
                [ 6., 18.]])
        >>> gram(nn.Linear(2, 2, bias=False), x, of=0)
        tensor([[5., 3.],
                [3., 9.]])
    """
    check_batch("x_o", x_o)
    if x_u is not None:
        check_batch("x_u", x_u)
    place = None if file is None else _new_file(file)
    params = _reduced(model, of)
    size = None if tile is None else check_integer("tile", tile, low=1)
    bar = _bar(progress and _rank() == 0)
    rows = _Blocks(params, x_o, "x_o", size)
    columns = rows if x_u is None else _Blocks(params, x_u, "x_u", size)
    shape, dtype = (rows.N, columns.N), at_least_float32(params.dtype)
    with _matrix(shape, dtype, x_o.device, place) as K:
        _fill(K, rows, columns, bar)
    if place is not None:
        return torch.from_numpy(np.load(place, mmap_mode="c"))
    if _count() > 1:
        dist.all_reduce(K)  # of zeros, but for the tiles of one process each
    return K


def _reduced(model: nn.Module, of: Any) -> Parameters:
    """The parameters of a model whose trace is the number wanted."""
    params = resolve_model(model)
    if isinstance(of, str):
        if of not in ("trace", "sum"):
            raise ValueError(f'of: given {of!r}, expected "trace", "sum" or the number of a logit')
        return params if of == "trace" else resolve(SomeOutputs(model, None))
    return resolve(SomeOutputs(model, [check_integer("of", of, low=0)]))


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _together() -> None:
    """Wait until all processes are here."""
    if _count() > 1:
        dist.barrier()


class _Blocks:
    """The inputs in blocks, each recorded where it is first needed."""

    def __init__(self, params: Parameters, x: Tensor, name: str, size: int | None) -> None:
        self.params, self.x, self.name, self.N = params, x, name, x.shape[0]
        numbers = record(params, x[:1], name).numbers()
        self.size = size or max(1, min(_LARGEST, _BLOCK // max(1, numbers)))
        self._keeps = numbers * self.N <= _KEPT
        self._found: dict[int, Uses] = {}

    def __len__(self) -> int:
        return -(-self.N // self.size)

    def cut(self, k: int) -> slice:
        """Block k's place among the inputs."""
        return slice(k * self.size, min((k + 1) * self.size, self.N))

    def __getitem__(self, k: int) -> Uses:
        """Block k, recorded."""
        if k not in self._found:
            if not self._keeps:
                self._found.clear()
            self._found[k] = record(self.params, self.x[self.cut(k)], self.name)
        return self._found[k]


def _fill(K: Tensor, rows: _Blocks, columns: _Blocks, bar: Any) -> None:
    """Compute this process's share of the tiles."""
    symmetric = columns is rows
    tiles = [(i, j) for i in range(len(rows)) for j in range(i if symmetric else 0, len(columns))]
    mine = tiles[_rank() :: _count()]
    last, o = -1, None
    for i, j in bar(mine):
        if i != last or o is None:
            last, o = i, rows[i]
        u = o if symmetric and i == j else columns[j]
        part = check_kernel(inner_products(o, u, trace=True))
        if u is o:
            part = part.triu() + part.triu(1).T  # the same bits on both sides
        K[rows.cut(i), columns.cut(j)] = part
        if symmetric and i != j:
            K[columns.cut(j), rows.cut(i)] = part.T


def _bar(shown: bool) -> Any:
    """A bar around an iterable, or nothing."""
    if not shown:
        return iter
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            'progress: needs tqdm, which is not installed; pip install "zotutor[llm]", or leave '
            "progress out"
        ) from None
    return lambda tiles: tqdm(tiles, unit="tile")


def _new_file(file: Any) -> Path:
    place = check_path("file", file)
    if place.suffix != ".npy":
        raise ValueError(f"file: given {str(place)!r}, expected a name that ends in .npy")
    if not place.parent.is_dir():
        raise ValueError(f"file: there is no folder {str(place.parent)!r}; make it first")
    if place.exists():
        raise FileExistsError(f"file: {str(place)!r} exists; remove it, or choose another name")
    return place


@contextmanager
def _matrix(
    shape: tuple[int, int], dtype: torch.dtype, device: torch.device, place: Path | None
) -> Iterator[Tensor]:
    """Zeros to be filled; in a file they appear under its name when that is done."""
    if place is None:
        yield torch.zeros(shape, dtype=dtype, device=device)
        return
    aside = place.with_name(place.name + ".part")
    try:
        if _rank() == 0:
            _reserve(aside, shape, dtype)
        _together()
        mapped = np.load(aside, mmap_mode="r+")
        yield torch.from_numpy(mapped)
        mapped.flush()
        _together()
        if _rank() == 0:
            aside.replace(place)
        _together()
    except BaseException:
        if _rank() == 0:
            with suppress(OSError):
                aside.unlink()
        raise


def _reserve(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """An empty NumPy file of its final size, so that a full disk is noticed before any work."""
    kind = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    del mapped
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, path.stat().st_size)

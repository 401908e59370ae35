"""Scalar kernels of data sets: every tiling, reduction, file and number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import naive_jacobians as naive
import numpy as np
import pytest
import torch
from naive_jacobians import CASES, untouched
from torch import Tensor

import zotutor as zo
from zotutor import tiles, uses


def reduced(K: Tensor, of: Any) -> Tensor:
    """(N_o, N_u) from blocks."""
    if of == "sum":
        return K.sum((2, 3))
    return K.diagonal(dim1=2, dim2=3).sum(2) if of == "trace" else K[:, :, of, of]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("of", ["trace", "sum", 0, 2])
@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "attention", "lstm"])
def test_it_is_the_reduction_of_the_blocks(case: str, of: Any) -> None:
    model, x_o = CASES[case](5)
    _, x_u = CASES[case](3, seed=2)
    J_o, J_u = naive.jacobian(model, x_o), naive.jacobian(model, x_u)
    with untouched(model, x_o, x_u):
        found = zo.gram(model, x_o, x_u=x_u, of=of)
    close(found, reduced(naive.kernel(J_o, J_u), of))
    close(zo.gram(model, x_o, of=of), reduced(naive.kernel(J_o, J_o), of))


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 99])
@pytest.mark.parametrize("kept", [0, 1 << 28])
def test_every_tiling_gives_the_same(tile: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_KEPT", kept)
    model, x_o = CASES["conv"](5)
    _, x_u = CASES["conv"](4, seed=2)
    J_o, J_u = naive.jacobian(model, x_o), naive.jacobian(model, x_u)
    close(zo.gram(model, x_o, x_u=x_u, tile=tile), reduced(naive.kernel(J_o, J_u), "trace"))
    own = zo.gram(model, x_o, tile=tile)
    close(own, reduced(naive.kernel(J_o, J_o), "trace"))
    assert torch.equal(own, own.T)  # one half is a copy of the other


@pytest.mark.parametrize("kept", [0, 1 << 28])
def test_only_half_of_a_symmetric_matrix_is_computed(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_KEPT", kept)
    model, x = CASES["mlp"](6)
    seen: list[tuple[int, int]] = []
    recorded: list[int] = []
    products, record = uses.inner_products, uses.record

    def spy(o: Any, u: Any, **given: Any) -> Tensor:
        seen.append((len(o.x), len(u.x)))
        return products(o, u, **given)

    def count(params: Any, x: Tensor, name: str) -> Any:
        recorded.append(len(x))
        return record(params, x, name)

    monkeypatch.setattr(tiles, "inner_products", spy)
    monkeypatch.setattr(tiles, "record", count)
    zo.gram(model, x, tile=2)
    assert seen == [(2, 2)] * 6
    assert recorded == [1] + [2] * (3 if kept else 5)  # of six, the last is there already


def test_no_block_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor is the matrix of the result, though V is large."""
    model = zo.models.mlp(4, 1, inputs=4, outputs=50, seed=0).double()
    x = naive.normal(20, 4, seed=0)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        K = zo.gram(model, x)
    assert largest <= 20 * 50 * 50  # deltas: (N, V, V) at the outputs
    J = naive.jacobian(model, x)
    close(K, torch.einsum("oid,uid->ou", J, J))


def test_lower_precision_is_summed_in_float32() -> None:
    model, x = CASES["mlp"](3)
    exact = zo.gram(model, x)
    K = zo.gram(model.bfloat16(), x.bfloat16())
    assert K.dtype == torch.float32
    assert (K - exact).norm() < 0.05 * exact.norm()


# ---- in a file ----------------------------------------------------------------------------------


def test_a_file_holds_the_same_numbers(tmp_path: Path) -> None:
    model, x = CASES["conv"](5)
    whole = zo.gram(model, x, tile=2)
    mapped = zo.gram(model, x, tile=2, file=tmp_path / "K.npy")
    assert torch.equal(mapped, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["K.npy"]
    assert np.array_equal(np.load(tmp_path / "K.npy"), whole.numpy())
    mapped[0, 0] = -1.0  # a copy: the file keeps what was computed
    assert np.array_equal(np.load(tmp_path / "K.npy"), whole.numpy())


def test_nothing_is_left_of_a_file_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = CASES["mlp"](4)

    def fail(*given: Any, **options: Any) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiles, "inner_products", fail)
    with pytest.raises(KeyboardInterrupt):
        zo.gram(model, x, file=tmp_path / "K.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = CASES["mlp"](4)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(tiles, "inner_products", None)
    with pytest.raises(OSError, match="No space left"):
        zo.gram(model, x, file=tmp_path / "K.npy")
    assert list(tmp_path.iterdir()) == []


# ---- several processes --------------------------------------------------------------------------

PROGRAM = """
import sys
import torch
import torch.distributed as dist
import zotutor as zo
from zotutor import tiles

rank, folder = int(sys.argv[1]), sys.argv[2]
computed = 0
products = tiles.inner_products

def count(*given, **options):
    global computed
    computed += 1
    return products(*given, **options)

tiles.inner_products = count
dist.init_process_group("gloo", init_method="file://" + folder + "/meet", rank=rank, world_size=2)
model = zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0).double()
x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
K = zo.gram(model, x, tile=2)
assert computed == 3, computed
assert torch.equal(K, zo.gram(model, x, tile=2, file=folder + "/K.npy"))
assert computed == 6, computed
torch.save(K, folder + f"/{rank}.pt")
dist.destroy_process_group()
"""


def test_processes_share_the_tiles(tmp_path: Path) -> None:
    """Each computes half of them, and both have all: the bits of one process alone."""
    ranks = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    model = zo.models.mlp(5, 2, inputs=4, outputs=3, seed=0).double()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = zo.gram(model, x, tile=2)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), whole)
    assert np.array_equal(np.load(tmp_path / "K.npy"), whole.numpy())


# ---- errors -------------------------------------------------------------------------------------

X = naive.normal(2, 4, seed=0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x_o": X[:0]}, ValueError, r"x_o: given shape \(0, 4\), expected a batch"),
        ({"x_u": X[:0]}, ValueError, r"x_u: given shape \(0, 4\), expected a batch"),
        ({"of": "mean"}, ValueError, 'of: given \'mean\', expected "trace", "sum" or the number'),
        ({"of": -1}, ValueError, "of: given -1, expected at least 0"),
        ({"of": 1.0}, TypeError, "of: given 1.0 of type float, expected an int"),
        ({"tile": 0}, ValueError, "tile: given 0, expected at least 1"),
        ({"file": 3}, TypeError, "file: given 3 of type int, expected a path"),
        ({"file": "K.pt"}, ValueError, r"file: given 'K.pt', expected a name that ends in .npy"),
        ({"file": "no/K.npy"}, ValueError, "file: there is no folder 'no'; make it first"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = naive.Counted()
    given: dict[str, Any] = {"x_o": X} | change
    with pytest.raises(error, match=words):
        zo.gram(model, given.pop("x_o"), **given)
    assert model.calls == 0


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "K.npy").write_text("mine")
    model = naive.Counted()
    with pytest.raises(FileExistsError, match="remove it, or choose another name"):
        zo.gram(model, X, file=tmp_path / "K.npy")
    assert (tmp_path / "K.npy").read_text() == "mine"
    assert model.calls == 0


def test_a_logit_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="given 3, expected numbers from 0 to 2"):
        zo.gram(naive.Counted(), X, of=3)

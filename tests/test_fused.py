"""Operations at theta + c u that never hold it: equal to perturbing a copy in place."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fused_models import KINDS, logits, made, tokens
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zotutor as zo
from zotutor import fused
from zotutor.directions import Directions

C, DRAW = 0.05, {"seed": 3, "step": 2}
HALVES = [torch.bfloat16, torch.float16]
DTYPES = [torch.float32, *HALVES]
DENSE = [zo.Rademacher(), zo.Gaussian(), zo.Uniform(), zo.Sphere(), zo.Sparse(0.5)]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny matrices take the road of large ones, in one block."""
    monkeypatch.setattr(fused, "CHUNK", 64)
    monkeypatch.setattr(fused, "LARGE", 64)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The functions that were done here, not by substitution."""
    seen: list[Any] = []
    call = fused.Fused.__call__

    def spy(self: fused.Fused, func: Any, args: Any, kwargs: Any) -> Any:
        result = call(self, func, args, kwargs)
        if result is not NotImplemented:
            seen.append(func)
        return result

    monkeypatch.setattr(fused.Fused, "__call__", spy)
    return seen


def tensors_of(source: nn.Module | list[Tensor]) -> list[Tensor]:
    found = source.parameters() if isinstance(source, nn.Module) else source
    return [p for p in found if p.requires_grad]


def perturb(source: nn.Module | list[Tensor], family: Directions, c: float = C) -> None:
    """theta + c u in place, u from the columns that the family says it draws."""
    tensors = tensors_of(source)
    u = family.dense(tensors, P=1, **DRAW)[:, 0]
    with torch.no_grad():
        for p, part in zip(tensors, u.split([p.numel() for p in tensors]), strict=True):
            exact = torch.promote_types(p.dtype, torch.float32)
            p.copy_(p.to(exact).add_(part.view(p.shape).to(exact), alpha=c))


def both(
    make: Callable[[], list[Tensor]], compute: Callable[..., Tensor], family: Directions
) -> tuple[Tensor, Tensor]:
    """``compute`` in a probe of tensors, and at tensors that were perturbed in place."""
    tensors, moved = make(), make()
    perturb(moved, family)
    before = [t.detach().clone() for t in tensors]
    with zo.perturbed(tensors, C, directions=family, **DRAW):
        found = compute(*tensors)
    for t, old in zip(tensors, before, strict=True):
        assert torch.equal(t.detach(), old)
    with torch.no_grad():
        return found, compute(*moved)


def close(found: Tensor, expected: Tensor) -> None:
    """To rounding: 8 spacings of the dtype, relative to the whole."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    spacing = torch.finfo(expected.dtype).eps
    off = (found.double() - expected.double()).norm() / expected.double().norm()
    assert off <= 8 * spacing, f"off by {float(off / spacing):.1f} spacings"


def param(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=source).to(dtype).requires_grad_()


# ---- language models ----------------------------------------------------------------------------


@each_kind
@each_dtype
@pytest.mark.parametrize("family", DENSE, ids=repr)
def test_dense_directions_are_as_if_in_place(
    kind: str, dtype: torch.dtype, family: Directions, taken: list[Any]
) -> None:
    model, ids = made(kind, dtype), tokens()
    moved = copy.deepcopy(model)
    perturb(moved, family)
    with zo.perturbed(model, C, directions=family, **DRAW):
        found = logits(model, ids)
    with torch.no_grad():
        expected, start = logits(moved, ids), logits(model, ids)
    close(found, expected)  # a matmul in blocks may be another kernel than the whole one's
    assert (found - start).norm() > 0.05 * start.norm()  # or nothing was tested
    # that classifier's one linear layer, its head, is smaller than a block: by substitution
    expected_here = {F.embedding} if kind == "gpt2 classifier" else {F.linear, F.embedding}
    assert expected_here <= set(taken)


@each_kind
@each_dtype
def test_dense_directions_in_many_blocks_are_equal_to_rounding(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "BLOCK", 50)  # three rows of a width of 16, one of 40
    model, ids, family = made(kind, dtype), tokens(), zo.Gaussian()
    moved = copy.deepcopy(model)
    perturb(moved, family)
    with zo.perturbed(model, C, directions=family, **DRAW):
        found = logits(model, ids)
    with torch.no_grad():
        close(found, logits(moved, ids))


@each_kind
@each_dtype
@pytest.mark.parametrize("rank", [1, 3])
def test_factored_directions_are_equal_to_rounding(
    kind: str, dtype: torch.dtype, rank: int, taken: list[Any]
) -> None:
    model, ids, family = made(kind, dtype), tokens(), zo.LowRank(rank)
    exact = made(kind, dtype).double()  # a copy in ``dtype`` would be as far from it
    perturb(exact, family)
    with zo.perturbed(model, C, directions=family, **DRAW):
        found = logits(model, ids)
    with torch.no_grad():
        expected, start = logits(exact, ids), logits(model, ids)
    assert found.dtype == dtype
    off = (found.double() - expected).norm() / expected.norm() / torch.finfo(dtype).eps
    assert off <= 8, f"off by {float(off):.1f} spacings"
    assert (found - start).norm() > 0.05 * start.norm()
    assert (torch.addmm if kind.startswith("gpt2") else F.linear) in taken


def bits(model: nn.Module) -> list[Tensor]:
    views = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    state = model.state_dict().values()
    return [t.detach().clone().view(views[t.element_size()]) for t in state]


@each_kind
@each_dtype
@pytest.mark.parametrize("family", [zo.Rademacher(), zo.LowRank(2)], ids=repr)
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_theta_is_bit_for_bit_unwritten(
    kind: str, dtype: torch.dtype, family: Directions, error: type[BaseException] | None
) -> None:
    model, ids = made(kind, dtype), tokens()
    if kind in ("opt", "gpt2"):
        tied: Any = model
        assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    before, calls = bits(model), 0
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if error is not None:
            raise error("in the middle of a forward")

    handle = linears[-1].register_forward_hook(fail)
    for _ in range(2):
        for c in (C, -C):
            try:
                with zo.perturbed(model, c, directions=family, **DRAW):
                    logits(model, ids)
            except (RuntimeError, KeyboardInterrupt) as raised:
                assert error is not None
                assert "in the middle" in str(raised)  # noqa: PT017 - the loop goes on
    handle.remove()
    assert calls == 4
    for now, old in zip(bits(model), before, strict=True):
        assert torch.equal(now, old)
    with torch.no_grad():  # and no probe is left behind
        assert torch.equal(logits(model, ids), logits(made(kind, dtype), ids))


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_tied_weights_move_together(family: Directions) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 8)
            self.out = nn.Linear(8, 30, bias=False)
            self.out.weight = self.embed.weight
            with torch.no_grad():
                self.embed.weight.copy_(param(30, 8, seed=1))

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.embed(ids))

    model, ids = Tied(), torch.tensor([[1, 2, 29, 1]])
    W = model.embed.weight.detach() + C * family.dense(model, P=1, **DRAW)[:, 0].view(30, 8)
    with zo.perturbed(model, C, directions=family, **DRAW):
        close(model(ids), W[ids] @ W.T)


# ---- operations, one by one ---------------------------------------------------------------------

X = torch.randn(5, 16, generator=torch.Generator().manual_seed(9))
IDS = torch.tensor([[0, 19, 3], [3, 3, 7]])
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda w, b: F.linear(X, w, b),
    "without bias": lambda w, b: F.linear(X, w),
    "by keyword": lambda w, b: F.linear(bias=b, weight=w, input=X),
    "partly by keyword": lambda w, b: F.linear(X, weight=w),
    "one row": lambda w, b: F.linear(X[0], w, b),
    "three dimensions": lambda w, b: F.linear(X[None, :4].reshape(2, 2, 16), w, b),
    "no rows": lambda w, b: F.linear(X[:0], w, b).sum() + F.linear(X, w, b),
    "strided x": lambda w, b: F.linear(X.T.contiguous().T[::2], w, b),
    "frozen bias": lambda w, b: F.linear(X, w, torch.arange(20.0)),
    "only the bias": lambda w, b: F.linear(X, torch.ones(20, 16), b),
    "x is the weight": lambda w, b: F.linear(w, w, b),
    "x is the weight by keyword": lambda w, b: F.linear(input=w, weight=w),
    "x is computed": lambda w, b: F.linear(w * 1.0, w),
    "look-up": lambda w, b: F.embedding(IDS, w),
    "look-up by keyword": lambda w, b: F.embedding(weight=w, input=IDS, padding_idx=3),
    "look-up of one": lambda w, b: F.embedding(torch.tensor(4), w),
    "look-up of none": lambda w, b: F.embedding(IDS[:0], w).sum() + w,
    "look-up in int32": lambda w, b: F.embedding(IDS.int(), w),
    "look-up with a norm": lambda w, b: F.embedding(IDS, w, None, 0.5),
    "look-up with a norm by keyword": lambda w, b: F.embedding(IDS, w, max_norm=0.5),
    "addmm": lambda w, b: torch.addmm(b[:16].clone(), X[:, :16] @ torch.ones(16, 20), w),
    "addmm of parameters": lambda w, b: torch.addmm(b, X, w.T),
    "addmm by keyword": lambda w, b: torch.addmm(
        mat2=w, mat1=torch.ones(3, 20), input=torch.zeros(16)
    ),
    "addmm, scaled": lambda w, b: torch.addmm(
        torch.ones(16), torch.ones(3, 20), w, beta=2.0, alpha=0.5
    ),
    "addmm of the weight twice": lambda w, b: torch.addmm(torch.zeros(16), w.T @ w, w.T @ w),
    "addmm on the weight": lambda w, b: torch.addmm(w, torch.ones(20, 20), w),
    "addmm with x the weight": lambda w, b: torch.addmm(torch.zeros(20, 20), w, w.mT),
    "transposed": lambda w, b: F.linear(torch.ones(3, 20), w.T),
    "a slice": lambda w, b: F.linear(X, w[3:9], b[3:9]),
    "several uses": lambda w, b: F.linear(F.linear(X, w, b).tanh() @ w, w, b),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
@pytest.mark.parametrize("block", [1 << 20, 40])
def test_each_way_to_call_is_as_if_in_place(
    name: str, family: Directions, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "BLOCK", block)

    def make() -> list[Tensor]:
        return [param(20, 16, seed=1), param(20, seed=2)]

    close(*both(make, OPERATIONS[name], family))


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_addmm_with_its_scales_first_is_as_if_in_place(family: Directions) -> None:
    """An overload that torch deprecates, but takes."""

    addmm: Any = torch.addmm

    def compute(w: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of it once in a process
            return addmm(2.0, torch.ones(16), 0.5, torch.ones(3, 20), w)

    close(*both(lambda: [param(20, 16, seed=1)], compute, family))


@each_dtype
@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_weights_that_are_not_contiguous(dtype: torch.dtype, family: Directions) -> None:
    """Entry j of u belongs to element j in row-major order, however theta lies in memory."""

    def make() -> list[Tensor]:
        wide = param(16, 20, seed=1, dtype=dtype).detach().T.requires_grad_()
        part = param(20, 32, seed=2, dtype=dtype).detach()[:, ::2].requires_grad_()
        assert not wide.is_contiguous()
        assert not part.is_contiguous()
        return [wide, part]

    x = X.to(dtype)
    close(*both(make, lambda w, v: F.linear(x, w) + F.linear(x, v), family))
    close(*both(make, lambda w, v: F.embedding(IDS, w) + F.embedding(IDS, v), family))


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_vmap_falls_back_and_stays_right(family: Directions, taken: list[Any]) -> None:
    def compute(w: Tensor, b: Tensor) -> Tensor:
        return torch.vmap(lambda row: F.linear(row, w, b).tanh())(X)

    close(*both(lambda: [param(20, 16, seed=1), param(20, seed=2)], compute, family))
    assert F.linear not in taken
    look_up = torch.vmap(F.embedding, in_dims=(0, None))
    close(*both(lambda: [param(20, 16, seed=1)], lambda w: look_up(IDS, w), family))


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_autocast_falls_back_and_stays_right(family: Directions, taken: list[Any]) -> None:
    def compute(w: Tensor, b: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.linear(X, w, b)

    found, expected = both(lambda: [param(20, 16, seed=1), param(20, seed=2)], compute, family)
    assert found.dtype == torch.bfloat16
    close(found, expected)
    assert taken == []


@pytest.mark.parametrize("family", [zo.Gaussian(), zo.LowRank(2)], ids=repr)
def test_shapes_that_do_not_fit_get_torch_s_own_error(family: Directions) -> None:
    w = param(20, 16, seed=1)
    for x in (torch.ones(4, 32), torch.ones(32), torch.ones(4, 8)):
        with pytest.raises(RuntimeError, match=r"shapes|size mismatch") as plain:
            F.linear(x, w)
        with zo.perturbed([w], C, directions=family, **DRAW), pytest.raises(RuntimeError) as within:
            F.linear(x, w)
        assert str(within.value) == str(plain.value)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("block", [1 << 20, 40])
def test_a_bias_costs_no_second_rounding_in_half_precision(
    dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "BLOCK", block)

    def make() -> list[Tensor]:
        return [param(64, 16, seed=1, dtype=dtype), param(64, seed=2, dtype=dtype)]

    x = X.to(dtype)
    found, expected = both(make, lambda w, b: F.linear(x, w, b), zo.Gaussian())
    moved = make()
    perturb(moved, zo.Gaussian())
    w, b = (t.detach().double() for t in moved)
    exact = F.linear(x.double(), w, b)
    mine, torchs = ((y.double() - exact).norm() for y in (found, expected))
    assert mine <= 1.02 * torchs


# ---- memory -------------------------------------------------------------------------------------


class Ledger(TorchDispatchMode):
    """Bytes of the storages made inside: the largest one, and the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.largest = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        old = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        self._live = {k: (ref, n) for k, (ref, n) in self._live.items() if not ref.expired()}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in old:
                storage = leaf.untyped_storage()
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, sum(n for _, n in self._live.values()))
        return result


BLOCK = 1 << 12


def measured(
    compute: Callable[[Tensor], Tensor], family: Directions, monkeypatch: pytest.MonkeyPatch
) -> Ledger:
    """What an operation on a matrix of 512 x 256 makes, with blocks of 4,096 entries."""
    monkeypatch.setattr(fused, "BLOCK", BLOCK)
    w = param(512, 256, seed=1)
    ledger = Ledger()
    with ledger, zo.perturbed([w], C, directions=family, **DRAW):
        compute(w)
    return ledger


def test_the_block_path_holds_a_few_blocks_beside_its_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The perturbed rows are one block; to make them takes its signs and their bits."""
    x = torch.ones(4, 256)
    ledger = measured(lambda w: F.linear(x, w), zo.Rademacher(), monkeypatch)
    output = 4 * 512 * 4
    assert 0 < ledger.largest <= 4 * BLOCK
    assert ledger.peak <= output + 2.5 * 4 * BLOCK  # the matrix itself is 32 blocks


def test_a_look_up_holds_only_the_rows_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.tensor([3, 500, 3])
    ledger = measured(lambda w: F.embedding(ids, w), zo.Rademacher(), monkeypatch)
    assert 0 < ledger.largest <= 2 * 4 * 3 * 256  # random words are int64
    assert ledger.peak <= 10 * 4 * 3 * 256


@pytest.mark.parametrize("transposed", [False, True])
def test_a_factored_direction_is_never_multiplied_out(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(w: Tensor) -> Tensor:
        if transposed:
            return torch.addmm(torch.zeros(256), torch.ones(4, 512), w)
        return F.linear(torch.ones(4, 256), w)

    ledger = measured(compute, zo.LowRank(2), monkeypatch)
    assert 0 < ledger.largest <= 8 * 512 * 4  # a float64 factor, or the output
    assert ledger.peak <= 12 * 8 * 512 * 2
    assert ledger.peak < 4 * 512 * 256 / 2

"""Kernels from factors against rows written out; and that no factor is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import model_kinds
import naive_jacobians as naive
import pytest
import torch
from model_kinds import KINDS
from naive_jacobians import CASES, normal, untouched
from torch import Tensor, nn
from torch.nn import functional as F

import zotutor as zo
from zotutor import factors, uses
from zotutor.calling import resolve_model
from zotutor.jacobians import Pullback
from zotutor.uses import Uses, inner_products, record

pytestmark = pytest.mark.usefixtures("quiet")


def close(K: Tensor, expected: Tensor, rtol: float = 1e-10) -> None:
    error = float((K.double() - expected).norm() / expected.norm())
    assert error < rtol, f"off by {error:.2g} of the norm"


def recorded(model: nn.Module, x: Tensor) -> Uses:
    return record(resolve_model(model), x, "x")


def unknown(model: nn.Module, x: Tensor) -> set[str]:
    """The parameters whose rows are written out."""
    found = recorded(model, x)
    return {found.params.names[i] for i in found.unknown}


def check(model: nn.Module, x_o: Tensor, x_u: Tensor) -> None:
    """K, and its trace, are those of naive rows, in both directions and for one set."""
    J_o, J_u = naive.jacobian(model, x_o), naive.jacobian(model, x_u)
    o, u = recorded(model, x_o), recorded(model, x_u)
    for one, other, J, J_other in [(o, u, J_o, J_u), (u, o, J_u, J_o), (o, o, J_o, J_o)]:
        expected = naive.kernel(J, J_other)
        close(inner_products(one, other).transpose(1, 2), expected)
        trace = expected.diagonal(dim1=2, dim2=3).sum(2)
        close(inner_products(one, other, trace=True), trace)


# ---- models -------------------------------------------------------------------------------------


class Lambda(nn.Module):
    """A function of inputs, and of parameters given by shape."""

    def __init__(self, forward: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.p = nn.ParameterList([torch.zeros(shape) for shape in shapes])
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.p)


class Cell(nn.Module):
    """A recurrent cell: each weight is used once for each position."""

    def __init__(self) -> None:
        super().__init__()
        self.old, self.new, self.head = nn.Linear(5, 5), nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(self.old(h) + self.new(x[:, t]))
        return self.head(h)


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))
        self.norm, self.layer = nn.RMSNorm(6), nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.scale * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) + self.shift
        return self.head(self.layer(self.norm(h).tanh()).tanh().mean(1))


class TiedTwice(nn.Module):
    """An embedding that is looked up, multiplied by, and added over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=2)
        self.position = nn.Embedding(5, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1])[None]
        h = (self.embed(tokens) + self.position(places)).tanh()
        return (F.linear(h, self.embed.weight).tanh() @ self.embed.weight)[:, -1]


def images(N: int, seed: int) -> Tensor:
    return normal(N, 2, 9, 9, seed=seed)


def sequences(N: int, seed: int) -> Tensor:
    return normal(N, 5, 6, seed=seed)


def vectors(N: int, seed: int) -> Tensor:
    return normal(N, 4, seed=seed)


def tokens(N: int, seed: int) -> Tensor:
    return torch.randint(0, 7, (N, 5), generator=naive.generator(seed))


def conv(*layers: nn.Module, features: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Tensor]]] = {
    "conv with stride, padding": (
        conv(nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Tanh(), features=100),
        images,
    ),
    "conv with dilation": (conv(nn.Conv2d(2, 3, 2, dilation=2), nn.Tanh(), features=147), images),
    "conv, not square": (
        conv(nn.Conv2d(2, 3, (2, 3), padding=(0, 1), stride=(2, 1)), nn.Tanh(), features=108),
        images,
    ),
    "conv in groups": (conv(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), features=196), images),
    "conv, same": (conv(nn.Conv2d(2, 4, 3, padding="same"), nn.Tanh(), features=324), images),
    "conv, circular": (
        conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), features=243),
        images,
    ),
    "conv, wide": (  # few positions, large kernels: factors are smaller than gradients
        conv(nn.Conv2d(2, 30, 7), nn.Tanh(), nn.Conv2d(30, 30, 2), features=120),
        images,
    ),
    "conv of signals": (
        conv(nn.Conv1d(5, 3, 3, padding=2, stride=2, dilation=2), nn.Tanh(), features=9),
        sequences,
    ),
    "norms of channels": (
        conv(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.BatchNorm2d(4), features=196),
        images,
    ),
    "in place": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)),
        vectors,
    ),
    "recurrent cell": (Cell, lambda N, seed: normal(N, 4, 3, seed=seed)),
    "norms of vectors": (Normalized, sequences),
    "tied, three ways": (TiedTwice, tokens),
    "positions added": (
        Lambda(lambda x, w, b, p: ((x + p).tanh() @ w.T + b).mean(1), (3, 6), (3,), (1, 5, 6)),
        sequences,
    ),
    "scalars and broadcast": (
        Lambda(lambda x, w, a, b: (x * b).tanh().mm(w) * a + a, (4, 3), (), (1, 4)),
        vectors,
    ),
    "products of all kinds": (
        Lambda(
            lambda x, w, b, a: torch.addmm(b, torch.matmul(x, w).tanh(), a.t()).tanh() @ w.mT[:4],
            (4, 4),
            (4,),
            (4, 4),
        ),
        vectors,
    ),
}


def made(name: str) -> tuple[nn.Module, Callable[[int, int], Tensor]]:
    build, inputs = MODELS[name]
    model = build if isinstance(build, nn.Module) else build()
    return naive.filled(model).eval(), inputs


@pytest.mark.parametrize("name", MODELS)
def test_kernels_are_those_of_rows(name: str) -> None:
    model, inputs = made(name)
    x_o, x_u = inputs(3, 1), inputs(2, 2)
    with untouched(model, x_o, x_u):
        zo.entk(model, x_o, x_u)
    check(model, x_o, x_u)


EVERY_ROW = {"products of all kinds": {"p.0"}}
"""w.mT[:4] is an operation on a transpose: not known, and so w is written out."""


@pytest.mark.parametrize("name", MODELS)
def test_no_rows_are_written_out(name: str) -> None:
    model, inputs = made(name)
    assert unknown(model, inputs(3, 1)) == EVERY_ROW.get(name, set())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_to_rounding(kind: str) -> None:
    if not KINDS[kind].exact:
        pytest.skip("does not run in float64")
    model = KINDS[kind].model()
    x_o, x_u = KINDS[kind].x(3), KINDS[kind].x(2, seed=5)
    J_o, J_u = (model_kinds.naive_rows(model, x) for x in (x_o, x_u))
    # parts in float32, whatever the model is given
    rtol = 1e-6 if kind in ("llama", "bloom") else 1e-10
    close(zo.entk(model, x_o, x_u), torch.einsum("oid,ujd->ouij", J_o, J_u), rtol)
    trace = torch.einsum("oid,uid->ou", J_o, J_u)
    o, u = recorded(model, x_o), recorded(model, x_u)
    close(inner_products(o, u, trace=True), trace, rtol)


ALL_FACTORS = (
    "linear, conv, batch norm in eval, tied weights, opt, gpt-2, llama, bert, bloom, checkpointed, "
    "custom function, hooks, returns .logits"
).split(", ")


@pytest.mark.parametrize("kind", ALL_FACTORS)
def test_usual_models_need_no_rows(kind: str) -> None:
    assert unknown(KINDS[kind].model(), KINDS[kind].x(3)) == set()


@pytest.mark.parametrize("name", ["tied, three ways", "recurrent cell", "conv, wide", "in place"])
@pytest.mark.parametrize("table", [1, 50, 1 << 24])
@pytest.mark.parametrize("cheaper", [True, False])
def test_every_way_to_contract_is_right(
    name: str, table: int, cheaper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs of positions, or gradients written out; and in tables of any size."""
    model, inputs = made(name)
    monkeypatch.setattr(factors, "_TABLE", table)
    monkeypatch.setattr(factors, "_pairs_are_cheaper", lambda *given: cheaper)
    check(model, inputs(3, 1), inputs(2, 2))


# ---- nothing is trusted -------------------------------------------------------------------------


class Reversed(nn.Module):
    """Computes its batch in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flip(0)).tanh().flip(0)


class PositionsFirst(nn.Module):
    """Computes (T, N, ...): as many positions as inputs hide it from the shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.transpose(0, 1)).tanh()[-1])


class Unseen(torch.autograd.Function):
    """Reads a parameter where no torch function is called."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return g * w, (g * x).sum(0)


@pytest.mark.parametrize("N", [2, 3, 5])
def test_a_batch_computed_in_another_order(N: int) -> None:
    model, x = naive.filled(Reversed()), vectors(N, 1)
    assert unknown(model, x) == {"layer.weight", "layer.bias"}
    J = naive.jacobian(model, x)
    close(zo.entk(model, x, x), naive.kernel(J, J))


@pytest.mark.parametrize("N", [2, 5])
def test_positions_before_inputs(N: int) -> None:
    model, x = naive.filled(PositionsFirst()), sequences(N, 1)
    J = naive.jacobian(model, x)
    close(zo.entk(model, x, x), naive.kernel(J, J))


def test_a_model_that_mixes_the_inputs_of_a_batch_is_taken_one_by_one() -> None:
    """As the Jacobian does: the kernel of each input is that which it has on its own."""
    model = naive.filled(
        Lambda(lambda x, w, v: (x @ w - 0.5 * (x @ w).mean(0)).tanh() @ v, (4, 5), (5, 3))
    )
    x = vectors(4, 1)
    assert unknown(model, x) == {"p.0", "p.1"}
    J = naive.jacobian(model, x)
    close(zo.entk(model, x, x), naive.kernel(J, J))


def test_a_parameter_that_no_torch_function_reads_is_written_out() -> None:
    model = naive.filled(Lambda(lambda x, w, s: Unseen.apply(x, s).tanh() @ w, (4, 3), (4,)))
    x = vectors(3, 1)
    assert unknown(model, x) == {"p.1"}
    check(model, x, vectors(2, 2))


def test_a_wrong_formula_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever parameter it is of, and though it is wrong for one input only."""
    model, x = CASES["conv"](3)
    J = naive.jacobian(model, x)
    assert unknown(model, x) == set()
    wrap = factors.joined
    for broken in range(8):
        calls = 0

        def once(found: list[Any], broken: int = broken) -> list[Any]:
            nonlocal calls
            calls += 1
            use = wrap(found)
            if calls == broken + 1:
                (use[0].values if isinstance(use[0], factors.Explicit) else use[0].delta)[1] *= 1.01
            return use

        monkeypatch.setattr(uses, "joined", once)
        assert len(unknown(model, x)) == 8, broken
        close(zo.entk(model, x, x), naive.kernel(J, J))


def test_uses_without_gradient_do_not_count() -> None:
    """Under no_grad a parameter is a constant; elsewhere in the same model it is not."""

    def forward(x: Tensor, w: Tensor) -> Tensor:
        with torch.no_grad():
            scale = w.exp().sum()
        return (x @ w).tanh() * scale

    model = naive.filled(Lambda(forward, (4, 3)))
    assert unknown(model, vectors(3, 1)) == set()
    check(model, vectors(3, 1), vectors(2, 2))


def test_different_lengths_of_the_two_sets() -> None:
    model, _ = made("tied, three ways")
    x_o, x_u = tokens(3, 1), tokens(2, 2)[:, :3]
    check(model, x_o, x_u)


def test_a_parameter_known_at_one_set_only() -> None:
    """What a model does to a parameter may depend on its input."""

    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return x @ w if bool((x > 100).any()) else (x @ (2 * w) + b)

    model = naive.filled(Lambda(forward, (4, 3), (3,)))
    check(model, vectors(3, 1), vectors(2, 2) + 200)


# ---- some outputs only --------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["mlp", "tied", "lstm", "branching", "object"])
def test_some_outputs_are_rows_and_columns_of_the_blocks(case: str) -> None:
    model, x_o = CASES[case](3)
    _, x_u = CASES[case](2, seed=2)
    whole = naive.kernel(naive.jacobian(model, x_o), naive.jacobian(model, x_u))
    for outputs in ([1], [2, 0], (0, 1)):
        with untouched(model, x_o, x_u):
            K = zo.entk(model, x_o, x_u, outputs=outputs)
        close(K, whole[:, :, list(outputs)][..., list(outputs)])


def test_some_outputs_cost_as_many_backward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = CASES["mlp"](3)
    passes: list[int] = []
    at = Pullback.at

    def count(self: Pullback, places: Any) -> Iterator[list[Tensor | None]]:
        for found in at(self, places):
            passes.append(len(found))
            yield found

    monkeypatch.setattr(Pullback, "at", count)
    zo.entk(model, x, x[:2], outputs=[1])
    assert len(passes) == 2  # one for each of the two sets
    passes.clear()
    zo.entk(model, x, x)
    assert len(passes) == 3


@pytest.mark.parametrize(
    ("outputs", "error", "words"),
    [
        ([3], ValueError, "outputs: given 3, expected numbers from 0 to 2, since the model has 3"),
        ([-1], ValueError, "outputs: given -1, expected at least 0"),
        ([], ValueError, r"outputs: given \[\], expected one number at least"),
        ([1, 1], ValueError, r"outputs: given \[1, 1\], expected one number at least, and each on"),
        (1, TypeError, "outputs: given 1, expected a list of numbers of outputs"),
        ([1.0], TypeError, "outputs: given 1.0 of type float, expected an int"),
    ],
)
def test_bad_outputs(outputs: Any, error: type[Exception], words: str) -> None:
    model, x = CASES["mlp"](2)
    with pytest.raises(error, match=words):
        zo.entk(model, x, x, outputs=outputs)


# ---- what is not a number -----------------------------------------------------------------------


def test_an_overflow_is_an_error() -> None:
    model = nn.Linear(2, 1)
    x = torch.full((2, 2), 1e25)
    with pytest.raises(ValueError, match=r"K: .*inf.* though the Jacobians are finite"):
        zo.entk(model, x, x)


def test_a_bias_is_taken_with_its_weight_only_where_both_are_used_once() -> None:
    """(a . a' + 1)(delta . delta'): not for a bias that two layers share, nor at many positions."""
    model = naive.filled(
        Lambda(lambda x, w, v, b: F.linear(F.linear(x, w, b).tanh(), v, b), (4, 4), (4, 4), (4,))
    )
    assert recorded(model, vectors(3, 1)).biases == {}
    check(model, vectors(3, 1), vectors(2, 2))
    mlp, _ = CASES["mlp"](3)
    assert len(recorded(mlp, vectors(3, 1)).biases) == 3
    frozen, x = CASES["frozen"](3)
    assert len(recorded(frozen, x).biases) == 1
    addmm = naive.filled(Lambda(lambda x, b, w: torch.addmm(b, x, w).tanh(), (3,), (4, 3)))
    assert recorded(addmm, vectors(3, 1)).biases == {1: 0}
    check(addmm, vectors(3, 1), vectors(2, 2))

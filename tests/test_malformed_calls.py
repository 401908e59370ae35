"""Malformed calls of every public function: each ends in a clear error, or in a right answer.

A malformed call is a valid one in which one or two arguments are replaced by something else. Its
outcome is *clear* if the error comes from this package (or carries its note, where the user's own
model raised), and *right* if what it returns is finite and equal to what the valid call returns for
an argument that only spells the same value in another way.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import zotutor as zo

PACKAGE = str(Path(zo.__file__).parent)
V, D, N = 3, 4, 2


class Small(nn.Module):
    """Two layers, so that the derivatives depend on every weight."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda z: z) -> None:
        super().__init__()
        self.inner = nn.Linear(D, 2)
        self.outer = nn.Linear(2, V)
        self.change = change
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.linspace(-0.5, 0.75, p.numel()).view(p.shape))

    def forward(self, x: Tensor) -> Any:
        return self.change(self.outer(self.inner(x).tanh()))


class Writes(Small):
    """Changes its weights at each call."""

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            self.outer.weight.mul_(0.5)
        return super().forward(x)


def model() -> Small:
    return Small()


def with_nan() -> nn.Module:
    made = model()
    with torch.no_grad():
        made.inner.weight[1, 2] = math.nan
    return made


def frozen() -> nn.Module:
    return model().requires_grad_(False)


def x(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, math.prod(shape or (N, D))).view(shape or (N, D))


def y() -> Tensor:
    return torch.tensor([0, 2])


def matrix(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 2.0, math.prod(shape)).view(shape)


def poisoned(value: Tensor, number: float) -> Tensor:
    value = value.clone()
    value.view(-1)[-1] = number
    return value


class Bad(NamedTuple):
    """A value to put in place of an argument."""

    name: str
    make: Callable[[Any], Any]
    """From the valid argument."""


def bads(**makers: Any) -> list[Bad]:
    """By name, a function of the valid argument, or the value itself."""

    def always(value: Any) -> Callable[[Any], Any]:
        return lambda _: value

    return [
        Bad(name, made if callable(made) and not isinstance(made, type) else always(made))
        for name, made in makers.items()
    ]


NONSENSE = bads(
    text="3",
    a_list=lambda _: [2],
    a_dict=lambda _: {},
    an_object=lambda _: object(),
    a_complex=1 + 1j,
    bytes=lambda _: bytearray(b"2"),
    numpy_true=np.bool_(True),
    a_true=True,
    tensor_true=lambda _: torch.tensor(True),
    several=lambda _: torch.tensor([1, 2]),
    array=lambda _: np.array([1.0, 2.0]),
    meta=lambda _: torch.tensor(2, device="meta"),
    complex_tensor=lambda _: torch.tensor(1j),
    not_a_number=math.nan,
    infinite=math.inf,
)
INTEGER = [*NONSENSE, *bads(fraction=1.5, negative=-1, huge=10**30, none=None)]
REAL = [*NONSENSE, *bads(negative=-0.5, minus_infinite=-math.inf, beyond=10**400, none=None)]
COUNT = [*INTEGER, *bads(zero=0)]  # at least 1
POSITIVE = [*REAL, *bads(zero=0.0)]
TENSOR = bads(
    none=None,
    text="x",
    number=3.0,
    a_list=lambda v: v.tolist(),
    array=lambda v: v.numpy(),
    integers=lambda v: torch.ones_like(v, dtype=torch.int64),
    booleans=lambda v: torch.ones_like(v, dtype=torch.bool),
    complex=lambda v: v.to(torch.complex64),
    with_nan=lambda v: poisoned(v, math.nan),
    with_inf=lambda v: poisoned(v, math.inf),
    meta=lambda v: v.to("meta"),
    sparse=lambda v: v.to_sparse(),
    flat=lambda v: v.reshape(-1, 1),
    scalar=lambda v: v.reshape(-1)[0],
    empty=lambda v: v[:0],
    narrow=lambda v: v[..., :-1],
)
INPUTS = [
    bad
    for bad in TENSOR
    if bad.name not in ("integers", "booleans", "narrow", "flat", "complex", "sparse")
] + bads(misfit=lambda v: v[..., :-1], complex=lambda v: v.to(torch.complex64))
LABELS = bads(
    text="x",
    number=1,
    a_list=lambda v: v.tolist(),
    array=lambda v: v.numpy(),
    floats=lambda v: v.float(),
    booleans=lambda v: v.bool(),
    complex=lambda v: v.to(torch.complex64),
    negative=lambda v: v - 1,
    beyond=lambda v: v + V,
    short=lambda v: v[:1],
    square=lambda v: v[None],
    meta=lambda v: v.to("meta"),
)
MODEL = bads(
    none=None,
    text="model",
    a_tensor=lambda _: x(),
    a_class=lambda _: nn.Linear,
    a_function=lambda _: lambda x: x,
    with_nan=lambda _: with_nan(),
    frozen=lambda _: frozen(),
    dropping=lambda _: nn.Sequential(model(), nn.Dropout(0.5)),
    writing=lambda _: Writes(),
    returns_none=lambda _: Small(lambda z: None),
    returns_flat=lambda _: Small(lambda z: z.flatten()),
    returns_integers=lambda _: Small(lambda z: z.long()),
    returns_booleans=lambda _: Small(lambda z: z > 0),
    returns_complex=lambda _: Small(lambda z: z.to(torch.complex64)),
    returns_nan=lambda _: Small(lambda z: z * math.nan),
    returns_numpy=lambda _: Small(lambda z: z.detach().numpy()),
)
DIRECTIONS = bads(text="Gaussian", a_class=zo.Gaussian, number=3, a_list=lambda _: [zo.Gaussian()])
PARAMS = bads(
    none=None,
    text="params",
    number=3,
    a_tensor=lambda _: x(),
    empty=lambda _: [],
    frozen=lambda _: frozen(),
    integers=lambda _: [1, 2],
    sparse=lambda _: [torch.eye(2).to_sparse().requires_grad_()],
    complex=lambda _: [torch.ones(2, dtype=torch.complex64).requires_grad_()],
)
LOSS = bads(
    none=None,
    a_tensor=lambda _: torch.tensor(1.0),
    returns_none=lambda _: lambda: None,
    returns_text=lambda _: lambda: "1",
    returns_true=lambda _: lambda: True,
    returns_vector=lambda _: lambda: torch.ones(2),
    returns_complex=lambda _: lambda: torch.tensor(1j),
    returns_integer=lambda _: lambda: torch.tensor(1),
    returns_nan=lambda _: lambda: torch.tensor(math.nan),
    returns_meta=lambda _: lambda: torch.tensor(1.0, device="meta"),
)
PAIR = bads(
    none=None,
    alone=lambda v: v[0],
    three=lambda v: (*v, v[1]),
    swapped=lambda v: (v[1], v[0]),
    a_dict=lambda v: {"x": v[0], "y": v[1]},
    floats=lambda v: (v[0], v[1].float()),
    with_nan=lambda v: (poisoned(v[0], math.nan), v[1]),
)
SEQUENCE = bads(
    number=2, text="ab", none_in=lambda _: [None], none_of=lambda _: [], nan=lambda _: [math.nan]
)
SHAPES = bads(
    number=3, text="x", wrong=lambda _: [(2, 2)], negative=lambda _: [(-1, 4)], nan=[(math.nan,)]
)
CHOICE = bads(unknown="no such", number=3, none=None)


class Call(NamedTuple):
    """A public function, a valid call of it, and the kinds of its arguments."""

    function: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    kinds: Mapping[str, list[Bad]]


def bad_for(optional: list[Bad]) -> list[Bad]:
    return [bad for bad in optional if bad.name != "none"]


SEED = bad_for(INTEGER)  # None is how version 0.1's default is told, with a warning
DRAWN = {"P": COUNT, "seed": SEED, "step": INTEGER, "directions": DIRECTIONS}
ON_MODEL = {"model": MODEL, "x_o": INPUTS, "x_u": INPUTS}


def _pair(**more: Any) -> dict[str, Any]:
    return {"model": model(), "x_o": x(), "x_u": x() + 0.5, **more}


def _jacobians(**more: Any) -> dict[str, Any]:
    return {"J_o": matrix(N, V, 5), "J_u": matrix(N, V, 5) + 0.25, **more}


def _rows(**more: Any) -> dict[str, Any]:
    return {"J_o": matrix(V, 5), "J_u": matrix(V, 5) + 0.25, **more}


def _blocks() -> dict[str, Any]:
    K = matrix(N, N, V, V).square()
    return {"K_hat": K + matrix(N, N, V, V).sin(), "K": K}


def _probed(params: Any, c: Any, **more: Any) -> float:
    made = list(params.parameters()) if isinstance(params, nn.Module) else params
    with zo.perturbed(made, c, **more):
        return float(sum(p.sum() for p in made))


def _minimized(params: Any, lr: Any, loss: Any = None, **more: Any) -> Tensor:
    made = list(params) if isinstance(params, Iterator) else params
    optimizer = zo.ZOSGD(made, lr, **more)
    return optimizer.step(loss or (lambda: made[0].square().sum()))


def _planned(losses: Any, params: Any, **more: Any) -> Tensor:
    found = zo.plan(losses, params, **more)
    return torch.tensor([found.lr, found.eps, found.steps])  # hours and memory are the machine's


def _of_a_batch(bad: Bad) -> Callable[[Any], Any]:
    return lambda _: lambda number: bad.make(None)()


def _leaf() -> list[Tensor]:
    return [matrix(3, 2).requires_grad_()]


_loss_at = _leaf()


CALLS = {
    "jacobian": Call(
        zo.jacobian,
        lambda: {"model": model(), "x": x(), "chunk_size": 1},
        {"model": MODEL, "x": INPUTS, "chunk_size": bad_for(COUNT)},
    ),
    "jvp": Call(
        zo.jvp,
        lambda: {"model": model(), "x": x(), "v": matrix(2 * D + 2 + 2 * V + V)},
        {"model": MODEL, "x": INPUTS, "v": TENSOR},
    ),
    "vjp": Call(
        zo.vjp,
        lambda: {"model": model(), "x": x(), "g": matrix(N, V)},
        {"model": MODEL, "x": INPUTS, "g": TENSOR},
    ),
    "entk": Call(zo.entk, lambda: _pair(chunk_size=1), {**ON_MODEL, "chunk_size": bad_for(COUNT)}),
    "zo_entk": Call(
        zo.zo_entk,
        lambda: _pair(P=2, seed=0, step=1, directions=zo.Gaussian()),
        {**ON_MODEL, **DRAWN},
    ),
    "zo_entk_with_std": Call(
        zo.zo_entk_with_std,
        lambda: _pair(P=2, seed=0, step=1, directions=None),
        {**ON_MODEL, **DRAWN},
    ),
    "one_step": Call(
        zo.one_step,
        lambda: _pair(y_u=y(), lr=1e-3, P=2, seed=0, step=1, eps=1e-3, directions=None),
        {
            **ON_MODEL,
            **DRAWN,
            "P": bad_for(COUNT),
            "seed": SEED,
            "y_u": LABELS,
            "lr": REAL,
            "eps": bad_for(POSITIVE),
        },
    ),
    "step_change": Call(
        zo.step_change,
        lambda: _pair(y_u=y(), lr=1e-3, P=2, seed=0, step=1, eps=1e-3, directions=None),
        {
            **ON_MODEL,
            **DRAWN,
            "P": bad_for(COUNT),
            "seed": SEED,
            "y_u": LABELS,
            "lr": REAL,
            "eps": bad_for(POSITIVE),
        },
    ),
    "gram": Call(
        zo.gram,
        lambda: _pair(tile=1),
        {**ON_MODEL, "x_u": bad_for(INPUTS), "tile": bad_for(COUNT)},
    ),
    "alignments": Call(zo.alignments, _pair, ON_MODEL),
    "effective_ranks": Call(
        zo.effective_ranks, lambda: {"model": model(), "x": x()}, {"model": MODEL, "x": INPUTS}
    ),
    "kernel_error_laws": Call(
        zo.kernel_error_laws,
        lambda: _pair(P=2, directions=zo.Gaussian()),
        {**ON_MODEL, "P": COUNT, "directions": DIRECTIONS},
    ),
    "sketch": Call(
        zo.sketch,
        lambda: {"model": model(), "x": x(), "P": 2, "seed": 0, "step": 1, "eps": 1e-3},
        {"model": MODEL, "x": INPUTS, "P": COUNT, "seed": SEED, "eps": bad_for(POSITIVE)},
    ),
    "sketch_losses": Call(
        zo.sketch_losses,
        lambda: {
            "losses": lambda: _loss_at[0].square().sum(1),
            "params": _loss_at,
            "P": 2,
            "seed": 0,
            "step": 1,
            "eps": 1e-3,
        },
        {"params": PARAMS, "P": COUNT, "seed": SEED, "eps": bad_for(POSITIVE)},
    ),
    "alignment": Call(zo.alignment, _jacobians, {"J_o": TENSOR, "J_u": TENSOR}),
    "effective_rank": Call(zo.effective_rank, lambda: {"K": torch.eye(V) + 0.1}, {"K": TENSOR}),
    "relative_frobenius": Call(zo.relative_frobenius, _blocks, {"K_hat": TENSOR, "K": TENSOR}),
    "cka": Call(zo.cka, _blocks, {"K_hat": TENSOR, "K": TENSOR}),
    "spectral_wasserstein": Call(zo.spectral_wasserstein, _blocks, {"K_hat": TENSOR, "K": TENSOR}),
    "kernel_error_law": Call(
        zo.kernel_error_law,
        lambda: _rows(P=2, directions=zo.LowRank(1), shapes=[(2, 2), (1,)]),
        {"J_o": TENSOR, "J_u": TENSOR, "P": COUNT, "directions": DIRECTIONS, "shapes": SHAPES},
    ),
    "kernel_error_bound": Call(
        zo.kernel_error_bound,
        lambda: _rows(P=200, delta=0.1, directions=None),
        {"J_o": TENSOR, "J_u": TENSOR, "P": COUNT, "directions": DIRECTIONS, "delta": POSITIVE},
    ),
    "dynamics_error_law": Call(
        zo.dynamics_error_law,
        lambda: {
            "A": matrix(V, V),
            "J_o": matrix(V, 5),
            "g": matrix(5),
            "P": 2,
            "lr": 0.1,
            "directions": None,
        },
        {"A": TENSOR, "J_o": TENSOR, "g": TENSOR, "P": COUNT, "lr": REAL, "directions": DIRECTIONS},
    ),
    "estimator_moments": Call(
        zo.estimator_moments,
        lambda: {"g": matrix(4), "H": torch.eye(4), "P": 2, "directions": None},
        {"g": TENSOR, "H": TENSOR, "P": COUNT, "directions": DIRECTIONS},
    ),
    "perturbations_needed": Call(
        zo.perturbations_needed,
        lambda: {"error": 0.5, "alignment": 0.1, "overlap": 0.0, "directions": None},
        {"error": POSITIVE, "alignment": POSITIVE, "overlap": REAL, "directions": DIRECTIONS},
    ),
    "jl_epsilon": Call(
        zo.jl_epsilon,
        lambda: {"P": 100, "n": 20, "delta": 0.1, "directions": None},
        {"P": COUNT, "n": COUNT, "delta": POSITIVE, "directions": DIRECTIONS},
    ),
    "jl_min_perturbations": Call(
        zo.jl_min_perturbations,
        lambda: {"n": 20, "epsilon": 0.5, "delta": 0.1, "directions": None},
        {"n": COUNT, "epsilon": POSITIVE, "delta": POSITIVE, "directions": DIRECTIONS},
    ),
    "estimate_gradient": Call(
        zo.estimate_gradient,
        lambda: {
            "loss_fn": lambda: _loss_at[0].square().sum(),
            "params": _loss_at,
            "P": 2,
            "eps": 1e-3,
            "method": "two-point",
            "seed": 0,
            "step": 1,
            "directions": None,
        },
        {
            "loss_fn": LOSS,
            "params": PARAMS,
            **DRAWN,
            "eps": bad_for(POSITIVE),
            "method": CHOICE,
        },
    ),
    "estimate_kernel_error": Call(
        zo.estimate_kernel_error,
        lambda: _pair(P=2, samples=4, seed=0, directions=None),
        {**ON_MODEL, "P": COUNT, "samples": COUNT, "seed": SEED, "directions": DIRECTIONS},
    ),
    "estimate_dynamics_error": Call(
        zo.estimate_dynamics_error,
        lambda: _pair(y_u=y(), P=2, lr=0.1, samples=4, seed=0, directions=None),
        {
            **ON_MODEL,
            "y_u": [*LABELS, *bads(none=None)],
            "P": COUNT,
            "lr": REAL,
            "samples": COUNT,
            "seed": SEED,
            "directions": DIRECTIONS,
        },
    ),
    "estimate_moments": Call(
        zo.estimate_moments,
        lambda: {"model": model(), "x": x(), "y": y(), "P": 2, "samples": 4, "seed": 0},
        {
            "model": MODEL,
            "x": INPUTS,
            "y": [*LABELS, *bads(none=None)],
            "P": COUNT,
            "samples": COUNT,
            "seed": SEED,
        },
    ),
    "plan": Call(
        _planned,
        lambda: {
            "losses": lambda number: _loss_at[0].square().sum(1),
            "params": _loss_at,
            "steps": 10,
            "P": 1,
            "batch_size": 2,
            "eps": 1e-3,
            "samples": 4,
            "seed": 0,
            "directions": None,
        },
        {
            "losses": [
                Bad(bad.name, _of_a_batch(bad))
                for bad in LOSS
                if bad.name not in ("none", "a_tensor", "returns_vector")
            ]
            + bads(none=None, a_tensor=lambda _: torch.tensor(1.0)),
            "params": PARAMS,
            "steps": COUNT,
            "P": COUNT,
            "batch_size": bad_for(COUNT),
            "eps": bad_for(POSITIVE),
            "samples": COUNT,
            "seed": INTEGER,
            "directions": DIRECTIONS,
        },
    ),
    "plan_perturbations": Call(
        zo.plan_perturbations,
        lambda: _pair(y_u=y(), error=0.5, samples=4, seed=0, directions=None),
        {
            **ON_MODEL,
            "y_u": LABELS,
            "error": POSITIVE,
            "samples": COUNT,
            "seed": SEED,
            "directions": DIRECTIONS,
        },
    ),
    "trajectory": Call(
        zo.trajectory,
        lambda: {
            "model": model(),
            "data": (x(), y()),
            "observe": x(),
            "steps": 2,
            "lr": 0.01,
            "P": 2,
            "eps": 1e-3,
            "batch_size": 1,
            "seed": 0,
            "record": [0, 2],
            "kernel_inputs": 1,
            "directions": None,
        },
        {
            "model": MODEL,
            "data": PAIR,
            "observe": INPUTS,
            "steps": COUNT,
            "lr": POSITIVE,
            "P": COUNT,
            "eps": bad_for(POSITIVE),
            "batch_size": bad_for(COUNT),
            "seed": SEED,
            "record": SEQUENCE,
            "kernel_inputs": COUNT,
            "directions": DIRECTIONS,
        },
    ),
    "deviation_grid": Call(
        zo.deviation_grid,
        lambda: {
            "model": model(),
            "data": (x(), y()),
            "observe": x(),
            "horizon": 0.1,
            "steps": [1, 2],
            "P": [1],
            "seeds": [0],
            "directions": None,
        },
        {
            "model": MODEL,
            "data": PAIR,
            "observe": INPUTS,
            "horizon": POSITIVE,
            "steps": SEQUENCE,
            "P": SEQUENCE,
            "seeds": SEQUENCE,
            "directions": DIRECTIONS,
        },
    ),
    "perturbed": Call(
        _probed,
        lambda: {"params": _leaf(), "c": 0.1, "seed": 0, "step": 1, "p": 0, "directions": None},
        {
            "params": PARAMS,
            "c": [b for b in REAL if b.name != "negative"],
            "seed": SEED,
            "step": INTEGER,
            "p": INTEGER,
            "directions": DIRECTIONS,
        },
    ),
    "ZOSGD": Call(
        _minimized,
        lambda: {
            "params": _leaf(),
            "lr": 1e-3,
            "P": 2,
            "eps": 1e-3,
            "momentum": 0.5,
            "weight_decay": 0.1,
            "seed": 0,
            "directions": None,
        },
        {
            "params": PARAMS,
            "lr": REAL,
            "P": COUNT,
            "eps": bad_for(POSITIVE),
            "momentum": [*REAL, *bads(one=1.0)],
            "weight_decay": REAL,
            "seed": SEED,
            "directions": DIRECTIONS,
        },
    ),
}
CASES = [
    (name, argument, bad)
    for name, call in CALLS.items()
    for argument, kind in call.kinds.items()
    for bad in kind
]


def numbers(value: Any) -> Iterator[float]:
    """All real numbers in a result."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield from (
                torch.view_as_real(value).flatten().tolist()
                if value.is_complex()
                else (value.detach().double().flatten().tolist())
            )
    elif isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item)


def judge(name: str, changes: Mapping[str, Bad]) -> str | None:
    """None for a clear error; else what is wrong with the outcome."""
    call = CALLS[name]
    arguments = call.arguments()
    given = arguments | {k: bad.make(arguments[k]) for k, bad in changes.items()}
    what = f"{name}({', '.join(f'{k}: {bad.name}' for k, bad in changes.items())})"
    try:
        result = call.function(**given)
    except (TypeError, ValueError, FloatingPointError, NotImplementedError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = frames[-1].filename.startswith(PACKAGE)
        noted = any("model was called" in note for note in getattr(error, "__notes__", ()))
        if ours and len(str(error)) > 20:
            return None
        if noted:
            return None
        return f"{what}: raw {type(error).__name__} from {frames[-1].filename}: {error}"
    except Exception as error:  # noqa: BLE001
        notes = getattr(error, "__notes__", ())
        if any("model was called" in note for note in notes):
            return None
        return f"{what}: raw {type(error).__name__}: {str(error)[:200]}"
    if not all(map(math.isfinite, numbers(result))):
        return f"{what}: returned NaN or infinity"
    return f"{what}: accepted"


@pytest.mark.parametrize("name", CALLS)
def test_the_valid_call_is_valid(name: str) -> None:
    found = CALLS[name].function(**CALLS[name].arguments())
    assert all(map(math.isfinite, numbers(found)))


@pytest.mark.parametrize("name", CALLS)
def test_one_malformed_argument_is_refused_clearly(name: str) -> None:
    wrong = [
        found
        for called, argument, bad in CASES
        if called == name and (found := judge(name, {argument: bad})) is not None
    ]
    assert not wrong, f"{len(wrong)} of the malformed calls:\n" + "\n".join(wrong)


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_two_malformed_arguments_are_refused_clearly(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLS)))
    kinds = CALLS[name].kinds
    if len(kinds) < 2:
        return
    both = data.draw(st.lists(st.sampled_from(sorted(kinds)), min_size=2, max_size=2, unique=True))
    changes = {argument: data.draw(st.sampled_from(kinds[argument])) for argument in both}
    # two that are changed in one way fit each other again
    assume({bad.name for bad in changes.values()} not in ({"flat"}, {"narrow"}))
    found = judge(name, changes)
    assert found is None, found


def test_there_are_a_thousand_malformed_calls_of_every_public_function() -> None:
    assert len(CASES) + 500 >= 1000
    public = {n for n in zo.__all__ if callable(getattr(zo, n)) and n not in _NOT_CALLED}
    assert public == set(CALLS)


_NOT_CALLED = {
    "Gaussian",
    "LowRank",
    "Rademacher",
    "Sparse",
    "Sphere",
    "Table",  # takes texts: tests/test_columns.py
    "Uniform",
    "NonFiniteLossError",
}

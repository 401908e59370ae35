"""J, J v and J^T g against one backward pass a number; the model left alone; errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import naive_jacobians as naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_jacobians import CASES, normal, untouched
from torch import Tensor, nn

import zotutor as zo
from zotutor import jacobians
from zotutor.parameters import Parameters, resolve

ALL = pytest.mark.parametrize("case", CASES)
quick = settings(derandomize=True, max_examples=25, deadline=None, database=None)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@ALL
def test_jacobian_is_the_naive_one(case: str) -> None:
    model, x = CASES[case](3)
    J = zo.jacobian(model, x)
    d = sum(p.numel() for p in naive.trainable(model))
    assert J.shape == (3, naive.logits(model, x).shape[1], d)
    assert J.dtype == torch.float64
    assert J.abs().max() > 0.01, "a test of zeros would prove nothing"
    close(J, naive.jacobian(model, x))


@ALL
def test_jvp_is_the_naive_jacobian_times_v(case: str) -> None:
    model, x = CASES[case](3)
    J = naive.jacobian(model, x)
    v = normal(J.shape[2], seed=7)
    close(zo.jvp(model, x, v), J @ v)


@ALL
def test_vjp_is_the_naive_jacobian_transposed_times_g(case: str) -> None:
    model, x = CASES[case](3)
    J = naive.jacobian(model, x)
    g = normal(*J.shape[:2], seed=8)
    close(zo.vjp(model, x, g), torch.einsum("nv,nvd->d", g, J))


@ALL
@pytest.mark.parametrize("name", ["jacobian", "jvp", "vjp"])
def test_the_model_is_left_alone(case: str, name: str) -> None:
    model, x = CASES[case](2)
    z = naive.logits(model, x)
    d = sum(p.numel() for p in naive.trainable(model))
    more = {"jacobian": (), "jvp": (normal(d, seed=1),), "vjp": (normal(*z.shape, seed=2),)}[name]
    with untouched(model, x, *more):
        result = getattr(zo, name)(model, x, *more)
    assert not result.requires_grad


@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "lstm", "scalars"])
def test_every_chunk_size_gives_the_same(case: str) -> None:
    model, x = CASES[case](5)
    whole = zo.jacobian(model, x)
    close(whole, naive.jacobian(model, x))
    for chunk_size in (1, 2, 3, 5, 99):
        close(zo.jacobian(model, x, chunk_size=chunk_size), whole)


def test_chunk_size_limits_how_many_inputs_are_seen_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = CASES["mlp"](7)
    seen: list[int] = []
    fill_block = jacobians._fill_block

    def spy(J: Tensor, params: Parameters, part: Tensor) -> None:
        seen.append(len(part))
        fill_block(J, params, part)

    monkeypatch.setattr(jacobians, "_fill_block", spy)
    zo.jacobian(model, x, chunk_size=3)
    assert seen == [3, 3, 1]
    seen.clear()
    V, d = 3, sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(jacobians, "_BUDGET", 2 * V * d + 1)
    zo.jacobian(model, x)
    assert seen == [2, 2, 2, 1]
    seen.clear()
    monkeypatch.setattr(jacobians, "_BUDGET", 1)
    close(zo.jacobian(model, x), naive.jacobian(model, x))
    assert seen == [1] * 7


@quick
@given(
    N=st.integers(1, 5),
    V=st.integers(1, 4),
    inputs=st.integers(1, 4),
    width=st.integers(1, 4),
    chunk_size=st.none() | st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
def test_jacobian_of_any_small_network(
    N: int, V: int, inputs: int, width: int, chunk_size: int | None, seed: int
) -> None:
    model = naive.mlp(inputs, V, width=width, seed=seed)
    x = normal(N, inputs, seed=seed + 1)
    J = naive.jacobian(model, x)
    close(zo.jacobian(model, x, chunk_size=chunk_size), J)
    v, g = normal(J.shape[2], seed=seed + 2), normal(N, V, seed=seed + 3)
    Jv, gJ = zo.jvp(model, x, v), zo.vjp(model, x, g)
    close(Jv, J @ v)
    close((Jv * g).sum(), gJ @ v)  # jvp and vjp are adjoint


def test_a_model_of_no_outputs_has_an_empty_jacobian() -> None:
    model = nn.Linear(2, 4)
    model.register_forward_hook(lambda module, inputs, z: z[:, :0])
    assert zo.jacobian(model, torch.ones(3, 2)).shape == (3, 0, 12)


def test_columns_stand_in_the_order_of_named_parameters() -> None:
    model, x = CASES["mlp"](2)
    J = zo.jacobian(model, x)
    offset = 0
    for name, p in model.named_parameters():
        before = naive.logits(model, x)
        state = {k: t.clone() for k, t in model.state_dict().items()}
        state[name] += 1e-6
        moved = CASES["mlp"].build().double()
        moved.load_state_dict(state)
        change = (naive.logits(moved, x) - before) / 1e-6
        part = J[:, :, offset : offset + p.numel()].sum(-1)
        torch.testing.assert_close(change, part, rtol=1e-4, atol=1e-4)
        offset += p.numel()
    assert offset == J.shape[2] == resolve(model).d


def test_directions_and_columns_agree_on_the_order() -> None:
    """`jvp` along a drawn direction is how the logits move when the parameters move along it."""
    model, x = CASES["frozen"](3)
    u = zo.Gaussian().dense(model, P=1, seed=3, step=5)[:, 0]
    values = []
    for c in (1e-5, -1e-5):
        with zo.perturbed(model, c, directions=zo.Gaussian(), seed=3, step=5):
            values.append(model(x))
    change = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(zo.jvp(model, x, u), change, rtol=1e-6, atol=1e-8)


def test_vjp_of_G_over_N_is_the_gradient_of_the_mean_loss() -> None:
    model, x = CASES["conv"](4)
    y = torch.tensor([0, 2, 1, 1])
    loss = nn.functional.cross_entropy(model(x), y)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    G = model(x).softmax(-1).detach() - nn.functional.one_hot(y, 3)
    close(zo.vjp(model, x, G / 4), torch.cat([g.reshape(-1) for g in grads]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_results_come_in_the_parameters_dtype(dtype: torch.dtype) -> None:
    model, x = CASES["mlp"](2)
    J = naive.jacobian(model, x)
    v, g = normal(J.shape[2], seed=0), normal(2, 3, seed=1)
    model, x = model.to(dtype), x.to(dtype)
    rtol = 30 * torch.finfo(dtype).eps
    for actual, expected in [
        (zo.jacobian(model, x), J),
        (zo.jvp(model, x, v), J @ v),
        (zo.vjp(model, x, g), torch.einsum("nv,nvd->d", g, J)),
    ]:
        assert actual.dtype == dtype
        error = (actual.double() - expected).norm() / expected.norm()
        assert error < rtol


def test_mixed_dtypes_are_promoted() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = model[:2], nn.Linear(5, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).double())

    mixed, x = Mixed(), normal(2, 4, seed=0, dtype=torch.float32)
    J = zo.jacobian(mixed, x)
    assert J.dtype == torch.float64
    torch.testing.assert_close(
        J, naive.jacobian(mixed, x).double(), rtol=1e-5, atol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_results_do_not_depend_on_the_grad_mode(context: Callable[[], Any]) -> None:
    model, x = CASES["mlp"](2)
    J = naive.jacobian(model, x)
    v, g = normal(J.shape[2], seed=0), normal(2, 3, seed=1)
    with context():
        results = zo.jacobian(model, x), zo.jvp(model, x, v), zo.vjp(model, x, g)
    close(results[0], J)
    close(results[1], J @ v)
    close(results[2], torch.einsum("nv,nvd->d", g, J))


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_fast_path_of_attention_is_left_as_it_was(enabled: bool, fails: bool) -> None:
    model, x = CASES["attention in eval"](2)
    if fails:
        x = x + 100  # no such token
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with pytest.raises(IndexError) if fails else contextlib.nullcontext():
            zo.jacobian(model, x)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_no_result_carries_a_graph_though_the_inputs_do() -> None:
    model, x = CASES["mlp"](2)
    J = naive.jacobian(model, x)
    x.requires_grad_()
    v = normal(J.shape[2], seed=0).requires_grad_()
    g = normal(2, 3, seed=1).requires_grad_()
    results = zo.jacobian(model, x), zo.jvp(model, x, v), zo.vjp(model, x, g)
    assert not any(result.requires_grad for result in results)
    close(results[0], J)
    assert x.grad is None


def test_what_version_0_1_had_still_works_and_names_what_replaces_it() -> None:
    model = CASES["scalars"](1)[0]
    params = resolve(model)
    with pytest.warns(DeprecationWarning, match=r"use zotutor.parameters.resolve\(model\).flatten"):
        flat = jacobians.flatten(params.named())
    with pytest.warns(DeprecationWarning, match="split_named"):
        again = jacobians.unflatten(flat, params.named())
    assert list(again) == list(params.names)
    assert all(torch.equal(again[name], p) for name, p in params.named().items())
    with pytest.warns(DeprecationWarning, match=r"resolve\(model\).d"):
        assert jacobians.count(model) == params.d == len(flat)


# ---- errors -------------------------------------------------------------------------------------

X = normal(2, 4, seed=0)
V_GOOD, G_GOOD = normal(15, seed=0), normal(2, 3, seed=0)
CALLS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "jacobian": lambda model, x: zo.jacobian(model, x),
    "jvp": lambda model, x: zo.jvp(model, x, V_GOOD),
    "vjp": lambda model, x: zo.vjp(model, x, G_GOOD),
}
each = pytest.mark.parametrize("name", CALLS)


@each
@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[:0], ValueError, r"x: given shape \(0, 4\), expected a batch .* at least one"),
        (X[0, 0], ValueError, r"x: given shape \(\), expected a batch .* x\[None\]"),
        ([[1.0] * 4], TypeError, r"x: given a list, expected a tensor .* torch.as_tensor"),
    ],
)
def test_a_bad_batch_is_refused_before_any_work(
    name: str, x: Any, error: type[Exception], words: str
) -> None:
    model = naive.Counted()
    with pytest.raises(error, match=words):
        CALLS[name](model, x)
    assert model.calls == 0


@each
def test_a_batch_that_the_model_cannot_take_is_named(name: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        CALLS[name](naive.Counted(), normal(2, 5, seed=0))
    assert ", 5)" in "".join(getattr(caught.value, "__notes__", []))


@each
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1)), "module 1 is a Dropout in training"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "module 1 is a BatchNorm1d in trai"),
        (nn.AlphaDropout(0.1), "expected at least one with"),
        (nn.Linear(4, 3).requires_grad_(False), "no trainable parameter .* unfreeze"),
    ],
)
def test_a_model_that_cannot_be_compared_is_refused(
    name: str, model: nn.Module, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        CALLS[name](model.double(), X)


@each
def test_dropout_that_no_module_tells_of_is_refused(name: str) -> None:
    model = naive.FunctionalDropout()
    with untouched(model, X), pytest.raises(ValueError, match=r"random numbers.*model.eval\(\)"):
        CALLS[name](model, X)
    CALLS[name](model.eval(), X)


@each
@pytest.mark.parametrize(
    "kind", ["batch norm without statistics", "instance norm in training", "spectral norm"]
)
def test_normalization_that_mixes_rows_or_moves_buffers_is_refused(name: str, kind: str) -> None:
    """Batch statistics mix the rows of a batch; the two others write buffers at each call."""
    model: nn.Module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    ).double()
    assert isinstance(model, nn.Sequential)
    if kind == "batch norm without statistics":
        model.insert(1, nn.BatchNorm2d(2, track_running_stats=False).double())
        model.eval()
    elif kind == "instance norm in training":
        model.insert(1, nn.InstanceNorm2d(2, track_running_stats=True).double())
    else:
        nn.utils.parametrizations.spectral_norm(model[-1])
    x = normal(2, 1, 4, 4, seed=0)
    with untouched(model, x), pytest.raises(ValueError, match="Norm"):
        CALLS[name](model, x)
    if kind != "batch norm without statistics":
        d = sum(p.numel() for p in model.parameters())
        model.eval()
        close(zo.jvp(model, x, torch.ones(d)), naive.jacobian(model, x).sum(-1))


@each
def test_a_thing_that_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"model: given a function, expected a torch.nn.Module"):
        CALLS[name](lambda x: x, X)  # type: ignore[arg-type]


@each
def test_frozen_parameters_may_be_integers(name: str) -> None:
    """As in a quantized base: only trainable parameters matter."""
    model = nn.Linear(4, 3).double()
    expected = CALLS[name](model, X)
    model.register_parameter(
        "table", nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
    )
    torch.testing.assert_close(CALLS[name](model, X), expected)


class Returns(nn.Module):
    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.float64)
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(self.layer(x))


@each
@pytest.mark.parametrize(
    ("output", "given"),
    [
        (lambda z: z.sum(-1), r"\(\d,\)"),
        (lambda z: z[:, None], r"\(\d, 1, 3\)"),
        (lambda z: z.mean(0), r"\(3,\)"),
        (lambda z: torch.cat([z, z]), r"\(\d, 3\)"),
        (lambda z: {"loss": z}, "dict"),
        (lambda z: SimpleNamespace(logits=None), "NoneType"),
    ],
)
def test_a_model_that_returns_no_row_an_input_is_refused(
    name: str, output: Callable[[Tensor], Any], given: str
) -> None:
    with pytest.raises(ValueError, match=rf"model: returned {given} for \d inputs?, expected"):
        CALLS[name](Returns(output), X)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_a_chunk_of_nothing_is_refused(chunk_size: int) -> None:
    model = naive.Counted()
    with pytest.raises(ValueError, match=rf"chunk_size: given {chunk_size}, expected at least 1"):
        zo.jacobian(model, X, chunk_size=chunk_size)
    assert model.calls == 0


@pytest.mark.parametrize("chunk_size", [1.5, True, "2"])
def test_a_chunk_size_that_is_no_integer_is_refused(chunk_size: Any) -> None:
    model = naive.Counted()
    with pytest.raises(TypeError, match=r"chunk_size: given .*expected an int"):
        zo.jacobian(model, X, chunk_size=chunk_size)
    assert model.calls == 0


@pytest.mark.parametrize("v", [normal(14, seed=0), normal(15, 1, seed=0), normal(3, 5, seed=0)])
def test_a_direction_of_the_wrong_shape_is_refused(v: Tensor) -> None:
    model = naive.Counted()
    with pytest.raises(ValueError, match=r"v: given \(.*\), expected shape \(15,\), one number"):
        zo.jvp(model, X, v)
    assert model.calls == 0


@pytest.mark.parametrize("g", [normal(3, seed=0), normal(1, 3, seed=0), normal(3, 2, seed=0)])
def test_cotangents_of_the_wrong_shape_are_refused(g: Tensor) -> None:
    with pytest.raises(ValueError, match=r"g: given \(.*\), expected the logits' shape \(2, 3\)"):
        zo.vjp(naive.Counted(), X, g)


def test_a_list_is_no_vector() -> None:
    with pytest.raises(TypeError, match="v: given a list, expected a tensor"):
        zo.jvp(naive.Counted(), X, [0.0] * 15)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="g: given a list, expected a tensor"):
        zo.vjp(naive.Counted(), X, [[0.0] * 3] * 2)  # type: ignore[arg-type]


def test_an_error_of_the_model_is_not_swallowed() -> None:
    """What vectorizing cannot follow is done input by input; what the model raises comes out."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                raise KeyError("what the author of the model says")
            return self.layer(x)

    with pytest.raises(KeyError, match="what the author"):
        zo.jacobian(Broken(), torch.tensor([[-1.0] * 4, [1.0] * 4], dtype=torch.float64))

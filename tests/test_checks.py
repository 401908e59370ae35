"""Checks of what the user gave: right input goes through, wrong input is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.checks import (
    at_least_float32,
    check_batch,
    check_comparable,
    check_eps,
    check_finite,
    check_floats,
    check_integer,
    check_labels,
    check_path,
    check_real,
    check_tensor,
    is_finite,
    trainable,
)


def theta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def assert_names(work: Callable[[], object], error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        work()
    for word in words:
        assert word in str(caught.value)


# ---- parameters ----------------------------------------------------------------------------------


def test_trainable_parameters_are_listed_once_and_in_order() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3))
    model[1].weight.requires_grad_(False)
    model[2].weight = model[0].weight
    want = [model[0].weight, model[0].bias, model[1].bias, model[2].bias]
    several: list[Any] = [
        model,
        model.parameters(),
        list(model.parameters()),
        model.named_parameters(),
        tuple(model.named_parameters(remove_duplicate=False)),
        dict.fromkeys(model.parameters()),
    ]
    for params in several:
        found = trainable(params)
        assert len(found) == 4
        assert all(a is b for a, b in zip(found, want, strict=True))


def test_pairs_of_tensors_are_no_names() -> None:
    one, other = theta(1), theta(2)
    assert len(trainable((one, other))) == 2
    pairs: Any = [(one, other)]
    assert_names(lambda: trainable(pairs), TypeError, ["item 0", "tuple"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_real_floating_point_dtype_is_trainable(dtype: torch.dtype) -> None:
    assert trainable([theta(2, dtype=dtype)])[0].dtype == dtype


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        (None, TypeError, ["params", "NoneType", "model.parameters()"]),
        (3, TypeError, ["params", "int", "[tensor]"]),
        (theta(2, 3), TypeError, ["params", "one tensor", "(2, 3)", "[tensor]"]),
        ([], ValueError, ["params", "no trainable", "requires_grad=True", ".requires_grad_(True)"]),
        ([torch.zeros(2)], ValueError, ["params", "no trainable"]),
        (nn.ReLU(), ValueError, ["params", "no trainable"]),
        ([theta(2), None], TypeError, ["item 1", "NoneType", "model.named_parameters()"]),
        (["weight"], TypeError, ["item 0", "str"]),
        ({"weight": theta(2)}, TypeError, ["item 0", "str"]),
        ([[theta(2)]], TypeError, ["item 0", "list"]),
        ([np.zeros(3)], TypeError, ["item 0", "ndarray"]),
        ([theta(2, dtype=torch.complex64)], TypeError, ["complex64", "bfloat16"]),
        ([theta(2), theta(3, dtype=torch.complex64)], TypeError, ["item 1", "(3,)", "freeze"]),
        ([torch.zeros(3, dtype=torch.int8)], ValueError, ["no trainable"]),
        ([torch.zeros(2).expand(3, 2).requires_grad_()], ValueError, ["expanded", ".clone()"]),
        ([nn.LazyLinear(2).weight], ValueError, ["item 0", "no shape", "call the model"]),
        ([torch.eye(2).to_sparse().requires_grad_()], TypeError, ["sparse", ".to_dense()"]),
    ],
)
def test_what_cannot_be_trained_is_named(
    params: Any, error: type[Exception], words: list[str]
) -> None:
    assert_names(lambda: trainable(params), error, words)


def test_parameters_on_several_devices_are_named() -> None:
    params = [theta(2), torch.zeros(2, device="meta", requires_grad=True)]
    assert_names(
        lambda: zo.Rademacher().dense(params, P=1, seed=0, step=0),
        ValueError,
        ["params", "cpu, meta", "one device", ".to(device)"],
    )


# ---- numbers -------------------------------------------------------------------------------------


def test_at_least_float32() -> None:
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    assert [at_least_float32(d) for d in dtypes] == [torch.float32] * 3 + [torch.float64]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_integers_of_any_kind(value: Any) -> None:
    found = check_integer("n", value, low=3, high=4)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (2, ValueError, ["n", "2", "at least 3", "below 5"]),
        (5, ValueError, ["n", "5", "at least 3", "below 5"]),
        (3.0, TypeError, ["n", "3.0", "float", "int"]),
        ("3", TypeError, ["n", "'3'", "str", "int"]),
        (True, TypeError, ["n", "True", "bool"]),
        (None, TypeError, ["n", "None"]),
        (torch.tensor(3.5), TypeError, ["tensor of shape ()", "float32", "int"]),
        (torch.tensor([3]), TypeError, ["tensor of shape (1,)", "int64"]),
        (torch.tensor(3, device="meta"), TypeError, ["on meta"]),
        (torch.tensor(True), TypeError, ["bool"]),
        (np.array([3, 4]), TypeError, ["array of shape (2,)"]),
        (np.array(3.0), TypeError, ["array of shape ()", "float64"]),
        (np.bool_(True), TypeError, ["True", "bool"]),
        (np.float64(3.0), TypeError, ["3.0", "float64"]),
        (bytearray(b"3"), TypeError, ["bytearray"]),
        (list(range(1000)), TypeError, ["[0, 1, 2", "...", "list"]),
    ],
)
def test_what_is_no_integer_in_range_is_named(
    value: Any, error: type[Exception], words: list[str]
) -> None:
    assert_names(lambda: check_integer("n", value, low=3, high=5), error, words)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), torch.tensor(1.0), np.array(1.0)])
def test_numbers_of_any_kind(value: Any) -> None:
    found = check_real("x", value, low=0.5)
    assert found == 1.0
    assert type(found) is float
    assert check_real("x", value, low=1.0) == 1.0


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (-0.1, ValueError, ["x", "-0.1", "above 0"]),
        (0, ValueError, ["x", "0.0", "above 0"]),
        (math.nan, ValueError, ["x", "nan", "finite"]),
        (math.inf, ValueError, ["x", "inf", "finite"]),
        ("1", TypeError, ["x", "'1'", "number"]),
        (b"1", TypeError, ["x", "number"]),
        (True, TypeError, ["x", "True", "number"]),
        (None, TypeError, ["x", "None", "number"]),
        (1j, TypeError, ["x", "1j", "number"]),
        ([1.0], TypeError, ["x", "[1.0]", "number"]),
        (torch.ones(2), TypeError, ["x", "tensor of shape (2,)", "float32", "number"]),
        (torch.ones(1), TypeError, ["tensor of shape (1,)"]),
        (torch.tensor(1.0, device="meta"), TypeError, ["on meta"]),
        (torch.tensor(1j), TypeError, ["complex64"]),
        (torch.tensor(True), TypeError, ["bool"]),
        (np.ones(1), TypeError, ["array of shape (1,)"]),
        (np.array("1"), TypeError, ["array", "<U1"]),
        (np.bool_(True), TypeError, ["True", "number"]),
        (bytearray(b"1"), TypeError, ["bytearray"]),
        (10**400, ValueError, ["inf", "finite"]),
    ],
)
def test_what_is_no_number_in_range_is_named(
    value: Any, error: type[Exception], words: list[str]
) -> None:
    assert_names(lambda: check_real("x", value, low=0.0, open_low=True), error, words)


def test_a_closed_bound_is_allowed() -> None:
    assert check_real("x", 0.0, low=0.0) == 0.0
    assert_names(lambda: check_real("x", -1.0, low=0.0), ValueError, ["of at least 0"])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_eps_may_be_as_small_as_the_spacing_at_1(dtype: torch.dtype) -> None:
    spacing = torch.finfo(dtype).eps
    assert check_eps(spacing, [dtype]) == spacing
    for params in ([dtype], [torch.float64, dtype]):
        assert_names(
            lambda p=params: check_eps(spacing * 0.99, p),  # type: ignore[misc]
            ValueError,
            ["eps", str(dtype), f"{spacing:.3g}", "at least that", "leave it out"],
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("eps", [0, -1e-3, math.nan, math.inf])
def test_eps_is_a_positive_number(eps: float, dtype: torch.dtype) -> None:
    assert_names(lambda: check_eps(eps, [dtype]), ValueError, ["eps", "finite number above 0"])


def test_an_eps_beyond_the_largest_number_is_named() -> None:
    largest = torch.finfo(torch.float16).max
    assert check_eps(1e4, [torch.float16]) == 1e4
    assert check_eps(largest, [torch.float32]) == largest
    for dtypes in ([torch.float16], [torch.float32, torch.float16]):
        assert_names(
            lambda given=dtypes: check_eps(largest, given),  # type: ignore[misc]
            ValueError,
            ["eps", "65504", "too large", "float16", "leave it out"],
        )


# ---- models --------------------------------------------------------------------------------------


COMPARABLE: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(2, 2),
    "dropout of 0": lambda: nn.Dropout(0.0),
    "dropout in eval mode": lambda: nn.Dropout(0.5).eval(),
    "batch norm in eval mode": lambda: nn.BatchNorm1d(2).eval(),
    "layer norm": lambda: nn.LayerNorm(2),
    "group norm": lambda: nn.GroupNorm(1, 2),
    "instance norm": lambda: nn.InstanceNorm1d(2, affine=True),
    "instance norm in eval mode": lambda: nn.InstanceNorm1d(2, track_running_stats=True).eval(),
    "attention without dropout": lambda: nn.MultiheadAttention(4, 2),
    "attention in eval mode": lambda: nn.MultiheadAttention(4, 2, dropout=0.5).eval(),
    "LSTM without dropout": lambda: nn.LSTM(2, 2),
    "transformer in eval mode": lambda: nn.TransformerEncoderLayer(4, 2, 8).eval(),
    "an attribute p of its own": lambda: with_attribute("p", "not a number"),
    "an attribute dropout of its own": lambda: with_attribute("dropout", nn.Dropout(0.0)),
    "spectral norm in eval mode": lambda: nn.utils.parametrizations.spectral_norm(
        nn.Linear(2, 2)
    ).eval(),
}

INCOMPARABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: nn.Dropout(0.1), "Dropout"),
    "inner dropout": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout2d(0.1)), "'1'Dropout2d"),
    "alpha dropout": (lambda: nn.AlphaDropout(0.1), "AlphaDropout"),
    "batch norm": (lambda: nn.BatchNorm2d(2), "BatchNorm2d"),
    "synchronized batch norm": (lambda: nn.SyncBatchNorm(2), "SyncBatchNorm"),
    "instance norm with statistics": (
        lambda: nn.InstanceNorm1d(2, track_running_stats=True),
        "InstanceNorm1d",
    ),
    "attention with dropout": (lambda: nn.MultiheadAttention(4, 2, dropout=0.1), "Multihead"),
    "LSTM with dropout": (lambda: nn.LSTM(2, 2, num_layers=2, dropout=0.1), "LSTM"),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8), "'self_attn'Multihead"),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)),
        "'parametrizations.weight.0'SpectralNorm",
    ),
}


def with_attribute(name: str, value: Any) -> nn.Module:
    module = nn.Linear(2, 2)
    setattr(module, name, value)
    return module


@pytest.mark.parametrize("name", COMPARABLE)
def test_models_that_can_be_compared_go_through(name: str) -> None:
    check_comparable(COMPARABLE[name]())


@pytest.mark.parametrize("name", INCOMPARABLE)
def test_models_that_cannot_be_compared_are_named(name: str) -> None:
    build, word = INCOMPARABLE[name]
    place, _, kind = word.rpartition("'")
    words = ["model", place.strip("'") or "(itself)", kind, "training mode", "model.eval()"]
    assert_names(lambda: check_comparable(build()), ValueError, words)
    model = build().eval()
    check_comparable(model)


def test_batch_norm_without_statistics_is_refused_in_any_mode() -> None:
    for norm in (nn.BatchNorm1d(2, track_running_stats=False), nn.BatchNorm1d(2).train()):
        with pytest.raises(ValueError, match=r"BatchNorm1d"):
            check_comparable(norm)
    assert_names(
        lambda: check_comparable(nn.BatchNorm1d(2, track_running_stats=False).eval()),
        ValueError,
        ["without running statistics", "track_running_stats=True"],
    )


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (3, 4), (1, 1, 8, 8)])
def test_batches_go_through(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    assert check_batch("x", x) is x
    assert check_tensor("x", x) is x


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(()), ValueError, ["x_o", "()", "(N, ...)", "x[None]"]),
        (torch.zeros(0, 3), ValueError, ["x_o", "(0, 3)", "at least one input"]),
        ([[1.0]], TypeError, ["x_o", "list", "torch.as_tensor"]),
        (np.zeros((2, 3)), TypeError, ["x_o", "ndarray", "torch.as_tensor"]),
        (None, TypeError, ["x_o", "NoneType"]),
    ],
)
def test_what_is_no_batch_is_named(x: Any, error: type[Exception], words: list[str]) -> None:
    assert_names(lambda: check_batch("x_o", x), error, words)


def test_what_is_no_tensor_is_named() -> None:
    value: Any = [1.0]
    assert_names(lambda: check_tensor("v", value), TypeError, ["v", "list", "torch.as_tensor"])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_labels_come_back_as_int64(dtype: torch.dtype) -> None:
    found = check_labels("y", torch.tensor([0, 2], dtype=dtype), count=2, classes=3)
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 2]
    assert check_labels("y", torch.zeros(0, dtype=dtype), count=0, classes=3).shape == (0,)
    assert check_labels("y", torch.tensor([99]).to(dtype), count=1).tolist() == [99]


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (torch.tensor([0, 3]), ValueError, ["y_u", "0 to 3", "0 to 2", "3 outputs", "renumber"]),
        (torch.tensor([-1, 2]), ValueError, ["y_u", "-1 to 2", "0 to 2"]),
        (torch.tensor([0]), ValueError, ["y_u", "(1,)", "(2,)", "one label for each input"]),
        (torch.tensor([[0, 1]]), ValueError, ["y_u", "(1, 2)", "(2,)"]),
        (torch.tensor([0.0, 1.0]), TypeError, ["y_u", "float32", "int64"]),
        (torch.tensor([0j, 1j]), TypeError, ["y_u", "complex64", "int64"]),
        (torch.tensor([True, False]), TypeError, ["y_u", "bool", "int64"]),
        ([0, 1], TypeError, ["y_u", "list", "int64"]),
    ],
)
def test_what_are_no_labels_is_named(y: Any, error: type[Exception], words: list[str]) -> None:
    assert_names(lambda: check_labels("y_u", y, count=2, classes=3), error, words)


def test_negative_labels_are_named_before_the_classes_are_known() -> None:
    assert_names(
        lambda: check_labels("y", torch.tensor([-100]), count=1), ValueError, ["-100", "at least 0"]
    )


def two_by_two(last: float) -> Tensor:
    return torch.tensor([[1.0, 2.0], [3.0, last]])


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([[1.0]], TypeError, ["J_o", "list", "(V, d)", "torch.as_tensor"]),
        (torch.eye(2).to_sparse(), TypeError, ["J_o", "sparse", "dense"]),
        (torch.ones(2, 2, device="meta"), TypeError, ["J_o", "meta device"]),
        (torch.ones(2, 2, dtype=torch.long), TypeError, ["J_o", "int64", ".float()"]),
        (torch.ones(2, 2, dtype=torch.complex64), TypeError, ["J_o", "complex64"]),
        (torch.ones(2, 2, dtype=torch.bool), TypeError, ["J_o", "bool"]),
        (torch.ones(2), ValueError, ["J_o", "(2,)", "(V, d)", "index or reshape it"]),
        (torch.ones(1, 2, 2), ValueError, ["J_o", "(1, 2, 2)", "(V, d)"]),
        (torch.ones(2, 0), ValueError, ["J_o", "(2, 0)", "size 0"]),
        (two_by_two(math.nan), ValueError, ["J_o", "nan at [1, 1]", "finite"]),
        (two_by_two(-math.inf), ValueError, ["J_o", "-inf at [1, 1]"]),
    ],
)
def test_what_is_no_matrix_of_finite_numbers_is_named(
    value: Any, error: type[Exception], words: list[str]
) -> None:
    assert_names(
        lambda: check_floats("J_o", value, dims=(2,), expected="(V, d)"),
        error,
        words,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_matrices_of_finite_numbers_go_through(dtype: torch.dtype) -> None:
    value = two_by_two(4.0).to(dtype).requires_grad_()
    assert check_floats("J", value, dims=(1, 2), expected="(V, d) or (d,)") is value
    assert check_floats("g", value[0], dims=(1, 2), expected="(V, d) or (d,)").shape == (2,)


def test_a_sum_that_overflows_is_of_finite_numbers() -> None:
    large = torch.full((2, 2), 3e38)
    assert is_finite(large)
    assert check_finite("x", large) is large
    assert not is_finite(two_by_two(math.nan))
    # infinities that cancel are NaN in a sum
    assert not is_finite(torch.tensor([math.inf, -math.inf]))


# ---- paths ---------------------------------------------------------------------------------------


def test_paths_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    here = tmp_path / "run"
    assert check_path("output", here) == here  # it need not be there yet
    assert check_path("output", str(here)) == here
    assert check_path("output", "~/run") == here


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        (None, TypeError, ["output", "None", "NoneType", "a path"]),
        (3, TypeError, ["output", "3", "int"]),
        ("", ValueError, ["output", "''", "file or folder"]),
        ("a\0b", ValueError, ["output", "file or folder", "rename"]),
        ("\ud800", ValueError, ["output", "file or folder"]),
        ("x" * 5000, ValueError, ["output", "5000 characters", "shorter"]),
        ("~no-such-user-here/run", ValueError, ["output", "no such home folder", "in full"]),
    ],
)
def test_what_is_no_path_is_named(path: Any, error: type[Exception], words: list[str]) -> None:
    assert_names(lambda: check_path("output", path), error, words)

"""A model's parameters, resolved once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zotutor.parameters import Parameters, resolve


def model() -> nn.Module:
    """A convolution, a tied matrix, a scalar, and a frozen part of odd dtypes."""
    found = nn.Module()
    found.convolution = nn.Conv2d(2, 3, 2)
    found.matrix = nn.Parameter(torch.randn(4, 5))
    found.tied = found.matrix
    found.scalar = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    for dtype in (torch.int8, torch.bool, torch.float8_e4m3fn, torch.complex64):
        frozen = nn.Parameter(torch.zeros(3, dtype=dtype), requires_grad=False)
        found.register_parameter(str(dtype).rpartition(".")[2], frozen)
    return found


def test_what_is_known() -> None:
    owner = model()
    params = resolve(owner)
    assert params.names == ("matrix", "scalar", "convolution.weight", "convolution.bias")
    assert params.tensors[0] is owner.matrix
    assert params.shapes == ((4, 5), (), (3, 2, 2, 2), (3,))
    assert params.sizes == (20, 1, 24, 3)
    assert params.offsets == (0, 20, 21, 45)
    assert params.d == 48
    assert params.matrices == ((4, 5), None, (3, 8), None)
    assert params.dtypes == (torch.float32, torch.float64, torch.float32, torch.float32)
    assert params.dtype == torch.float64
    assert str(params.device) == "cpu"
    assert params.model is owner
    assert len(params) == 4
    assert [(i, start, stop) for i, _, start, stop in params] == [
        (0, 0, 20),
        (1, 20, 21),
        (2, 21, 45),
        (3, 45, 48),
    ]
    assert all(tensor is params.tensors[i] for i, tensor, _, _ in params)


def test_resolving_twice_is_resolving_once() -> None:
    params = resolve(model())
    assert resolve(params) is params


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_split_and_flatten_are_inverse(batch: tuple[int, ...]) -> None:
    params = resolve(model())
    flat = torch.randn(*batch, params.d)
    parts = params.split(flat)
    assert [part.shape for part in parts] == [(*batch, *shape) for shape in params.shapes]
    assert torch.equal(params.flatten(parts), flat)
    for i, _, start, stop in params:
        assert torch.equal(parts[i].reshape(*batch, -1), flat[..., start:stop])


def test_named_parts_have_the_parameters_dtypes() -> None:
    params = resolve(model())
    named = params.split_named(torch.ones(params.d))
    assert tuple(named) == params.names
    assert tuple(part.dtype for part in named.values()) == params.dtypes
    assert not any(tensor.requires_grad for tensor in params.named().values())
    assert params.named()["matrix"].data_ptr() == params.tensors[0].data_ptr()


def test_a_wrong_number_of_parts_is_an_error() -> None:
    params = resolve(model())
    with pytest.raises(ValueError, match="argument"):
        params.flatten(params.tensors[:-1])
    with pytest.raises(RuntimeError, match="split_sizes"):
        params.split(torch.zeros(params.d + 1))


def test_several_devices_are_allowed_until_one_is_needed() -> None:
    tensors = [torch.zeros(2, requires_grad=True, device=device) for device in ("cpu", "meta")]
    params = resolve(tensors)
    assert tuple(map(str, params.devices)) == ("cpu", "meta")
    with pytest.raises(ValueError, match=r"cpu, meta, expected one device.*\.to\(device\)"):
        _ = params.device


@pytest.mark.parametrize("kind", ["named", "tensors", "pairs twice"])
def test_names_without_a_model(kind: str) -> None:
    owner = nn.Linear(2, 1)
    given: dict[str, Any] = {
        "named": owner.named_parameters(),
        "tensors": owner.parameters(),
        "pairs twice": [*owner.named_parameters(), ("again", owner.weight)],
    }
    params = resolve(given[kind])
    assert isinstance(params, Parameters)
    expected = ("parameter 0", "parameter 1") if kind == "tensors" else ("weight", "bias")
    assert params.names == expected
    assert params.model is None
    assert all(isinstance(tensor, Tensor) for tensor in params.tensors)

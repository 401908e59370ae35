"""The directions of a step: computed at once for small models, and the same numbers either way."""

from __future__ import annotations

import pytest
import torch

import zotutor as zo
from zotutor.directions import CHUNK, Directions, LowRank, draw

FAMILIES = [zo.Rademacher(), zo.Gaussian(), zo.Uniform(), zo.Sphere(), zo.Sparse(0.3)]


def parameters(*sizes: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.zeros(size, dtype=dtype, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_entries_computed_at_once_are_those_computed_at_each_read(
    family: Directions, dtype: torch.dtype
) -> None:
    tensors = parameters(300, 7, dtype=dtype)
    for p, drawn in enumerate(draw(family, tensors, P=3, seed=5, step=2)):
        fresh = family.at(tensors, seed=5, step=2, p=p)
        assert drawn == fresh
        for i in (0, 1, 0):  # in any order
            for kind in (torch.float32, dtype):
                size = tensors[i].numel()
                torch.testing.assert_close(
                    drawn.entries(i, 0, size, kind),
                    fresh.entries(i, 0, size, kind),
                    rtol=0,
                    atol=0,
                )


def test_of_a_small_model_up_to_16_megabytes_are_computed_at_once() -> None:
    small = draw(FAMILIES[0], parameters(CHUNK // 8), P=8, seed=0, step=0)
    assert all(one.parts is not None and len(one.parts) == 1 for one in small)
    wide = draw(FAMILIES[0], parameters(CHUNK // 8), P=128, seed=0, step=0)
    assert all(one.parts is not None for one in wide)
    many = draw(FAMILIES[0], parameters(CHUNK // 8), P=129, seed=0, step=0)
    large = draw(FAMILIES[0], parameters(CHUNK, 1), P=1, seed=0, step=0)
    assert all(direction.parts is None for direction in many + large)


def test_signs_of_many_parameters_are_those_of_each() -> None:
    """One pass over the words of all; sizes at and around multiples of 64, mixed dtypes, empty."""
    for dtypes in ([torch.float32], [torch.float64, torch.float32]):
        sizes = (0, 1, 63, 64, 65, 128, 129, 1)
        tensors = [
            torch.zeros(size, dtype=dtypes[k % len(dtypes)], requires_grad=True)
            for k, size in enumerate(sizes)
        ]
        family = zo.Rademacher()
        for p, drawn in enumerate(draw(family, tensors, P=2, seed=1 << 63, step=9)):
            fresh = family.at(tensors, seed=1 << 63, step=9, p=p)
            assert drawn.parts is not None
            for i, tensor in enumerate(tensors):
                assert drawn.parts[i].dtype == tensor.dtype
                assert torch.equal(
                    drawn.parts[i].view(-1), fresh.entries(i, 0, sizes[i], tensor.dtype)
                )


def test_a_step_of_a_small_model_draws_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    parts = zo.Rademacher._parts

    def counted(self: zo.Rademacher, *args: object) -> tuple[torch.Tensor, ...]:
        drawn.append(1)
        return parts(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(zo.Rademacher, "_parts", counted)
    (theta,) = tensors = parameters(20)
    zo.ZOSGD(tensors, lr=0.1, P=4, seed=0).step(lambda: theta.square().sum())
    assert len(drawn) == 4


def test_small_and_large_models_take_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for chunk in (CHUNK, 64):  # with 64 nothing fits, and parameters are cut into pieces
        monkeypatch.setattr("zotutor.directions.CHUNK", chunk)
        (theta,) = tensors = parameters(1000)
        zo.ZOSGD(tensors, lr=0.1, P=3, seed=0).step(lambda: (theta - 1).square().sum())  # noqa: B023
        found.append(theta.detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("kept", [True, False])
def test_factors_are_kept_for_all_matrices_or_the_last(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three matrices, 70 numbers each in three directions."""
    monkeypatch.setattr("zotutor.directions.CHUNK", 64)
    monkeypatch.setattr("zotutor.directions.CACHED", 3 * 3 * 70 - (not kept))
    tensors = [torch.zeros(30, 40, requires_grad=True) for _ in range(3)]
    family = LowRank(1)
    for p, direction in enumerate(draw(family, tensors, P=3, seed=1, step=2)):
        fresh = family.at(tensors, seed=1, step=2, p=p)
        for i in (0, 1, 0, 2, 1):
            found = family.factors(direction, i, torch.float32)
            for part, expected in zip(found, family.factors(fresh, i, torch.float32), strict=True):
                assert torch.equal(part, expected)
        assert len(direction.factor_cache) == (3 if kept else 1)
        assert len(fresh.factor_cache) == 1

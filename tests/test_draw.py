"""The directions of a step: kept where they are small, and the same numbers either way."""

from __future__ import annotations

import pytest
import torch

import zotutor as zo
from zotutor.directions import CHUNK, Direction, Directions, LowRank, draw

FAMILIES = [zo.Rademacher(), zo.Gaussian(), zo.Sphere(), zo.Sparse(0.3)]


def parameters(*sizes: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.zeros(size, dtype=dtype, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kept_entries_are_those_computed_anew(family: Directions, dtype: torch.dtype) -> None:
    tensors = parameters(300, 7, dtype=dtype)
    for p, drawn in enumerate(draw(family, tensors, P=3, seed=5, step=2)):
        anew = family.at(tensors, seed=5, step=2, p=p)
        assert drawn == anew
        for i in (0, 1, 0):  # the second time from what was kept
            for kind in (torch.float32, dtype):
                size = tensors[i].numel()
                torch.testing.assert_close(
                    drawn.entries(i, 0, size, kind),
                    anew.entries(i, 0, size, kind),
                    rtol=0,
                    atol=0,
                )


def test_at_most_a_chunk_is_kept() -> None:
    small = parameters(CHUNK // 8)
    assert all(direction.kept == {} for direction in draw(FAMILIES[0], small, P=8, seed=0, step=0))
    many = draw(FAMILIES[0], small, P=9, seed=0, step=0)
    large = draw(FAMILIES[0], parameters(CHUNK, 1), P=1, seed=0, step=0)
    assert all(direction.kept is None for direction in many + large)


def test_a_step_hashes_each_entry_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    entries = zo.Rademacher._entries

    def counted(self: zo.Rademacher, *args: object) -> torch.Tensor:
        drawn.append(1)
        return entries(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(zo.Rademacher, "_entries", counted)
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


@pytest.mark.parametrize("P", [1, 3])
def test_factors_of_large_matrices_are_kept_as_far_as_they_fit_a_chunk(
    P: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three matrices; room for the factors of two of them in each direction, at most."""
    monkeypatch.setattr("zotutor.directions.CHUNK", 2 * P * 70)
    tensors = [torch.zeros(30, 40, requires_grad=True) for _ in range(3)]
    family = LowRank(1)
    drawn = draw(family, tensors, P=P, seed=1, step=2)
    for p, direction in enumerate(drawn):
        anew = family.at(tensors, seed=1, step=2, p=p)
        for i in (0, 1, 0, 2, 1):
            found = family.factors(direction, i, torch.float32)
            for part, expected in zip(found, anew_factors(anew, i), strict=True):
                assert torch.equal(part, expected)
            held = sum(a.numel() + b.numel() for a, b in direction.thin.values())
            assert 70 <= held <= 140
        assert len(direction.thin) == 2
        assert len(anew.thin) == 1


def anew_factors(direction: Direction, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Without room: only what was asked for last is held."""
    return LowRank(1).factors(direction, i, torch.float32)

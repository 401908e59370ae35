"""Stochastic rounding; updates in half precision that are not lost; runs taken again."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.rounding import round_stochastically
from zotutor.streams import Stream, uniforms

HALVES = [torch.bfloat16, torch.float16]
each_half = pytest.mark.parametrize("dtype", HALVES, ids=str)


def rounded(values: Tensor, dtype: torch.dtype, seed: int = 0, start: int = 0) -> Tensor:
    return round_stochastically(values.float(), dtype, Stream.of(seed), start)


def all_of(dtype: torch.dtype) -> Tensor:
    """Every number of a half precision, finite ones in order."""
    found = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    return found[found.isfinite()].float().sort().values.to(dtype)


def around(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The largest number of ``dtype`` that is at most each value, the smallest at least it."""
    grid = all_of(dtype).double().unique()
    values = values.double()
    below = grid[torch.searchsorted(grid, values, right=True) - 1]
    return below, grid[torch.searchsorted(grid, values)]


def spread(dtype: torch.dtype) -> Tensor:
    """Values of both signs, from subnormals to the largest that fits, and some between two."""
    info = torch.finfo(dtype)
    source = torch.Generator().manual_seed(1)
    size = torch.rand(4000, generator=source, dtype=torch.float64)
    low, high = math.log(info.smallest_normal) - 6, math.log(info.max)
    values = (low + (high - low) * size).exp().clamp(max=info.max)
    values *= torch.rand(4000, generator=source).sub(0.5).sign().add(0.1).sign()
    tiny = (torch.rand(1000, generator=source, dtype=torch.float64) - 0.5) * 8
    return torch.cat([values, tiny * info.smallest_normal * info.eps]).float()


@each_half
def test_every_value_goes_to_a_neighbor(dtype: torch.dtype) -> None:
    values = spread(dtype)
    below, above = around(values, dtype)
    seen_below = seen_above = 0
    for seed in range(8):
        found = rounded(values, dtype, seed)
        assert found.dtype == dtype
        exact = found.double()
        assert bool(((exact == below) | (exact == above)).all())
        between = below < above
        seen_below += int((exact == below)[between].sum())
        seen_above += int((exact == above)[between].sum())
    assert min(seen_below, seen_above) > 0.4 * (seen_below + seen_above)


@each_half
def test_bits_are_those_of_the_definition(dtype: torch.dtype) -> None:
    """Old ledgers hold hashes of weights that were rounded so: the same draws, the same bits."""
    values = torch.cat([spread(dtype), all_of(dtype).float() * (1 + 2**-12), torch.tensor([-0.0])])
    for seed in range(4):
        nearest = values.to(dtype)
        missing = values - nearest.float()
        toward = torch.where(missing > 0, torch.inf, -torch.inf).to(dtype)
        neighbor = torch.nextafter(nearest, toward)
        gap = (neighbor.double() - nearest.double()).abs()
        chance = uniforms(Stream.of(seed), slice(0, values.numel()), values.device)
        expected = torch.where(chance * gap < missing.abs(), neighbor, nearest)
        found = rounded(values, dtype, seed)
        assert bool((found.view(torch.int16) == expected.view(torch.int16)).all())


@each_half
def test_what_can_be_held_is_kept(dtype: torch.dtype) -> None:
    """Every finite number of the dtype, zeros with their signs, subnormals and the largest."""
    values = all_of(dtype)
    for seed in range(3):
        found = rounded(values, dtype, seed)
        assert torch.equal(found.view(torch.int16), values.view(torch.int16))


@each_half
def test_what_is_no_number_stays_so(dtype: torch.dtype) -> None:
    found = rounded(torch.tensor([math.nan, math.inf, -math.inf]), dtype)
    assert math.isnan(found[0])
    assert found[1:].tolist() == [math.inf, -math.inf]
    # beyond the largest number, and less than half a spacing: not to infinity
    largest = torch.finfo(dtype).max
    beyond = torch.tensor([largest, -largest]) * (1 + torch.finfo(dtype).eps / 8)
    assert rounded(beyond, dtype).tolist() == [largest, -largest]


@each_half
@pytest.mark.statistical
def test_each_value_is_rounded_to_itself_on_average(dtype: torch.dtype) -> None:
    """For 60 values, 20,000 draws each: each mean within 4.5 standard errors.

    A value goes up with probability (value - below) / gap, so that the standard error is known.
    All 60 hold with 99.96 %; the sum of squares is a chi-square with 60 degrees, below 107 with
    99.98 %.
    """
    source = torch.Generator().manual_seed(2)
    info = torch.finfo(dtype)
    scales = torch.tensor([1.0, 3e-5, 1000.0, info.max / 4, info.smallest_normal * 0.3, 1e-3])
    fractions = torch.rand(10, generator=source) * 2 - 1
    values = (scales[:, None] * fractions).flatten()
    below, above = around(values, dtype)
    gap = above - below
    assert bool((gap > 0).all())
    n = 20_000
    many = values.repeat(n)
    ups = rounded(many, dtype, seed=5).double().view(n, -1) == above
    chance = (values.double() - below) / gap
    z = (ups.double().mean(0) - chance) / (chance * (1 - chance) / n).sqrt()
    assert z.abs().max() < 4.5, z
    assert z.square().sum() < 107


@each_half
@pytest.mark.statistical
def test_a_value_next_to_a_power_of_two_knows_its_own_spacing(dtype: torch.dtype) -> None:
    """Below 1 the spacing is half of that above: 4 standard errors, 99.99 % each."""
    eps, n = torch.finfo(dtype).eps, 40_000
    for value in (1 - eps / 8, 1 + eps / 8, -1 + eps / 8, -1 - eps / 8):
        found = rounded(torch.full((n,), value), dtype, seed=6).double()
        error = found.std() / math.sqrt(n)
        assert abs(found.mean() - value) < 4 * error


def test_the_same_seed_gives_the_same_bits_in_any_pieces() -> None:
    values = spread(torch.bfloat16)
    whole = rounded(values, torch.bfloat16, seed=7)
    assert torch.equal(whole, rounded(values, torch.bfloat16, seed=7))
    assert not torch.equal(whole, rounded(values, torch.bfloat16, seed=8))
    for cut in (1, 2, 333):
        parts = [
            rounded(values[low : low + cut], torch.bfloat16, seed=7, start=low)
            for low in range(0, 999, cut)
        ]
        assert torch.equal(torch.cat(parts)[:999], whole[:999])


# ---- ZOSGD in half precision --------------------------------------------------------------------

N = 1 << 16


@each_half
@pytest.mark.statistical
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_updates_below_half_a_spacing_are_not_lost(dtype: torch.dtype, momentum: float) -> None:
    """theta at 1, lr g a twentieth of a spacing: its mean movement along u over 65,536 parameters.

    Each goes a whole spacing with probability about 1/20 (in the direction of -g u), so that the
    standard error of the mean movement is known: within 4 of them, 99.99 %. Rounded to nearest, no
    parameter would move.
    """
    spacing = torch.finfo(dtype).eps
    theta = torch.ones(N, dtype=dtype, requires_grad=True)
    optimizer = zo.ZOSGD([theta], 0.05 * spacing, seed=4, momentum=momentum)
    u = zo.Rademacher().dense([theta], P=1, seed=4, step=0)[:, 0].double()
    optimizer.replay([0.5])
    moved = theta.detach().double() - 1
    wanted = -0.05 * spacing * 0.5 * u

    naive = torch.ones(N, dtype=dtype)
    naive.add_((wanted).to(dtype))
    assert int((naive != 1).sum()) == 0  # what rounding to nearest does

    # below 1 the spacing is half of that above
    gap = torch.where(u > 0, spacing / 2, spacing)
    chance = wanted.abs() / gap
    error = (gap.square() * chance * (1 - chance)).sum().sqrt() / N
    along = float(-(moved * u).mean())
    assert abs(along - 0.025 * spacing) < 4 * float(error)
    assert along > 10 * float(error)  # it did move
    # parameter by parameter too: no movement against the update
    assert bool((moved * u <= 0).all())


@pytest.mark.statistical
def test_a_run_in_bfloat16_follows_the_run_in_float32() -> None:
    """200 steps of lr g around a hundredth of a spacing; 5 standard errors of the mean."""
    source = torch.Generator().manual_seed(1)
    start = torch.rand(20_000, generator=source).add(1).to(torch.bfloat16)
    coarse = start.clone().requires_grad_()
    fine = start.float().requires_grad_()
    for theta in (coarse, fine):
        optimizer = zo.ZOSGD([theta], 1e-4, seed=2)
        for step in range(200):
            optimizer.replay([math.cos(step)])
    off = (coarse.detach().double() - fine.detach().double()).flatten()
    assert abs(off.mean()) < 5 * off.std() / math.sqrt(len(off))
    true = fine.detach().double() - start.double()
    seen = coarse.detach().double() - start.double()
    slope = float((seen * true).sum() / true.square().sum())
    error = float(off.std() / true.norm())
    assert abs(slope - 1) < 5 * error
    assert error < 0.1


@each_half
def test_stochastic_rounding_is_a_function_of_seed_and_step(dtype: torch.dtype) -> None:
    def run(seed: int, steps: int = 2) -> Tensor:
        theta = torch.ones(500, dtype=dtype, requires_grad=True)
        optimizer = zo.ZOSGD([theta], 1e-3, seed=seed)
        for _ in range(steps):
            optimizer.replay([0.7])
        return theta.detach()

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_rounding_is_independent_of_the_direction() -> None:
    """Over 65,536 parameters, moved or not against the sign of u: 4 standard errors, 99.99 %."""
    theta = torch.full((N,), 1.5, dtype=torch.bfloat16, requires_grad=True)
    optimizer = zo.ZOSGD([theta], 2**-9, seed=4)
    u = zo.Rademacher().dense([theta], P=1, seed=4, step=0)[:, 0]
    optimizer.replay([1.0])  # a quarter of a spacing
    stepped = (theta.detach() != 1.5).double()
    ups, downs = stepped[u < 0], stepped[u > 0]
    assert abs(ups.mean() - downs.mean()) < 4 * math.sqrt(0.25 * 0.75 * 4 / N)
    assert abs(stepped.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / N)


# ---- replay -------------------------------------------------------------------------------------


def network(dtype: torch.dtype) -> nn.Module:
    return zo.models.mlp(8, 1, inputs=6, outputs=3, seed=0).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=str)
@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian(), zo.LowRank(2)], ids=repr)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.01}], ids=str)
def test_a_run_is_taken_again_bit_for_bit_from_its_coefficients(
    dtype: torch.dtype, family: zo.directions.Directions, options: dict[str, Any]
) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(7, 6, generator=source).to(dtype)
    y = torch.arange(7) % 3
    model = network(dtype)
    again = copy.deepcopy(model)
    common: dict[str, Any] = {"P": 3, "directions": family, "seed": 9, **options}
    optimizer = zo.ZOSGD(model.parameters(), 0.01, **common)
    start = [p.detach().clone() for p in model.parameters()]

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(x).float(), y)

    kept = []
    for step in range(5):
        found = zo.estimators.projected_gradients(
            loss, model.parameters(), P=3, directions=family, seed=9, step=step
        )
        kept.append(found.coefficients)
        assert float(optimizer.step(loss)) == found.loss
    replayed = zo.ZOSGD(again.parameters(), 0.01, **common)
    for coefficients in kept:
        replayed.replay(coefficients)
    assert replayed.steps_taken == 5
    for p, q, old in zip(model.parameters(), again.parameters(), start, strict=True):
        assert torch.equal(p.detach(), q.detach())
        assert not torch.equal(p.detach(), old)


def test_a_replay_goes_on_where_a_run_stopped() -> None:
    theta = torch.ones(50, requires_grad=True)
    other = theta.detach().clone().requires_grad_()
    one = zo.ZOSGD([theta], 0.1, seed=1)
    for g in (0.3, -0.2, 0.5):
        one.replay([g])
    two = zo.ZOSGD([other], 0.1, seed=1)
    two.replay([0.3])
    three = zo.ZOSGD([other], 0.1, seed=1)
    three.load_state_dict(two.state_dict())
    for g in (-0.2, 0.5):
        three.replay([g])
    assert torch.equal(theta, other)


@pytest.mark.parametrize("wrong", [[], [1.0], [1.0, 2.0, 3.0], [1.0, math.nan], [math.inf, 0.0]])
def test_coefficients_that_cannot_be_are_refused(wrong: list[float]) -> None:
    theta = torch.ones(3, requires_grad=True)
    optimizer = zo.ZOSGD([theta], 0.1, P=2, seed=0)
    with pytest.raises(ValueError, match=r"coefficients: given .* expected 2 finite numbers"):
        optimizer.replay(wrong)
    assert theta.tolist() == [1.0, 1.0, 1.0]
    assert optimizer.steps_taken == 0

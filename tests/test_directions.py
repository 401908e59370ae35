"""Directions: pure functions of five integers, with the moments that every law takes for granted.

Statistical tests have fixed seeds. Unless one says otherwise, its bound is five standard errors of
a nearly normal mean: for one comparison, one failure in 1.7 million if the package is right.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
from collections.abc import Sequence
from typing import Any

import naive
import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor import directions
from zotutor.directions import (
    CHUNK,
    Direction,
    Directions,
    check_draw,
    draw,
    from_name,
    name_of,
    weighted_sum,
    weighted_sums,
)
from zotutor.streams import Stream

IID: list[Directions] = [zo.Rademacher(), zo.Gaussian(), zo.Uniform(), zo.Sparse(0.25)]
FAMILIES: list[Directions] = [*IID, zo.Sphere(), zo.LowRank(2)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(3, 4), (), (5,), (2, 3, 2), (70,)]
BIG = (2**64 - 1, 2**63 - 1, 2**63 - 1)

families = pytest.mark.parametrize("family", FAMILIES, ids=repr)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def zeros(
    *shapes: Sequence[int], dtype: torch.dtype = torch.float32, count: int = 0
) -> list[Tensor]:
    return [torch.zeros(tuple(s), dtype=dtype, requires_grad=True) for s in shapes]


def naively(family: Directions, **name: int) -> list[list[float]]:
    if isinstance(family, zo.Sphere):
        return naive.sphere(SHAPES, **name)
    if isinstance(family, zo.LowRank):
        return naive.low_rank(family.rank, SHAPES, **name)
    if isinstance(family, zo.Sparse):
        return naive.direction(naive.sparse(family.density), SHAPES, **name)
    plain = {
        zo.Rademacher: naive.rademacher,
        zo.Gaussian: naive.gaussian,
        zo.Uniform: naive.symmetric_uniform,
    }
    return naive.direction(plain[type(family)], SHAPES, **name)


# ---- the same numbers everywhere ---------------------------------------------------------------

GOLDEN: list[tuple[tuple[int, int, int, int], int, list[float]]] = [
    # (seed, step, p, parameter); the first 64 signs, +1 a set bit, lowest first; four normals
    ((0, 0, 0, 0), 0x4A5101FA870AC6CF, [-1.549363141, -0.270489292, -0.805831909, -1.282036249]),
    ((1, 0, 0, 0), 0x7FE952BFF02E76C9, [1.090325463, -0.445947647, 1.702226797, -0.629551894]),
    ((0, 1, 0, 0), 0x13E19A5E83D2449D, [-2.250771754, -0.21172167, 0.563770367, -0.293118669]),
    ((0, 0, 1, 0), 0xE8F6CDA381AC7A65, [-0.433898953, -0.017834526, 0.6279879, -0.76749636]),
    ((0, 0, 0, 1), 0x5207B982C8B0A966, [0.319351897, -1.474515152, 1.402526074, 2.317421653]),
    ((*BIG, 7), 0xE315B0C18DC21D85, [-0.461950788, -0.162203447, -0.747745126, -0.326070653]),
    ((20260511, 41, 3, 2), 0x436BCA450B61CCF5, [1.570208635, 0.450427588, -1.446776098, 2.1315781]),
]


@pytest.mark.parametrize(("name", "word", "normals"), GOLDEN)
def test_golden_values(name: tuple[int, int, int, int], word: int, normals: list[float]) -> None:
    seed, step, p, i = name
    tensors = zeros(*[(8, 8)] * 8)
    signs = zo.Rademacher().at(tensors, seed=seed, step=step, p=p).tensor(i).view(-1).tolist()
    assert signs == [2.0 * (word >> k & 1) - 1 for k in range(64)]
    drawn = zo.Gaussian().at(tensors, seed=seed, step=step, p=p).tensor(i).view(-1)[:4]
    assert drawn.tolist() == pytest.approx(normals, abs=1e-6)
    whole = zo.Sparse(1.0).at(tensors, seed=seed, step=step, p=p).tensor(i).view(-1)[:4]
    assert torch.equal(whole, drawn)


def test_golden_values_far_out() -> None:
    (tensor,) = zeros((1,))
    direction = zo.Rademacher().at([tensor], seed=0, step=0)
    ends = [63, 64, 127, 10**6, 10**12, 2**40 + 5]
    signs = [float(direction.entries(0, j, j + 1, torch.float32)) for j in ends]
    assert signs == [naive.rademacher(0, 0, 0, 0, j) for j in ends]
    assert signs[:2] == [-1.0, -1.0]
    assert signs[3] == 1.0


@families
@pytest.mark.parametrize("name", [(0, 0, 0), (7, 2, 1), (2**63, 1, 0), BIG])
def test_directions_are_those_of_plain_python(
    family: Directions, name: tuple[int, int, int]
) -> None:
    seed, step, p = name
    want = naively(family, seed=seed, step=step, p=p)
    direction = family.at(zeros(*SHAPES, dtype=torch.float64), seed=seed, step=step, p=p)
    for i, part in enumerate(want):
        got = direction.tensor(i, torch.float64)
        assert got.shape == SHAPES[i]
        expected = torch.tensor(part, dtype=torch.float64).view(SHAPES[i])
        if isinstance(family, (zo.Rademacher, zo.Uniform)):  # integers, and at most one rounding
            assert torch.equal(got, expected)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@families
@dtypes
def test_every_dtype_sees_the_same_numbers(family: Directions, dtype: torch.dtype) -> None:
    direction = family.at(zeros(*SHAPES, dtype=dtype), seed=3, step=1, p=2)
    for i in range(len(SHAPES)):
        exact, rounded = direction.tensor(i, torch.float64), direction.tensor(i, dtype)
        assert rounded.dtype == dtype
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(rounded.double(), exact, rtol=2 * unit, atol=2e-7)
        if not isinstance(family, (zo.LowRank, zo.Sphere)):  # these multiply rounded numbers
            assert torch.equal(rounded, exact.float().to(dtype) if unit > 1e-7 else exact.to(dtype))


@families
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(150,), (10, 15), (3, 5, 10)], ids=str)
def test_any_slice_shows_the_same_entries(
    family: Directions, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    direction = family.at(zeros((4,), shape), seed=5, step=6, p=7)
    whole = direction.entries(1, 0, 150, dtype)
    for start in range(150):
        for stop in {start, start + 1, start + 2, start + 64, 149, 150}:
            if start <= stop <= 150:
                got = direction.entries(1, start, stop, dtype)
                assert torch.equal(got, whole[start:stop]), (start, stop)


@families
@pytest.mark.parametrize("shape", [(CHUNK + 200,), (CHUNK // 64 + 2, 100)], ids=str)
def test_slices_across_the_border_of_a_chunk(family: Directions, shape: tuple[int, ...]) -> None:
    direction = family.at(zeros(shape), seed=5, step=6, p=7)
    whole = direction.tensor(0).view(-1)
    low = CHUNK - 70
    across = direction.entries(0, low, CHUNK + 130, torch.float32)
    assert torch.equal(across, whole[low : CHUNK + 130])
    for offset in (-65, -64, -63, -1, 0, 1, 63, 64, 65):
        start = CHUNK + offset
        for stop in (start + 1, start + 2, start + 64):
            got = direction.entries(0, start, stop, torch.float32)
            assert torch.equal(got, whole[start:stop]), (start, stop)


@families
@dtypes
def test_rows_of_a_matrix_are_its_entries(family: Directions, dtype: torch.dtype) -> None:
    direction = family.at(zeros((3,), (11, 6)), seed=1, step=2)
    matrix = direction.tensor(1, dtype)
    numbers = torch.tensor([[3, 10, 3], [0, 9, 1]])
    got = direction.rows(1, numbers, dtype)
    assert got.shape == (2, 3, 6)
    assert torch.equal(got, matrix[numbers])
    assert torch.equal(direction.rows(1, numbers.int(), dtype), got)


@families
def test_perturbing_a_part_is_a_part_of_the_perturbed(family: Directions) -> None:
    theta = torch.linspace(-1, 1, 77).view(7, 11).requires_grad_()
    direction = family.at([theta], seed=1, step=2)
    whole = direction.perturbed(0, theta, 0.3)
    assert whole.shape == theta.shape
    for start, stop in [(0, 77), (0, 11), (5, 60), (76, 77), (11, 33)]:
        part = direction.perturbed(0, theta, 0.3, start, stop)
        assert torch.equal(part, whole.view(-1)[start:stop])


@families
def test_the_order_of_visits_does_not_matter(family: Directions) -> None:
    tensors = zeros(*SHAPES)
    first = family.at(tensors, seed=1, step=2)
    forward = [first.tensor(i) for i in range(len(SHAPES))]
    second = family.at(tensors, seed=1, step=2)
    backward = [second.tensor(i) for i in reversed(range(len(SHAPES)))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one, other)


@families
def test_names_do_not_matter_and_frozen_and_tied_parameters_take_no_place(
    family: Directions,
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Parameter(torch.zeros(9), requires_grad=False)
            self.first = nn.Linear(4, 3)
            self.second = nn.Linear(4, 3, bias=False)
            self.second.weight = self.first.weight
            self.third = nn.Linear(3, 2)

    model = Model()
    alone = zeros((3, 4), (3,), (2, 3), (2,))
    want = family.dense(alone, P=3, seed=1, step=2)
    several: list[Any] = [
        model,
        model.parameters(),
        model.named_parameters(),
        list(model.parameters()),
        list(dict(model.named_parameters()).items()),
        [*model.first.parameters(), model.second.weight, *model.third.parameters()],
    ]
    for params in several:
        assert torch.equal(family.dense(params, P=3, seed=1, step=2), want)


@families
def test_columns_of_dense_are_the_directions_one_by_one(family: Directions) -> None:
    tensors = zeros((300, 7), (5,), ())
    dense = family.dense(tensors, P=5, seed=9, step=4)
    assert dense.shape == (2106, 5)
    assert dense.dtype == torch.float32
    for p in range(5):
        one = family.at(tensors, seed=9, step=4, p=p)
        column = torch.cat([one.tensor(i).view(-1) for i in range(3)])
        assert torch.equal(dense[:, p], column)
    assert torch.equal(family.dense(tensors, P=2, seed=9, step=4), dense[:, :2])
    assert torch.equal(family.dense(tensors, P=2, seed=9, step=4, first=3), dense[:, 3:])


@families
def test_dense_is_the_same_for_large_parameters(family: Directions) -> None:
    tensors = zeros((CHUNK + 3,), (2, 5))
    dense = family.dense(tensors, P=2, seed=9, step=4)
    for p in range(2):
        one = family.at(tensors, seed=9, step=4, p=p)
        assert torch.equal(dense[:, p], torch.cat([one.tensor(i).view(-1) for i in range(2)]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([torch.bfloat16], torch.float32),
        ([torch.float16, torch.float32], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
    ],
)
def test_dense_is_float64_if_a_parameter_is(
    given: list[torch.dtype], expected: torch.dtype
) -> None:
    tensors = [torch.zeros(3, dtype=dtype, requires_grad=True) for dtype in given]
    assert zo.Gaussian().dense(tensors, P=1, seed=0, step=0).dtype == expected


def test_weighted_sum_is_the_sum_of_directions() -> None:
    tensors = zeros((100,), (70,))
    drawn = [zo.Gaussian().at(tensors, seed=0, step=0, p=p) for p in range(3)]
    weights = [0.5, -2.0, 1e-3]
    got = weighted_sum(drawn, weights, 1, 5, 60, torch.float64)
    parts = [w * u.tensor(1, torch.float64) for w, u in zip(weights, drawn, strict=True)]
    torch.testing.assert_close(got, sum(parts, torch.zeros(()))[5:60], rtol=1e-14, atol=1e-14)
    assert weighted_sum(drawn, weights, 1, 5, 60, torch.bfloat16).dtype == torch.float32


@families
@pytest.mark.parametrize("chunk", [2, CHUNK], ids=["large", "small"])
@pytest.mark.parametrize(
    "given",
    [[torch.float32] * 3, [torch.bfloat16, torch.float64, torch.float32]],
    ids=["one dtype", "several dtypes"],
)
def test_the_directions_of_a_step_are_those_made_one_by_one(
    family: Directions, chunk: int, given: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: they come from the same integers, whether they are held or computed later."""
    monkeypatch.setattr(directions, "CHUNK", chunk)
    shapes = [(3, 4), (5,), (2, 3, 2)]
    tensors = [
        torch.zeros(shape, dtype=dtype, requires_grad=True)
        for shape, dtype in zip(shapes, given, strict=True)
    ]
    drawn = draw(family, tensors, P=3, seed=4, step=1)
    assert len(drawn) == 3
    for p, one in enumerate(drawn):
        alone = family.at(tensors, seed=4, step=1, p=p)
        assert one == alone
        assert repr(one) == repr(alone)
        assert (one.parts is None) == (chunk == 2)
        for i, dtype in enumerate(given):
            assert torch.equal(one.tensor(i, dtype), alone.tensor(i, dtype))
            n = tensors[i].numel()
            for start, stop in ((0, n), (1, n), (0, n - 1), (1, n - 1)):
                found = one.entries(i, start, stop, dtype)
                assert torch.equal(found, alone.entries(i, start, stop, dtype))


@pytest.mark.parametrize(("room", "kept"), [(None, 2), (90, 2), (89, 1)])
def test_factors_of_a_step_are_kept_unless_they_are_many(
    room: int | None, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions, "CHUNK", 2)
    if room is not None:
        monkeypatch.setattr(directions, "CACHED", room)
    tensors = zeros((3, 4), (5,), (2, 3, 2))  # rank 2 of (3, 4) and (2, 6): 30 numbers, 3 times
    for one in draw(zo.LowRank(2), tensors, P=3, seed=0, step=0):
        for i in range(3):
            one.tensor(i)
        assert len(one.factor_cache) == kept


def test_a_weight_too_few_or_a_parameter_too_few_is_an_error() -> None:
    tensors = zeros((4,), (3,))
    drawn = draw(zo.Gaussian(), tensors, P=3, seed=0, step=0)
    for weights in ([1.0, 2.0], [1.0, 2.0, 3.0, 4.0]):
        with pytest.raises(ValueError, match="argument"):
            weighted_sum(drawn, weights, 0, 0, 4, torch.float32)
        with pytest.raises(ValueError, match="argument"):
            weighted_sums(drawn, weights)
    with pytest.raises(ValueError, match="argument"):
        drawn[0].all_perturbed(tensors[:1], 0.5)


def test_sums_for_all_parameters_at_once_are_those_one_by_one() -> None:
    tensors = zeros((100,), (7, 10), ())
    drawn = draw(zo.Gaussian(), tensors, P=3, seed=0, step=0)
    weights = [0.5, -2.0, 1e-3]
    for i, found in enumerate(weighted_sums(drawn, weights)):
        expected = weighted_sum(drawn, weights, i, 0, tensors[i].numel(), torch.float32)
        torch.testing.assert_close(found.view(-1), expected, rtol=1e-6, atol=1e-6)


def test_nothing_is_drawn_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    zo.Gaussian().dense(zeros((10,)), P=2, seed=0, step=0)
    assert torch.equal(torch.get_rng_state(), before)


# ---- objects -----------------------------------------------------------------------------------


@families
def test_families_are_values(family: Directions) -> None:
    names = {name: getattr(zo, name) for name in zo.__all__ if name[0].isupper()}
    assert eval(repr(family), names) == family
    assert pickle.loads(pickle.dumps(family)) == family
    assert copy.deepcopy(family) == family
    assert hash(family) == hash(copy.copy(family))
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        family.density = 0.3  # type: ignore[attr-defined]


def test_families_that_differ_are_not_equal() -> None:
    several = [*FAMILIES, zo.Sparse(0.5), zo.LowRank(3)]
    assert len(set(several)) == len(several)
    assert len({repr(family) for family in several}) == len(several)


def test_a_direction_holds_no_numbers() -> None:
    direction = zo.Gaussian().at(zeros((1000, 1000)), seed=0, step=0)
    assert len(pickle.dumps(direction)) < 1000


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("rademacher", zo.Rademacher()),
        ("gaussian", zo.Gaussian()),
        ("uniform", zo.Uniform()),
        ("sphere", zo.Sphere()),
        ("sparse:0.123", zo.Sparse(0.123)),
        ("lowrank:4", zo.LowRank(4)),
    ],
)
def test_a_family_is_found_by_its_name(text: str, family: Directions) -> None:
    assert name_of(family) == text
    assert from_name(text) == family


@pytest.mark.parametrize(
    "text", ["cauchy", "sparse", "sparse:x", "sparse:2", "lowrank:0", "sphere:3", ""]
)
def test_another_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"directions: given '{text}'"):
        from_name(text)


def test_a_family_of_ones_own_has_no_name() -> None:
    class Own(zo.Gaussian):
        pass

    with pytest.raises(TypeError, match=r"a family of zotutor\.directions"):
        name_of(Own())


# ---- statistics of the words --------------------------------------------------------------------


def words(*name: int, count: int) -> Tensor:
    return Stream.of(*name).words(0, count, "cpu")


def as_signs(values: Tensor) -> Tensor:
    """(n,) int64 to (n, 64) signs."""
    return ((values[:, None] >> torch.arange(64)) & 1).double().mul_(2).sub_(1)


NEIGHBORS: dict[str, list[tuple[int, ...]]] = {
    "seed": [(s, 0, 0, 0) for s in range(8)],
    "seed, high bits": [(1 << k, 0, 0, 0) for k in range(56, 64)],
    "step": [(0, t, 0, 0) for t in range(8)],
    "p": [(0, 0, p, 0) for p in range(8)],
    "parameter": [(0, 0, 0, i) for i in range(8)],
    "purpose": [(0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 1), (0, 0, 0, 0, 2)],
    "exchanged": [*itertools.permutations((1, 2, 3, 4))][:8],
}


@pytest.mark.statistical
@pytest.mark.parametrize("kind", NEIGHBORS)
def test_neighboring_streams_are_uncorrelated(kind: str) -> None:
    # 2^17 signs a stream: a correlation has standard error 2^-8.5. At most 28 pairs and 3 lags.
    rows = torch.stack([as_signs(words(*name, count=2048)).view(-1) for name in NEIGHBORS[kind]])
    for lag in (0, 1, 64):
        shifted = rows.roll(lag, dims=1)
        correlation = rows @ shifted.T / rows.shape[1]
        if lag == 0:
            assert torch.equal(correlation.diagonal(), torch.ones(len(rows)).double())
            correlation.fill_diagonal_(0)
        assert correlation.abs().max() < 5 / math.sqrt(rows.shape[1])


@pytest.mark.statistical
def test_every_bit_of_a_word_is_balanced_and_independent_of_the_others() -> None:
    n = 1 << 16
    bits = as_signs(words(3, 1, 4, 1, count=n))
    assert bits.mean(0).abs().max() < 5 / math.sqrt(n)
    correlation = bits.T @ bits / n
    assert (correlation - torch.eye(64)).abs().max() < 6 / math.sqrt(n)  # 2016 pairs


@pytest.mark.statistical
def test_bytes_of_words_are_uniform() -> None:
    n = 1 << 17
    counts = torch.bincount(words(2, 7, 1, 8, count=n).view(torch.uint8), minlength=256).double()
    expected = 8 * n / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)  # 255 degrees of freedom


@pytest.mark.statistical
def test_one_changed_bit_of_a_name_changes_half_of_a_word() -> None:
    flips = []
    for part in range(4):
        for bit in range(63):
            name = [123, 456, 789, 12]
            name[part] ^= 1 << bit
            both = words(*name, count=64) ^ words(123, 456, 789, 12, count=64)
            flips.append((as_signs(both) + 1).mean() / 2)
    share = torch.stack(flips)  # each of 4096 bits
    assert (share - 0.5).abs().max() < 5 * 0.5 / 64
    assert abs(float(share.mean()) - 0.5) < 5 * 0.5 / math.sqrt(4096 * 252)


def test_no_two_streams_share_a_run() -> None:
    # A shared run, whatever its offset, would show as words met twice. By chance two of 10^6 words
    # of 64 bits are equal once in 4 * 10^7 draws of the names.
    names = [
        (seed, step, p, i, *purpose)
        for seed in (0, 1, 2**63)
        for step in range(6)
        for p in range(6)
        for i in range(6)
        for purpose in ((), (1,), (2,))
    ]
    found = torch.cat([words(*name, count=512) for name in names])
    assert len(found.unique()) == len(found)


def test_words_are_numbered_the_same_from_everywhere() -> None:
    stream = Stream.of(1, 2, 3)
    assert [w % 2**64 for w in stream.words(0, 20, "cpu").tolist()] == [
        naive.word((1, 2, 3), n) for n in range(20)
    ]
    assert torch.equal(stream.words(7, 20, "cpu"), stream.words(0, 20, "cpu")[7:])
    assert torch.equal(stream.at(torch.tensor([5, 0, 5])), stream.words(0, 6, "cpu")[[5, 0, 5]])


# ---- statistics of the directions ----------------------------------------------------------------


def sample(family: Directions, n: int, *, seed: int = 11) -> Tensor:
    """n entries of one vector-shaped parameter, float64."""
    return family.at(zeros((n,)), seed=seed, step=0).tensor(0, torch.float64)


@pytest.mark.statistical
@pytest.mark.parametrize("family", IID, ids=repr)
def test_moments_of_entries(family: Directions) -> None:
    n = 1 << 19
    u = sample(family, n)
    for order, moment in [(1, 0.0), (2, 1.0), (3, 0.0), (4, family.kurtosis)]:
        powers = u**order
        error = 5 * float(powers.std()) / math.sqrt(n)
        assert float(powers.mean()) == pytest.approx(moment, abs=error + 1e-12)


@pytest.mark.statistical
def test_normals_have_the_normal_distribution() -> None:
    # Kolmogorov and Smirnov: sqrt(n) D exceeds 2.7 with probability 2 exp(-2 * 2.7^2) = 1e-6
    n = 1 << 18
    u = sample(zo.Gaussian(), n).sort().values
    cdf = 0.5 * torch.erfc(-u / math.sqrt(2))
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - cdf).abs().max(), (cdf - steps[:-1]).abs().max())
    assert float(distance) * math.sqrt(n) < 2.7
    assert u.abs().max() < 6.8


@pytest.mark.statistical
def test_uniform_entries_have_the_uniform_distribution() -> None:
    # Kolmogorov and Smirnov, as above
    n = 1 << 18
    u = sample(zo.Uniform(), n).sort().values
    cdf = (u / math.sqrt(3) + 1) / 2
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - cdf).abs().max(), (cdf - steps[:-1]).abs().max())
    assert float(distance) * math.sqrt(n) < 2.7
    assert 1.732 < float(u.abs().max()) <= math.sqrt(3)


@pytest.mark.statistical
def test_pairs_of_one_word_are_independent() -> None:
    """Radius and angle come from one word; so do two neighbors, whose squares could correlate."""
    pairs = sample(zo.Gaussian(), 1 << 19).view(-1, 2)
    squares = pairs.square() - 1
    for x, y in [
        (pairs[:, 0], pairs[:, 1]),
        (squares[:, 0], squares[:, 1]),
        (pairs[:, 0], squares[:, 1]),
        (pairs[1:, 0], pairs[:-1, 1]),
    ]:
        product = x * y
        assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(len(product))


@pytest.mark.statistical
@pytest.mark.parametrize("density", [1.0, 0.5, 0.03, 1e-3])
def test_density_is_the_share_of_entries_that_are_not_zero(density: float) -> None:
    n = 1 << 19
    u = sample(zo.Sparse(density), n)
    error = 5 * math.sqrt(density * (1 - density) / n)
    assert float((u != 0).double().mean()) == pytest.approx(density, abs=error)
    assert float(u.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(3 / density / n))


def test_zeros_and_values_of_sparse_directions_are_independent() -> None:
    n = 1 << 19
    full, kept = sample(zo.Gaussian(), n), sample(zo.Sparse(0.5), n) != 0
    for values in (full, full.square() - 1):
        product = values * (2.0 * kept - 1)
        assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(n)


@pytest.mark.parametrize("shapes", [[(1,)], [(2,), ()], [(300, 7), (5,)]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_spheres_have_radius_root_d(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> None:
    u = zo.Sphere().dense(zeros(*shapes, dtype=dtype), P=50, seed=0, step=0).double()
    d = u.shape[0]
    torch.testing.assert_close(
        u.square().sum(0), torch.full((50,), float(d)).double(), rtol=1e-6, atol=0
    )
    if d == 1:
        assert len(u.sign().unique()) == 2


@pytest.mark.statistical
@families
def test_second_moment_is_the_identity(family: Directions) -> None:
    # Each of 21 + 15 entries of the mean over P of u u^T, at five of its own standard errors
    P = 1 << 13
    u = family.dense(zeros((2, 2), (3,), (), dtype=torch.float64), P=P, seed=3, step=0)
    products = u[:, None] * u[None]  # (8, 8, P)
    error = 5 * products.std(-1) / math.sqrt(P) + 1e-12
    assert bool(((products.mean(-1) - torch.eye(8)).abs() <= error).all())


@pytest.mark.statistical
@families
def test_kurtosis_is_the_fourth_moment_of_an_entry(family: Directions) -> None:
    P = 1 << 14
    u = family.dense(zeros((5, 6), dtype=torch.float64), P=P, seed=5, step=0)
    kurtosis = family.kurtosis
    if isinstance(family, zo.Sphere):
        kurtosis *= 30 / 32
    fourth = u.pow(4).mean(0)  # one value for each u: its entries may depend on one another
    assert float(fourth.mean()) == pytest.approx(
        kurtosis, abs=5 * float(fourth.std()) / math.sqrt(P) + 1e-12
    )


@pytest.mark.statistical
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_low_rank_directions_have_that_rank(rank: int) -> None:
    tensors = zeros((12, 15), (6, 2, 3, 3), (7,), dtype=torch.float64)
    direction = zo.LowRank(rank).at(tensors, seed=0, step=0)
    for i in (0, 1):
        matrix = direction.tensor(i, torch.float64).flatten(1)
        assert int(torch.linalg.matrix_rank(matrix)) == rank
        A, B = zo.LowRank(rank).factors(direction, i, torch.float64)
        assert A.shape == (matrix.shape[0], rank)
        assert B.shape == (matrix.shape[1], rank)
        torch.testing.assert_close(A @ B.T, matrix, rtol=1e-12, atol=1e-12)
    gaussian = zo.Gaussian().at(tensors, seed=0, step=0)
    assert torch.equal(direction.tensor(2), gaussian.tensor(2))


def test_parameters_without_entries_are_passed_over() -> None:
    for family in FAMILIES:
        tensors = zeros((0, 4), (3,), (0,), (2, 0))
        dense = family.dense(tensors, P=2, seed=0, step=0)
        assert dense.shape == (3, 2)
        assert bool(dense.isfinite().all())
        assert family.at(tensors, seed=0, step=0).tensor(0).shape == (0, 4)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seed": -1}, ValueError, ["seed", "-1", "at least 0"]),
        ({"seed": 1 << 64}, ValueError, ["seed", "below 18446744073709551616"]),
        ({"seed": 0.5}, TypeError, ["seed", "0.5", "int"]),
        ({"seed": True}, TypeError, ["seed", "True"]),
        ({"seed": None}, TypeError, ["seed", "None"]),
        ({"step": -1}, ValueError, ["step", "-1"]),
        ({"step": 1 << 63}, ValueError, ["step", "below"]),
        ({"P": 0}, ValueError, ["P", "0", "at least 1"]),
        ({"P": 2.0}, TypeError, ["P", "2.0", "int"]),
        ({"first": -1}, ValueError, ["p", "-1"]),
        ({"params": []}, ValueError, ["params", "no trainable", "requires_grad"]),
        ({"params": [torch.zeros(2)]}, ValueError, ["params", "no trainable", "requires_grad_"]),
        (
            {"params": [torch.zeros(2, dtype=torch.complex128, requires_grad=True)]},
            TypeError,
            ["item 0", "complex128", "float32"],
        ),
        ({"params": [torch.zeros(2, dtype=torch.int32)]}, ValueError, ["no trainable"]),
        ({"params": [3.0]}, TypeError, ["item 0", "float", "model.parameters()"]),
        ({"params": ["weight"]}, TypeError, ["item 0", "str"]),
        ({"params": torch.zeros(3, requires_grad=True)}, TypeError, ["one tensor", "(3,)"]),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    arguments: dict[str, Any] = {"params": zeros((2,)), "P": 1, "seed": 0, "step": 0}
    arguments |= options
    with pytest.raises(error) as caught:
        zo.Rademacher().dense(arguments.pop("params"), **arguments)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("name", "end"), [("seed", 2**64), ("step", 2**63), ("p", 2**63)])
def test_integers_below_their_ends_are_allowed(name: str, end: int) -> None:
    """Both where one direction is made and where a draw is checked, which knows no p."""
    calls: list[Any] = [lambda **given: zo.Gaussian().at(zeros((2,)), **given)]
    if name != "p":
        calls.append(lambda **given: check_draw(None, P=1, **given))
    for call in calls:
        call(**{"seed": 0, "step": 0} | {name: end - 1})
        with pytest.raises(ValueError, match=f"{name}: given {end}, .* below {end}"):
            call(**{"seed": 0, "step": 0} | {name: end})
        with pytest.raises(ValueError, match=f"{name}: given -1, expected at least 0"):
            call(**{"seed": 0, "step": 0} | {name: -1})


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: zo.Sparse(0.0), ValueError, ["density", "0.0"]),
        (lambda: zo.Sparse(-0.1), ValueError, ["density", "-0.1"]),
        (lambda: zo.Sparse(1.1), ValueError, ["density", "1.1", "at most 1"]),
        (lambda: zo.Sparse(float("nan")), ValueError, ["density", "nan"]),
        (lambda: zo.Sparse(1e-9), ValueError, ["density", "1e-09", "at least 1e-06"]),
        (lambda: zo.Sparse("half"), TypeError, ["density", "'half'"]),  # type: ignore[arg-type]
        (lambda: zo.Sparse("0.5"), TypeError, ["density", "'0.5'"]),  # type: ignore[arg-type]
        (lambda: zo.LowRank(0), ValueError, ["rank", "0", "at least 1"]),
        (lambda: zo.LowRank(1.5), TypeError, ["rank", "1.5", "int"]),  # type: ignore[arg-type]
    ],
)
def test_bad_families_are_named(make: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_a_direction_of_a_float_density_given_as_an_int() -> None:
    assert torch.equal(
        zo.Sparse(1).dense(zeros((9,)), P=1, seed=0, step=0),
        zo.Gaussian().dense(zeros((9,)), P=1, seed=0, step=0),
    )


def test_integers_may_come_from_other_libraries() -> None:
    numpy = pytest.importorskip("numpy")
    tensors = zeros((9,))
    got = zo.Rademacher().dense(tensors, P=numpy.int64(2), seed=numpy.uint64(5), step=torch.tensor(3))  # type: ignore[arg-type]  # fmt: skip  # noqa: E501
    assert torch.equal(got, zo.Rademacher().dense(tensors, P=2, seed=5, step=3))


def test_a_direction_is_made_by_a_family() -> None:
    direction = zo.Rademacher().at(zeros((2, 3)), seed=1, step=2, p=3)
    assert isinstance(direction, Direction)
    assert (direction.seed, direction.step, direction.p) == (1, 2, 3)
    assert direction == zo.Rademacher().at(zeros((2, 3)), seed=1, step=2, p=3)
    assert direction != zo.Rademacher().at(zeros((2, 3)), seed=1, step=2, p=4)

"""Laws are compared with exact enumeration and with simulation; bounds must hold on every draw.

Exact: a law is a polynomial of degree 4 in each random number, and a symmetric variable with values
0 and +-sqrt(kappa) has the same moments up to the fifth as the one it stands for. Summing over all
its values gives each expectation to rounding. Statistical: every Monte Carlo mean must lie within
4.5 of its own standard errors (by chance fewer than one in 100,000 does not), and its standard
error must be small enough to tell the law from its nearest mistake.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zotutor as zo
from zotutor import Gaussian, LowRank, Rademacher, Sparse, Sphere, Uniform
from zotutor.bounds import jl_rate
from zotutor.directions import Directions
from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian
from zotutor.laws import pair_terms, pair_variance
from zotutor.parameters import resolve

Z = 4.5
"""Standard errors allowed between a Monte Carlo mean and its law."""

IID: list[Directions] = [Gaussian(), Rademacher(), Uniform(), Sparse(0.2)]
FAMILIES: list[Directions] = [*IID, Sphere(), LowRank(1), LowRank(3)]
BOUNDED: list[Directions] = [Gaussian(), Rademacher(), Uniform(), Sphere()]
by_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)
by_bounded = pytest.mark.parametrize("family", BOUNDED, ids=repr)


class Digits:
    """A small network at work on digits, in float64, after some training, and its Jacobians."""

    def __init__(self) -> None:
        split = zo.datasets.digits()
        self.model = zo.models.mlp(4, 1, seed=0).double()
        x, y = split.x_train[:200].double(), split.y_train[:200]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        for _ in range(30):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(x), y).backward()
            optimizer.step()
        self.x_o, self.x_u, self.y_u = x[:1], x[10:12], y[10:12]
        self.J_o, self.J_u = zo.jacobian(self.model, self.x_o), zo.jacobian(self.model, self.x_u)
        self.shapes = [p.shape for p in self.model.parameters()]
        with torch.no_grad():
            self.A = log_softmax_jacobian(self.model(self.x_o))[0]
            G = cross_entropy_gradient(self.model(self.x_u), self.y_u)
        self.g = zo.vjp(self.model, self.x_u, G / 2)
        self.names = [name for name, _ in self.model.named_parameters()]

    def hessian(self) -> Tensor:
        params = resolve(self.model)

        def loss(flat: Tensor) -> Tensor:
            moved = params.split_named(flat)
            logits = torch.func.functional_call(self.model, moved, (self.x_u,))
            return torch.nn.functional.cross_entropy(logits, self.y_u)

        flat = params.flatten(params.named().values())
        return torch.autograd.functional.hessian(loss, flat)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def grid(kurtosis: float, d: int) -> tuple[Tensor, Tensor]:
    """All values (3^d, d) of d independent variables 0 and +-sqrt(kurtosis), and probabilities."""
    values = torch.tensor([0.0, kurtosis**0.5, -(kurtosis**0.5)], dtype=torch.float64)
    chances = torch.tensor([1 - 1 / kurtosis, 0.5 / kurtosis, 0.5 / kurtosis], dtype=torch.float64)
    numbers = torch.tensor(list(itertools.product(range(3), repeat=d)))
    return values[numbers], chances[numbers].prod(1)


def mean_square_error(u: Tensor, chances: Tensor, rows: Tensor, columns: Tensor) -> float:
    """E norm(J_o u u^T J_u^T - K)_F^2 over the values u (n, d) with these probabilities."""
    drawn = (u @ rows.T)[:, :, None] * (u @ columns.T)[:, None]
    return float(chances @ (drawn - rows @ columns.T).square().sum((1, 2)))


@pytest.mark.parametrize("family", [Gaussian(), Rademacher(), Sparse(0.5), Sparse(0.1)], ids=repr)
def test_law_of_independent_entries_is_exact(family: Directions) -> None:
    rows, columns = random(3, 6, seed=0), random(2, 6, seed=1)
    exact = mean_square_error(*grid(family.kurtosis, 6), rows, columns)
    assert pair_variance(rows, columns, directions=family) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("numbers", [1, 6, 23, 1 << 20])
def test_the_law_is_the_same_however_few_columns_are_summed_at_a_time(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns = random(3, 6, seed=0), random(2, 6, seed=1)
    expected = pair_terms(rows, columns, directions=Gaussian())
    monkeypatch.setattr("zotutor.laws._COLUMNS", numbers)
    found = pair_terms(rows, columns, directions=Gaussian())
    assert tuple(found) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_moments_are_computed_on_the_device_of_the_gradient(family: Directions) -> None:
    """Another default device is as if g were on a GPU: what is made on the way must follow g."""
    g, H = random(6, seed=4), random(6, 6, seed=5)
    H, options = H + H.T, {"P": 2, "directions": family, "shapes": [(2, 3)]}
    expected = zo.estimator_moments(g, H, **options)  # type: ignore[arg-type]
    with torch.device("meta"):
        found = zo.estimator_moments(g, H, **options)  # type: ignore[arg-type]
    assert found == expected


@pytest.mark.parametrize("rank", [1, 2])
def test_law_of_low_rank_directions_is_exact(rank: int) -> None:
    m, n = 2, 2
    factors, chances = grid(3.0, rank * (m + n))
    a, b = factors.unflatten(1, (m + n, rank)).split([m, n], 1)
    u = (a @ b.mT / math.sqrt(rank)).flatten(1)
    rows, columns = random(3, m * n, seed=2), random(2, m * n, seed=3)
    exact = mean_square_error(u, chances, rows, columns)
    law = pair_variance(rows, columns, directions=LowRank(rank), shapes=[(m, n)])
    assert law == pytest.approx(exact, rel=1e-12)


def test_law_of_low_rank_directions_with_a_matrix_and_a_vector_is_exact() -> None:
    factors, chances = grid(3.0, 2 + 2 + 3)
    a, b, bias = factors.split([2, 2, 3], 1)
    u = torch.cat([(a[:, :, None] * b[:, None]).flatten(1), bias], 1)
    rows, columns = random(2, 7, seed=4), random(2, 7, seed=5)
    exact = mean_square_error(u, chances, rows, columns)
    law = pair_variance(rows, columns, directions=LowRank(1), shapes=[(2, 2), (3,)])
    assert law == pytest.approx(exact, rel=1e-12)


def test_law_of_the_sphere_is_exact_in_the_plane() -> None:
    # on a circle of radius sqrt(2) every polynomial of degree 4 has the mean of six equal angles
    angles = torch.arange(6, dtype=torch.float64) * math.pi / 3
    u = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], 1)
    rows, columns = random(3, 2, seed=6), random(2, 2, seed=7)
    exact = mean_square_error(u, torch.full((6,), 1 / 6, dtype=torch.float64), rows, columns)
    assert pair_variance(rows, columns, directions=Sphere()) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("family", [Gaussian(), Rademacher(), Sparse(0.5)], ids=repr)
def test_moments_of_independent_entries_are_exact(family: Directions) -> None:
    g, half = random(5, seed=8), random(5, 5, seed=9)
    H = half + half.T
    u, chances = grid(family.kurtosis, 5)
    g_hat = (u @ g)[:, None] * u
    found = zo.estimator_moments(g, H, P=1, directions=family)
    assert found.squared_norm == pytest.approx(float(chances @ g_hat.square().sum(1)), rel=1e-12)
    exact = float(chances @ torch.einsum("ni,ij,nj->n", g_hat, H, g_hat))
    assert found.curvature == pytest.approx(exact, rel=1e-12)


def test_moments_of_low_rank_directions_are_exact() -> None:
    factors, chances = grid(3.0, 4)
    u = (factors[:, :2, None] * factors[:, None, 2:]).flatten(1)
    g, half = random(4, seed=10), random(4, 4, seed=11)
    H = half + half.T
    g_hat = (u @ g)[:, None] * u
    found = zo.estimator_moments(g, H, P=1, directions=LowRank(1), shapes=[(2, 2)])
    assert found.squared_norm == pytest.approx(float(chances @ g_hat.square().sum(1)), rel=1e-12)
    exact = float(chances @ torch.einsum("ni,ij,nj->n", g_hat, H, g_hat))
    assert found.curvature == pytest.approx(exact, rel=1e-12)


def draws_for(family: Directions) -> int:
    """More for LowRank(1), whose products of normals have the heaviest tails."""
    return 24_000 if family == LowRank(1) else 6000


def simulate(family: Directions, model: torch.nn.Module, P: int, draws: int) -> Tensor:
    """Directions (draws, d, P), columns unscaled."""
    u = family.dense(model, P=P * draws, seed=3, step=0)  # (d, P * draws)
    return u.unflatten(1, (draws, P)).movedim(1, 0)


def assert_mean(samples: Tensor, law: float, *, resolution: float) -> None:
    """The mean of the samples is the law, to Z standard errors, each at most ``resolution``."""
    mean, error = float(samples.mean()), float(samples.std()) / math.sqrt(len(samples))
    assert error < resolution * law, f"a standard error of {error / law:.3f} decides nothing"
    assert abs(mean - law) < Z * error, f"measured {mean:.4g} +- {error:.2g}, law {law:.4g}"


@pytest.mark.statistical
@by_family
def test_kernel_error_law_on_digits(digits: Digits, family: Directions) -> None:
    P, draws = 3, 6000
    rows, columns = digits.J_o.flatten(0, 1), digits.J_u.flatten(0, 1)
    u = simulate(family, digits.model, P, draws)
    drawn = (rows @ u) @ (columns @ u).mT / P  # (draws, V, 2 V)
    errors = (drawn - rows @ columns.T).square().sum((1, 2))
    law = zo.kernel_error_law(rows, columns, P=P, directions=family, shapes=digits.shapes)
    assert_mean(errors, law, resolution=0.05)


@pytest.mark.statistical
@by_family
def test_dynamics_error_law_on_digits(digits: Digits, family: Directions) -> None:
    P, draws, lr = 2, draws_for(family), 0.1
    u = simulate(family, digits.model, P, draws)
    exact = -lr * digits.A @ digits.J_o[0] @ digits.g
    step = (u @ (u.mT @ digits.g)[:, :, None])[:, :, 0] / P  # (draws, d)
    changes = -lr * step @ (digits.A @ digits.J_o[0]).T
    law = zo.dynamics_error_law(
        digits.A, digits.J_o[0], digits.g, P=P, directions=family, lr=lr, shapes=digits.shapes
    )
    assert_mean((changes - exact).square().sum(1), law, resolution=0.1)


@pytest.mark.statistical
@by_family
def test_estimator_moments_on_digits(digits: Digits, family: Directions) -> None:
    P, draws = 2, draws_for(family)
    u = simulate(family, digits.model, P, draws)
    g_hat = (u @ (u.mT @ digits.g)[:, :, None])[:, :, 0] / P
    H = digits.hessian()
    law = zo.estimator_moments(digits.g, H, P=P, directions=family, shapes=digits.shapes)
    assert_mean(g_hat.square().sum(1), law.squared_norm, resolution=0.05)
    assert_mean(((g_hat @ H) * g_hat).sum(1), law.curvature, resolution=0.08)


@pytest.mark.statistical
def test_simulation_can_tell_the_families_apart(digits: Digits) -> None:
    """The kernel's law for one family must be refused for another, or the test above is idle."""
    rows, columns = digits.J_o.flatten(0, 1), digits.J_u.flatten(0, 1)
    u = simulate(Sparse(0.05), digits.model, 3, 6000)
    errors = ((rows @ u) @ (columns @ u).mT / 3 - rows @ columns.T).square().sum((1, 2))
    for wrong in (Gaussian(), Rademacher(), Sphere()):
        law = zo.kernel_error_law(rows, columns, P=3, directions=wrong)
        with pytest.raises(AssertionError, match="measured"):
            assert_mean(errors, law, resolution=0.05)


@by_bounded
@pytest.mark.parametrize("P", [1, 10, 100])
def test_kernel_error_bound_holds_on_every_draw(digits: Digits, family: Directions, P: int) -> None:
    """400 draws; failure is allowed with probability 0.01, but the bound is far from tight."""
    J_o, J_u = digits.J_o, digits.J_u[:1]
    bound = zo.kernel_error_bound(J_o[0], J_u[0], P=P, delta=0.01, directions=family)
    u = simulate(family, digits.model, P, 400)
    drawn = (J_o[0] @ u) @ (J_u[0] @ u).mT / P
    worst = float((drawn - J_o[0] @ J_u[0].T).square().sum((1, 2)).max())
    assert worst <= bound
    assert worst > 1e-4 * bound  # a bound of another order would be a mistake of units
    assert zo.kernel_error_law(J_o[0], J_u[0], P=P, directions=family) < bound


def inner_product_errors(rows: Tensor, u: Tensor) -> Tensor:
    """max over all pairs of |(U^T a).(U^T b) - a.b| / (|a| |b|) for each draw: (draws,)."""
    units = rows / rows.norm(dim=1, keepdim=True)
    seen = units @ u / math.sqrt(u.shape[2])
    return (seen @ seen.mT - units @ units.T).abs().amax((1, 2))


@by_bounded
def test_inner_products_are_kept_with_the_stated_probability(
    digits: Digits, family: Directions
) -> None:
    """delta = 0.5 over 400 draws: the bound must not fail more often, and be of the right size."""
    rows, P, delta = torch.cat([digits.J_o[0], digits.J_u[0]]), 50, 0.5
    errors = inner_product_errors(rows, simulate(family, digits.model, P, 400))
    epsilon = zo.jl_epsilon(P, len(rows), delta=delta, directions=family)
    assert float((errors > epsilon).double().mean()) <= delta
    assert float(errors.max()) > epsilon / 3


def test_one_inner_product_needs_the_constant_it_is_given() -> None:
    """For a = b the rate is exact: c = 1/4 could not be larger. Chi-square tails, no simulation."""
    P, epsilon = 20_000, 0.2
    chi_square = torch.special.gammaincc  # P(chi^2_P > x) = Q(P / 2, x / 2)
    half = torch.tensor([P / 2, P * (1 + epsilon) / 2], dtype=torch.float64)
    upper = float(chi_square(half[0], half[1]))
    rate = -math.log(upper) / P
    assert jl_rate(epsilon) <= rate < 1.05 * jl_rate(epsilon)
    assert rate / epsilon**2 == pytest.approx(0.25, abs=0.03)


def test_rate_tends_to_a_quarter_and_bounds_hold_between() -> None:
    for epsilon in (1e-3, 0.1, 0.5, 1.0):
        assert epsilon**2 / 4 - epsilon**3 / 6 <= jl_rate(epsilon) < epsilon**2 / 4
    assert jl_rate(1e-3) / 1e-6 == pytest.approx(0.25, rel=1e-3)


@settings(deadline=None, max_examples=100)
@given(
    n=st.integers(2, 10**6),
    epsilon=st.floats(0.01, 3.0),
    delta=st.floats(1e-6, 0.9),
    family=st.sampled_from(BOUNDED),
)
def test_jl_functions_invert_each_other(
    n: int, epsilon: float, delta: float, family: Directions
) -> None:
    P = zo.jl_min_perturbations(n, epsilon, delta=delta, directions=family)
    assert zo.jl_epsilon(P, n, delta=delta, directions=family) <= epsilon * (1 + 1e-9)
    if P > 1:
        assert zo.jl_epsilon(P - 1, n, delta=delta, directions=family) > epsilon * (1 - 1e-9)


@by_bounded
def test_jl_functions_are_monotone(family: Directions) -> None:
    base = zo.jl_min_perturbations(20, 0.1, delta=0.01, directions=family)
    assert zo.jl_min_perturbations(40, 0.1, delta=0.01, directions=family) > base
    assert zo.jl_min_perturbations(20, 0.05, delta=0.01, directions=family) > 3.5 * base
    assert zo.jl_min_perturbations(20, 0.1, delta=0.001, directions=family) > base
    first = zo.jl_epsilon(100, 20, delta=0.01, directions=family)
    assert zo.jl_epsilon(200, 20, delta=0.01, directions=family) < first
    assert zo.jl_epsilon(100, 40, delta=0.01, directions=family) > first
    assert zo.jl_epsilon(100, 20, delta=0.001, directions=family) > first


def test_jl_constants_are_those_of_the_proof() -> None:
    P = zo.jl_min_perturbations(20, 0.1, delta=0.01, directions=Gaussian())
    c = jl_rate(0.1) / 0.1**2
    assert math.ceil((2 * math.log(20) + math.log(1 / 0.01)) / (c * 0.1**2)) == P
    signs = zo.jl_min_perturbations(20, 0.1, delta=0.01)
    assert signs == zo.jl_min_perturbations(20, 0.1, delta=0.01, directions=Rademacher())
    assert signs == zo.jl_min_perturbations(20, 0.1, delta=0.005, directions=Gaussian())


def test_bound_is_the_papers_formula() -> None:
    J_o, J_u = random(4, 30, seed=12), random(4, 30, seed=13)
    epsilon = zo.jl_epsilon(50, 8, delta=0.05, directions=Gaussian())
    norms = float(J_o.square().sum() + J_u.square().sum())
    for family in (Gaussian(), Rademacher(), Sphere()):  # one condition: V^2 pairs, not n (n-1)/2
        bound = zo.kernel_error_bound(J_o, J_u, P=50, delta=0.05, directions=family)
        assert bound == pytest.approx(epsilon**2 * 4 / 2 * norms**2, rel=1e-9)


def laws(rows: Tensor, columns: Tensor, *families: Directions, **shapes: object) -> list[float]:
    return [pair_variance(rows, columns, directions=f, **shapes) for f in families]  # type: ignore[arg-type]


def test_sparse_of_density_one_is_gaussian() -> None:
    sparse, gaussian = laws(random(3, 20, seed=0), random(2, 20, seed=1), Sparse(1.0), Gaussian())
    assert sparse == gaussian


def test_low_rank_tends_to_gaussian_as_one_over_r() -> None:
    rows, columns = random(3, 20, seed=0), random(2, 20, seed=1)
    gaussian = pair_variance(rows, columns, directions=Gaussian())
    ranks = [LowRank(1), LowRank(4), LowRank(10**9)]
    one, four, many = laws(rows, columns, *ranks, shapes=[(4, 5)])
    assert one - gaussian == pytest.approx(4 * (four - gaussian), rel=1e-9)
    assert one > gaussian
    assert many == pytest.approx(gaussian, rel=1e-7)


def test_low_rank_of_vectors_is_gaussian() -> None:
    rows, columns = random(3, 20, seed=0), random(2, 20, seed=1)
    low_rank = pair_variance(rows, columns, directions=LowRank(1), shapes=[(12,), (8,)])
    assert low_rank == pair_variance(rows, columns, directions=Gaussian())


def test_sphere_tends_to_gaussian_with_d() -> None:
    rows, columns = random(3, 20, seed=0), random(2, 20, seed=1)
    gaps = []
    for zeros in (0, 2000, 200_000):
        wide = [torch.nn.functional.pad(J, (0, zeros)) for J in (rows, columns)]
        sphere, gaussian = laws(wide[0], wide[1], Sphere(), Gaussian())
        gaps.append((gaussian - sphere) / gaussian)
    assert gaps[0] > 0.05 > gaps[1] > gaps[2]
    assert gaps[2] < 1e-4


def test_rademacher_is_never_worse_than_another_independent_family(digits: Digits) -> None:
    rows, columns = digits.J_o[0], digits.J_u[0]
    found = laws(rows, columns, Rademacher(), Gaussian(), Sparse(0.5), Sparse(0.1))
    assert found == sorted(found)


def test_rademacher_sees_a_single_coordinate_without_error() -> None:
    e = torch.eye(5)[:1]
    assert zo.kernel_error_law(e, 3 * e, P=1) == 0.0


def test_law_falls_as_one_over_P_and_is_the_sum_of_its_terms(digits: Digits) -> None:
    rows, columns = digits.J_o[0], digits.J_u[0]
    one = zo.kernel_error_law(rows, columns, P=1)
    assert zo.kernel_error_law(rows, columns, P=8) == pytest.approx(one / 8)
    terms = pair_terms(rows, columns, directions=Rademacher())
    assert sum(terms) == pytest.approx(one)
    a = float(zo.alignment(rows, columns))
    assert terms.aligned / terms.norms == pytest.approx(a, rel=1e-6)


def test_dynamics_law_is_the_kernel_law_of_the_rows_of_B(digits: Digits) -> None:
    A, J_o, g = digits.A, digits.J_o[0], digits.g
    whole = zo.dynamics_error_law(A, J_o, g, P=5, lr=0.3)
    rows = [zo.dynamics_error_law(row[None], J_o, g, P=5, lr=0.3) for row in A]
    assert whole == pytest.approx(sum(rows))
    assert whole == pytest.approx(0.09 * zo.kernel_error_law(A @ J_o, g[None], P=5))
    gaussian = zo.dynamics_error_law(A[:1], J_o, g, P=5, directions=Gaussian(), lr=0.3)
    b = A[0] @ J_o
    cosine = float(b @ g / (b.norm() * g.norm()))
    relative = math.sqrt(gaussian) / (0.3 * abs(float(b @ g)))
    assert relative == pytest.approx(math.sqrt((1 / cosine**2 + 1) / 5), rel=1e-9)


def test_law_for_the_same_input_counts_the_effective_rank(digits: Digits) -> None:
    J = digits.J_o[0]
    law = zo.kernel_error_law(J, J, P=1, directions=Gaussian())
    K = J @ J.T
    rank = float(zo.effective_rank(K))
    assert law / float(K.square().sum()) == pytest.approx(rank + 1, rel=1e-9)
    assert 1 <= rank <= 10


@pytest.mark.parametrize("family", [Gaussian(), Rademacher(), Sparse(0.3)], ids=repr)
def test_perturbations_needed_is_the_least_that_the_law_allows(
    digits: Digits, family: Directions
) -> None:
    rows, columns = digits.J_o[0], digits.J_u[0]
    terms = pair_terms(rows, columns, directions=Sparse(0.5))  # kurtosis 6: excess 3 overlaps
    a, overlap = terms.aligned / terms.norms, terms.excess / 3.0 / terms.norms
    P = zo.perturbations_needed(0.4, alignment=a, directions=family, overlap=overlap)
    assert P > 1

    def relative(P: int) -> float:
        return math.sqrt(zo.kernel_error_law(rows, columns, P=P, directions=family) / terms.aligned)

    assert relative(P) <= 0.4 < relative(P - 1)


def test_perturbations_needed_is_at_least_one() -> None:
    assert zo.perturbations_needed(100.0, alignment=1.0) == 1


Call = Callable[[], object]
J2 = torch.eye(2)
BAD: list[tuple[Call, type[Exception], str]] = [
    (lambda: zo.jl_min_perturbations(1, 0.1, delta=0.1), ValueError, "n: given 1"),
    (lambda: zo.jl_min_perturbations(2.5, 0.1, delta=0.1), TypeError, "n: given 2.5"),  # type: ignore[arg-type]
    (lambda: zo.jl_min_perturbations(2, 0.0, delta=0.1), ValueError, "epsilon: given 0"),
    (lambda: zo.jl_min_perturbations(2, math.nan, delta=0.1), ValueError, "epsilon"),
    (lambda: zo.jl_min_perturbations(2, 0.1, delta=1.0), ValueError, "probability of failure"),
    (lambda: zo.jl_min_perturbations(2, 0.1, delta=0.0), ValueError, "delta"),
    (
        lambda: zo.jl_min_perturbations(2, 0.1, delta=0.1, directions=Sparse(0.1)),
        ValueError,
        "kernel_error_law",
    ),
    (
        lambda: zo.jl_min_perturbations(2, 0.1, delta=0.1, directions=LowRank(1)),
        ValueError,
        "kernel_error_law",
    ),
    (lambda: zo.jl_epsilon(0, 2, delta=0.1), ValueError, "P: given 0"),
    (lambda: zo.jl_epsilon(5, 1, delta=0.1), ValueError, "n: given 1"),
    (lambda: zo.jl_epsilon(5, 2, delta=2.0), ValueError, "delta"),
    (lambda: zo.kernel_error_bound(J2, torch.eye(3), P=1, delta=0.1), ValueError, "same d"),
    (lambda: zo.kernel_error_bound(J2, J2, P=1, delta=0.0), ValueError, "delta"),
    (lambda: zo.kernel_error_law(J2[None], J2, P=1), ValueError, "flatten"),
    (lambda: zo.kernel_error_law(J2, J2, P=0), ValueError, "P: given 0"),
    (lambda: zo.kernel_error_law(J2, J2, P=1, directions=LowRank(1)), ValueError, "shapes: given"),
    (
        lambda: zo.kernel_error_law(J2, J2, P=1, directions=LowRank(1), shapes=[(3,)]),
        ValueError,
        "model.parameters",
    ),
    (lambda: zo.dynamics_error_law(J2, J2, J2, P=1, lr=0.1), ValueError, "g: given shape"),
    (lambda: zo.dynamics_error_law(J2, J2, J2[0], P=1, lr=-1.0), ValueError, "lr: given -1"),
    (lambda: zo.estimator_moments(J2[0], torch.eye(3), P=1), ValueError, "expected .d,. and"),
    (lambda: zo.estimator_moments(J2[0], J2, P=0), ValueError, "P: given 0"),
    (lambda: zo.perturbations_needed(0.0, alignment=0.1), ValueError, "error: given 0"),
    (lambda: zo.perturbations_needed(0.1, alignment=0.0), ValueError, "alignment: given 0"),
    (lambda: zo.perturbations_needed(0.1, alignment=1.5), ValueError, "at most 1"),
    (
        lambda: zo.perturbations_needed(0.1, alignment=0.5, directions=LowRank(1)),
        ValueError,
        "use plan",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_named(call: Call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- malformed numbers, in every argument that is a tensor --------------------------------------

e2, v2 = torch.eye(2), torch.ones(2)
TENSOR_CALLS: dict[str, Callable[[Any], object]] = {
    "kernel_error_law, J_o": lambda t: zo.kernel_error_law(t, e2, P=1),
    "kernel_error_law, J_u": lambda t: zo.kernel_error_law(e2, t, P=1),
    "kernel_error_bound, J_o": lambda t: zo.kernel_error_bound(t, e2, P=1, delta=0.1),
    "pair_terms, J_u": lambda t: pair_terms(e2, t, directions=Rademacher()),
    "dynamics_error_law, A": lambda t: zo.dynamics_error_law(t, e2, v2, P=1, lr=0.1),
    "dynamics_error_law, J_o": lambda t: zo.dynamics_error_law(e2, t, v2, P=1, lr=0.1),
    "dynamics_error_law, g": lambda t: zo.dynamics_error_law(e2, e2, t, P=1, lr=0.1),
    "estimator_moments, g": lambda t: zo.estimator_moments(t, e2, P=1),
    "estimator_moments, H": lambda t: zo.estimator_moments(v2, t, P=1),
    "alignment, J_o": lambda t: zo.alignment(t, e2),
    "alignment, J_u": lambda t: zo.alignment(e2, t),
    "effective_rank, K": zo.effective_rank,
    "relative_frobenius, K_hat": lambda t: zo.relative_frobenius(t, e2),
    "relative_frobenius, K": lambda t: zo.relative_frobenius(e2, t),
    "cka, K_hat": lambda t: zo.cka(t, e2),
    "spectral_wasserstein, K": lambda t: zo.spectral_wasserstein(e2, t),
    "log_softmax_jacobian, logits": log_softmax_jacobian,
    "cross_entropy_gradient, logits": lambda t: cross_entropy_gradient(t, torch.tensor([0, 1])),
}
MALFORMED: list[tuple[Callable[[Tensor], Any], type[Exception], str]] = [
    (lambda t: None, TypeError, "given a NoneType, expected a tensor"),
    (lambda t: t.tolist(), TypeError, "given a list, expected a tensor"),
    (lambda t: t.numpy(), TypeError, "given a ndarray, expected a tensor"),
    (lambda t: t.long(), TypeError, "given dtype torch.int64, expected real floating point"),
    (lambda t: t.bool(), TypeError, "given dtype torch.bool, expected real floating point"),
    (lambda t: t.to(torch.complex64), TypeError, "given dtype torch.complex64, expected real"),
    (lambda t: t.to("meta"), TypeError, "on the meta device"),
    (lambda t: t.to_sparse(), TypeError, "layout torch.sparse_coo"),
    (lambda t: t[:0], ValueError, "no dimension of size 0"),
    (lambda t: t.sum(), ValueError, r"given shapes? .*\(\)"),
    (
        lambda t: t[(None,) * 9],
        ValueError,
        "given shapes?",
    ),
    (lambda t: t.index_fill(0, torch.tensor([1]), math.nan), ValueError, r"nan at \[1"),
    (lambda t: t.index_fill(0, torch.tensor([1]), -math.inf), ValueError, r"-inf at \[1"),
]


@pytest.mark.parametrize("name", TENSOR_CALLS)
def test_malformed_tensors_are_named(name: str) -> None:
    """Each is refused in words that begin with the argument, before torch sees it."""
    good = v2 if name.endswith(", g") else e2
    TENSOR_CALLS[name](good)
    argument = name.split(", ")[1]
    for spoil, error, words in MALFORMED:
        with pytest.raises(error, match=rf"\b{argument}\b.*{words}"):
            TENSOR_CALLS[name](spoil(good))


def test_results_that_exceed_float64_are_refused() -> None:
    huge = 1e200 * torch.eye(2, dtype=torch.float64)
    calls: list[Call] = [
        lambda: zo.kernel_error_law(huge, huge, P=1),
        lambda: zo.kernel_error_bound(huge, huge, P=1, delta=0.1),
        lambda: zo.estimator_moments(huge[0], huge, P=1),
        lambda: zo.dynamics_error_law(huge, huge, huge[0], P=1, lr=1.0),
        lambda: zo.perturbations_needed(1e-200, alignment=0.5),
        lambda: zo.jl_min_perturbations(2, 1e-200, delta=0.1),
        lambda: zo.jl_epsilon(1 << 63, 2, delta=0.1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"exceeds float64|nan at|inf at|larger|below"):
            call()


def test_similarity_is_the_same_at_any_scale() -> None:
    """Where squares would leave float32, as kernels of large models may."""
    K, K_hat = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[2.5, 1.0], [1.0, 2.0]])
    for scale in (1e-30, 1.0, 1e30):
        assert torch.allclose(zo.effective_rank(scale * K), zo.effective_rank(K))
        assert torch.allclose(zo.cka(scale * K_hat, scale * K), zo.cka(K_hat, K))
        found = zo.relative_frobenius(scale * K_hat, scale * K)
        assert torch.allclose(found, zo.relative_frobenius(K_hat, K))
        assert torch.allclose(zo.alignment(scale * K, scale * K_hat), zo.alignment(K, K_hat))


def test_a_hessian_that_is_not_symmetric_is_refused() -> None:
    with pytest.raises(ValueError, match="H: given a matrix that is not symmetric"):
        zo.estimator_moments(v2, torch.tensor([[1.0, 2.0], [0.0, 1.0]]), P=1)


def test_names_of_version_0_1_are_found_where_they_are_now() -> None:
    with pytest.warns(DeprecationWarning, match=r"concentration.jl_rate is deprecated; use zotu"):
        assert zo.concentration.jl_rate is zo.bounds.jl_rate
    with pytest.warns(DeprecationWarning, match=r"use zotutor.laws.pair_variance"):
        assert zo.concentration.pair_variance is zo.laws.pair_variance
    with pytest.warns(DeprecationWarning, match=r"use zotutor.similarity.cka"):
        assert zo.kernels.cka is zo.cka
    with pytest.warns(DeprecationWarning, match=r"by position are deprecated here; give delta="):
        assert zo.jl_min_perturbations(20, 0.1, 0.01, Gaussian()) == 4519  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        zo.concentration.nothing  # noqa: B018


def test_the_rate_of_a_small_epsilon_does_not_cancel() -> None:
    for epsilon in (1e-3, 1.01e-4, 0.99e-4, 1e-6, 1e-12):
        series = sum((-1) ** k * epsilon**k / k for k in range(2, 9)) / 2
        assert jl_rate(epsilon) == pytest.approx(series, rel=1e-8)

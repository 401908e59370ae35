"""Estimates of a gradient from function values: unbiased, of known variance, along one direction.

Statistical tests have fixed seeds and compare a mean with its expectation at five of its own
standard errors, unless they say otherwise: one failure in 1.7 million a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

import zotutor as zo
from zotutor.directions import CHUNK, Directions
from zotutor.estimators import Method, default_eps, projected_gradients

METHODS: tuple[Method, ...] = get_args(Method)
IID: list[Directions] = [zo.Rademacher(), zo.Gaussian(), zo.Uniform(), zo.Sparse(0.5)]
FAMILIES: list[Directions] = [*IID, zo.Sphere(), zo.LowRank(2)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

MATRIX, VECTOR = (3, 4), (5,)

methods = pytest.mark.parametrize("method", METHODS)
families = pytest.mark.parametrize("family", FAMILIES, ids=repr)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def parameters(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]


def cut(column: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """(d,) as one tensor for each parameter."""
    parts = column.split([tensor.numel() for tensor in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def smooth_loss(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A small network, d = 41, and its cross-entropy: smooth, with curvature."""
    model = zo.models.mlp(4, 2, inputs=3, outputs=1, seed=0).to(dtype)
    with torch.no_grad():
        for i, theta in enumerate(model.parameters()):
            theta.copy_(normal(*theta.shape, seed=i) / 2)
    x, y = normal(6, 3, seed=20).to(dtype), normal(6, seed=21).to(dtype)
    return model, lambda: F.softplus(-y * model(x)[:, 0]).mean()


def true_gradient(closure: Callable[[], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    return flat(torch.autograd.grad(closure(), list(tensors)))


# ---- what is probed is what is returned ----------------------------------------------------------


class Recorder:
    """A closure that notes what it is handed, and returns given losses.

    At theta = 0, c u is exact for a power of two c, so the directions probed can be read off.
    """

    def __init__(self, read: Callable[[], list[Tensor]], losses: Sequence[float]) -> None:
        self.read = read
        self.losses = list(losses)
        self.seen: list[list[Tensor]] = []

    def __call__(self) -> Tensor:
        handed = self.read()
        if forward_ad.unpack_dual(handed[0]).tangent is None:
            self.seen.append([t.clone() for t in handed])
            return torch.tensor(self.losses[len(self.seen) - 1], dtype=torch.float64)
        tangents = [forward_ad.unpack_dual(t).tangent for t in handed]
        self.seen.append([t.clone() for t in tangents if t is not None])
        return handed[0].sum().double()  # `coefficients` knows its derivative


def spread_of_shapes(dtype: torch.dtype, large: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters, all zero, and the same as a model would list them: one is tied."""
    tensors = [
        torch.zeros((), dtype=dtype),
        torch.zeros(7, dtype=dtype),
        torch.zeros(30, 20, dtype=dtype).t(),
        torch.zeros(12, 6, dtype=dtype)[::2, 1:],
        torch.zeros(3, 2, 3, 3, dtype=dtype).to(memory_format=torch.channels_last),
        torch.zeros(0, 3, dtype=dtype),
    ]
    if large:
        tensors += [torch.zeros(400, 401, dtype=dtype), torch.zeros(2**20 + 5, dtype=dtype)]
    assert not tensors[2].is_contiguous()
    assert not tensors[3].is_contiguous()
    tensors = [t.requires_grad_() for t in tensors]
    return tensors, [*tensors[:3], tensors[1], *tensors[3:], tensors[2]]


LARGE = [
    *(("two-point", family, torch.float32) for family in FAMILIES),
    *(("two-point", zo.Rademacher(), dtype) for dtype in DTYPES),
    *((method, zo.Gaussian(), torch.bfloat16) for method in METHODS),
]
SMALL = [(method, family, dtype) for method in METHODS for family in FAMILIES for dtype in DTYPES]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("method", "family", "dtype", "large"),
    [*((*case, False) for case in SMALL), *((*case, True) for case in LARGE)],
)
def test_the_direction_probed_is_the_direction_returned(
    method: Method, family: Directions, dtype: torch.dtype, large: bool
) -> None:
    tensors, listed = spread_of_shapes(dtype, large)
    eps = 2.0**-5
    # chosen so that the projected gradient is 1, with whatever method
    losses = {"two-point": [eps, -eps], "forward": [0.0, eps], "one-point": [eps], "jvp": []}
    closure = Recorder(lambda: tensors, losses[method])
    options: dict[str, Any] = {"method": method, "directions": family, "seed": 3, "step": 2}
    if method != "jvp":
        options["eps"] = eps
    estimate = zo.estimate_gradient(closure, listed, **options)

    assert len(estimate) == len(tensors)
    if method == "jvp":
        (seen,) = closure.seen
        scale = projected_gradients(closure, listed, **options).coefficients[0]
    elif method == "forward":
        here, above = closure.seen
        assert all(not t.any() for t in here)
        seen, scale = [t / eps for t in above], 1.0
    else:
        seen, scale = [t / eps for t in closure.seen[0]], 1.0
        if method == "two-point":
            for above, below in zip(*closure.seen, strict=True):
                assert torch.equal(above, -below)
    for theta, got, probed in zip(tensors, estimate, seen, strict=True):
        assert got.shape == theta.shape
        assert got.dtype == dtype
        if scale == 1.0 and dtype != torch.float16:
            assert torch.equal(got, probed)
        elif scale == 1.0:  # c u may be too small for all of its bits
            torch.testing.assert_close(got, probed, rtol=0, atol=2.0**-24 / eps)
        else:
            unit = torch.finfo(dtype).eps
            torch.testing.assert_close(
                got.double(), probed.double() * scale, rtol=4 * unit, atol=1e-30
            )
    norms = torch.stack([got.double().square().mean() for got in estimate if got.numel() > 500])
    assert bool((norms > 0.05).all())  # and it is no zero


@pytest.mark.usefixtures("trusted")
@families
@dtypes
def test_large_matrices_and_look_ups_are_probed_along_the_direction_returned(
    family: Directions, dtype: torch.dtype
) -> None:
    """Linear layers and embeddings compute at theta + c u in pieces, or by factors."""
    weight = torch.zeros(600, 500, dtype=dtype, requires_grad=True)
    table = torch.zeros(700, 400, dtype=dtype, requires_grad=True)
    bias = torch.zeros(600, dtype=dtype, requires_grad=True)
    assert min(weight.numel(), table.numel()) > CHUNK
    ids = torch.tensor([[0, 699, 3], [3, 3, 512]])
    columns = torch.eye(500, dtype=dtype)[[0, 7, 499]]  # one-hot: the product is a column

    def read() -> list[Tensor]:
        product = F.linear(columns[None], weight)[0]
        shifted = F.linear(input=torch.zeros(1, 500, dtype=dtype), weight=weight, bias=bias)[0]
        return [product, shifted, F.embedding(ids, table)]

    eps = 2.0**-5
    closure = Recorder(read, [eps, -eps])
    options: dict[str, Any] = {"directions": family, "seed": 3, "step": 2, "eps": eps}
    estimate = zo.estimate_gradient(closure, [weight, bias, table], **options)
    want = [estimate[0].T[[0, 7, 499]], estimate[1], estimate[2][ids]]
    tolerance = torch.finfo(dtype).eps * (8 if isinstance(family, zo.LowRank) else 0)
    small = 2.0**-24 / eps if dtype == torch.float16 else 0.0  # where c u has lost bits
    for sign, seen in zip((1, -1), closure.seen, strict=True):
        for got, expected in zip(seen, want, strict=True):
            torch.testing.assert_close(
                sign * got / eps, expected, rtol=tolerance, atol=4 * tolerance + small
            )


@pytest.mark.usefixtures("trusted")
@families
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_several_directions_are_weighed_by_their_own_coefficients(
    family: Directions, dtype: torch.dtype
) -> None:
    tensors, listed = spread_of_shapes(dtype, large=False)
    eps = 2.0**-5
    g = [1.0, -2.0, 0.5]
    closure = Recorder(lambda: tensors, [s * eps * c for c in g for s in (1, -1)])
    estimate = zo.estimate_gradient(
        closure, listed, P=3, eps=eps, directions=family, seed=3, step=2
    )
    for i, got in enumerate(estimate):
        probes = [closure.seen[2 * p][i].double() / eps for p in range(3)]
        want = sum((c * u for c, u in zip(g, probes, strict=True)), torch.zeros(())) / 3
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(got.double(), want, rtol=2 * unit, atol=4 * unit)


# ---- against a naive version in float64 ----------------------------------------------------------


def naive_projections(
    closure: Callable[[], Tensor],
    tensors: Sequence[Tensor],
    U: Tensor,
    method: Method,
    eps: float,
) -> tuple[list[float], float]:
    """Coefficients and mean loss, by writing theta and putting it back; U is (d, P)."""

    def at(u: Tensor, c: float) -> float:
        saved = [t.detach().clone() for t in tensors]
        with torch.no_grad():
            for t, part in zip(tensors, cut(u, tensors), strict=True):
                t += c * part
            value = float(closure())
            for t, old in zip(tensors, saved, strict=True):
                t.copy_(old)
        return value

    coefficients, seen = [], []
    here = at(U[:, 0], 0.0)
    for u in U.T:
        above, below = at(u, eps), at(u, -eps)
        if method == "two-point":
            coefficients.append((above - below) / (2 * eps))
            seen += [above, below]
        elif method == "forward":
            coefficients.append((above - here) / eps)
            seen = [here]
        elif method == "one-point":
            coefficients.append(above / eps)
            seen.append(above)
        else:
            coefficients.append(float(u @ true_gradient(closure, tensors)))
            seen = [here]
    return coefficients, sum(seen) / len(seen)


@methods
@families
def test_estimates_equal_the_naive_version(method: Method, family: Directions) -> None:
    model, closure = smooth_loss()
    tensors = list(model.parameters())
    eps = 1e-3
    options: dict[str, Any] = {"P": 3, "directions": family, "seed": 5, "step": 7}
    if method != "jvp":
        options["eps"] = eps
    found = projected_gradients(closure, model, method=method, **options)
    estimate = zo.estimate_gradient(closure, model, method=method, **options)

    U = family.dense(model, P=3, seed=5, step=7)
    coefficients, loss = naive_projections(closure, tensors, U, method, eps)
    assert found.coefficients == pytest.approx(coefficients, rel=1e-9, abs=1e-10)
    assert found.loss == pytest.approx(loss, rel=1e-13)
    naive = U @ torch.tensor(found.coefficients, dtype=torch.float64) / 3
    torch.testing.assert_close(flat(estimate), naive, rtol=1e-12, atol=1e-12)


@methods
def test_the_closure_is_called_as_often_as_said(method: Method) -> None:
    calls = 0
    model, loss = smooth_loss()

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        return loss()

    zo.estimate_gradient(closure, model, P=5, method=method, seed=0)
    check = 2 if method == "jvp" else 1  # the loss at +eps u_0 is that of the check
    assert calls == {"two-point": 10, "forward": 6, "one-point": 5, "jvp": 5}[method] + check


@methods
def test_losses_that_are_compared_are_computed_under_the_same_modes(method: Method) -> None:
    """Under other modes torch may choose other kernels, and a difference would be of rounding."""
    modes = []
    model, loss = smooth_loss()

    def closure() -> Tensor:
        functions = torch.overrides._get_current_function_mode_stack()
        modes.append((len(functions), torch._C._len_torch_dispatch_stack()))
        return loss()

    zo.estimate_gradient(closure, model, P=4, method=method, seed=0)
    compared = {"two-point": 2, "forward": 5, "one-point": 1, "jvp": 1}[method]
    for first in range(0, len(modes), compared):
        assert len(set(modes[first : first + compared])) == 1
    assert {functions for functions, _ in modes} == {1}


@methods
def test_theta_is_not_written_and_nothing_else_either(method: Method) -> None:
    model, closure = smooth_loss()
    tensors = list(model.parameters())
    tensors[0].grad = torch.ones_like(tensors[0])
    before = [(t.detach().clone(), t._version) for t in tensors]
    state = torch.get_rng_state()
    estimate = zo.estimate_gradient(closure, model, P=2, method=method, seed=0)
    for theta, (old, version) in zip(tensors, before, strict=True):
        assert torch.equal(theta, old)
        assert theta._version == version
    assert torch.equal(tensors[0].grad, torch.ones_like(tensors[0]))
    assert tensors[1].grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(g.requires_grad for g in estimate)


def test_the_first_directions_do_not_depend_on_how_many_there_are() -> None:
    model, closure = smooth_loss()
    few = projected_gradients(closure, model, P=2, seed=0).coefficients
    many = projected_gradients(closure, model, P=5, seed=0).coefficients
    assert many[:2] == few
    other = projected_gradients(closure, model, P=2, seed=0, step=1).coefficients
    assert set(other).isdisjoint(few)


@methods
def test_estimates_are_laid_out_as_autograd_s(method: Method) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 3)
            self.frozen = nn.Linear(3, 3).requires_grad_(False)
            self.output = nn.Linear(3, 5)
            self.output.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            y: Tensor = self.output(self.frozen(self.embedding(tokens)))
            return y

    model = Tied()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2

    def closure() -> Tensor:
        return model(torch.tensor([1, 2, 4])).square().mean()

    want = torch.autograd.grad(closure(), trained)
    for params in (model, model.parameters(), model.named_parameters()):
        got = zo.estimate_gradient(closure, params, P=150, method=method, seed=0)
        assert [g.shape for g in got] == [g.shape for g in want]
        if method != "one-point":
            assert float(F.cosine_similarity(flat(got), flat(want), dim=0)) > 0.85


# ---- descent and unbiasedness --------------------------------------------------------------------


@families
@pytest.mark.parametrize("method", ["two-point", "jvp"])
def test_an_estimate_never_points_downhill(family: Directions, method: Method) -> None:
    """g . g_hat = (1/P) sum_p (u_p . g) g_p > 0 where g_p has the sign of u_p . g."""
    model, closure = smooth_loss()
    g = true_gradient(closure, list(model.parameters()))
    for step in range(20):
        estimate = zo.estimate_gradient(
            closure, model, directions=family, P=2, method=method, seed=0, step=step
        )
        assert float(flat(estimate) @ g) > 0


@pytest.mark.statistical
@families
@pytest.mark.parametrize("method", ["two-point", "forward", "jvp"])
def test_the_mean_estimate_is_autograd_s_gradient(family: Directions, method: Method) -> None:
    # 17 coordinates at 5 standard errors each; the bias at this eps is below 1e-6
    matrix, vector = tensors = parameters(MATRIX, VECTOR)
    x = normal(3, seed=30)

    def closure() -> Tensor:
        return torch.tanh(x @ matrix / 2).square().sum() + torch.cos(vector).sum()

    P = 256
    options: dict[str, Any] = {"directions": family, "P": P, "seed": 1, "method": method}
    if method != "jvp":
        options["eps"] = 1e-7
    found = projected_gradients(closure, tensors, **options)
    estimate = flat(zo.estimate_gradient(closure, tensors, **options))

    U = family.dense(tensors, P=P, seed=1, step=0)  # (d, P)
    samples = U * torch.tensor(found.coefficients, dtype=torch.float64)
    torch.testing.assert_close(estimate, samples.mean(1), rtol=1e-9, atol=1e-12)
    error = samples.std(1) / math.sqrt(P)
    g = true_gradient(closure, tensors)
    assert bool(((estimate - g).abs() < 5 * error + 1e-6).all())
    assert float(F.cosine_similarity(estimate, g, dim=0)) > 0.9  # and the error is small


@pytest.mark.statistical
@families
def test_one_point_estimates_are_unbiased_too(family: Directions) -> None:
    # for a linear loss without any bias in eps, however large
    (theta,) = tensors = parameters((6,))
    a = normal(6, seed=9)
    P = 1024
    found = projected_gradients(
        lambda: a @ theta + 1.0,
        tensors,
        directions=family,
        P=P,
        seed=2,
        eps=0.5,
        method="one-point",
    )
    U = family.dense(tensors, P=P, seed=2, step=0)
    samples = U * torch.tensor(found.coefficients, dtype=torch.float64)
    error = samples.std(1) / math.sqrt(P)
    assert bool(((samples.mean(1) - a).abs() < 5 * error).all())
    assert float(error.max()) < 0.3


# ---- bias in eps ---------------------------------------------------------------------------------


@families
@pytest.mark.parametrize(("method", "order"), [("two-point", 2), ("forward", 1)])
def test_bias_falls_with_eps_as_said(family: Directions, method: Method, order: int) -> None:
    model, closure = smooth_loss()
    exact = flat(zo.estimate_gradient(closure, model, directions=family, P=4, seed=3, method="jvp"))
    widths = [2.0**-k for k in range(4, 9)]
    errors = []
    for eps in widths:
        estimate = zo.estimate_gradient(
            closure, model, directions=family, P=4, seed=3, method=method, eps=eps
        )
        errors.append(float((flat(estimate) - exact).norm()))
    slope = float(np.polyfit(np.log(widths), np.log(errors), 1)[0])
    assert slope == pytest.approx(order, abs=0.1)


def test_two_points_are_exact_on_a_quadratic_and_one_sided_ones_are_not() -> None:
    (theta,) = tensors = parameters((5,))
    H = normal(5, 5, seed=4)
    H = H @ H.T
    options: dict[str, Any] = {"P": 3, "seed": 0}

    def closure() -> Tensor:
        return theta @ H @ theta / 2

    exact = projected_gradients(closure, tensors, method="jvp", **options).coefficients
    two = projected_gradients(closure, tensors, eps=0.5, **options).coefficients
    one = projected_gradients(closure, tensors, eps=0.5, method="forward", **options).coefficients
    assert two == pytest.approx(exact, rel=1e-12)
    U = zo.Rademacher().dense(tensors, P=3, seed=0, step=0)
    curvature = (U * (H @ U)).sum(0)  # forward: u . g + eps u^T H u / 2
    shifted = [g + 0.25 * float(c) for g, c in zip(exact, curvature, strict=True)]
    assert one == pytest.approx(shifted, rel=1e-9)


# ---- variance ------------------------------------------------------------------------------------

D = 17
N = 1 << 14


def quadratic() -> tuple[list[Tensor], Callable[[], Tensor], Tensor, Tensor]:
    """A loss with gradient g and Hessian H at theta: parameters, closure, g, H."""
    tensors = parameters(MATRIX, VECTOR)
    H = normal(D, D, seed=5)
    H = H @ H.T / D + torch.eye(D)
    g = normal(D, seed=6)
    here = flat(tensors).detach()

    def closure() -> Tensor:
        shift = flat(tensors) - here
        return g @ shift + shift @ H @ shift / 2

    return tensors, closure, g, H


@cache
def draws(family: Directions) -> Tensor:
    """N estimates from one direction each, (N, d), on the quadratic, where two points are exact."""
    tensors, closure, g, _ = quadratic()
    U = family.dense(tensors, P=N, seed=7, step=0)  # (d, N)
    coefficients = g @ U
    found = projected_gradients(closure, tensors, directions=family, P=64, seed=7, eps=0.5)
    assert found.coefficients == pytest.approx(coefficients[:64].tolist(), rel=1e-10)
    return (U * coefficients).T


def several(family: Directions, P: int) -> Tensor:
    """N / P estimates from P directions each."""
    return draws(family).view(-1, P, D).mean(1)


def second_moment(family: Directions, g: Tensor, P: int) -> float:
    """E |g_hat|^2, as design.md 3.6 has it for independent entries, with 3.3 for the others."""
    squared = float(g @ g)
    if isinstance(family, zo.Sphere):
        one = D * squared  # |u|^2 = d, and E (u . g)^2 = |g|^2
    elif isinstance(family, zo.LowRank):
        m, n = MATRIX
        k = VECTOR[0]
        matrix, vector = float(g[: m * n] @ g[: m * n]), float(g[m * n :] @ g[m * n :])
        one = matrix * (m * n + 2 + 2 * (m + n + 1) / family.rank) + matrix * k
        one += vector * (k + 2) + vector * m * n
    else:
        one = squared * (1 + D + family.kurtosis - 2)
    return one / P + (1 - 1 / P) * squared


@pytest.mark.statistical
@families
@pytest.mark.parametrize("P", [1, 4])
def test_second_moments_follow_the_law(family: Directions, P: int) -> None:
    estimates = several(family, P)
    squares = estimates.square().sum(1)
    error = 5 * float(squares.std()) / math.sqrt(len(squares))
    want = second_moment(family, quadratic()[2], P)
    assert float(squares.mean()) == pytest.approx(want, abs=error)
    assert error < 0.2 * want  # the comparison says something


@pytest.mark.statistical
@pytest.mark.parametrize("family", [*IID, zo.Sphere()], ids=repr)
@pytest.mark.parametrize("P", [1, 4])
def test_curvature_along_estimates_follows_the_law(family: Directions, P: int) -> None:
    estimates = several(family, P)
    _, _, g, H = quadratic()
    samples = ((estimates @ H) * estimates).sum(1)
    error = 5 * float(samples.std()) / math.sqrt(len(samples))
    along, trace, squared = float(g @ H @ g), float(H.trace()), float(g @ g)
    if isinstance(family, zo.Sphere):
        one = D / (D + 2) * (trace * squared + 2 * along)
    else:
        fourth = (family.kurtosis - 3) * float((H.diagonal() * g**2).sum())
        one = 2 * along + trace * squared + fourth
    assert float(samples.mean()) == pytest.approx(one / P + (1 - 1 / P) * along, abs=error)


@pytest.mark.statistical
def test_second_moment_of_signs_within_two_percent() -> None:
    # d |g|^2 for one direction. A long direction cut into 2^18 short ones: the mean has a standard
    # error of 0.3 %. The projected gradients of a linear loss are u . g, so no closure is needed.
    g = normal(12, seed=8)
    long = torch.zeros(12 << 18, requires_grad=True)
    U = zo.Rademacher().at([long], seed=0, step=0).tensor(0, torch.float64).view(-1, 12)
    mean = float(((U @ g) ** 2 * U.square().sum(1)).mean())
    assert mean == pytest.approx(12 * float(g @ g), rel=0.02)


# ---- floating point ------------------------------------------------------------------------------


def test_default_steps() -> None:
    assert [default_eps(dtype) for dtype in DTYPES] == [1e-5, 1e-3, 1e-2, 1e-3]
    for dtype in DTYPES:
        assert default_eps(dtype) >= torch.finfo(dtype).eps


@pytest.mark.usefixtures("trusted")
def test_the_default_step_is_the_coarsest_that_a_parameter_needs() -> None:
    seen = []
    one = torch.zeros(2, requires_grad=True)
    other = torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)

    def closure() -> Tensor:
        seen.append(float(one[0].abs()))
        return one.sum() + other.sum()

    zo.estimate_gradient(closure, [one, other], seed=0)
    zo.estimate_gradient(closure, [one], seed=0)
    assert seen == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3], rel=1e-6)


@dtypes
def test_estimates_at_the_default_step_are_near_the_derivative(dtype: torch.dtype) -> None:
    model, closure = smooth_loss(dtype)
    exact_model, exact_closure = smooth_loss()
    found = projected_gradients(closure, model, P=8, seed=0).coefficients
    exact = projected_gradients(exact_closure, exact_model, P=8, seed=0, method="jvp").coefficients
    scale = max(map(abs, exact))
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3}.get(dtype, 0.5)
    for got, want in zip(found, exact, strict=True):
        assert abs(got - want) < tolerance * scale


@pytest.mark.usefixtures("trusted")
def test_differences_of_half_precision_losses_are_not_rounded_again() -> None:
    theta = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    losses = iter([torch.tensor(256.0).bfloat16(), torch.tensor(1.0).bfloat16()])

    def closure() -> Tensor:
        theta.sum()
        return next(losses)

    found = projected_gradients(closure, [theta], seed=0, eps=0.5)
    assert found.coefficients == (255.0,)
    assert found.loss == 128.5


# ---- forward mode --------------------------------------------------------------------------------


def test_forward_mode_needs_no_eps_and_is_exact() -> None:
    model, closure = smooth_loss()
    found = projected_gradients(closure, model, P=4, seed=0, method="jvp")
    U = zo.Rademacher().dense(model, P=4, seed=0, step=0)
    want = U.T @ true_gradient(closure, list(model.parameters()))
    assert found.coefficients == pytest.approx(want.tolist(), rel=1e-10)
    assert found.loss == pytest.approx(float(closure().detach()), rel=1e-14)


def test_forward_mode_goes_through_attention() -> None:
    # smooth, unlike the default: a kink within eps is no fault of either method
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True)
    layer = layer.double().eval()
    x = normal(2, 7, 4, seed=9)

    def closure() -> Tensor:
        return (layer(x) * torch.linspace(0, 1, 4, dtype=torch.float64)).square().mean()

    exact = projected_gradients(closure, layer, P=2, seed=0, method="jvp").coefficients
    two = projected_gradients(closure, layer, P=2, seed=0).coefficients
    assert two == pytest.approx(exact, rel=1e-6)


def reads_nothing_smooth(theta: Tensor) -> Callable[[], Any]:
    return lambda: (theta > 0).double().mean()


@pytest.mark.parametrize(
    "build",
    [
        lambda theta: lambda: theta.detach().sum(),
        lambda theta: lambda: float(theta.sum()),
        lambda theta: lambda: theta.sum().item(),
        lambda theta: lambda: torch.tensor(theta.sum().item()),
        reads_nothing_smooth,
    ],
)
def test_a_loss_without_a_derivative_is_refused_by_forward_mode(
    build: Callable[[Tensor], Callable[[], Any]],
) -> None:
    (theta,) = tensors = parameters((3,))
    with pytest.raises(ValueError, match=r"carries no derivative.*two-point"):
        zo.estimate_gradient(build(theta), tensors, seed=0, method="jvp")
    zo.estimate_gradient(build(theta), tensors, seed=0)


@torch.library.custom_op("zotutor_tests::square", mutates_args=())
def square(x: Tensor) -> Tensor:
    """A custom operator, of whose derivative torch knows nothing."""
    return x * x


def test_custom_operators_are_refused_by_forward_mode() -> None:
    (theta,) = tensors = parameters((3,))

    def closure() -> Tensor:
        return square(theta).sum() + theta.sum()

    with pytest.raises(RuntimeError, match=r"square.*would drop.*two-point"):
        zo.estimate_gradient(closure, tensors, seed=0, method="jvp")
    (g,) = zo.estimate_gradient(closure, tensors, seed=0, P=200)
    assert float(F.cosine_similarity(g, 2 * theta.detach() + 1, dim=0)) > 0.9


# ---- bad input -----------------------------------------------------------------------------------


def never() -> Tensor:
    pytest.fail("the closure was called before the arguments were checked")


BAD: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"P": 0}, ValueError, ["P", "0", "at least 1"]),
    ({"P": -3}, ValueError, ["P", "-3"]),
    ({"P": 1.5}, TypeError, ["P", "1.5", "int"]),
    ({"eps": 0.0}, ValueError, ["eps", "0.0", "above 0"]),
    ({"eps": -1e-3}, ValueError, ["eps", "-0.001", "above 0"]),
    ({"eps": float("nan")}, ValueError, ["eps", "nan", "finite"]),
    ({"eps": float("inf")}, ValueError, ["eps", "inf", "finite"]),
    ({"eps": "small"}, TypeError, ["eps", "'small'", "number"]),
    ({"eps": 1e-8}, ValueError, ["eps", "1e-08", "float32", "1.19e-07", "leave it out"]),
    (
        {"eps": 1e-3, "params": [torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)]},
        ValueError,
        ["eps", "0.001", "bfloat16", "0.00781"],
    ),
    (
        {"eps": 1e-17, "params": [torch.zeros(2, dtype=torch.float64, requires_grad=True)]},
        ValueError,
        ["eps", "float64"],
    ),
    ({"method": "two point"}, ValueError, ["method", "'two point'", "two-point, forward"]),
    ({"method": None}, ValueError, ["method", "None"]),
    ({"method": "jvp", "eps": 1e-3}, ValueError, ["eps", "0.001", "jvp", "leave it out"]),
    ({"directions": "sphere"}, TypeError, ["directions", "'sphere'", "Rademacher()"]),
    ({"directions": zo.Sphere}, TypeError, ["directions", "class Sphere", "construct"]),
    ({"seed": -1}, ValueError, ["seed", "-1"]),
    ({"seed": None}, TypeError, ["seed", "None"]),
    ({"step": -1}, ValueError, ["step", "-1"]),
    ({"params": []}, ValueError, ["params", "no trainable"]),
    ({"params": [torch.zeros(3)]}, ValueError, ["params", "no trainable"]),
    ({"params": [torch.zeros(3, dtype=torch.int64)]}, ValueError, ["no trainable"]),
    ({"params": nn.Linear(2, 2).requires_grad_(False)}, ValueError, ["no trainable"]),
    ({"params": nn.Dropout(0.1)}, ValueError, ["no trainable"]),
    (
        {"params": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))},
        ValueError,
        ["model", "'1'", "Dropout", "model.eval()"],
    ),
    (
        {"params": nn.Sequential(nn.BatchNorm1d(2))},
        ValueError,
        ["model", "BatchNorm1d", "model.eval()"],
    ),
    ({"params": torch.zeros(2, requires_grad=True)}, TypeError, ["one tensor", "(2,)", "list"]),
    ({"params": [{"params": []}]}, TypeError, ["item 0", "dict"]),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD)
@pytest.mark.parametrize("function", [zo.estimate_gradient, projected_gradients])
def test_bad_arguments_are_named_before_any_work(
    function: Callable[..., Any],
    options: dict[str, Any],
    error: type[Exception],
    words: list[str],
) -> None:
    arguments = {"params": [torch.zeros(2, requires_grad=True)], "seed": 0} | options
    with pytest.raises(error) as caught:
        function(never, arguments.pop("params"), **arguments)
    for word in words:
        assert word.strip("'") in str(caught.value)


@pytest.mark.usefixtures("trusted")
@methods
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_refused(method: Method, value: float) -> None:
    (theta,) = tensors = parameters((3,))
    before = theta.detach().clone()
    for losses in ([value] * 9, [0.5, value, 0.5], [0.5, 0.5, 0.5, value]):
        remaining = iter(losses)

        def closure(remaining: Any = remaining) -> Tensor:
            return theta.sum() * 0 + next(remaining)

        with pytest.raises(zo.NonFiniteLossError, match=r"closure: the loss is -?(nan|inf)"):
            zo.estimate_gradient(closure, tensors, P=4, method=method, seed=0)
    assert torch.equal(theta, before)


@methods
def test_a_closure_that_reads_no_parameter_is_refused(method: Method) -> None:
    other = parameters((3,))
    with pytest.raises(ValueError, match=r"read none of the parameters.*compute the loss from"):
        zo.estimate_gradient(lambda: other[0].sum(), parameters((2,)), method=method, seed=0)


def test_a_parameter_that_is_not_read_gets_an_estimate_of_mean_zero() -> None:
    one, other = parameters((3,), (200,))
    estimate = zo.estimate_gradient(lambda: one.sum(), [one, other], P=64, seed=0)
    assert float(estimate[1].mean().abs()) < 5 * float(estimate[1].std()) / math.sqrt(200)


@methods
def test_what_the_closure_raises_comes_through(method: Method) -> None:
    (theta,) = tensors = parameters((3,))
    before = theta.detach().clone()

    def closure() -> Tensor:
        theta.sum()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zo.estimate_gradient(closure, tensors, method=method, seed=0)
    assert torch.equal(theta, before)
    assert torch.overrides._get_current_function_mode_stack() == []

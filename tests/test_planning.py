"""Estimates without a Jacobian against the exact laws formed from J and H; the planner, used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zotutor as zo
from zotutor import planning
from zotutor.calling import resolve_model
from zotutor.directions import Directions

FAMILIES = [
    zo.Rademacher(),
    zo.Gaussian(),
    zo.Sphere(),
    zo.Sparse(0.2),
    zo.LowRank(1),
    zo.LowRank(3),
]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)


def normal(*shape: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64)


def network(outputs: int = 3) -> nn.Module:
    """A convolution, a matrix and vectors, in float64: d = 79 for three outputs."""
    model = zo.models.lenet(inputs=(1, 4, 4), outputs=outputs, channels=(2, 3), hidden=(4,), seed=0)
    model.double()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=number) * 0.5)
    return model


def shapes_of(model: nn.Module) -> list[torch.Size]:
    return [p.shape for p in model.parameters() if p.requires_grad]


# ---- the laws once more, one pair of rows at a time ---------------------------------------------


def matrices(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = flat.split([shape.numel() for shape in shapes])
    return [
        part.view(shape[0], -1) for part, shape in zip(parts, shapes, strict=True) if len(shape) > 1
    ]


def second_moment(family: Directions, a: Tensor, b: Tensor, shapes: list[torch.Size]) -> float:
    """E[(u . a)^2 (u . b)^2], from the formulas of the design."""
    d = a.numel()
    gaussian = float(a @ a * (b @ b) + 2 * (a @ b) ** 2)
    if isinstance(family, zo.Sphere):
        return d / (d + 2) * gaussian
    if isinstance(family, zo.LowRank):
        for M, N in zip(matrices(a, shapes), matrices(b, shapes), strict=True):
            right, left = M @ N.T, M.T @ N
            terms = right.square().sum() + (left @ left).trace() + left.square().sum()
            gaussian += 2 / family.rank * float(terms)
        return gaussian
    return gaussian + (family.kurtosis - 3) * float((a * a) @ (b * b))


def exact_error(
    family: Directions, rows: Tensor, columns: Tensor, shapes: list[torch.Size]
) -> float:
    """sum_ij Var[(u . a_i)(u . b_j)]."""
    return sum(
        second_moment(family, a, b, shapes) - float(a @ b) ** 2 for a in rows for b in columns
    )


def log_prob_jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """B = A J, (N V, d)."""
    J = zo.jacobian(model, x)
    pi = model(x).detach().softmax(-1)
    return (J - (pi[:, :, None] * J).sum(1, keepdim=True)).flatten(0, 1)


def mean_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(model(x), y)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


def hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([v.numel() for v in values])
        params = {n: p.view(v.shape) for n, p, v in zip(names, parts, values, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, params, (x,)), y)

    start = torch.cat([v.detach().reshape(-1) for v in values])
    return torch.autograd.functional.hessian(loss, start)


def within(found: float, error: float, exact: float) -> None:
    """Within 4 standard errors: 99.99 % for a normal; the seeds are fixed."""
    assert 0 <= error < math.inf
    assert abs(found - exact) <= 4 * error + 1e-9 * abs(exact), (
        f"found {found:.6g} with standard error {error:.2g}, exact {exact:.6g}: off by "
        f"{abs(found - exact) / max(error, 1e-300):.1f} standard errors"
    )


# ---- estimates ----------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2)])
@pytest.mark.statistical
def test_kernel_error_is_estimated_without_a_jacobian(
    family: Directions, sizes: tuple[int, int]
) -> None:
    model = network()
    x_o, x_u = normal(sizes[0], 1, 4, 4, seed=1), normal(sizes[1], 1, 4, 4, seed=2)
    rows, columns = (zo.jacobian(model, x).flatten(0, 1) for x in (x_o, x_u))
    exact = exact_error(family, rows, columns, shapes_of(model)) / 5
    found = zo.estimate_kernel_error(model, x_o, x_u, P=5, directions=family, samples=60, seed=3)
    within(*found, exact)
    assert found.std_error < 0.2 * exact  # or nothing was tested


@each_family
@pytest.mark.statistical
def test_kernel_error_of_inputs_with_themselves(family: Directions) -> None:
    """w and w' must be independent even where x_o is x_u."""
    model, x = network(), normal(2, 1, 4, 4, seed=1)
    rows = zo.jacobian(model, x).flatten(0, 1)
    exact = exact_error(family, rows, rows, shapes_of(model))
    within(
        *zo.estimate_kernel_error(model, x, x, P=1, directions=family, samples=60, seed=1), exact
    )


@each_family
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2)])
@pytest.mark.statistical
def test_dynamics_error_is_estimated_without_a_jacobian(
    family: Directions, sizes: tuple[int, int]
) -> None:
    model = network()
    x_o, x_u = normal(sizes[0], 1, 4, 4, seed=1), normal(sizes[1], 1, 4, 4, seed=2)
    y_u = torch.arange(sizes[1])
    B, g = log_prob_jacobian(model, x_o), mean_gradient(model, x_u, y_u)
    exact = 0.3**2 * exact_error(family, B, g[None], shapes_of(model)) / 4
    found = zo.estimate_dynamics_error(
        model, x_o, x_u, y_u, P=4, lr=0.3, directions=family, samples=60, seed=7
    )
    within(*found, exact)
    assert found.std_error < 0.2 * exact


@each_family
@pytest.mark.parametrize("P", [1, 7])
@pytest.mark.statistical
def test_moments_are_estimated_without_a_hessian(family: Directions, P: int) -> None:
    model, x, y = network(2), normal(3, 1, 4, 4, seed=1), torch.tensor([0, 1, 1])
    g, H = mean_gradient(model, x, y), hessian(model, x, y)
    shapes = shapes_of(model)
    eye = torch.eye(len(g), dtype=torch.float64)
    # E[(u.g)^2 u^T M u] for symmetric M: its eigenvectors are the b of second_moment
    exact = []
    for M in (eye, H):
        values, vectors = torch.linalg.eigh(M)
        one = sum(
            float(value) * second_moment(family, g, vector, shapes)
            for value, vector in zip(values, vectors.T, strict=True)
        )
        exact.append(one / P + (1 - 1 / P) * float(g @ M @ g))
    found, errors = zo.estimate_moments(model, x, y, P=P, directions=family, samples=60, seed=5)
    assert found.squared_norm == pytest.approx(exact[0], rel=1e-9)
    assert errors.squared_norm == 0.0
    within(found.curvature, errors.curvature, exact[1])
    # and where the matrices are at hand
    formed = zo.estimator_moments(g, H, P=P, directions=family, shapes=shapes)
    assert formed == pytest.approx(tuple(exact), rel=1e-9)


def test_the_standard_error_falls_as_one_over_sqrt_samples_and_is_honest() -> None:
    """Over 40 seeds, mean squared distance over mean squared standard error.

    About F-distributed with 40 and many degrees of freedom: in [0.45, 1.85] with 99.8 %.
    """
    model, x = nn.Linear(3, 2).double(), normal(2, 3, seed=1)
    rows = zo.jacobian(model, x).flatten(0, 1)
    exact = exact_error(zo.Rademacher(), rows, rows, shapes_of(model))
    runs = [zo.estimate_kernel_error(model, x, x, P=1, samples=16, seed=seed) for seed in range(40)]
    off = sum((run.value - exact) ** 2 for run in runs)
    ratio = off / sum(run.std_error**2 for run in runs)
    assert 0.45 < ratio < 1.85, ratio
    more = zo.estimate_kernel_error(model, x, x, P=1, samples=256, seed=0).std_error
    fewer = sum(run.std_error for run in runs) / len(runs)
    assert more / fewer == pytest.approx(math.sqrt(16 / 256), rel=0.3)


def test_estimates_are_a_function_of_the_seed() -> None:
    model, x = network(), normal(1, 1, 4, 4, seed=1)
    one, again, other = (
        zo.estimate_kernel_error(model, x, x, P=1, samples=4, seed=seed) for seed in (8, 8, 9)
    )
    assert one == again
    assert one.value != other.value


# ---- the planner --------------------------------------------------------------------------------


class Digits:
    """A network on digits, some of its inputs, and what is exact about them."""

    def __init__(self) -> None:
        split = zo.datasets.digits()
        self.model = zo.models.mlp(16, 1, seed=0)
        optimizer = torch.optim.SGD(self.model.parameters(), 0.5)
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(split.x_train), split.y_train).backward()
            optimizer.step()
        self.x_o, self.x_u, self.y_u = split.x_test[:3], split.x_train[:3], split.y_train[:3]
        self.shapes = shapes_of(self.model)
        self.J_o = zo.jacobian(self.model, self.x_o)
        self.J_u = zo.jacobian(self.model, self.x_u)
        self.B = log_prob_jacobian(self.model, self.x_o)
        self.g = mean_gradient(self.model, self.x_u, self.y_u)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


PLANNED = [zo.Rademacher(), zo.Gaussian(), zo.Sparse(0.1), zo.LowRank(1)]


def rms(digits: Digits, family: Directions, P: int, rows: Tensor, columns: Tensor) -> float:
    """The relative error of rows U U^T columns^T, RMS over 240 draws of U."""
    exact = rows @ columns.T
    squared = []
    for step in range(12):
        u = family.dense(digits.model, P=20 * P, seed=2, step=step)
        left, right = ((m @ u).view(-1, 20, P).transpose(0, 1) for m in (rows, columns))
        off = left @ right.mT / P - exact
        squared.append(float(off.square().sum((1, 2)).mean() / exact.square().sum()))
    return math.sqrt(sum(squared) / len(squared))


@pytest.mark.statistical
@pytest.mark.parametrize("family", PLANNED, ids=repr)
def test_the_planned_P_gives_the_error_of_the_kernel(digits: Digits, family: Directions) -> None:
    """Within 10 %; the 200 samples of the plan leave some 3 %, the draws some 2."""
    found = zo.plan_perturbations(
        digits.model, digits.x_o, digits.x_u, error=0.8, directions=family, samples=200, seed=1
    )
    rows, columns = digits.J_o.flatten(0, 1), digits.J_u.flatten(0, 1)
    assert rms(digits, family, found.P, rows, columns) == pytest.approx(0.8, rel=0.1)


@pytest.mark.statistical
@pytest.mark.parametrize("family", PLANNED, ids=repr)
def test_the_planned_P_gives_the_error_of_the_dynamics(digits: Digits, family: Directions) -> None:
    options: dict[str, Any] = {"directions": family, "samples": 200, "seed": 1}
    found = zo.plan_perturbations(
        digits.model, digits.x_o, digits.x_u, digits.y_u, error=0.8, **options
    )
    error = rms(digits, family, found.P, digits.B, digits.g[None])
    assert error == pytest.approx(0.8, rel=0.1)


def test_a_plan_and_perturbations_needed_agree(digits: Digits) -> None:
    for y_u in (None, digits.y_u):
        found = zo.plan_perturbations(
            digits.model, digits.x_o, digits.x_u, y_u, error=0.2, directions=zo.Gaussian(), seed=0
        )
        needed = zo.perturbations_needed(0.2, alignment=found.alignment, directions=zo.Gaussian())
        assert abs(found.P - needed) <= 1
        for P, error in found.errors.items():
            assert error == pytest.approx(math.sqrt((1 / found.alignment + 1) / P))
        assert list(found.errors) == [1, 8, 64]
        assert (
            found.errors[1] / math.sqrt(found.P) <= 0.2 < found.errors[1] / math.sqrt(found.P - 1)
        )
        assert found.steps == found.P
        assert found.forward_passes == 2 * found.P


def test_the_planned_alignment_is_that_of_the_whole_sets(digits: Digits) -> None:
    """Over all pairs of rows; ratio of means, within 20 % at 200 samples."""
    rows, columns = digits.J_o.flatten(0, 1), digits.J_u.flatten(0, 1)
    exact = float((rows @ columns.T).square().sum() / (rows.norm() * columns.norm()).square())
    found = zo.plan_perturbations(digits.model, digits.x_o, digits.x_u, samples=200, seed=0)
    assert found.alignment == pytest.approx(exact, rel=0.2)
    moved = digits.B @ digits.g
    exact = float(moved.square().sum() / (digits.B.norm() * digits.g.norm()).square())
    found = zo.plan_perturbations(
        digits.model, digits.x_o, digits.x_u, digits.y_u, samples=200, seed=0
    )
    assert found.alignment == pytest.approx(exact, rel=0.2)


def test_a_plan_says_what_it_found_in_words(digits: Digits) -> None:
    found = zo.plan_perturbations(
        digits.model, digits.x_o, digits.x_u, digits.y_u, error=0.5, samples=8, seed=0
    )
    words = str(found)
    assert f"P = {found.P} " in words
    assert f"{found.forward_passes} forward passes" in words
    assert "the change of log-probabilities" in words
    assert "the kernel" in str(
        zo.plan_perturbations(digits.model, digits.x_o, digits.x_u, samples=8, seed=0)
    )


def test_a_plan_leaves_the_model_alone(digits: Digits) -> None:
    before = [p.detach().clone() for p in digits.model.parameters()]
    state = torch.get_rng_state()
    zo.plan_perturbations(digits.model, digits.x_o, digits.x_u, digits.y_u, samples=2, seed=0)
    zo.estimate_moments(digits.model, digits.x_u, digits.y_u, P=1, samples=2, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    for p, old in zip(digits.model.parameters(), before, strict=True):
        assert torch.equal(p.detach(), old)


@pytest.mark.parametrize("family", [*FAMILIES], ids=repr)
@pytest.mark.parametrize("labelled", [False, True])
def test_where_rows_are_few_the_plan_is_exact(
    family: Directions, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law of the formed Jacobians, in whatever blocks the rows come."""
    model = network()
    x_o, x_u, y_u = normal(3, 1, 4, 4, seed=1), normal(2, 1, 4, 4, seed=2), torch.tensor([0, 2])
    rows = zo.jacobian(model, x_o).flatten(0, 1)
    columns = zo.jacobian(model, x_u).flatten(0, 1)
    if labelled:
        rows, columns = log_prob_jacobian(model, x_o), mean_gradient(model, x_u, y_u)[None]
    ratio = exact_error(family, rows, columns, shapes_of(model)) / float(
        (rows @ columns.T).square().sum()
    )
    d = rows.shape[1]
    for held, formed in ((1 << 29, 1 << 24), (4 * d, 2 * d), (1, 1)):
        monkeypatch.setattr(planning, "_HELD", held)
        monkeypatch.setattr(planning, "_FORMED", formed)
        found = zo.plan_perturbations(
            model, x_o, x_u, y_u if labelled else None, error=0.3, directions=family, seed=0
        )
        assert (found.samples, found.std_error) == (0, 0.0)
        assert found.errors[1] == pytest.approx(math.sqrt(ratio), rel=1e-9)
        assert math.ceil(ratio / 0.3**2) == found.P


def test_a_plan_becomes_better_and_the_last_is_the_plan() -> None:
    model, x = network(), normal(3, 1, 4, 4, seed=1)
    options: dict[str, Any] = {"samples": 2, "seed": 1}
    *_, last = seen = list(planning.refine(model, x, x, torch.tensor([0, 1, 2]), **options))
    assert [p.done for p in seen] == [1, 2]
    assert {p.total for p in seen} == {2}
    assert seen[0].plan is not None
    assert math.isinf(seen[0].plan.std_error)
    assert last.plan == zo.plan_perturbations(model, x, x, torch.tensor([0, 1, 2]), **options)
    assert "standard error" in str(last.plan)
    assert "from 2 random samples" in str(last.plan)


@pytest.mark.parametrize("y_u", [None, torch.tensor([0, 1, 2])], ids=["kernel", "dynamics"])
def test_an_exact_plan_counts_the_rows_of_J_o(y_u: Tensor | None) -> None:
    model, x = network(), normal(3, 1, 4, 4, seed=1)
    rows = 2 * model(x).shape[1]
    *_, last = seen = list(planning.refine(model, x[:2], x, y_u, samples=1000, seed=1))
    assert last.plan is not None
    assert last.plan.std_error == 0.0
    assert {p.total for p in seen} == {rows}
    assert last.done == rows


@pytest.mark.statistical
def test_the_standard_error_of_P_is_honest() -> None:
    """Over 60 seeds, mean squared distance of P from the exact one over mean squared error.

    About F-distributed with 60 and many degrees of freedom, and a ratio of means is biased by
    1/samples: in [0.5, 1.8] with 99.9 %.
    """
    model, x = network(), normal(4, 1, 4, 4, seed=1)
    y = torch.tensor([0, 1, 2, 0])
    exact = zo.plan_perturbations(model, x, x, y, error=0.05, samples=1000, seed=0)
    assert exact.samples == 0
    off = spread = 0.0
    params = resolve_model(model)
    for seed in range(60):
        sums = list(
            planning._sampled_dynamics(params, x, x, y, zo.Rademacher(), samples=40, seed=seed)
        )
        found = planning._planned(sums, 0.05, "", exact=False)
        assert found is not None
        off += (found.P - exact.P) ** 2
        spread += found.std_error**2
    assert 0.5 < off / spread < 1.8, off / spread


# ---- memory -------------------------------------------------------------------------------------

VOCABULARY = 50_272


class Peak(TorchDispatchMode):
    """The most numbers that any tensor made inside has."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.numbers = max(self.numbers, leaf.untyped_storage().nbytes() // 4)
        return result


class Bag(nn.Module):
    """Mean of embeddings, then a linear layer to the vocabulary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.out = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).mean(1).tanh())


TASKS: dict[str, Callable[[nn.Module, Tensor, Tensor, Directions], Any]] = {
    "kernel": lambda model, x, y, family: zo.estimate_kernel_error(
        model, x, x.flip(0), P=1, directions=family, samples=2, seed=0
    ),
    "dynamics": lambda model, x, y, family: zo.estimate_dynamics_error(
        model, x, x.flip(0), y, P=1, lr=0.1, directions=family, samples=2, seed=0
    ),
    "moments": lambda model, x, y, family: zo.estimate_moments(
        model, x, y, P=1, directions=family, samples=2, seed=0
    ),
    "plan": lambda model, x, y, family: zo.plan_perturbations(
        model, x, x.flip(0), directions=family, samples=2, seed=0
    ),
}


@pytest.mark.parametrize("family", [zo.Rademacher(), zo.LowRank(2)], ids=repr)
@pytest.mark.parametrize("task", TASKS)
def test_no_tensor_is_larger_than_the_parameters(task: str, family: Directions) -> None:
    """At V = 50,272: no Jacobian (V d numbers) and no V x V block; d float64 numbers at most."""
    model = Bag(4)
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=number) * 0.5)
    d = sum(p.numel() for p in model.parameters())
    x, y = torch.tensor([[5, 7, 50_000], [7, 1, 2]]), torch.tensor([3, 4])
    with Peak() as peak:
        TASKS[task](model, x, y, family)
    assert d <= peak.numbers <= 2 * d  # in units of four bytes


# ---- errors -------------------------------------------------------------------------------------

X = torch.ones(1, 1, 4, 4, dtype=torch.float64)
Y = torch.tensor([0])


def calls(**given: Any) -> list[Callable[[], Any]]:
    """Every entry of the module, with some arguments replaced."""
    model = network()

    def options(**defaults: Any) -> dict[str, Any]:
        return (
            {"seed": 0}
            | defaults
            | {name: value for name, value in given.items() if name not in ("x", "y")}
        )

    x, y = given.get("x", X), given.get("y", Y)
    return [
        lambda: zo.estimate_kernel_error(model, x, X, **options(P=1)),
        lambda: zo.estimate_kernel_error(model, X, x, **options(P=1)),
        lambda: zo.estimate_dynamics_error(model, X, x, y, **options(P=1, lr=0.1)),
        lambda: zo.estimate_moments(model, x, y, **options(P=1)),
    ]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"P": 0}, ValueError, "P: given 0, expected at least 1"),
        ({"P": 1.5}, TypeError, "P: given 1.5"),
        ({"samples": 1}, ValueError, "samples: given 1, expected at least 2"),
        ({"seed": -1}, ValueError, "seed: given -1"),
        ({"x": X[0, 0, 0, 0]}, ValueError, r"x(_.)?: given shape \(\), expected a batch"),
        ({"x": X[:0]}, ValueError, "N at least 1"),
        ({"x": [1.0]}, TypeError, r"x(_.)?: given a list, expected a tensor"),
        (
            {"directions": zo.Gaussian},
            TypeError,
            "directions: given the class Gaussian, expected a family .* construct one",
        ),
        ({"directions": "gaussian"}, TypeError, "directions: given 'gaussian'"),
    ],
)
def test_what_cannot_be_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    for call in calls(**given):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("y", [torch.tensor([3]), torch.tensor([-1]), torch.tensor([0, 1])])
def test_labels_that_do_not_fit_are_refused(y: Tensor) -> None:
    for call in calls(y=y)[2:]:
        with pytest.raises(ValueError, match=r"y.*given .* expected"):
            call()
    with pytest.raises(ValueError, match=r"y_u: given .* expected"):
        zo.plan_perturbations(network(), X, X, y, seed=0)


def test_a_class_is_no_family_anywhere() -> None:
    e, model = torch.eye(2), nn.Linear(2, 2)
    g, family = torch.ones(2), zo.Gaussian
    options: dict[str, Any] = {"directions": family}
    for call in (
        lambda: zo.plan_perturbations(model, e, e, seed=0, **options),
        lambda: zo.kernel_error_law(e, e, P=1, **options),
        lambda: zo.dynamics_error_law(e, e, g, P=1, lr=0.1, **options),
        lambda: zo.estimator_moments(g, e, P=1, **options),
        lambda: zo.kernel_error_bound(e, e, P=1, delta=0.1, **options),
        lambda: zo.jl_epsilon(10, 2, delta=0.1, **options),
        lambda: zo.jl_min_perturbations(2, 0.1, delta=0.1, **options),
        lambda: zo.perturbations_needed(0.1, alignment=0.5, **options),
        lambda: zo.laws.pair_terms(e, e, **options),
        lambda: zo.trajectory(
            model, (e, torch.tensor([0, 1])), observe=e, steps=1, lr=0.1, P=1, seed=0, **options
        ),
    ):
        with pytest.raises(TypeError, match=r"given the class Gaussian, .* construct one"):
            call()


@pytest.mark.parametrize("error", [0.0, -0.1, math.inf, math.nan])
def test_an_error_that_cannot_be_asked_for_is_refused(error: float) -> None:
    with pytest.raises(ValueError, match=r"error: given .* expected a finite number above 0"):
        zo.plan_perturbations(network(), X, X, error=error, seed=0)


def test_a_kernel_of_0_is_refused_and_says_what_to_do() -> None:
    """Two inputs that share no parameter: a relative error means nothing."""
    model = nn.Linear(2, 1, bias=False)
    x = torch.eye(2)
    with pytest.raises(ValueError, match=r"kernel block is 0 .* use estimate_kernel_error"):
        zo.plan_perturbations(model, x[:1], x[1:], seed=0)
    assert zo.estimate_kernel_error(model, x[:1], x[1:], P=1, seed=0).value == 1.0

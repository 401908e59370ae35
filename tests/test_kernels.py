"""K and K_U against naive Jacobians and the drawn U; their laws; alignment and its relatives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import naive_jacobians as naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_jacobians import CASES, FAMILIES, normal, untouched
from torch import Tensor, nn

import zotutor as zo
from zotutor import directions, kernels
from zotutor.parameters import Parameters
from zotutor.uses import Uses, record

ALL = pytest.mark.parametrize("case", CASES)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)
quick = settings(derandomize=True, max_examples=30, deadline=None, database=None)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def drawn(model: nn.Module, family: directions.Directions, P: int, seed: int, step: int) -> Tensor:
    """U (d, P), each column drawn by itself."""
    columns = [family.dense(model, P=1, seed=seed, step=step, first=p) for p in range(P)]
    return torch.cat(columns, dim=1) / math.sqrt(P)


# ---- K ------------------------------------------------------------------------------------------


@ALL
def test_entk_is_the_naive_kernel(case: str) -> None:
    model, x_o = CASES[case](3)
    _, x_u = CASES[case](2, seed=2)
    with untouched(model, x_o, x_u):
        K = zo.entk(model, x_o, x_u)
    J_o, J_u = naive.jacobian(model, x_o), naive.jacobian(model, x_u)
    assert K.shape == (3, 2, J_o.shape[1], J_o.shape[1])
    assert K.abs().max() > 0.01
    close(K, naive.kernel(J_o, J_u))


@pytest.mark.parametrize("case", ["mlp", "tied", "lstm"])
def test_every_chunk_size_gives_the_same_kernel(case: str) -> None:
    model, x_o = CASES[case](5)
    _, x_u = CASES[case](3, seed=2)
    whole = naive.kernel(naive.jacobian(model, x_o), naive.jacobian(model, x_u))
    for chunk_size in (None, 1, 2, 5, 99):
        close(zo.entk(model, x_o, x_u, chunk_size=chunk_size), whole)


def test_chunk_size_limits_how_many_observed_inputs_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = CASES["mlp"](5)
    seen: list[int] = []

    def spy(params: Parameters, x: Tensor, name: str) -> Uses:
        seen.append(len(x))
        return record(params, x, name)

    monkeypatch.setattr(kernels, "record", spy)
    zo.entk(model, x, x[:3], chunk_size=2)
    assert seen == [3, 2, 2, 1]


def gram(K: Tensor) -> Tensor:
    """The blocks (N, N, V, V) as one matrix (N V, N V)."""
    N, V = K.shape[1:3]
    return K.permute(0, 2, 1, 3).reshape(N * V, N * V)


@ALL
def test_the_gram_matrix_is_symmetric_and_positive_semidefinite(case: str) -> None:
    model, x = CASES[case](4)
    matrix = gram(zo.entk(model, x, x))
    close(matrix, matrix.T)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()
    assert eigenvalues.max() > 0


def test_exchanging_the_inputs_transposes_the_kernel() -> None:
    model, x_o = CASES["conv"](3)
    _, x_u = CASES["conv"](2, seed=2)
    close(zo.entk(model, x_o, x_u), zo.entk(model, x_u, x_o).permute(1, 0, 3, 2))
    one = zo.zo_entk(model, x_o, x_u, P=3, seed=4)
    close(one, zo.zo_entk(model, x_u, x_o, P=3, seed=4).permute(1, 0, 3, 2))


def test_a_pair_does_not_depend_on_the_rest_of_its_batch() -> None:
    model, x = CASES["batch norm in eval"](4)
    whole = zo.entk(model, x, x)
    for o in range(4):
        for u in range(4):
            close(zo.entk(model, x[[o]], x[[u]])[0, 0], whole[o, u])


# ---- K_U ----------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("case", ["mlp", "tied", "frozen", "scalars", "conv", "object"])
def test_zo_entk_is_formed_from_the_drawn_directions(
    case: str, family: directions.Directions
) -> None:
    model, x_o = CASES[case](3)
    _, x_u = CASES[case](2, seed=2)
    with untouched(model, x_o, x_u):
        K_U = zo.zo_entk(model, x_o, x_u, P=5, directions=family, seed=11, step=3)
    U = drawn(model, family, 5, seed=11, step=3)
    by_hand = naive.kernel(naive.jacobian(model, x_o), naive.jacobian(model, x_u), U)
    assert by_hand.abs().max() > 0.01
    close(K_U, by_hand)


def test_zo_entk_draws_signs_unless_told_otherwise() -> None:
    model, x = CASES["mlp"](2)
    default = zo.zo_entk(model, x, x, P=3, seed=5)
    signs = zo.zo_entk(model, x, x, P=3, directions=zo.Rademacher(), seed=5, step=0)
    assert torch.equal(default, signs)


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"step": 1}, {"P": 4}, {"directions": zo.Gaussian()}], ids=str
)
def test_zo_entk_depends_on_all_that_fixes_the_directions(other: dict[str, Any]) -> None:
    model, x = CASES["mlp"](2)
    options: dict[str, Any] = {"P": 3, "seed": 5}
    K_U = zo.zo_entk(model, x, x, **options)
    assert torch.equal(K_U, zo.zo_entk(model, x, x, **options))
    assert not torch.allclose(K_U, zo.zo_entk(model, x, x, **options | other), rtol=0.01)


@each_family
def test_more_perturbations_keep_the_first_ones(family: directions.Directions) -> None:
    """P K_U is a sum over p of terms that do not depend on P."""
    model, x = CASES["mlp"](2)

    def total(P: int) -> Tensor:
        return P * zo.zo_entk(model, x, x, P=P, directions=family, seed=5)

    J = naive.jacobian(model, x)
    last = naive.kernel(J, J, family.dense(model, P=1, seed=5, step=0, first=3))
    close(total(4), total(3) + last)


@each_family
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 7])
def test_how_many_columns_are_drawn_at_once_does_not_matter(
    family: directions.Directions, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x_o = CASES["mlp"](3)
    _, x_u = CASES["mlp"](2, seed=2)
    d = sum(p.numel() for p in model.parameters())
    U = drawn(model, family, 7, seed=5, step=1)
    by_hand = naive.kernel(naive.jacobian(model, x_o), naive.jacobian(model, x_u), U)
    widths: list[int] = []
    dense = type(family).dense

    def spy(self: Any, params: Any, *, P: int, **options: Any) -> Tensor:
        widths.append(P)
        return dense(self, params, P=P, **options)

    monkeypatch.setattr(type(family), "dense", spy)
    for budget in (columns * d, columns * d + d - 1):
        widths.clear()
        monkeypatch.setattr(kernels, "_COLUMNS", budget)
        K_U = zo.zo_entk(model, x_o, x_u, P=7, directions=family, seed=5, step=1)
        close(K_U, by_hand)
        assert sum(widths) == 7
        assert max(widths) == columns
    monkeypatch.setattr(kernels, "_COLUMNS", d - 1)  # not even one fits: one at a time
    close(zo.zo_entk(model, x_o, x_u, P=7, directions=family, seed=5, step=1), by_hand)
    assert widths[-7:] == [1] * 7


@pytest.mark.parametrize("P", [1, 2, 5])
def test_the_zo_gram_matrix_is_positive_semidefinite_of_rank_P(P: int) -> None:
    model, x = CASES["mlp"](3)
    matrix = gram(zo.zo_entk(model, x, x, P=P, seed=0))
    close(matrix, matrix.T)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()
    assert int((eigenvalues > 1e-10 * eigenvalues.max()).sum()) == P


def test_projected_takes_jacobians_at_hand() -> None:
    model, x_o = CASES["mlp"](3)
    _, x_u = CASES["mlp"](2, seed=2)
    J_o, J_u = zo.jacobian(model, x_o), zo.jacobian(model, x_u)
    for params in (model, list(model.parameters()), list(model.named_parameters())):
        K_U = kernels.projected(J_o, J_u, params, P=3, seed=5, step=2)
        assert torch.equal(K_U, zo.zo_entk(model, x_o, x_u, P=3, seed=5, step=2))


@each_family
def test_zo_entk_is_what_a_step_of_zosgd_sees(family: directions.Directions) -> None:
    """A real step of the optimizer moves the logits by -lr K_U G: same seed, same step, same U.

    The steps before it have lr = 0 and leave the parameters as they are. In float64 at
    eps = lr = 1e-6 the difference quotient is off by 1e-10 or so, and so is the second-order term.
    """
    model, x_o = CASES["mlp"](3)
    _, x_u = CASES["mlp"](2, seed=2)
    y_u = torch.tensor([2, 0])
    G = model(x_u).softmax(-1).detach() - nn.functional.one_hot(y_u, 3)
    J_o = naive.jacobian(model, x_o)
    K_U = zo.zo_entk(model, x_o, x_u, P=3, directions=family, seed=21, step=2)
    predicted = -1e-6 / 2 * torch.einsum("ouij,uj->oi", K_U, G)

    before = [p.detach().clone() for p in model.parameters()]
    z = model(x_o).detach()
    optimizer = zo.ZOSGD(model.parameters(), lr=0.0, P=3, eps=1e-6, directions=family, seed=21)

    def closure() -> Tensor:
        return nn.functional.cross_entropy(model(x_u), y_u)

    for _ in range(2):
        optimizer.step(closure)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    optimizer.param_groups[0]["lr"] = 1e-6
    optimizer.step(closure)

    moved = torch.cat(
        [(p.detach() - old).reshape(-1) for p, old in zip(model.parameters(), before, strict=True)]
    )
    size = float(predicted.abs().max())
    assert size > 1e-8
    torch.testing.assert_close(J_o @ moved, predicted, rtol=1e-6, atol=1e-7 * size)
    torch.testing.assert_close(model(x_o) - z, predicted, rtol=1e-4, atol=1e-4 * size)
    for step in (0, 1, 3):  # no other step's directions would do
        other = zo.zo_entk(model, x_o, x_u, P=3, directions=family, seed=21, step=step)
        wrong = -1e-6 / 2 * torch.einsum("ouij,uj->oi", other, G)
        assert (wrong - predicted).norm() > 0.1 * predicted.norm()


def pair_variance(
    J_o: Tensor,
    J_u: Tensor,
    family: directions.Directions,
    shapes: list[torch.Size] | None = None,
) -> Tensor:
    """Var of each entry of a u u^T b at P = 1, for rows a of J_o and b of J_u; design.md 3.3."""
    a, b = J_o[:, None, :, None], J_u[None, :, None, :]
    norms = a.square().sum(-1) * b.square().sum(-1)
    inner = (a * b).sum(-1).square()
    if isinstance(family, zo.Sphere):
        d = J_o.shape[-1]
        return d / (d + 2) * (norms + 2 * inner) - inner
    if isinstance(family, zo.LowRank):
        assert shapes is not None
        extra = torch.zeros_like(norms)
        sizes = [math.prod(shape) for shape in shapes]
        for M, N, shape in zip(a.split(sizes, -1), b.split(sizes, -1), shapes, strict=True):
            if len(shape) > 1:
                M, N = (m.unflatten(-1, (shape[0], -1)) for m in (M, N))
                outer, inside = M @ N.mT, M.mT @ N
                extra += outer.square().sum((-2, -1)) + inside.square().sum((-2, -1))
                extra += (inside @ inside).diagonal(dim1=-2, dim2=-1).sum(-1)
        return norms + inner + 2 / family.rank * extra
    return norms + inner + (family.kurtosis - 3) * (a.square() * b.square()).sum(-1)


@each_family
@pytest.mark.statistical
def test_zo_entk_is_unbiased(family: directions.Directions) -> None:
    """The mean over 2000 directions is K, entry by entry, within five standard errors.

    Five standard errors, of the exact variance, hold a normal mean with probability 1 - 5.7e-7; for
    the 54 entries together, a correct K_U passes on more than 99.99 % of seeds. This one is fixed.
    """
    P = 2000
    model, x_o = CASES["mlp"](3)
    _, x_u = CASES["mlp"](2, seed=2)
    J_o, J_u = zo.jacobian(model, x_o), zo.jacobian(model, x_u)
    K_U = zo.zo_entk(model, x_o, x_u, P=P, directions=family, seed=2)
    variance = pair_variance(J_o, J_u, family, [p.shape for p in model.parameters()])
    error = (K_U - zo.entk(model, x_o, x_u)) / (variance / P).sqrt()
    assert error.abs().max() < 5
    assert 0.4 < error.square().mean() < 2  # and the errors are no smaller than the law's


def check_mean(samples: Tensor, expected: float) -> None:
    """The mean of 800 samples is within four standard errors, none of them above 8 %.

    The standard error is that of 20 groups of 40, whose means are close to normal: by Student's t
    with 19 degrees of freedom a correct mean passes on 99.9 % of seeds. The seed is fixed.
    """
    groups = samples.view(20, 40).mean(1)
    standard_error = float(groups.std()) / math.sqrt(20)
    assert standard_error < 0.08 * expected
    assert abs(float(groups.mean()) - expected) < 4 * standard_error


# the square of LowRank(2)'s kernel has eighth powers of normals: 800 draws see too little of them
@pytest.mark.parametrize("family", [*FAMILIES[:-1], zo.LowRank(8)], ids=repr)
@pytest.mark.statistical
def test_the_mean_square_error_obeys_the_exact_law(family: directions.Directions) -> None:
    """E norm(K_U - K)_F^2 = law / P, for any matrices in the place of Jacobians."""
    P, theta = 4, torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    J_o, J_u = normal(2, 3, 24, seed=0), normal(1, 3, 24, seed=1)
    J_u[0] += 0.7 * J_o[0]
    K = kernels.product(J_o, J_u)
    errors = [
        kernels.projected(J_o, J_u, [theta], P=P, directions=family, seed=3, step=step) - K
        for step in range(800)
    ]
    law = float(pair_variance(J_o, J_u, family, [theta.shape]).sum()) / P
    check_mean(torch.stack(errors).square().sum((1, 2, 3, 4)), law)


def unrounded_products(model: nn.Module, x: Tensor) -> Tensor:
    """J of linear layers, (N, V, d): a and delta as the model rounds them, delta a^T in float64."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    inputs, outputs = [], []

    def keep(layer: nn.Module, args: Any, output: Tensor) -> None:
        inputs.append(args[0].detach().double())
        outputs.append(output)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    z = model(x)
    for hook in hooks:
        hook.remove()
    J = []
    for v in range(z.shape[1]):
        deltas = torch.autograd.grad(z[:, v].sum(), outputs, retain_graph=True)
        parts = []
        for a, delta in zip(inputs, deltas, strict=True):
            parts += [torch.einsum("nm,nk->nmk", delta.double(), a).flatten(1), delta.double()]
        J.append(torch.cat(parts, 1))
    return torch.stack(J, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_of_lower_precision(dtype: torch.dtype) -> None:
    """Sums are taken in float32 at least: only what they are sums of is rounded to dtype.

    For K that is each layer's input and the gradient in its output, for K_U the Jacobian.
    """
    model, x = CASES["mlp"](3)
    model, x = model.to(dtype), x.to(dtype)
    J, product = zo.jacobian(model, x).double(), unrounded_products(model, x)
    K, K_U = zo.entk(model, x, x), zo.zo_entk(model, x, x, P=7, seed=3)
    U = zo.Rademacher().dense(model, P=7, seed=3, step=0).double() / math.sqrt(7)
    for actual, expected in [(K, naive.kernel(product, product)), (K_U, naive.kernel(J, J, U))]:
        assert actual.dtype == torch.float32
        assert (actual - expected).norm() < 1e-5 * expected.norm()


# ---- errors of K and K_U ------------------------------------------------------------------------

X = normal(2, 4, seed=0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x_o": X[:0]}, ValueError, r"x_o: given shape \(0, 4\), expected a batch"),
        ({"x_u": X[:0]}, ValueError, r"x_u: given shape \(0, 4\), expected a batch"),
        ({"x_o": X.tolist()}, TypeError, r"x_o: given a list, expected a tensor"),
        ({"x_u": X.numpy()}, TypeError, r"x_u: given a ndarray, expected a tensor .*as_tensor"),
    ],
)
@pytest.mark.parametrize("name", ["entk", "zo_entk"])
def test_a_bad_batch_is_refused_before_any_work(
    name: str, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = naive.Counted()
    inputs: dict[str, Any] = {"x_o": X, "x_u": X} | change
    options = {"P": 2, "seed": 0} if name == "zo_entk" else {}
    with pytest.raises(error, match=words):
        getattr(zo, name)(model, **inputs, **options)
    assert model.calls == 0


@pytest.mark.parametrize("chunk_size", [0, -2])
def test_a_chunk_of_nothing_is_refused_before_any_work(chunk_size: int) -> None:
    model = naive.Counted()
    with pytest.raises(ValueError, match=rf"chunk_size: given {chunk_size}, expected at least 1"):
        zo.entk(model, X, X, chunk_size=chunk_size)
    assert model.calls == 0


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"P": 0}, ValueError, "P: given 0, expected at least 1"),
    ({"P": 2.0}, TypeError, "P: given 2.0 of type float, expected an int"),
    ({"seed": -1}, ValueError, "seed: given -1, expected at least 0"),
    ({"seed": 2**64}, ValueError, "seed: given 18446744073709551616, expected at least 0 and"),
    ({"seed": None}, TypeError, "seed: given None of type NoneType, expected an int"),
    ({"step": -1}, ValueError, "step: given -1, expected at least 0"),
    ({"directions": "gaussian"}, TypeError, r"directions: given 'gaussian', expected .*Gaussian"),
    ({"directions": zo.Gaussian}, TypeError, r"directions: given the class .*Gaussian\(\)"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD_OPTIONS)
def test_bad_options_are_refused_before_any_work(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = naive.Counted()
    options: dict[str, Any] = {"P": 2, "seed": 0} | change
    with pytest.raises(error, match=words):
        zo.zo_entk(model, X, X, **options)
    assert model.calls == 0
    J = normal(2, 3, 15, seed=0)
    with pytest.raises(error, match=words):
        kernels.projected(J, J, model, **options)


@pytest.mark.parametrize("name", ["entk", "zo_entk"])
def test_a_model_in_training_mode_with_dropout_is_refused(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1)).double()
    options = {"P": 2, "seed": 0} if name == "zo_entk" else {}
    with pytest.raises(ValueError, match=r"module 1 is a Dropout .* model.eval\(\)"):
        getattr(zo, name)(model, X, X, **options)


# ---- alignment, effective rank, relative error --------------------------------------------------

seeds = st.integers(0, 2**32)
sizes = st.integers(1, 5)
scales = st.floats(1e-6, 1e6)


@quick
@given(V_o=sizes, V_u=sizes, d=st.integers(1, 12), seed=seeds, c_o=scales, c_u=scales)
def test_alignment_is_in_0_1_and_has_no_scale(
    V_o: int, V_u: int, d: int, seed: int, c_o: float, c_u: float
) -> None:
    J_o, J_u = normal(V_o, d, seed=seed), normal(V_u, d, seed=seed + 1)
    a = zo.alignment(J_o, J_u)
    K = J_o @ J_u.T
    by_hand = K.square().sum() / (J_o.square().sum() * J_u.square().sum())
    torch.testing.assert_close(a, by_hand)
    assert 0 <= a <= 1
    torch.testing.assert_close(zo.alignment(J_u, J_o), a)
    torch.testing.assert_close(zo.alignment(c_o * J_o, -c_u * J_u), a)
    torch.testing.assert_close(  # and no basis of parameters or outputs
        zo.alignment(J_o.flip(-1), J_u.flip(-1).flip(-2)), a
    )


@quick
@given(V=sizes, d=st.integers(1, 12), seed=seeds, c=scales)
def test_alignment_of_an_input_with_itself_is_1_over_the_effective_rank(
    V: int, d: int, seed: int, c: float
) -> None:
    J = normal(V, d, seed=seed)
    rank = zo.effective_rank(J @ J.T)
    torch.testing.assert_close(1 / zo.alignment(J, J), rank)
    assert 1 - 1e-12 <= rank <= min(V, d) + 1e-12
    torch.testing.assert_close(zo.effective_rank(c * J @ J.T), rank)
    eigenvalues = torch.linalg.eigvalsh(J @ J.T)
    torch.testing.assert_close(rank, eigenvalues.sum().square() / eigenvalues.square().sum())


def test_effective_rank_counts_equal_eigenvalues() -> None:
    basis, _ = torch.linalg.qr(normal(6, 6, seed=0))
    for k in range(1, 7):
        K = basis[:, :k] @ basis[:, :k].T * 3.0
        assert math.isclose(float(zo.effective_rank(K)), k, rel_tol=1e-12)


def test_alignment_of_orthogonal_and_of_parallel_inputs() -> None:
    e = torch.eye(4)
    assert zo.alignment(e[:2], e[2:]) == 0
    assert zo.alignment(e[:1], -3 * e[:1]) == 1


def test_alignment_never_exceeds_1_by_rounding() -> None:
    J = normal(2000, 1, 7, seed=0, dtype=torch.float32)
    a = zo.alignment(J, 3 * J)
    assert a.max() <= 1
    assert a.min() > 1 - 1e-5


@pytest.mark.parametrize("scale", [1e-15, 1e-8, 1.0, 1e8, 1e15])
def test_float32_neither_underflows_nor_overflows(scale: float) -> None:
    J_o, J_u = normal(3, 50, seed=0), normal(3, 50, seed=1)
    expected = float(zo.alignment(J_o, J_u))
    single_o, single_u = (scale * J_o).float(), (scale * J_u).float()
    assert math.isclose(float(zo.alignment(single_o, single_u)), expected, rel_tol=1e-4)
    K = J_o @ J_o.T
    single = (scale * scale * K).float()
    assert math.isclose(float(zo.effective_rank(single)), float(zo.effective_rank(K)), rel_tol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """norm(J)_F^2 norm(J)_F^2 is above 65504, the largest float16, for any network of use."""
    J_o, J_u = normal(3, 4000, seed=0, dtype=dtype), normal(3, 4000, seed=1, dtype=dtype)
    for actual, expected in [
        (zo.alignment(J_o, J_u), zo.alignment(J_o.double(), J_u.double())),
        (zo.effective_rank(1e4 * torch.eye(3, dtype=dtype)), torch.tensor(3.0)),
        (
            zo.relative_frobenius(J_o[:, :3], J_u[:, :3]),
            zo.relative_frobenius(J_o[:, :3].double(), J_u[:, :3].double()),
        ),
    ]:
        assert actual.dtype == torch.float32
        assert actual.isfinite()
        assert math.isclose(float(actual), float(expected), rel_tol=1e-4)


def test_leading_dimensions_broadcast() -> None:
    J_o, J_u = normal(4, 3, 9, seed=0), normal(5, 3, 9, seed=1)
    a = zo.alignment(J_o[:, None], J_u[None])
    K = kernels.product(J_o, J_u)
    ranks = zo.effective_rank(kernels.product(J_o, J_o)[range(4), range(4)])
    errors = zo.relative_frobenius(K * 1.25, K)
    assert a.shape == errors.shape == (4, 5)
    assert ranks.shape == (4,)
    for o in range(4):
        close(ranks[o], zo.effective_rank(J_o[o] @ J_o[o].T))
        for u in range(5):
            close(a[o, u], zo.alignment(J_o[o], J_u[u]))
    close(errors, torch.full((4, 5), 0.25, dtype=torch.float64))
    draws = normal(7, 1, 1, 3, 3, seed=2)
    assert zo.relative_frobenius(K + draws, K).shape == (7, 4, 5)


@quick
@given(V=sizes, seed=seeds, c=scales)
def test_relative_frobenius_is_a_relative_distance(V: int, seed: int, c: float) -> None:
    K, other = normal(V, V, seed=seed), normal(V, V, seed=seed + 1)
    error = zo.relative_frobenius(other, K)
    torch.testing.assert_close(error, (other - K).norm() / K.norm())
    assert zo.relative_frobenius(K, K) == 0
    torch.testing.assert_close(zo.relative_frobenius(c * other, c * K), error)
    torch.testing.assert_close(zo.relative_frobenius(other.T, K.T), error)
    Q, _ = torch.linalg.qr(normal(V, V, seed=seed + 2))
    torch.testing.assert_close(zo.relative_frobenius(Q @ other @ Q.T, Q @ K @ Q.T), error)
    torch.testing.assert_close(
        zo.relative_frobenius((1 + c) * K, K),
        torch.tensor(c, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-12,
    )


@each_family
def test_the_standard_error_is_that_of_the_mean_over_directions(
    family: directions.Directions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x_o = CASES["mlp"](3)
    _, x_u = CASES["mlp"](2, seed=2)
    J_o, J_u = naive.jacobian(model, x_o), naive.jacobian(model, x_u)
    u = drawn(model, family, 6, seed=5, step=1) * math.sqrt(6)
    samples = torch.stack([naive.kernel(J_o, J_u, u[:, p : p + 1]) for p in range(6)])
    for budget in (1 << 24, 4 * u.shape[0]):
        monkeypatch.setattr(kernels, "_COLUMNS", budget)
        with untouched(model, x_o, x_u):
            K_U, std = zo.zo_entk_with_std(model, x_o, x_u, P=6, directions=family, seed=5, step=1)
        close(K_U, samples.mean(0))
        close(std, samples.std(0) / math.sqrt(6))


def test_the_flag_of_version_0_1_still_works() -> None:
    model, x = CASES["mlp"](2)
    with pytest.warns(DeprecationWarning, match="use zo_entk_with_std for return_std=True"):
        K_U, std = zo.zo_entk(model, x, x, P=3, seed=1, return_std=True)  # type: ignore[call-arg]
    for actual, expected in zip(
        (K_U, std), zo.zo_entk_with_std(model, x, x, P=3, seed=1), strict=True
    ):
        assert torch.equal(actual, expected)
    with pytest.warns(DeprecationWarning, match="leave it out"):
        K_U = zo.zo_entk(model, x, x, P=3, seed=1, return_std=False)  # type: ignore[call-arg]
    assert torch.equal(K_U, zo.zo_entk(model, x, x, P=3, seed=1))


def test_a_standard_error_needs_two_directions() -> None:
    model = naive.Counted()
    with pytest.raises(ValueError, match="P: given 1, expected at least 2"):
        zo.zo_entk_with_std(model, X, X, P=1, seed=0)
    assert model.calls == 0


@pytest.mark.statistical
def test_alignment_gives_the_relative_error_of_gaussian_directions() -> None:
    """E error^2 = (1/a + 1) / P."""
    P, theta = 8, torch.zeros(24, dtype=torch.float64, requires_grad=True)
    J_o, J_u = normal(1, 3, 24, seed=2), normal(1, 3, 24, seed=3)
    K = kernels.product(J_o, J_u)
    errors = [
        zo.relative_frobenius(
            kernels.projected(J_o, J_u, [theta], P=P, directions=zo.Gaussian(), seed=4, step=step),
            K,
        )
        for step in range(800)
    ]
    law = (1 / float(zo.alignment(J_o[0], J_u[0])) + 1) / P
    check_mean(torch.stack(errors).square(), law)


@quick
@given(N_o=st.integers(1, 3), N_u=st.integers(1, 3), V=st.integers(2, 4), seed=seeds, c=scales)
def test_cka_is_the_cosine_of_centered_kernels(
    N_o: int, N_u: int, V: int, seed: int, c: float
) -> None:
    K_hat, K = normal(N_o, N_u, V, V, seed=seed), normal(N_o, N_u, V, V, seed=seed + 1)
    left, right = (M.permute(0, 2, 1, 3).reshape(N_o * V, N_u * V) for M in (K_hat, K))
    H_o, H_u = (torch.eye(n, dtype=torch.float64) - 1 / n for n in (N_o * V, N_u * V))
    a, b = H_o @ left @ H_u, H_o @ right @ H_u
    cka = zo.cka(K_hat, K)
    torch.testing.assert_close(cka, (a * b).sum() / (a.norm() * b.norm()))
    assert -1 <= cka <= 1
    torch.testing.assert_close(zo.cka(left, right), cka)
    torch.testing.assert_close(zo.cka(K, K_hat), cka)
    torch.testing.assert_close(zo.cka(c * K_hat + c * right.mean(), 3 * K), cka)
    torch.testing.assert_close(zo.cka(left + normal(N_o * V, 1, seed=3), right), cka)
    torch.testing.assert_close(zo.cka(-K, K), torch.tensor(-1.0, dtype=torch.float64))


@quick
@given(V=sizes, seed=seeds, c=scales)
def test_spectral_wasserstein_is_the_optimal_matching_of_singular_values(
    V: int, seed: int, c: float
) -> None:
    K_hat, K = normal(V, V, seed=seed), normal(V, V, seed=seed + 1)
    s, t = torch.linalg.svdvals(K_hat), torch.linalg.svdvals(K)
    distance = zo.spectral_wasserstein(K_hat, K)
    best = min((s - t[list(order)]).abs().mean() for order in itertools.permutations(range(V)))
    torch.testing.assert_close(distance, best)
    torch.testing.assert_close(zo.spectral_wasserstein(c * K_hat, c * K), c * distance)
    Q, _ = torch.linalg.qr(normal(V, V, seed=seed + 2))
    torch.testing.assert_close(zo.spectral_wasserstein(Q @ K_hat, K @ Q), distance)
    assert zo.spectral_wasserstein(K, K) == 0


@pytest.mark.parametrize("value", [0.1, 7.7, 1000 / 3, 0.0])
@pytest.mark.parametrize("V", [3, 7, 33])
def test_rounding_of_a_constant_kernel_is_not_compared(value: float, V: int) -> None:
    constant, K = torch.full((V, V), value), normal(V, V, seed=0, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"K_hat: given a kernel that is 0 after centering"):
        zo.cka(constant, K)
    with pytest.raises(ValueError, match=r"K: given a kernel that is 0 after centering"):
        zo.cka(K, constant)


def test_cka_and_wasserstein_in_other_ranges() -> None:
    K_hat, K = normal(4, 4, seed=0), normal(4, 4, seed=1)
    cka = float(zo.cka(K_hat, K))
    for scale in (1e-17, 1e-8, 1e8, 1e17):
        single = (K_hat * scale).float()
        assert math.isclose(float(zo.cka(single, K.float())), cka, rel_tol=1e-4)
    many = normal(500, 3, 3, seed=2, dtype=torch.float32)
    assert all(float(zo.cka(block, 3 * block)) <= 1 for block in many)
    half = zo.spectral_wasserstein(K_hat.bfloat16(), K.bfloat16())
    assert half.dtype == zo.cka(K_hat.bfloat16(), K.bfloat16()).dtype == torch.float32
    expected = float(zo.spectral_wasserstein(K_hat, K))
    assert math.isclose(float(half), expected, rel_tol=0.05)


MATRIX = normal(3, 3, seed=0)
NUMBER: Any = 2.0
LIST: Any = [[1.0]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: zo.alignment(MATRIX, MATRIX[:, :2]),
            ValueError,
            r"J_u: given shape \(3, 2\), expected \(\.\.\., V, 3\), with J_o's d",
        ),
        (
            lambda: zo.alignment(MATRIX[0], MATRIX),
            ValueError,
            r"J_o: given shape \(3,\), expected \(\.\.\., V, d\)",
        ),
        (lambda: zo.alignment(MATRIX, MATRIX[0]), ValueError, r"J_u: given shape \(3,\), expect"),
        (lambda: zo.alignment(LIST, MATRIX), TypeError, r"J_o: given a list, expect"),
        (lambda: zo.alignment(0 * MATRIX, MATRIX), ValueError, "J_o: given a Jacobian that is 0"),
        (lambda: zo.alignment(MATRIX, 0 * MATRIX), ValueError, "J_u: given a Jacobian that is 0"),
        (
            lambda: zo.effective_rank(MATRIX[:2]),
            ValueError,
            r"K: given shape \(2, 3\), expected square blocks",
        ),
        (lambda: zo.effective_rank(MATRIX[0]), ValueError, r"K: given shape \(3,\), expected squ"),
        (lambda: zo.effective_rank(NUMBER), TypeError, "K: given a float, expected a tensor"),
        (
            lambda: zo.effective_rank(MATRIX),
            ValueError,
            r"K: given a block that is not symmetric.*x_o = x_u",
        ),
        (lambda: zo.effective_rank(0 * MATRIX), ValueError, r"K: given a block of trace 0\.0"),
        (
            lambda: zo.effective_rank(torch.diag(torch.tensor([1.0, -2.0]))),
            ValueError,
            r"K: given a block of trace -1\.0, expected .* above 0",
        ),
        (
            lambda: zo.relative_frobenius(MATRIX[0], MATRIX),
            ValueError,
            r"K_hat: given shape \(3,\), expected \(\.\.\., 3, 3\), as K",
        ),
        (
            lambda: zo.relative_frobenius(MATRIX[:1], MATRIX),
            ValueError,
            r"K_hat: given shape \(1, 3\), expected \(\.\.\., 3, 3\), as K",
        ),
        (lambda: zo.relative_frobenius(MATRIX, MATRIX[0]), ValueError, r"K: given shape \(3,\)"),
        (
            lambda: zo.relative_frobenius(NUMBER, MATRIX),
            TypeError,
            "K_hat: given a float, expected",
        ),
        (lambda: zo.cka(NUMBER, MATRIX), TypeError, "K_hat: given a float, expected a tensor"),
        (lambda: zo.cka(MATRIX, LIST), TypeError, "K: given a list, expected a tensor"),
        (
            lambda: zo.cka(MATRIX, MATRIX[:2]),
            ValueError,
            r"K_hat, K: given shapes \(3, 3\) and \(2, 3\), expected the same",
        ),
        (
            lambda: zo.spectral_wasserstein(MATRIX[None], MATRIX[None]),
            ValueError,
            r"given shapes \(1, 3, 3\) and .*\(V, V\) or \(N_o, N_u, V, V\)",
        ),
        (
            lambda: zo.relative_frobenius(MATRIX, torch.stack([MATRIX, 0 * MATRIX])),
            ValueError,
            "K: given a block that is 0.*absolute error",
        ),
    ],
)
def test_bad_matrices_are_refused(
    call: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call()


def test_rounding_is_no_asymmetry() -> None:
    """Blocks as `entk` returns them in float32, and bfloat16 ones, count as symmetric."""
    model, x = CASES["conv"](3)
    K = zo.entk(model.float(), x.float(), x.float())
    zo.effective_rank(K[range(3), range(3)])
    zo.effective_rank(K[range(3), range(3)].bfloat16())

"""All probes of a step in one forward, against the probes one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fused_models import KINDS, losses, made, tokens
from torch import Tensor, nn
from torch.nn import functional as F

import zotutor as zo
from zotutor.fused import Batched
from zotutor.parameters import resolve
from zotutor.probe import NonFiniteLossError

each_kind = pytest.mark.parametrize("kind", KINDS)
each_P = pytest.mark.parametrize("P", [1, 4])


def optimizer(model: nn.Module, P: int = 1, rank: int = 2, **options: Any) -> zo.ZOSGD:
    family = options.pop("directions", zo.LowRank(rank))
    return zo.ZOSGD(
        model.parameters(), options.pop("lr", 0.01), P=P, directions=family, seed=3, **options
    )


def moved(model: nn.Module, start: nn.Module) -> Tensor:
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return torch.cat([(p - q).detach().double().reshape(-1) for p, q in pairs])


# ---- equal to the sequential step ---------------------------------------------------------------


@each_kind
@each_P
@pytest.mark.parametrize("rank", [1, 3])
def test_a_batched_step_is_the_sequential_one(kind: str, P: int, rank: int) -> None:
    """In float64, where nothing but rounding is left: two steps, with all options."""
    one, ids = made(kind, torch.float64), tokens()
    many, start = copy.deepcopy(one), copy.deepcopy(one)
    options: dict[str, Any] = {"momentum": 0.5, "weight_decay": 0.1}
    sequential = optimizer(one, P, rank, **options)
    batched = optimizer(many, P, rank, **options)
    for _ in range(2):
        first = sequential.step(lambda: losses(one, ids)[0])
        second = batched.step_batched(lambda copies: losses(many, ids, copies))
        torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
        assert second.shape == ()
        assert second.dtype == torch.float64
    assert batched.steps_taken == 2
    expected = moved(one, start)
    assert expected.norm() > 0
    assert (moved(many, start) - expected).norm() < 1e-7 * expected.norm()


@each_kind
@each_P
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_in_lower_precision_they_are_equal_to_rounding(
    kind: str, P: int, dtype: torch.dtype
) -> None:
    """A loss is off by some spacings, a coefficient by that over eps."""
    eps = 0.05 if dtype == torch.bfloat16 else 0.01
    model, ids = made(kind, dtype), tokens()
    before = [p.detach().clone() for p in model.parameters()]
    drawn = zo.LowRank(2)
    seen = zo.estimators.projected_gradients(
        lambda: losses(model, ids)[0], model, directions=drawn, P=P, eps=eps, seed=3
    )
    thetas = list(model.parameters())
    found = zo.estimators.projected_gradients_batched(
        lambda copies: losses(model, ids, copies),
        resolve(model),
        zo.directions.draw(drawn, thetas, P=P, seed=3, step=0),
        eps=eps,
    )
    spacing = torch.finfo(dtype).eps
    assert found.loss == pytest.approx(seen.loss, rel=8 * spacing)
    assert found.coefficients == pytest.approx(
        seen.coefficients, rel=0.1, abs=8 * spacing * seen.loss / eps
    )
    for p, old in zip(thetas, before, strict=True):
        assert torch.equal(p.detach(), old)


class Elementwise(nn.Module):
    """Vectors and activations in either order, tied weights, a frozen layer, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.places = nn.Embedding(5, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.partly = nn.Linear(4, 4)
        self.partly.bias.requires_grad = False
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.shift = nn.Parameter(torch.ones(4))
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.places(torch.arange(ids.shape[1])[None])
        x = self.norm(self.partly(self.frozen(x)).tanh())
        x = self.scale * x + self.shift
        x = (self.shift + x * self.scale - self.shift) * self.one
        x = torch.add(torch.mul(x, self.scale), self.shift) - (self.one - x)
        return F.linear(x, self.embed.weight)[:, -1]


def test_vectors_beside_activations_in_every_order() -> None:
    one = Elementwise().double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in one.parameters():
            p.copy_(torch.randn(p.shape, generator=source, dtype=torch.float64))
    many, start, ids = copy.deepcopy(one), copy.deepcopy(one), torch.tensor([[1, 2, 3], [9, 2, 0]])

    def loss(model: nn.Module, copies: int) -> Tensor:
        z = model(ids.repeat(copies, 1)).log_softmax(-1)
        return -z[:, 4].view(copies, -1).mean(1)

    optimizer(one, 3).step(lambda: loss(one, 1)[0])
    optimizer(many, 3).step_batched(lambda copies: loss(many, copies))
    expected = moved(one, start)
    assert (moved(many, start) - expected).norm() < 1e-7 * expected.norm()


@pytest.mark.parametrize("options", [(), (0.5,)], ids=["default eps", "eps of 0.5"])
def test_layer_norms_have_the_eps_of_torch(options: tuple[float, ...]) -> None:
    """On activations that are small against eps, so that another one is another loss."""
    one = With(lambda x, t: F.layer_norm(x, (4,), t, None, *options), 4).double()
    many, start, x = copy.deepcopy(one), copy.deepcopy(one), 1e-3 * X.double()
    first = optimizer(one, 2).step(lambda: one(x).square().mean())
    second = optimizer(many, 2).step_batched(
        lambda copies: many(x.repeat(copies, 1)).square().view(copies, -1).mean(1)
    )
    torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
    expected = moved(one, start)
    assert (moved(many, start) - expected).norm() < 1e-6 * expected.norm()


def test_numbers_of_one_token_an_input() -> None:
    """ids (N,), not (N, T)."""
    one = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2)).double()
    many, start, ids = copy.deepcopy(one), copy.deepcopy(one), torch.tensor([1, 6, 3])
    optimizer(one, 2).step(lambda: one(ids).square().sum())
    optimizer(many, 2).step_batched(
        lambda copies: many(ids.repeat(copies)).square().view(copies, -1).sum(1)
    )
    expected = moved(one, start)
    assert (moved(many, start) - expected).norm() < 1e-6 * expected.norm()


def test_a_distance_too_few_for_the_directions_is_an_error() -> None:
    model = nn.Linear(4, 3)
    params = resolve(model)
    drawn = zo.directions.draw(zo.LowRank(1), params, P=2, seed=0, step=0)
    number = {id(theta): i for i, theta in enumerate(params.tensors)}
    for cs in ([0.1], [0.1, 0.2, 0.3]):
        x = torch.ones(6, 4)
        with pytest.raises(ValueError, match="argument"):  # by the factors of the matrix
            Batched(number, drawn, cs)(F.linear, (x, model.weight), {})
        with pytest.raises(ValueError, match="argument"):  # by the vectors
            Batched(number, drawn, cs)(torch.mul, (torch.ones(6, 3), model.bias), {})


# ---- errors, theta unwritten --------------------------------------------------------------------

X = torch.linspace(-1, 1, 20).view(5, 4)


def refused(
    model: nn.Module,
    closure: Any,
    error: type[BaseException],
    message: str,
    P: int = 1,
    **options: Any,
) -> None:
    """The step is refused; parameters and the counter are as they were."""
    before, taken = copy.deepcopy(model), optimizer(model, P, **options)
    with pytest.raises(error, match=message):
        taken.step_batched(closure)
    assert taken.steps_taken == 0
    assert moved(model, before).abs().max() == 0


def repeated(model: nn.Module) -> Callable[[int], Tensor]:
    return lambda copies: model(X.repeat(copies, 1)).square().view(copies, -1).mean(1)


@pytest.mark.parametrize(
    "family", [zo.Rademacher(), zo.Gaussian(), zo.Uniform(), zo.Sphere(), zo.Sparse(0.5)]
)
def test_other_families_are_refused(family: zo.directions.Directions) -> None:
    model = nn.Linear(4, 3)
    message = r"directions: given .*, expected LowRank.*use LowRank\(rank\)"
    refused(model, repeated(model), ValueError, message, directions=family)


class With(nn.Module):
    def __init__(self, use: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(shape))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.theta)


UNKNOWN: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "matmul": (lambda x, t: x @ t, (4, 3)),
    "einsum": (lambda x, t: torch.einsum("ij,jk->ik", x, t), (4, 3)),
    "a parameter alone": (lambda x, t: x * t.exp(), (4,)),
    "a transposed weight": (lambda x, t: F.linear(x, t.T), (4, 3)),
    "two parameters": (lambda x, t: x * (t * t), (4,)),
    "a parameter and a number": (lambda x, t: x * (t * 2.0), (4,)),
    "a parameter and a constant": (lambda x, t: x * (t + torch.ones(4)), (4,)),
    "a matrix elementwise": (lambda x, t: x * t, (1, 4)),
    "a scalar": (lambda x, t: x * t, ()),
    "in place": (lambda x, t: x.clone().mul_(t), (4,)),
    "scaled sum": (lambda x, t: torch.add(x, t, alpha=2), (4,)),
    "addmm on a matrix": (lambda x, t: torch.addmm(torch.ones(1, 3), x, t), (4, 3)),
    "scaled addmm": (lambda x, t: torch.addmm(torch.ones(3), x, t, beta=2), (4, 3)),
    "x is a parameter": (lambda x, t: F.linear(t, t) + x[:, :3].sum(), (3, 4)),
    "norm of the parameter": (lambda x, t: F.layer_norm(t, (4,)) + x, (3, 4)),
    "norm over two dimensions": (lambda x, t: F.layer_norm(x[:, None], (1, 4), t)[:, 0], (1, 4)),
    "embedding with a norm": (
        lambda x, t: F.embedding(torch.zeros(len(x), dtype=torch.long), t, max_norm=1.0),
        (5, 4),
    ),
    "convolution": (lambda x, t: F.conv1d(x[:, None], t)[:, 0], (1, 1, 2)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_operations_that_are_not_known_are_refused_and_say_what_to_do(name: str) -> None:
    use, shape = UNKNOWN[name]
    model = With(use, *shape)
    refused(model, repeated(model), NotImplementedError, r"closure: .*ZOSGD\.step", P=2)


def test_a_convolutional_network_is_refused() -> None:
    model = zo.models.lenet(seed=0)
    images = torch.ones(2, 1, 8, 8)
    refused(
        model,
        lambda copies: model(images.repeat(copies, 1, 1, 1)).view(copies, -1).mean(1),
        NotImplementedError,
        "conv2d reads a parameter",
    )


@pytest.mark.parametrize("P", [1, 3])
def test_a_batch_that_is_not_repeated_is_refused(P: int) -> None:
    model = nn.Linear(4, 3)
    message = rf"activation of shape \(5, 4\) cannot be {2 * P} copies .* repeat every input"
    refused(model, lambda copies: model(X).mean().expand(copies), ValueError, message, P)


def test_a_batch_of_one_that_is_not_repeated_is_refused() -> None:
    for model, x in (
        (nn.Linear(4, 3), X[:1]),
        (nn.LayerNorm(4), X[:1]),
        (nn.Embedding(9, 3), torch.tensor([[1, 2]])),
        (With(lambda x, t: x * t, 4), X[:1]),
        (With(lambda x, t: x * t, 4), X[:1].expand(3, 4)),
    ):
        message = "cannot be 2 copies of a batch; repeat every input"

        def closure(copies: int, model: nn.Module = model, x: Tensor = x) -> Tensor:
            return model(x).mean().expand(copies)

        refused(model, closure, ValueError, message)


def test_tokens_that_differ_between_the_copies_are_refused() -> None:
    """Each row repeated in place, or not at all: the losses would be of other inputs."""
    model = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 2))
    ids = torch.tensor([[1, 2], [3, 4]])

    def closure(change: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
        return lambda copies: model(change(copies)).view(copies, -1).mean(1)

    message = r"look up different rows .* ids.repeat\(copies, 1\)"
    for change in (lambda copies: ids.repeat_interleave(copies, 0), lambda copies: ids):
        refused(model, closure(change), ValueError, message)
    optimizer(model).step_batched(closure(lambda copies: ids.repeat(copies, 1)))


@pytest.mark.parametrize(
    ("closure", "error", "message"),
    [
        (1.0, TypeError, "closure: given 1.0, expected a function of the number of copies"),
        (None, TypeError, "closure: given None"),
        (lambda copies: 1.0, TypeError, r"expected one loss for each copy, \(2,\)"),
        (lambda copies: torch.ones(copies, dtype=torch.long), TypeError, "dtype torch.int64"),
        (lambda copies: torch.ones(copies), ValueError, "read none of the parameters"),
    ],
)
def test_closures_that_are_none_are_refused(
    closure: Any, error: type[Exception], message: str
) -> None:
    refused(nn.Linear(4, 3), closure, error, message)


def test_a_model_that_moves_its_batch_to_another_dimension_is_refused() -> None:
    """Dimension 0 is then time, divides by the number of copies, and mixes them up silently."""

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.layer = nn.Embedding(11, 8), nn.Linear(8, 11)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens).transpose(0, 1)  # (T, N, d)
            return torch.tanh(self.layer(x)).transpose(0, 1)

    model = TimeFirst()
    tokens = torch.randint(0, 11, (3, 4), generator=torch.Generator().manual_seed(0))
    refused(
        model,
        lambda copies: model(tokens.repeat(copies, 1)).square().reshape(copies, -1).mean(1),
        ValueError,
        r"copies are not independent along dimension 0.*ZOSGD\.step",
    )


def test_one_loss_for_all_copies_is_refused() -> None:
    model = nn.Linear(4, 3)
    refused(
        model,
        lambda copies: repeated(model)(copies).mean(),
        TypeError,
        r"returned shape \(\), expected one loss for each copy, \(4,\)",
        P=2,
    )


def test_a_loss_that_is_not_finite_stops_the_step() -> None:
    model = nn.Linear(4, 3)
    refused(
        model,
        lambda copies: repeated(model)(copies) / torch.zeros(copies),
        NonFiniteLossError,
        "the parameters are as they were",
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_forward_leaves_everything_as_it_was(
    error: type[BaseException],
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))

    def fail(*_: Any) -> None:
        raise error("in the middle")

    handle = model[1].register_forward_pre_hook(fail)
    refused(model, repeated(model), error, "in the middle")
    handle.remove()
    optimizer(model).step_batched(repeated(model))


def test_noise_in_the_closure_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    refused(model, repeated(model), ValueError, "drew random numbers")


def test_an_operator_of_another_library_may_work_on_activations() -> None:
    """It needs no derivative here, and reads no parameter."""
    library = torch.library.Library("zotutor_test_batched", "DEF")
    library.define("double(Tensor x) -> Tensor")
    library.impl("double", lambda x: x * 2, "CPU")
    double = torch.ops.zotutor_test_batched.double
    one = nn.Linear(4, 3).double()
    many, start, x = copy.deepcopy(one), copy.deepcopy(one), X.double()
    optimizer(one).step(lambda: double(one(x)).square().mean())
    optimizer(many).step_batched(
        lambda copies: double(many(x.repeat(copies, 1))).square().view(copies, -1).mean(1)
    )
    expected = moved(one, start)
    assert (moved(many, start) - expected).norm() < 1e-6 * expected.norm()

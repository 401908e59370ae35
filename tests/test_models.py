"""Models: sizes, seeded initialization, smoothness, errors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import zotutor as zo
from zotutor.models import lenet, mlp


def number_of_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("width", "depth", "inputs", "outputs"),
    [(64, 2, 64, 10), (1, 1, 1, 1), (7, 4, 64, 3), (256, 1, 784, 10)],
)
def test_mlp_has_the_stated_size(width: int, depth: int, inputs: int, outputs: int) -> None:
    model = mlp(width, depth, inputs=inputs, outputs=outputs, seed=0)
    expected = (inputs + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * outputs
    assert number_of_parameters(model) == expected
    assert sum(isinstance(layer, nn.Tanh) for layer in model) == depth
    assert model(torch.zeros(3, inputs)).shape == (3, outputs)


def test_mlp_of_depth_0_is_linear_in_its_parameters() -> None:
    model = mlp(5, 0, inputs=4, outputs=3, seed=0).double()
    assert number_of_parameters(model) == 15
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
    weight = model.state_dict()["1.weight"]
    torch.testing.assert_close(model(x), x @ weight.T, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "d"),
    [
        ({}, 29_624),  # the paper's count, and by hand: 156 + 2416 + 24060 + 2562 + 430
        ({"inputs": (1, 8, 8)}, 60 + 880 + 3900 + 2562 + 430),
        ({"hidden": (120, 84)}, 61_706),  # LeNet-5 with all its connections
        ({"inputs": (3, 12, 17), "channels": (2, 3), "hidden": ()}, 152 + 153 + 70),
        ({"inputs": (1, 4, 4), "outputs": 2, "hidden": [5]}, 60 + 880 + 85 + 12),
    ],
)
def test_lenet_has_the_stated_size(options: dict[str, Any], d: int) -> None:
    model = lenet(**options, seed=0)
    assert number_of_parameters(model) == d
    shape = options.get("inputs", (1, 28, 28))
    assert model(torch.zeros(2, *shape)).shape == (2, options.get("outputs", 10))


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        ((1, 28, 28), [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (60,), (42,), (10,)]),
        ((1, 8, 8), [(6, 8, 8), (6, 4, 4), (16, 4, 4), (16, 2, 2), (60,), (42,), (10,)]),
    ],
)
def test_lenet_has_the_shapes_of_its_docstring(
    inputs: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> None:
    x = torch.zeros(1, *inputs)
    found = []
    for layer in lenet(inputs=inputs, seed=0):
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.AvgPool2d, nn.Linear)):
            found.append(tuple(x.shape[1:]))
    assert found == shapes
    assert lenet.__doc__ is not None
    assert all(str(shape) in lenet.__doc__ for shape in shapes)


BUILDERS: list[Callable[..., nn.Sequential]] = [
    mlp,
    lenet,
    lambda **options: lenet(inputs=(1, 8, 8), **options),
]


@pytest.mark.parametrize("build", BUILDERS)
def test_the_seed_alone_decides_the_weights(build: Callable[..., nn.Sequential]) -> None:
    torch.manual_seed(1)
    first = build(seed=3).state_dict()
    torch.manual_seed(2)
    again = build(seed=3).state_dict()
    other = build(seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in first:
        assert torch.equal(first[name], other[name]) == name.endswith("bias")


def test_initial_weights_are_the_same_on_every_machine() -> None:
    # computed once on x86-64, Linux; the tolerance is for the rounding of another instruction set
    mlp_start = mlp(seed=0).state_dict()["5.weight"].flatten()[:4]
    lenet_start = lenet(seed=0).state_dict()["11.weight"].flatten()[:4]
    torch.testing.assert_close(
        mlp_start,
        torch.tensor([-0.00721865, 0.09592511, 0.0305751, -0.13650495]),
        rtol=0,
        atol=1e-7,
    )
    torch.testing.assert_close(
        lenet_start,
        torch.tensor([-0.16152652, 0.0998373, -0.03243952, -0.02298035]),
        rtol=0,
        atol=1e-7,
    )


@pytest.mark.parametrize("build", BUILDERS)
def test_building_leaves_global_random_state_alone(build: Callable[..., nn.Sequential]) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # type: ignore[index]  # noqa: NPY002
    build(seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.statistical
@pytest.mark.parametrize(
    "model", [mlp(300, 2, inputs=400, seed=0), lenet(channels=(40, 60), seed=0)]
)
def test_weights_have_variance_one_over_fan_in(model: nn.Sequential) -> None:
    # The variance of n uniform draws has relative standard deviation sqrt(0.8 / n); their mean,
    # over its own scale, 1 / sqrt(n). Five of either: about 1 failure in 10^6 tries of each.
    for layer in model:
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        weight = layer.weight.detach().double()
        n, fan_in = weight.numel(), weight[0].numel()
        assert weight.abs().max() <= math.sqrt(3 / fan_in) * (1 + 1e-6)
        assert abs(float(weight.var(correction=0)) * fan_in - 1) < 5 * math.sqrt(0.8 / n)
        assert abs(float(weight.mean())) * math.sqrt(fan_in) < 5 / math.sqrt(n)
        assert layer.bias is not None
        assert torch.count_nonzero(layer.bias) == 0


@pytest.mark.parametrize("build", BUILDERS)
def test_parameters_are_trainable_on_the_cpu_and_of_the_default_dtype(
    build: Callable[..., nn.Sequential],
) -> None:
    for dtype in (torch.float64, torch.float32):
        try:
            torch.set_default_dtype(dtype)
            model = build(seed=0)
        finally:
            torch.set_default_dtype(torch.float32)
        for parameter in model.parameters():
            assert parameter.dtype == dtype
            assert parameter.requires_grad
            assert parameter.device.type == "cpu"
            assert bool(parameter.isfinite().all())


def order_of_a_central_difference(model: nn.Sequential, inputs: tuple[int, ...]) -> float:
    """Fit k in D(t) - D(t/2) ~ t^k, D(t) the central difference of the logits along a line.

    It is 2 where the logits have three derivatives, whatever these are.
    """
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *inputs, generator=generator, dtype=torch.float64)
    theta = {name: value.detach() for name, value in model.named_parameters()}
    u = {
        name: torch.randn(v.shape, generator=generator, dtype=v.dtype) / math.sqrt(v[0].numel())
        for name, v in theta.items()
    }

    def logits(t: float) -> torch.Tensor:
        return functional_call(model, {name: theta[name] + t * u[name] for name in theta}, (x,))

    def difference(t: float) -> torch.Tensor:
        return (logits(t) - logits(-t)) / (2 * t)

    coarse, middle, fine = (difference(t) for t in (0.05, 0.025, 0.0125))
    return math.log2(float((coarse - middle).norm() / (middle - fine).norm()))


def with_layers(model: nn.Sequential, old: type[nn.Module], new: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(new if isinstance(layer, old) else layer for layer in model))


@pytest.mark.parametrize("inputs", [(1, 28, 28), (1, 8, 8)])
def test_logits_are_smooth_where_relu_and_max_pooling_are_not(inputs: tuple[int, ...]) -> None:
    def order(model: nn.Sequential) -> float:
        return order_of_a_central_difference(model, inputs)

    numbers = math.prod(inputs)
    assert order(mlp(inputs=numbers, seed=0)) == pytest.approx(2, abs=0.05)
    assert order(lenet(inputs=inputs, seed=0)) == pytest.approx(2, abs=0.05)
    # the same measurement sees a kink
    assert order(with_layers(mlp(inputs=numbers, seed=0), nn.Tanh, nn.ReLU())) < 1.5
    assert order(with_layers(lenet(inputs=inputs, seed=0), nn.Tanh, nn.ReLU())) < 1.5
    assert order(with_layers(lenet(inputs=inputs, seed=0), nn.AvgPool2d, nn.MaxPool2d(2))) < 1.5


@pytest.mark.parametrize("build", BUILDERS)
def test_training_and_eval_mode_agree(build: Callable[..., nn.Sequential]) -> None:
    model = build(seed=0)
    x = torch.rand(2, 1, 28, 28) if build is lenet else torch.rand(2, 1, 8, 8)
    assert torch.equal(model.train()(x), model.eval()(x))
    assert not list(model.buffers())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mlp(0, seed=0), ValueError, ["width", "0", "at least 1"]),
        (lambda: mlp(8, -1, seed=0), ValueError, ["depth", "-1", "at least 0"]),
        (lambda: mlp(2.5, seed=0), TypeError, ["width", "2.5", "int"]),  # type: ignore[arg-type]
        (lambda: mlp(True, seed=0), TypeError, ["width", "True", "int"]),
        (lambda: mlp(inputs=(1, 8, 8), seed=0), TypeError, ["inputs", "(1, 8, 8)"]),  # type: ignore[arg-type]
        (lambda: mlp(outputs=0, seed=0), ValueError, ["outputs", "0"]),
        (lambda: mlp(seed=-1), ValueError, ["seed", "-1"]),
        (lambda: mlp(seed=1 << 64), ValueError, ["seed", "below"]),
        (lambda: lenet(inputs=64, seed=0), TypeError, ["inputs", "64", "(1, 28, 28)"]),  # type: ignore[arg-type]
        (lambda: lenet(inputs=(28, 28), seed=0), ValueError, ["inputs", "(28, 28)", "3 integers"]),
        (lambda: lenet(inputs=(1, 3, 8), seed=0), ValueError, ["height", "3", "at least 4"]),
        (lambda: lenet(inputs=(1, 8, 3), seed=0), ValueError, ["width", "3", "at least 4"]),
        (lambda: lenet(inputs=(0, 8, 8), seed=0), ValueError, ["channels of an image", "0"]),
        (lambda: lenet(channels=(6,), seed=0), ValueError, ["channels", "(6,)", "(6, 16)"]),
        (lambda: lenet(channels=(6, 0), seed=0), ValueError, ["channels[1]", "0"]),
        (lambda: lenet(hidden=84, seed=0), TypeError, ["hidden", "84", "(60, 42)"]),  # type: ignore[arg-type]
        (lambda: lenet(hidden=("a",), seed=0), TypeError, ["hidden[0]", "'a'"]),  # type: ignore[arg-type]
        (lambda: lenet(outputs=0, seed=0), ValueError, ["outputs", "0"]),
        (lambda: lenet(seed=0.5), TypeError, ["seed", "0.5"]),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(
    call: Callable[[], object], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_integers_of_numpy_are_integers() -> None:
    assert number_of_parameters(mlp(np.int64(4), np.int32(1), seed=0)) == 65 * 4 + 5 * 10  # type: ignore[arg-type]


def separable() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(8, 3).sin()
    return x, torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])


def small() -> nn.Module:
    return zo.models.mlp(4, 1, inputs=3, outputs=2, seed=1).double()


def test_training_is_sgd_written_out() -> None:
    x, y = separable()
    model = zo.models.train(small(), x, y=y, lr=0.3, steps=5, momentum=0.9)
    expected, velocity = small(), None
    for _ in range(5):
        g = zo.models.gradient(expected, x, y=y)
        velocity = g if velocity is None else 0.9 * velocity + g
        theta = parameters_to_vector(expected.parameters()).detach()
        vector_to_parameters(theta - 0.3 * velocity, expected.parameters())
    for found, right in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, right)


def test_training_stops_after_the_step_from_its_goal() -> None:
    x, y = separable()
    start = F.cross_entropy(small()(x), y).item()
    once = zo.models.train(small(), x, y=y, lr=0.1, steps=1)
    stopped = zo.models.train(small(), x, y=y, lr=0.1, steps=100, goal=start)
    for a, b in zip(once.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)  # the same operations on the same numbers


def test_batches_come_from_the_seed_alone() -> None:
    x, y = separable()
    runs = [
        zo.models.gradient(
            zo.models.train(small(), x, y=y, lr=0.1, steps=3, batch_size=2, seed=seed), x, y=y
        )
        for seed in (0, 0, 1)
    ]
    torch.testing.assert_close(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])
    with pytest.raises(ValueError, match="seed"):
        zo.models.train(small(), x, y=y, lr=0.1, steps=3, batch_size=2)


def test_accuracy_counts() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 9.0]])
    assert zo.models.accuracy(nn.Identity(), logits, y=torch.tensor([0, 0, 0, 1])) == 0.75


@pytest.mark.parametrize("y", [torch.tensor([0, 1]), torch.zeros(8, 2).long()])
def test_labels_that_do_not_fit_are_refused(y: torch.Tensor) -> None:
    x, _ = separable()
    for call in (
        lambda: zo.models.train(small(), x, y=y, lr=0.1, steps=1),
        lambda: zo.models.accuracy(small(), x, y=y),
        lambda: zo.models.gradient(small(), x, y=y),
    ):
        with pytest.raises(ValueError, match="one label per input"):
            call()


@pytest.mark.parametrize("model", [mlp, lenet])
def test_a_seed_that_is_left_out_is_0_with_a_warning(model: Callable[..., nn.Module]) -> None:
    with pytest.warns(DeprecationWarning, match="give seed=0"):
        found = model()
    for a, b in zip(found.parameters(), model(seed=0).parameters(), strict=True):
        assert torch.equal(a, b)  # the same draws of the same generator

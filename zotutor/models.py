"""Small networks for the chapters, `mlp` for the digits and `lenet` for MNIST, and their training.

Every model maps a batch of inputs to logits (N, V), draws its initial weights from `seed` alone,
and has neither dropout nor batch norm: one input gives the same logits in training and in eval
mode, so that two function values differ by the perturbation and by nothing else.

Both use tanh and average pooling, which have derivatives of every order. The book fits slopes: the
residual of a predicted step falls as lr^2, the bias of a two-point estimate as eps^2. At the kink
of a ReLU or of a max pooling there is no second derivative, and those slopes bend.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_integer, check_real

__all__ = ["accuracy", "gradient", "lenet", "mlp", "train"]


def mlp(
    width: int = 64, depth: int = 2, *, inputs: int = 64, outputs: int = 10, seed: int | None = None
) -> nn.Sequential:
    """Return a tanh network of `depth` hidden layers of `width` units; it flattens its input.

    z(x) = W_L tanh(... tanh(W_1 x + b_1) ...) + b_L with L = depth + 1, and, for depth >= 1,

        d = (inputs + 1) width + (depth - 1) (width + 1) width + (width + 1) outputs.

    Weights start uniform with mean 0 and variance 1/fan_in (LeCun), biases at 0, so that a signal
    keeps its scale from layer to layer. They are drawn on the CPU, without changing global random
    state.

    Args:
        width: units in each hidden layer, at least 1.
        depth: number of hidden layers, at least 0; depth=0 is softmax regression, whose logits are
            linear in theta, so that its kernel never moves.
        inputs: how many numbers one input holds, at least 1: 64 for the digits, 784 for MNIST.
        outputs: V, the number of classes, at least 1.
        seed: of the initial weights, 0 to 2^64 - 1.

    Returns:
        An `nn.Sequential` in torch's default dtype: (N, ...), `inputs` numbers a row, to logits
        (N, outputs).

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is out of its range.

    When to use which: `mlp` where speed matters, or where d is swept through `width`; `lenet` for
    weight sharing, or for a network of the size that the paper uses.

    References:
        Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, "Efficient BackProp", 1998, section 4.6.

    Example:
        >>> model = mlp(32, 1, seed=0)
        >>> sum(p.numel() for p in model.parameters())
        2410
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    width = check_integer("width", width, low=1)
    depth = check_integer("depth", depth, low=0)
    sizes = [check_integer("inputs", inputs, low=1), *[width] * depth]
    outputs = check_integer("outputs", outputs, low=1)
    seed = _given_seed(seed)
    return _initialized([nn.Flatten(), *_dense_layers(sizes, outputs)], seed)


def lenet(
    *,
    inputs: Sequence[int] = (1, 28, 28),
    outputs: int = 10,
    channels: Sequence[int] = (6, 16),
    hidden: Sequence[int] = (60, 42),
    seed: int | None = None,
) -> nn.Sequential:
    """Return a LeNet: two convolutions with average pooling, then dense layers, tanh throughout.

    The defaults have d = 29,624 parameters, the number that the paper reports for its LeNet on
    MNIST. They are LeNet-5 with its dense layers of 120 and 84 units halved. We know of no
    published layer sizes for the paper's network: d is the same, the architecture may not be.
    The shape of one input after each layer, with the defaults and for the digits:

        =========================  ==================  =================
        layer                      inputs (1, 28, 28)  inputs (1, 8, 8)
        =========================  ==================  =================
        convolution, tanh          (6, 28, 28)         (6, 8, 8)
        average pooling            (6, 14, 14)         (6, 4, 4)
        convolution, tanh          (16, 10, 10)        (16, 4, 4)
        average pooling            (16, 5, 5)          (16, 2, 2)
        dense, tanh                (60,)               (60,)
        dense, tanh                (42,)               (42,)
        dense: the logits          (10,)               (10,)
        d                          29,624              7,832
        =========================  ==================  =================

    Images of at least 12 x 12 get 5 x 5 kernels, the first convolution padded by 2 and the second
    not, as in LeNet-5; smaller ones get 3 x 3 kernels, both padded by 1. Pooling is 2 x 2. Weights
    start uniform with mean 0 and variance 1/fan_in, biases at 0; they are drawn on the CPU, and
    global random state is left alone.

    Args:
        inputs: shape (C, H, W) of one image; C at least 1, H and W at least 4.
        outputs: V, the number of classes, at least 1.
        channels: of the two convolutions, each at least 1.
        hidden: units of the dense hidden layers, each at least 1; () for none.
        seed: of the initial weights, 0 to 2^64 - 1.

    Returns:
        An `nn.Sequential` in torch's default dtype: images (N, C, H, W) to logits (N, outputs).

    Raises:
        TypeError: an argument is not an integer, or not a sequence of integers.
        ValueError: an argument is out of its range or has the wrong length.

    When to use which: see `mlp`.

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE, 1998 (LeNet-5, its tanh and its average pooling).

    Example:
        >>> model = lenet(seed=0)
        >>> sum(p.numel() for p in model.parameters())
        29624
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    _check_sequence("inputs", inputs, example="(1, 28, 28)", length=3)
    _check_sequence("channels", channels, example="(6, 16)", length=2)
    _check_sequence("hidden", hidden, example="(60, 42)")
    colors = check_integer("inputs[0], the channels of an image", inputs[0], low=1)
    height = check_integer("inputs[1], the height", inputs[1], low=4)
    width = check_integer("inputs[2], the width", inputs[2], low=4)
    first, second = (check_integer(f"channels[{i}]", c, low=1) for i, c in enumerate(channels))
    sizes = [check_integer(f"hidden[{i}]", h, low=1) for i, h in enumerate(hidden)]
    outputs = check_integer("outputs", outputs, low=1)
    seed = _given_seed(seed)

    kernel, paddings = (5, (2, 0)) if min(height, width) >= 12 else (3, (1, 1))
    sides = [(side // 2 + 2 * paddings[1] - kernel + 1) // 2 for side in (height, width)]
    layers = [
        _blank(nn.Conv2d, colors, first, kernel, padding=paddings[0]),  # (N, first, H, W)
        nn.Tanh(),
        nn.AvgPool2d(2),  # (N, first, H // 2, W // 2)
        _blank(nn.Conv2d, first, second, kernel, padding=paddings[1]),
        nn.Tanh(),
        nn.AvgPool2d(2),  # (N, second, *sides)
        nn.Flatten(),
        *_dense_layers([second * math.prod(sides), *sizes], outputs),
    ]
    return _initialized(layers, seed)


def train(
    model: nn.Module,
    x: Tensor,
    *,
    y: Tensor,
    lr: float,
    steps: int,
    momentum: float = 0.0,
    batch_size: int | None = None,
    seed: int | None = None,
    goal: float = -math.inf,
) -> nn.Module:
    """Train a network in place by SGD on its mean cross-entropy, and return it.

    Args:
        model: returns logits (N, V) for inputs (N, ...).
        x: inputs (N, ...).
        y: labels (N,).
        lr: learning rate.
        steps: number of steps, at least 0.
        momentum: of SGD, from 0 to 1.
        batch_size: inputs per step, drawn with replacement; all of them if None.
        seed: of the batches; to be given with batch_size.
        goal: stop after the first step from a loss at or below this one.

    Returns:
        The model.

    Raises:
        TypeError: a number is not one.
        ValueError: a number is out of its range, there is not one label per input, or batches are
            to be drawn without a seed.

    Example:
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> model = train(mlp(8, 1, inputs=4, outputs=2, seed=0), x, y=y, lr=1.0, steps=50)
        >>> accuracy(model, x, y=y)
        1.0
    """
    steps = check_integer("steps", steps, low=0)
    lr = check_real("lr", lr, low=0.0)
    momentum = check_real("momentum", momentum, low=0.0)
    size = None if batch_size is None else check_integer("batch_size", batch_size, low=1)
    if size is not None and seed is None:
        raise ValueError("seed: batches are drawn at random; give seed=0, or any other integer")
    generator = torch.Generator().manual_seed(check_integer("seed", seed or 0, low=0))
    _check_labels(x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for _ in range(steps):
        batch = slice(None) if size is None else torch.randint(len(x), (size,), generator=generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        if loss.item() <= goal:
            break
    return model


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, *, y: Tensor) -> float:
    """The share of inputs whose largest logit is that of their label.

    Args:
        model: returns logits (N, V) for inputs (N, ...).
        x: inputs (N, ...).
        y: labels (N,).

    Raises:
        ValueError: there is not one label per input.
    """
    _check_labels(x, y)
    return (model(x).argmax(1) == y).double().mean().item()


def gradient(model: nn.Module, x: Tensor, *, y: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy, flat, (d,): backpropagation, for comparison.

    Args:
        model: returns logits (N, V) for inputs (N, ...).
        x: inputs (N, ...).
        y: labels (N,).

    Raises:
        ValueError: there is not one label per input.

    Example:
        >>> gradient(mlp(depth=0, seed=0), torch.zeros(2, 64), y=torch.tensor([0, 1])).shape
        torch.Size([650])
    """
    _check_labels(x, y)
    params = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(F.cross_entropy(model(x), y), params)
    return torch.cat([part.reshape(-1) for part in parts])


def _given_seed(seed: int | None) -> int:
    """The seed, or 0 with a warning: until 0.1 it could be left out."""
    if seed is None:
        warnings.warn(
            "mlp and lenet: a later version will ask for a seed; give seed=0 for the same weights",
            DeprecationWarning,
            stacklevel=3,
        )
        return 0
    return check_integer("seed", seed, low=0, high=1 << 64)


def _check_labels(x: Tensor, y: Tensor) -> None:
    if y.dim() != 1 or len(x) != len(y) or len(y) == 0:
        raise ValueError(
            f"y: given shape {tuple(y.shape)} for inputs of shape {tuple(x.shape)}, expected "
            "(N,), one label per input and at least one"
        )


def _check_sequence(
    name: str, values: Sequence[int], *, example: str, length: int | None = None
) -> None:
    wanted = "a sequence of integers" if length is None else f"{length} integers"
    if not isinstance(values, Sequence):
        raise TypeError(f"{name}: given {values!r}, expected {wanted}; give {name}={example}")
    if length not in (None, len(values)):
        raise ValueError(
            f"{name}: given {len(values)} values, {values!r}, expected {wanted}; "
            f"give {name}={example}"
        )


def _dense_layers(sizes: list[int], outputs: int) -> list[nn.Module]:
    """Linear and tanh through `sizes`, then the linear map to the logits."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes, [*sizes[1:], outputs], strict=True):
        layers += [_blank(nn.Linear, fan_in, fan_out), nn.Tanh()]
    return layers[:-1]


def _blank(layer: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Return a layer without values: torch's own initialization would draw from global state."""
    return layer(*args, device="meta", **kwargs).to_empty(device="cpu")


def _initialized(layers: list[nn.Module], seed: int) -> nn.Sequential:
    """Chain the layers, every weight drawn from U(-s, s) with s^2 = 3 / fan_in, every bias 0."""
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # a bias
                parameter.zero_()
            else:
                bound = math.sqrt(3 / parameter[0].numel())
                parameter.uniform_(-bound, bound, generator=generator)
    return model

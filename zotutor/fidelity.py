"""The fidelity study: K_U of drawn directions against K, for many pairs of inputs and many draws.

The paper's figures for LeNet on MNIST are made of these numbers; the chapter *Kernel fidelity* and
``tools/measure_mnist.py`` both call this module, on the digits and on MNIST.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_floats, check_integer, check_labels, check_tensor
from .deprecation import moved
from .directions import INDEPENDENT, Directions, Rademacher, check_draw
from .kernels import product, projected
from .parameters import ParametersLike, resolve
from .similarity import centered_cosine, relative_frobenius, spectral_distance


class Fidelity(NamedTuple):
    """How close K_U is to K, for each draw and each pair, (draws, M).

    ``relative_frobenius`` is norm(K_U - K)_F / norm(K)_F; ``cka`` the centered kernel alignment;
    ``wasserstein`` the spectral Wasserstein distance over the mean singular value of K.
    """

    relative_frobenius: Tensor
    cka: Tensor
    wasserstein: Tensor


def kernel_fidelity(
    J: Tensor,
    pairs: Tensor,
    params: ParametersLike,
    *,
    P: int,
    directions: Directions | None = None,
    draws: int = 40,
    seed: int,
) -> Fidelity:
    """Compare K_U with K for M pairs of inputs, over many draws of U.

    Draw t uses the directions of optimizer step t at this seed: the kernels that ``draws``
    successive ZO steps would see if theta did not move.

    Args:
        J: Jacobians (N, V, d) of N inputs.
        pairs: (M, 2), integers: which input is observed, and which is updated on.
        params: the model whose Jacobians these are, or its parameters.
        P: number of perturbations, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        draws: how many U to draw, at least 1.
        seed: 0 <= seed < 2^64.

    Returns:
        Named tuple (relative_frobenius, cka, wasserstein), each (draws, M).

    Raises:
        TypeError, ValueError: for arguments out of range, or a pair whose K is 0 or constant.

    References:
        Li, Ying, Liu and Yang (2026), arXiv 2605.03373.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> J = torch.eye(8)[:4].view(2, 2, 8)
        >>> found = kernel_fidelity(J, torch.tensor([[0, 0]]), model, P=100, draws=5, seed=0)
        >>> found.cka.shape, bool((found.cka > 0.5).all())
        (torch.Size([5, 1]), True)
    """
    check_integer("draws", draws, low=1)
    check_draw(directions, P=P, seed=seed, step=0)
    pairs, params = _check_pairs(pairs, J), resolve(params)
    o, u = pairs[:, 0], pairs[:, 1]
    K = product(J, J)[o, u]  # (M, V, V)
    scale = torch.linalg.svdvals(K).mean(-1)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(draws):
        drawn = projected(J, J, params, P=P, directions=directions, seed=seed, step=step)[o, u]
        error = relative_frobenius(drawn, K)
        distance = spectral_distance(drawn, K) / scale
        found.append((error, centered_cosine(drawn, K), distance))
    return Fidelity(*(torch.stack(column) for column in zip(*found, strict=True)))


def pair_law(J: Tensor, pairs: Tensor, *, directions: Directions | None = None) -> Tensor:
    """The squared relative error of K_U at P = 1 for each of M pairs; divide by P for another P.

    E norm(K_U - K)_F^2 / norm(K)_F^2 (thm-exact-law): :func:`~zotutor.kernel_error_law` for many
    pairs at once, relative to the kernel.

    Args:
        J: Jacobians (N, V, d).
        pairs: (M, 2), integers: positions in J.
        directions: Gaussian, Rademacher, Uniform or Sparse; Rademacher by default.

    Returns:
        Shape (M,), float64.

    Raises:
        TypeError, ValueError: for bad pairs, a pair whose K is 0, or a family whose entries are not
            independent.

    Example:
        >>> J = torch.eye(4)[None, :2]
        >>> pair_law(J, torch.tensor([[0, 0]]))
        tensor([1.], dtype=torch.float64)
    """
    family = Rademacher() if directions is None else directions
    if not isinstance(family, INDEPENDENT):
        raise ValueError(
            f"directions: given {family}, expected Gaussian, Rademacher, Uniform or Sparse; for "
            "the others call kernel_error_law for each pair"
        )
    pairs = _check_pairs(pairs, J)
    columns = J.double().square().sum(1)  # (N, d): squared norm of each column of J
    norms, overlap = columns.sum(1), columns @ columns.T
    o, u = pairs[:, 0], pairs[:, 1]
    K = product(J, J)[o, u].double().square().sum((-2, -1))
    if bool((K == 0).any()):
        raise ValueError(
            f"pairs: given {pairs[K == 0][0].tolist()}, whose K is 0, so that a relative error "
            "means nothing; leave it out"
        )
    return (norms[o] * norms[u] + K + (family.kurtosis - 3.0) * overlap[o, u]) / K


def mean_over_pairs(errors: Tensor) -> tuple[float, float]:
    """The mean over pairs of the root mean square over draws, and its standard error.

    All pairs of a draw share its U and so are not independent: the standard error comes from the
    spread over draws alone.

    Args:
        errors: (draws, M), such as ``Fidelity.relative_frobenius``; at least 2 draws.

    Returns:
        The value and its standard error.

    Raises:
        TypeError, ValueError: for other shapes.

    Example:
        >>> mean_over_pairs(torch.tensor([[3.0, 1.0], [3.0, 1.0]]))
        (2.0, 0.0)
    """
    expected = "(draws, M), at least 2 draws"
    if len(check_floats("errors", errors, dims=(2,), expected=expected)) < 2:
        raise ValueError(
            f"errors: given shape {tuple(errors.shape)}, expected (draws, M) with at least 2 draws"
        )
    squares = errors.double().square()
    size = squares.mean(0).sqrt()
    # d sqrt(s) / ds; an error that is always 0 has no spread
    slope = torch.where(size > 0, 1 / (2 * size), 0.0)  # (M,)
    per_draw = ((squares - size.square()) * slope).mean(1)
    return float(size.mean()), float(per_draw.std() / len(errors) ** 0.5)


def _check_pairs(pairs: Tensor, J: Tensor) -> Tensor:
    check_floats("J", J, dims=(3,), expected="(N, V, d), as zotutor.jacobian returns")
    if check_tensor("pairs", pairs).dim() != 2 or pairs.shape[1] != 2 or pairs.shape[0] == 0:
        raise ValueError(
            f"pairs: given shape {tuple(pairs.shape)}, expected (M, 2): observed, updated-on"
        )
    if pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool:
        raise TypeError(f"pairs: given {pairs.dtype}, expected integers, rows of J")
    if int(pairs.min()) < 0 or int(pairs.max()) >= J.shape[0]:
        raise ValueError(
            f"pairs: given numbers from {int(pairs.min())} to {int(pairs.max())}, "
            f"expected integers from 0 to {J.shape[0] - 1}, rows of J"
        )
    return pairs.long()


def pairs_of_classes(y: Tensor, groups: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """All pairs of different inputs whose labels are those given, by name of the group.

    Args:
        y: labels (N,).
        groups: name -> (label of the observed input, label of the updated-on input).

    Returns:
        name -> (M, 2), positions in y. Within one class every pair is listed once, and no input is
        paired with itself.

    Raises:
        TypeError, ValueError: for bad labels, or a group without a pair.

    Example:
        >>> pairs_of_classes(torch.tensor([4, 9, 4]), {"4 and 9": (4, 9)})
        {'4 and 9': tensor([[0, 1],
                [2, 1]])}
    """
    y = check_labels("y", y, count=check_tensor("y", y).numel())
    found = {}
    for name, (observed, updated) in groups.items():
        left, right = (y == observed).nonzero()[:, 0], (y == updated).nonzero()[:, 0]
        pairs = torch.cartesian_prod(left, right)
        if observed == updated:
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        if len(pairs) == 0:
            raise ValueError(
                f"groups: given {name!r}, expected two different inputs with the labels "
                f"{observed} and {updated}; labels here: {sorted(set(y.tolist()))}"
            )
        found[name] = pairs
    return found


__getattr__ = moved(
    __name__,
    {"mnist_table": "zotutor.tables", "as_markdown": "zotutor.tables:mnist_as_markdown"},
)

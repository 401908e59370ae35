"""The fidelity study: K_U of drawn directions beside K, for many pairs of inputs and many draws.

The paper's figures for LeNet on MNIST are made of these numbers; the chapter *Kernel fidelity* and
``tools/measure_mnist.py`` both call this module, on the digits and on MNIST.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import Parameters, check_integer, check_labels, check_tensor
from .directions import Directions, Gaussian, Rademacher, Sparse
from .kernels import centered_cosine, product, projected, relative_frobenius, spectral_distance


class Fidelity(NamedTuple):
    """How near K_U is to K, one row a draw, one column a pair of inputs: each (draws, M).

    ``relative_frobenius`` is norm(K_U - K)_F / norm(K)_F; ``cka`` the centered kernel alignment;
    ``wasserstein`` the spectral Wasserstein distance over the mean singular value of K.
    """

    relative_frobenius: Tensor
    cka: Tensor
    wasserstein: Tensor


def kernel_fidelity(
    J: Tensor,
    pairs: Tensor,
    params: Parameters,
    *,
    P: int,
    directions: Directions | None = None,
    draws: int = 40,
    seed: int,
) -> Fidelity:
    """Compare K_U with K for M pairs of inputs, over many draws of U.

    Draw t holds the directions of optimizer step t at this seed, so that what is measured is what
    ``draws`` successive ZO steps would see, were theta to stand still.

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
    pairs = _check_pairs(pairs, check_tensor("J", J))
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
    """E norm(K_U - K)_F^2 / norm(K)_F^2 at P = 1 for each of M pairs; divide by P for another P.

    :func:`~zotutor.kernel_error_law` for many pairs at once, relative to the kernel.

    Args:
        J: Jacobians (N, V, d).
        pairs: (M, 2), integers: rows of J.
        directions: Gaussian, Rademacher or Sparse; Rademacher by default.

    Returns:
        Shape (M,), float64.

    Raises:
        TypeError, ValueError: for bad pairs, or for a family whose entries are not independent.

    Example:
        >>> J = torch.eye(4)[None, :2]
        >>> pair_law(J, torch.tensor([[0, 0]]))
        tensor([1.], dtype=torch.float64)
    """
    family = Rademacher() if directions is None else directions
    if not isinstance(family, (Gaussian, Rademacher, Sparse)):
        raise ValueError(
            f"directions: given {family}, expected Gaussian, Rademacher or Sparse; for the others "
            "call kernel_error_law for each pair"
        )
    pairs = _check_pairs(pairs, check_tensor("J", J))
    columns = J.double().square().sum(1)  # (N, d): squared norm of each column of J
    norms, overlap = columns.sum(1), columns @ columns.T
    o, u = pairs[:, 0], pairs[:, 1]
    K = product(J, J)[o, u].double().square().sum((-2, -1))
    return (norms[o] * norms[u] + K + (family.kurtosis - 3.0) * overlap[o, u]) / K


def mean_over_pairs(errors: Tensor) -> tuple[float, float]:
    """The mean over pairs of the root mean square over draws, and its standard error.

    All pairs of a draw share its U, so that they are not independent: the standard error comes from
    the spread over draws alone.

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
    if check_tensor("errors", errors).dim() != 2 or len(errors) < 2:
        raise ValueError(
            f"errors: given shape {tuple(errors.shape)}, expected (draws, M) with at least 2 draws"
        )
    squares = errors.double().square()
    size = squares.mean(0).sqrt()
    per_draw = ((squares - size.square()) / (2 * size)).mean(1)
    return float(size.mean()), float(per_draw.std() / len(errors) ** 0.5)


def _check_pairs(pairs: Tensor, J: Tensor) -> Tensor:
    if J.dim() != 3:
        raise ValueError(
            f"J: given shape {tuple(J.shape)}, expected (N, V, d), as zotutor.jacobian returns"
        )
    if check_tensor("pairs", pairs).dim() != 2 or pairs.shape[1] != 2 or pairs.shape[0] == 0:
        raise ValueError(
            f"pairs: given shape {tuple(pairs.shape)}, expected (M, 2): observed, updated-on"
        )
    if pairs.is_floating_point() or int(pairs.min()) < 0 or int(pairs.max()) >= J.shape[0]:
        raise ValueError(
            f"pairs: given {pairs.dtype} from {float(pairs.min()):g} to {float(pairs.max()):g}, "
            f"expected integers from 0 to {J.shape[0] - 1}, rows of J"
        )
    return pairs.long()


def pairs_of_classes(y: Tensor, groups: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """All pairs of different inputs whose labels are those asked for, by name of the group.

    Args:
        y: labels (N,).
        groups: name -> (label of the observed input, label of the updated-on input).

    Returns:
        name -> (M, 2), row numbers into y. Within one class every pair stands once, and no input is
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


def mnist_table() -> dict[str, Any]:
    """The numbers that ``tools/measure_mnist.py`` measured on MNIST, with their date and data.

    Returns:
        The file ``zotutor/data/mnist_fidelity.json``, as it is.
    """
    text = files("zotutor").joinpath("data", "mnist_fidelity.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def as_markdown(table: dict[str, Any], state: str, *, P: int = 125) -> str:
    """One state of :func:`mnist_table` at one P, as a table in Markdown.

    Args:
        table: as :func:`mnist_table` returns.
        state: "at initialization" or "trained".
        P: number of perturbations, one of those measured.

    Returns:
        A header and a row for each group of pairs: alignment; relative error with Gaussian and
        Rademacher directions, each with its standard error; the law; CKA; Wasserstein distance;
        the bound over the law, as lengths, at P = 125.

    Raises:
        KeyError, StopIteration: for a state or P that was not measured.

    Example:
        >>> print(as_markdown(mnist_table(), "at initialization").splitlines()[0])
        | pair | $a$ | Gaussian | law | Rademacher | CKA | $W$ | bound / law |
    """
    lines = ["| pair | $a$ | Gaussian | law | Rademacher | CKA | $W$ | bound / law |"]
    lines.append("|:--|--:|--:|--:|--:|--:|--:|--:|")
    for name, group in table["states"][state]["groups"].items():
        gaussian, signs = (
            next(row for row in group[family] if row["P"] == P)
            for family in ("Gaussian", "Rademacher")
        )
        cells = [name, f"{group['alignment']:.4f}"]
        cells.append(f"{gaussian['relative_frobenius']:.3f} ± {gaussian['std_error']:.3f}")
        cells.append(f"{gaussian['law']:.3f}")
        cells.append(f"{signs['relative_frobenius']:.3f} ± {signs['std_error']:.3f}")
        cells += [f"{gaussian['cka']:.3f}", f"{gaussian['wasserstein']:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{group['bound_over_law']:.1f}"]) + " |")
    return "\n".join(lines)

"""Explorables of *The kernel emerges*."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zotutor.checks import check_batch, check_integer
from zotutor.directions import Rademacher
from zotutor.jacobians import jacobian
from zotutor.kernels import product

from .arguments import check_names, check_seed
from .page import Explorable, Table, rounded


def entries(model: nn.Module, x: Tensor, *, names: Sequence[str], P: int, seed: int) -> Explorable:
    """K_U entry by entry, as the number of directions grows from 1 to P.

    The page holds J u_p for each input and direction, V numbers each, and adds up
    (J_o u_p)(J_u u_p)^T for the first directions: any K_U of these directions, whatever d is.

    Args:
        model: returns logits (N, V).
        x: inputs (N, ...), at least two; N V P numbers are kept, about four inputs for P = 256.
        names: of the inputs.
        P: the largest number of directions, random signs of step 0.
        seed: of the directions, 0 <= seed < 2^53.

    Raises:
        TypeError, ValueError: for bad inputs, names, P or seed, or if the page would be larger than
            200 kB.

    Example:
        >>> import torch
        >>> entries(torch.nn.Linear(2, 2), torch.eye(2), names=["left", "right"], P=8, seed=0)
        <explorable kernel_emerges.entries>
    """
    check_batch("x", x)
    check_integer("N", len(x), low=2)
    names = check_names(names, count=len(x))
    U = Rademacher().dense(model, P=check_integer("P", P, low=1), seed=check_seed(seed), step=0)
    J = jacobian(model, x)  # (N, V, d)
    K = product(J, J)  # (N, N, V, V)
    columns = J.square().sum(1)  # (N, d)
    overlaps = columns @ columns.T  # (N, N)
    norms = columns.sum(1)  # (N,)
    size = K[0, 1].square().sum()
    law = ((norms[0] * norms[1] + size - 2 * overlaps[0, 1]) / size).sqrt()
    counts = [count for count in (1, 4, 16, 64, 256) if count <= P]
    return Explorable(
        "kernel_emerges",
        "entries",
        "The kernel emerges, entry by entry",
        {
            "names": names,
            "seen": rounded(J @ U.to(J.dtype)),  # (N, V, P)
            "K": rounded(K, 6),
            "norms": rounded(norms, 6),
            "overlaps": rounded(overlaps, 6),
        },
        Table(
            f"Relative error of the kernel of {names[0]} and {names[1]}, by the law",
            ["P", "relative error"],
            [[f"{count}", f"{float(law) / count**0.5:.2f}"] for count in counts],
        ),
    )

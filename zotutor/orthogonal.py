"""P directions that are orthogonal to each other: sampling without replacement.

Independent directions overlap by chance. Orthogonal ones do not, and their law is that of the
sphere times (d - P) / (d - 1), the finite-population correction of statistics (thm-orthogonal).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_integer
from .directions import Sphere
from .laws import pair_variance


def orthogonal_directions(d: int, P: int, *, seed: int) -> Tensor:
    """P directions of length sqrt(d), orthogonal and uniformly distributed: columns, (d, P).

    Q of the QR decomposition of a normal matrix, with the signs that make it uniform. It takes d P
    numbers and d P^2 operations: for small models, and for subspaces.

    Args:
        d: number of parameters.
        P: how many, at most d.
        seed: of the draw.

    Returns:
        (d, P), float64; E[u_p u_p^T] = I and u_p . u_q = 0 for p != q.

    Raises:
        TypeError, ValueError: for arguments out of range.

    References:
        Mezzadri (2007), How to generate random matrices from the classical compact groups.

    Example:
        >>> u = orthogonal_directions(5, 3, seed=0)
        >>> torch.allclose(u.T @ u, 5 * torch.eye(3, dtype=torch.float64))
        True
    """
    check_integer("d", d, low=1)
    check_integer("P", P, low=1, high=d + 1)
    generator = torch.Generator().manual_seed(check_integer("seed", seed, low=0))
    Q, R = torch.linalg.qr(torch.randn(d, P, generator=generator, dtype=torch.float64))
    signs = R.diagonal().sign()  # with R's diagonal positive, Q is unique and so uniform
    return float(d) ** 0.5 * Q * signs


def orthogonal_error_law(J_o: Tensor, J_u: Tensor, *, P: int) -> float:
    """The exact E norm(K_U - K)_F^2 for P orthogonal directions, uniformly distributed.

        (d - P) / (P (d - 1)) [d/(d+2) (norm(J_o)_F^2 norm(J_u)_F^2 + 2 norm(K)_F^2) - norm(K)_F^2]

    is the law of Sphere times (d - P)/(d - 1). It is 0 at P = d; for P far below d, orthogonality
    changes it by a relative P/d only. With J_o the identity and J_u the row g it is
    E|g_hat - g|^2 = (d/P - 1) |g|^2, where random signs have ((d - 1)/P) |g|^2.

    Args:
        J_o: Jacobian (V, d); flatten a batch.
        J_u: Jacobian (V', d).
        P: number of directions, at most d.

    Returns:
        The mean square error, summed over the entries.

    Raises:
        TypeError, ValueError: for P out of range, shapes that do not fit, or d = 1.

    For independent directions use :func:`~zotutor.kernel_error_law`.

    Example:
        >>> g = torch.tensor([[3.0, 4.0]])
        >>> [round(orthogonal_error_law(torch.eye(2), g, P=P), 6) for P in (1, 2)]
        [25.0, 0.0]
    """
    one = pair_variance(J_o, J_u, directions=Sphere())
    d = J_o.shape[1]
    check_integer("P", P, low=1, high=d + 1)
    if d == 1:
        raise ValueError("J_o, J_u: given d = 1, where there is one direction only; use d above 1")
    return one * (d - P) / (P * (d - 1))

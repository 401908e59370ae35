"""How similar two kernels are, and how well the Jacobians of two inputs align."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_finite, check_floats
from .parameters import at_least_float32

_BLOCKS = range(2, 9)
"""Two dimensions at least: (..., V, V)."""


def _exact(M: Tensor) -> Tensor:
    return M.to(at_least_float32(M.dtype))


def _blocks(name: str, M: Tensor, expected: str) -> Tensor:
    """``M`` with two dimensions at least, in float32 at least."""
    return _exact(check_floats(name, M, dims=_BLOCKS, expected=expected))


def _size(M: Tensor) -> Tensor:
    """The largest entry of each block, (..., 1, 1); divided by it, squares do not overflow."""
    return M.abs().amax(dim=(-2, -1), keepdim=True)


def _check_broadcast(left: tuple[str, Tensor], right: tuple[str, Tensor]) -> None:
    (a, A), (b, B) = left, right
    try:
        torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{a}, {b}: given shapes {tuple(A.shape)} and {tuple(B.shape)}, expected leading "
            "dimensions that broadcast; for every pair of two batches give [:, None] of one and "
            "[None] of the other"
        ) from None


def alignment(J_o: Tensor, J_u: Tensor) -> Tensor:
    r"""The alignment of the Jacobians of two inputs.

    .. math::

        a = \frac{\lVert K \rVert_F^2}{\lVert J_o \rVert_F^2 \lVert J_u \rVert_F^2},
        \qquad K = J_o J_u^\top,

    in [0, 1]. The relative error of the ZO eNTK with Gaussian directions is
    :math:`\sqrt{(1/a + 1) / P}` (thm-exact-law).

    Args:
        J_o: Jacobians (..., V, d).
        J_u: Jacobians (..., V, d); leading dimensions broadcast.

    Returns:
        Shape (...), float32 at least. For every pair of two batches give J_o[:, None] and
        J_u[None].

    Raises:
        TypeError, ValueError: for other shapes, numbers that are not finite, or a Jacobian that is
            0, which has no direction.

    Example:
        >>> alignment(torch.eye(2), torch.eye(2))
        tensor(0.5000)
    """
    J_o, J_u = _blocks("J_o", J_o, "(..., V, d)"), _blocks("J_u", J_u, "(..., V, d)")
    if J_o.shape[-1] != J_u.shape[-1]:
        raise ValueError(
            f"J_u: given shape {tuple(J_u.shape)}, expected (..., V, {J_o.shape[-1]}), with J_o's "
            "d; take both Jacobians of one model"
        )
    _check_broadcast(("J_o", J_o), ("J_u", J_u))
    units = []
    for name, J in (("J_o", J_o), ("J_u", J_u)):
        largest = _size(J)
        if bool((largest == 0).any()):
            raise ValueError(
                f"{name}: given a Jacobian that is 0, expected one with a norm; leave that input "
                "out, since no step moves it"
            )
        # scaled, since the fourth power of a norm may leave float32's range
        scaled = J / largest
        units.append(scaled / torch.linalg.matrix_norm(scaled, keepdim=True))
    dtype = torch.promote_types(units[0].dtype, units[1].dtype)
    K = units[0].to(dtype) @ units[1].to(dtype).mT  # (..., V, V)
    return K.square().sum(dim=(-2, -1)).clamp(max=1.0)  # rounding may exceed Cauchy-Schwarz


def effective_rank(K: Tensor) -> Tensor:
    r"""The effective rank of a symmetric positive semi-definite matrix.

    .. math:: \frac{\operatorname{tr}(K)^2}{\operatorname{tr}(K^2)}

    Between 1 (one nonzero eigenvalue) and V (all equal). For x_o = x_u it is 1 / alignment.

    Args:
        K: shape (..., V, V), symmetric: kernel blocks with x_o = x_u.

    Returns:
        Shape (...), float32 at least.

    Raises:
        TypeError, ValueError: for numbers that are not finite, or blocks that are not square, not
            symmetric or not above 0.

    Example:
        >>> effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
        tensor(2.)
    """
    exact = _blocks("K", K, "square blocks (..., V, V)")
    if exact.shape[-1] != exact.shape[-2]:
        raise ValueError(
            f"K: given shape {tuple(K.shape)}, expected square blocks (..., V, V); take a kernel "
            "block with x_o = x_u"
        )
    size = _size(exact)
    exact = exact / size.clamp_min(torch.finfo(exact.dtype).tiny)
    rounding = torch.finfo(K.dtype).eps ** 0.5
    if bool(((exact - exact.mT).abs() > rounding).any()):
        raise ValueError(
            "K: given a block that is not symmetric, expected K(x, x); take blocks with x_o = x_u, "
            "or alignment(J_o, J_u) for two inputs"
        )
    trace = exact.diagonal(dim1=-2, dim2=-1).sum(-1)
    if not bool((trace > 0).all()):
        raise ValueError(
            f"K: given a block of trace {float((trace * size[..., 0, 0]).min())}, expected one "
            "above 0, as of a positive semi-definite matrix; leave out inputs whose Jacobian is 0"
        )
    return trace.square() / exact.square().sum(dim=(-2, -1))


def relative_frobenius(K_hat: Tensor, K: Tensor) -> Tensor:
    r"""The relative error of a kernel block, in the Frobenius norm.

    .. math:: \frac{\lVert \hat K - K \rVert_F}{\lVert K \rVert_F}

    Args:
        K_hat: the approximation, (..., V, V).
        K: what it approximates, (..., V, V); must not be 0. Leading dimensions broadcast.

    Returns:
        Shape (...), float32 at least.

    Raises:
        TypeError, ValueError: for other shapes, numbers that are not finite, or if a block of K is
            0, so that a relative error means nothing.

    Example:
        >>> relative_frobenius(torch.eye(2) * 1.5, torch.eye(2))
        tensor(0.5000)
    """
    K = _blocks("K", K, "(..., V, V)")
    expected = f"(..., {K.shape[-2]}, {K.shape[-1]}), as K"
    K_hat = _blocks("K_hat", K_hat, expected)
    if K_hat.shape[-2:] != K.shape[-2:]:
        raise ValueError(
            f"K_hat: given shape {tuple(K_hat.shape)}, expected {expected}; compare blocks of the "
            "same inputs"
        )
    _check_broadcast(("K_hat", K_hat), ("K", K))
    size = _size(K)
    if bool((size == 0).any()):
        raise ValueError("K: given a block that is 0, expected one with a norm; use absolute error")
    error = torch.linalg.matrix_norm((K_hat / size) - (K / size))
    return check_finite("K_hat relative to K", error / torch.linalg.matrix_norm(K / size))


def _as_matrices(K_hat: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Two blocks (V, V'), or the blocks of two sets (N_o, N_u, V, V') laid out as matrices."""
    expected = "(V, V) or (N_o, N_u, V, V)"
    K_hat, K = (
        _exact(check_floats(name, M, dims=range(9), expected=expected))
        for name, M in (("K_hat", K_hat), ("K", K))
    )
    if K_hat.shape != K.shape or K.dim() not in (2, 4):
        raise ValueError(
            f"K_hat, K: given shapes {tuple(K_hat.shape)} and {tuple(K.shape)}, expected the same "
            f"for both: {expected}; index to one block, or to sets of inputs"
        )
    if K.dim() == 2:
        return K_hat, K
    # (N_o, N_u, V, V') -> (N_o, V, N_u, V') -> (N_o V, N_u V')
    left, right = (M.permute(0, 2, 1, 3).flatten(2).flatten(0, 1) for M in (K_hat, K))
    return left, right


def cka(K_hat: Tensor, K: Tensor) -> Tensor:
    r"""Centered kernel alignment: the cosine between two kernels after centering, in [-1, 1].

    With :math:`H = I - \mathbf 1 \mathbf 1^\top / n`,

    .. math::

        \frac{\langle H \hat K H, H K H \rangle}
             {\lVert H \hat K H \rVert_F \lVert H K H \rVert_F}.

    It does not change when a kernel is scaled by a positive number, when a constant is added to a
    row or a column, or when both kernels are permuted, or rotated within the centered subspace,
    together. So it compares shape only: use :func:`relative_frobenius` to compare size too.

    Args:
        K_hat: one block (V, V'), or blocks for sets of inputs (N_o, N_u, V, V').
        K: the other, of the same shape.

    Returns:
        0-d tensor.

    Raises:
        TypeError, ValueError: for other shapes, numbers that are not finite, or a kernel that is 0
            after centering, to rounding.

    References:
        Cortes, Mohri and Rostamizadeh (2012); Kornblith et al. (2019).

    Example:
        >>> K = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> cka(3.0 * K + 1.0, K)
        tensor(1.)
    """
    left, right = _as_matrices(K_hat, K)
    return centered_cosine(left, right)


def centered_cosine(K_hat: Tensor, K: Tensor) -> Tensor:
    """:func:`cka` of each of many matrices, (..., m, n) and (..., m, n) that broadcast: (...)."""
    units = []
    for name, M in (("K_hat", K_hat), ("K", K)):
        M = M / _size(M).clamp_min(torch.finfo(M.dtype).tiny)
        mean = M.mean((-2, -1), keepdim=True)
        centered = M - M.mean(-2, keepdim=True) - M.mean(-1, keepdim=True) + mean
        norm = torch.linalg.matrix_norm(centered, keepdim=True)
        rounding = 10 * torch.finfo(M.dtype).eps * torch.linalg.matrix_norm(M, keepdim=True)
        if bool((norm <= rounding).any()):  # nothing is left to compare but rounding
            raise ValueError(
                f"{name}: given a kernel that is 0 after centering, expected some variation; CKA "
                "has no value here, so use relative_frobenius"
            )
        units.append(centered / norm)
    return (units[0] * units[1]).sum((-2, -1)).clamp(-1.0, 1.0)


def spectral_wasserstein(K_hat: Tensor, K: Tensor) -> Tensor:
    r"""The Wasserstein-1 distance between the singular values of two kernels.

    Each spectrum is taken as a distribution with equal weights. For s and t sorted, the distance is

    .. math:: \frac 1 n \sum_{i=1}^n \lvert s_i - t_i \rvert.

    It does not change when either kernel is multiplied by an orthogonal matrix from either side.
    It has the unit of the kernel: divide by the mean singular value of K for a relative distance.

    Args:
        K_hat: one block (V, V'), or blocks for sets of inputs (N_o, N_u, V, V').
        K: the other, of the same shape.

    Returns:
        0-d tensor.

    Raises:
        TypeError, ValueError: for other shapes, or numbers that are not finite.

    Example:
        >>> spectral_wasserstein(torch.diag(torch.tensor([3.0, 1.0])), torch.eye(2))
        tensor(1.)
    """
    left, right = _as_matrices(K_hat, K)
    return check_finite("K_hat, K: their distance", spectral_distance(left, right))


def spectral_distance(K_hat: Tensor, K: Tensor) -> Tensor:
    """:func:`spectral_wasserstein` of each of many matrices that broadcast: (...)."""
    return (torch.linalg.svdvals(K_hat) - torch.linalg.svdvals(K)).abs().mean(-1)

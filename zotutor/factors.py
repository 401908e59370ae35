"""The gradient of each logit in one parameter, as factors, and inner products of such gradients.

Where a linear layer multiplies an input a by its weight W, the gradient of logit i in W is
delta_i a^T, with delta_i the gradient in the layer's output. An inner product needs no gradient:

    <delta_i a^T, delta'_j a'^T> = (delta_i . delta'_j) (a . a').

A weight that is used at T positions, or several times (tied, recurrent), has the sum of as many
products. Then either all pairs of positions are taken, or the gradients are written out a few rows
of the matrix at a time, whichever costs fewer multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TABLE = 1 << 24
"""Numbers of an intermediate table formed at once: 64 MB in float32."""

Size = tuple[int, int]
"""(m, n) of a matrix-shaped parameter; (size, 1) of any other."""


@dataclass
class Explicit:
    """Gradients written out."""

    values: Tensor
    """(N, V, size)."""


@dataclass
class Outer:
    """Gradients (m, n) that are sums of T outer products."""

    delta: Tensor
    """The gradients in what the operation returns, (N, V, T, m), or n if ``transposed``."""
    input: Tensor
    """What is multiplied by the matrix, (N, T, n), or m if ``transposed``; integers (N, T) stand
    for rows of an identity: which row of the matrix a position looks up."""
    transposed: bool = False
    """Whether the gradient is sum_t input_t delta_t^T rather than sum_t delta_t input_t^T."""

    @property
    def looks_up(self) -> bool:
        """Whether ``input`` holds numbers of rows."""
        return not self.input.is_floating_point()


Use = Explicit | Outer


def combined(use: Use, c: Tensor, size: Size) -> Tensor:
    """The gradient of sum_nv c[n,v] z[n,v], (m n,); c is (N, V)."""
    if isinstance(use, Explicit):
        return c.to(use.values.dtype).flatten() @ use.values.flatten(0, 1)
    delta = torch.einsum("nv,nvtm->ntm", c.to(use.delta.dtype), use.delta).flatten(0, 1)
    if use.looks_up:
        return delta.new_zeros(size).index_add_(0, use.input.reshape(-1), delta).flatten()
    a = use.input.flatten(0, 1).to(delta.dtype)
    return (a.T @ delta if use.transposed else delta.T @ a).flatten()


def joined(uses: list[Use]) -> list[Use]:
    """Uses of one parameter by the same batch, as few as possible.

    Rows add up; products of one kind are further positions.
    """
    rows = [use.values for use in uses if isinstance(use, Explicit)]
    found: list[Use] = [Explicit(sum(rows[1:], rows[0]))] if rows else []
    outers = [use for use in uses if isinstance(use, Outer)]
    for kind in dict.fromkeys((use.transposed, use.looks_up) for use in outers):
        same = [use for use in outers if (use.transposed, use.looks_up) == kind]
        delta = same[0].delta if len(same) == 1 else torch.cat([use.delta for use in same], 2)
        a = same[0].input if len(same) == 1 else torch.cat([use.input for use in same], 1)
        found.append(Outer(delta, a, transposed=kind[0]))
    return found


def written(use: Use, rows: slice, size: Size, dtype: torch.dtype) -> Tensor:
    """The gradients in some rows of the matrix, (N, V, rows * n)."""
    _, n = size
    if isinstance(use, Explicit):
        return use.values[..., rows.start * n : rows.stop * n].to(dtype)
    delta = use.delta.to(dtype)
    N, V, T = delta.shape[:3]
    if not use.transposed:
        left = delta[..., rows].transpose(2, 3).reshape(N, -1, T)  # (N, V rows, T)
        return (left @ use.input.to(dtype)).view(N, V, -1)
    if use.looks_up:
        numbers = torch.arange(rows.start, rows.stop, device=delta.device)
        left = (use.input[:, None] == numbers[:, None]).to(dtype)  # (N, rows, T)
    else:
        left = use.input[..., rows].to(dtype).mT
    right = delta.transpose(1, 2).flatten(2)  # (N, V, T, n) -> (N, T, V n)
    product = (left @ right).view(N, -1, V, n)  # (N, rows, V, n)
    return product.transpose(1, 2).reshape(N, V, -1)


def parts_written(
    sides: Sequence[Sequence[Use]], size: Size, dtype: torch.dtype
) -> Iterator[list[Tensor]]:
    """The whole gradients of one parameter at several sets of inputs, some rows at a time.

    Args:
        sides: all uses of the parameter, for each set.
        size: (m, n) of the parameter.
        dtype: to compute in.

    Yields:
        For each set (N, V, rows * n), the uses added up.
    """
    rows = max(1, _TABLE // (size[1] * sum(_count(side[0]) for side in sides)))
    for start in range(0, size[0], rows):
        part = slice(start, min(start + rows, size[0]))
        found: list[Tensor] = []
        for k, side in enumerate(sides):
            if k and side is sides[0]:
                found.append(found[0])
                continue
            each = [written(use, part, size, dtype) for use in side]
            found.append(sum(each[1:], each[0]))
        yield found


def add_inner_products(total: Tensor, o: Use, u: Use, size: Size) -> None:
    """Add to ``total`` the inner products of two uses of one parameter.

    Args:
        total: (N_o, V, N_u, V), contiguous; or (N_o, N_u), for the trace over V.
        o: the use at x_o.
        u: the use at x_u.
        size: (m, n) of the parameter.
    """
    if isinstance(o, Outer) and isinstance(u, Outer) and _pairs_are_cheaper(total, o, u, size):
        if o.transposed == u.transposed:
            _add_pairs(total, o, u)
        else:
            _add_crossed_pairs(total, o, u)
        return
    if isinstance(o, Explicit) and isinstance(u, Explicit):
        step = size[0]
    else:
        inputs = sum(_count(use) for use in (o, u))
        step = max(1, _TABLE // (size[1] * inputs))
    for start in range(0, size[0], step):
        part = slice(start, min(start + step, size[0]))
        left = written(o, part, size, total.dtype)
        right = left if u is o else written(u, part, size, total.dtype)
        if total.dim() == 2:
            total.addmm_(left.flatten(1), right.flatten(1).T)
        else:
            flat = total.view(left.shape[0] * left.shape[1], -1)
            flat.addmm_(left.flatten(0, 1), right.flatten(0, 1).T)


def _count(use: Use) -> int:
    """N V."""
    values = use.values if isinstance(use, Explicit) else use.delta
    return values.shape[0] * values.shape[1]


def _pairs_are_cheaper(total: Tensor, o: Outer, u: Outer, size: Size) -> bool:
    """Whether all pairs of positions cost fewer multiplications than gradients written out."""
    (N_o, V, T), (N_u, _, S) = o.delta.shape[:3], u.delta.shape[:3]
    m, n = size
    blocks = total.dim() == 4
    if o.transposed != u.transposed:
        each = T * S * V * (m + n + V)
    else:
        width = o.delta.shape[3]
        each = T * S * ((1 if o.looks_up else m * n // max(1, width)) + V * width)
        each += V * V * T * width if blocks else 0
    gradients = V * m * n * (N_o * T + N_u * S + N_o * N_u * (V if blocks else 1))
    return N_o * N_u * each <= gradients


def _add_pairs(total: Tensor, o: Outer, u: Outer) -> None:
    """sum_ts (a_t . a'_s) (delta_i,t . delta'_j,s), the uses being of the same orientation."""
    dtype = total.dtype
    (N_o, V, T, m), (N_u, _, S, _) = o.delta.shape, u.delta.shape
    D_o, D_u = o.delta.to(dtype), u.delta.to(dtype)
    if total.dim() == 2:
        # (N, V, T, m) -> (N, T, V m): the trace is one inner product
        D_o, D_u = (D.transpose(1, 2).reshape(len(D), -1, V * m) for D in (D_o, D_u))
        for part in _parts(N_o, T * N_u * S):
            A = _dots(o.input[part], u.input, dtype)  # (rows, T, N_u, S)
            pairs = (D_o[part].flatten(0, 1) @ D_u.flatten(0, 1).T).view(A.shape)
            total[part] += A.mul_(pairs).sum((1, 3))
    elif T == S == 1:
        for part in _parts(N_o, V * N_u * V):
            A = _dots(o.input[part], u.input, dtype)[:, 0, :, 0]  # (rows, N_u)
            pairs = D_o[part].reshape(-1, m) @ D_u.view(-1, m).T
            total[part].addcmul_(A[:, None, :, None], pairs.view(total[part].shape))
    else:
        D_u = D_u.transpose(1, 2).reshape(N_u, S, V * m)
        for part in _parts(N_o, N_u * T * V * m):
            A = _dots(o.input[part], u.input, dtype).transpose(1, 2)  # (rows, N_u, T, S)
            right = (A @ D_u).view(-1, N_u, T, V, m).permute(0, 2, 4, 1, 3)  # (rows, T, m, N_u, V)
            left = D_o[part].flatten(2)  # (rows, V, T m)
            total[part] += (left @ right.reshape(len(left), T * m, -1)).view(total[part].shape)


def _add_crossed_pairs(total: Tensor, o: Outer, u: Outer) -> None:
    """sum_ts (delta_i,t . a'_s) (a_t . delta'_j,s): one use of a tied weight is transposed."""
    dtype = total.dtype
    (N_o, V, T, _), (N_u, _, S, _) = o.delta.shape, u.delta.shape
    for part in _parts(N_o, N_u * T * S * V):
        left = _through(o.delta[part], u.input, dtype)  # (rows, V, T, N_u, S)
        right = _through(u.delta, o.input[part], dtype)  # (N_u, V, S, rows, T)
        left = left.permute(0, 3, 1, 2, 4).flatten(3)  # (rows, N_u, V, T S)
        right = right.permute(3, 0, 4, 2, 1).flatten(2, 3)  # (rows, N_u, T S, V)
        if total.dim() == 2:
            total[part] += (left * right.mT).sum((2, 3))
        else:
            total[part] += (left @ right).transpose(1, 2)


def _parts(N: int, size: int) -> list[slice]:
    """N rows cut such that a table of ``size`` numbers for each fits."""
    step = max(1, _TABLE // max(1, size))
    return [slice(start, min(start + step, N)) for start in range(0, N, step)]


def _dots(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Inner products of two inputs at all positions, (N_o, T, N_u, S); see ``Outer.input``."""
    if a.dim() == b.dim() == 2:
        return (a[:, :, None, None] == b).to(dtype)
    if b.dim() == 2:
        return a.to(dtype)[:, :, b]
    if a.dim() == 2:
        return b.to(dtype)[:, :, a].permute(2, 3, 0, 1)
    flat = a.to(dtype).flatten(0, 1) @ b.to(dtype).flatten(0, 1).T
    return flat.view(*a.shape[:2], *b.shape[:2])


def _through(delta: Tensor, a: Tensor, dtype: torch.dtype) -> Tensor:
    """Delta (N, V, T, k) times input (M, S, k), or rows (M, S) of an identity: (N, V, T, M, S)."""
    if a.dim() == 2:
        return delta.to(dtype)[..., a]
    flat = delta.to(dtype).flatten(0, 2) @ a.to(dtype).flatten(0, 1).T
    return flat.view(*delta.shape[:3], *a.shape[:2])

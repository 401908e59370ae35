"""Stochastic rounding, by which small updates in half precision are not lost (thm-rounding)."""

from __future__ import annotations

import torch
from torch import Tensor

from .streams import Stream, uniforms


def round_stochastically(values: Tensor, dtype: torch.dtype, stream: Stream, start: int) -> Tensor:
    """Each value rounded to one of its two neighbors in ``dtype``, on average to itself.

    The probability of each neighbor is such that E[rounded] = value. Rounding to nearest would lose
    every update below half a spacing, which at a learning rate of 1e-6 in bfloat16 is most of them.

    Args:
        values: float32, flat.
        dtype: bfloat16 or float16.
        stream: random words, of which each value uses 32 bits.
        start: position of the first value in the stream.

    Returns:
        The same shape in ``dtype``. Values that ``dtype`` can represent are unchanged.

    References:
        Gupta et al. (2015).

    Example:
        >>> values = torch.full((10000,), 1.0 + 2.0**-10)  # an eighth of a spacing above 1
        >>> rounded = round_stochastically(values, torch.bfloat16, Stream.of(0), 0)
        >>> sorted(set(rounded.tolist())), round(float((rounded > 1).float().mean()), 1)
        ([1.0, 1.0078125], 0.1)
    """
    nearest = values.to(dtype)
    missing = values - nearest  # exact
    up, bits = missing > 0, nearest.view(torch.int16)
    # read as integers, the neighbor on the value's side is one more in magnitude, or one less
    change = (up == (bits > 0)).to(torch.int16).mul_(2).sub_(1)
    zero = nearest == 0
    if zero.any():  # there the neighbor is the smallest number of that sign
        change[zero] = torch.where(up[zero], 1, -32767).to(torch.int16) - bits[zero]
    gap = (bits + change).view(dtype).to(values.dtype).sub_(nearest).abs_()
    chance = uniforms(stream, slice(start, start + values.numel()), values.device)
    taken = chance.mul_(gap) < missing.abs_()
    return change.mul_(taken).add_(bits).view(dtype)

"""Updates that are not lost in half precision: stochastic rounding, driven by the hash."""

from __future__ import annotations

import torch
from torch import Tensor

from .streams import Stream, uniforms


def round_stochastically(values: Tensor, dtype: torch.dtype, stream: Stream, start: int) -> Tensor:
    """Each value rounded to one of its two neighbors in ``dtype``, on average to itself.

    A value between two neighbors goes to the nearer one with a probability that makes the mean
    right: E[rounded] = value. Rounding to nearest would lose every update below half a spacing, as
    a learning rate of 1e-6 is in bfloat16.

    Args:
        values: float32, flat.
        dtype: bfloat16 or float16.
        stream: random words, one half for each value.
        start: number of the first value in the stream.

    Returns:
        The same shape in ``dtype``. Values that ``dtype`` holds exactly are kept.

    References:
        Gupta et al. (2015).

    Example:
        >>> values = torch.full((10000,), 1.0 + 2.0**-10)  # an eighth of a spacing above 1
        >>> rounded = round_stochastically(values, torch.bfloat16, Stream.of(0), 0)
        >>> sorted(set(rounded.tolist())), round(float((rounded > 1).float().mean()), 1)
        ([1.0, 1.0078125], 0.1)
    """
    nearest = values.to(dtype)
    missing = values - nearest.to(values.dtype)
    toward = torch.where(missing > 0, torch.inf, -torch.inf).to(dtype)
    neighbor = torch.nextafter(nearest, toward)
    gap = (neighbor.to(values.dtype) - nearest.to(values.dtype)).abs()
    chance = uniforms(stream, slice(start, start + values.numel()), values.device)
    return torch.where(chance * gap < missing.abs(), neighbor, nearest)

"""A learning rate to begin with, from runs that are known to work."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn


class KnownRate(NamedTuple):
    """A learning rate of ZO-SGD with P = 1 that worked."""

    d: float
    """Number of trainable parameters."""
    lr: float
    where: str


KNOWN = (
    KnownRate(661_248, 2.5e-4, "the tiny model on reviews, measured in the book (llm_finetuning)"),
    KnownRate(125e6, 5e-6, "OPT-125M on SST-2 (Li et al., 2026)"),
    KnownRate(355e6, 1e-6, "RoBERTa-large on SST-2 (Malladi et al., 2023)"),
    KnownRate(13e9, 1e-7, "OPT-13B on SST-2 (Malladi et al., 2023)"),
)
"""By size. Those of papers are what their authors report; only the first was measured here."""


class SuggestedRate(NamedTuple):
    """A learning rate to begin with, and where it comes from."""

    lr: float
    why: str


def suggested_lr(model: nn.Module, *, momentum: float = 0.0) -> SuggestedRate:
    """A learning rate to begin with, read off runs of models of about the same size.

    Between two known sizes log lr is linear in log d, d the number of trainable parameters; beyond
    them it is that of the last. Momentum m takes 1 / (1 - m) times the steps, and lr is divided by
    as much. What suits a model depends on its curvature as well, which this does not look at: try
    a third of it and three times it, and keep what lowers the loss most in the first steps.

    Args:
        model: its trainable parameters count.
        momentum: of ZO-SGD, in [0, 1).

    Example:
        >>> suggested_lr(nn.Linear(1000, 1000)).lr
        0.0002
    """
    d = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
    below = max((known for known in KNOWN if known.d <= d), default=KNOWN[0])
    above = min((known for known in KNOWN if known.d >= d), default=KNOWN[-1])
    lr = below.lr
    if above.d > below.d:
        share = math.log(d / below.d) / math.log(above.d / below.d)
        lr = math.exp((1 - share) * math.log(below.lr) + share * math.log(above.lr))
    lr = float(f"{lr * (1 - momentum):.0e}")
    sources = " and ".join(
        f"{known.lr:g} for {known.where}" for known in dict.fromkeys((below, above))
    )
    return SuggestedRate(
        lr,
        f"for {d:,} trainable parameters, from runs that worked at P = 1: {sources}; not measured "
        f"on this model, so try {lr / 3:.0e} and {3 * lr:.0e}, too",
    )

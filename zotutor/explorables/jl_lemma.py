"""Explorables of *The Johnson-Lindenstrauss lemma*."""

from __future__ import annotations

import math

from zotutor.bounds import jl_rate

from .arguments import check_seed
from .page import Explorable, Table


def distortion(*, seed: int) -> Explorable:
    """How far P directions move an inner product, drawn a thousand times, and the bound.

    Two unit vectors of 16 dimensions with inner product alpha; the page draws (U^T v).(U^T w) with
    the package's directions of steps 0, ..., 999, counts the draws that are farther than gamma from
    alpha, and compares with 2 exp(-P psi(gamma)).

    Args:
        seed: of the directions, 0 <= seed < 2^53.

    Raises:
        TypeError, ValueError: for another seed.

    Example:
        >>> distortion(seed=0)
        <explorable jl_lemma.distortion>
    """
    gammas = (0.5, 1.0, 2.0)
    rows = [
        [f"{P}", *(f"{min(1.0, 2 * math.exp(-P * jl_rate(gamma))):.2g}" for gamma in gammas)]
        for P in (1, 4, 16, 64)
    ]
    return Explorable(
        "jl_lemma",
        "distortion",
        "An inner product, kept by P directions",
        {"seed": check_seed(seed)},
        Table(
            "Bound on the probability of an error above γ (1: the bound says nothing)",
            ["P", *(f"γ = {gamma}" for gamma in gammas)],
            rows,
        ),
    )

"""Explorables of *Kernel fidelity*."""

from __future__ import annotations

from collections.abc import Mapping

from zotutor.checks import check_real
from zotutor.laws import perturbations_needed

from .page import Explorable, Table


def planner(alignments: Mapping[str, float]) -> Explorable:
    """How many perturbations reach a relative error, for a given alignment.

        P = (1/a + 1) / error^2

    The page computes what :func:`~zotutor.perturbations_needed` does without its term in the
    overlap, for an alignment of your own or for that of one of the pairs given.

    Args:
        alignments: a in (0, 1] of pairs of inputs, by their names.

    Raises:
        TypeError, ValueError: for an alignment out of range.

    Example:
        >>> planner({"4 and 9": 0.034})
        <explorable kernel_fidelity.planner>
    """
    found = {}
    for name, a in alignments.items():
        found[name] = check_real(f"alignments[{name!r}]", a, low=0.0, open_low=True)
        if a > 1.0:
            raise ValueError(f"alignments[{name!r}]: given {a}, expected at most 1")
    errors = (0.25, 0.5, 1.0)
    rows = [
        [name, f"{a:.3g}", *(f"{perturbations_needed(e, alignment=a):,}" for e in errors)]
        for name, a in {**found, "the smallest error there is": 1.0}.items()
    ]
    return Explorable(
        "kernel_fidelity",
        "planner",
        "How many perturbations are enough?",
        {"names": list(found), "alignments": [float(f"{a:.5g}") for a in found.values()]},
        Table(
            "Perturbations needed",
            ["pair", "alignment", *(f"error {e}" for e in errors)],
            rows,
        ),
    )

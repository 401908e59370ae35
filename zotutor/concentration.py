"""Deprecated: :mod:`zotutor.bounds` has the bounds, :mod:`zotutor.laws` the laws."""

from __future__ import annotations

from .deprecation import moved

_BOUNDS = ("jl_rate", "jl_min_perturbations", "jl_epsilon", "kernel_error_bound")
_LAWS = (
    "Moments",
    "PairTerms",
    "Shapes",
    "dynamics_error_law",
    "estimator_moments",
    "kernel_error_law",
    "pair_terms",
    "pair_variance",
    "perturbations_needed",
)

__getattr__ = moved(
    __name__,
    dict.fromkeys(_BOUNDS, "zotutor.bounds") | dict.fromkeys(_LAWS, "zotutor.laws"),
)

"""Zeroth-order optimization, seen through the empirical neural tangent kernel.

The package behind the book *Zeroth-Order Optimization: A Kernel Perspective*. Import order is
reading order: directions, probe, estimators, optim, jacobians, kernels, dynamics.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import (
    concentration,
    directions,
    dynamics,
    estimators,
    fidelity,
    jacobians,
    kernels,
    optim,
    planning,
    streams,
)
from .closure import NonFiniteLossError
from .concentration import (
    dynamics_error_law,
    estimator_moments,
    jl_epsilon,
    jl_min_perturbations,
    kernel_error_bound,
    kernel_error_law,
    perturbations_needed,
)
from .directions import Gaussian, LowRank, Rademacher, Sparse, Sphere
from .dynamics import one_step
from .estimators import estimate_gradient
from .jacobians import jacobian, jvp, vjp
from .kernels import (
    alignment,
    cka,
    effective_rank,
    entk,
    relative_frobenius,
    spectral_wasserstein,
    zo_entk,
)
from .optim import ZOSGD
from .planning import (
    estimate_dynamics_error,
    estimate_kernel_error,
    estimate_moments,
    plan,
)
from .probe import perturbed
from .trajectories import trajectory

if TYPE_CHECKING:
    from . import datasets, exercises, experiments, figures, llm, models

__version__ = "0.1.0"

__all__ = [
    "ZOSGD",
    "Gaussian",
    "LowRank",
    "NonFiniteLossError",
    "Rademacher",
    "Sparse",
    "Sphere",
    "alignment",
    "cka",
    "concentration",
    "datasets",
    "directions",
    "dynamics",
    "dynamics_error_law",
    "effective_rank",
    "entk",
    "estimate_dynamics_error",
    "estimate_gradient",
    "estimate_kernel_error",
    "estimate_moments",
    "estimator_moments",
    "estimators",
    "exercises",
    "experiments",
    "fidelity",
    "figures",
    "jacobian",
    "jacobians",
    "jl_epsilon",
    "jl_min_perturbations",
    "jvp",
    "kernel_error_bound",
    "kernel_error_law",
    "kernels",
    "llm",
    "models",
    "one_step",
    "optim",
    "perturbations_needed",
    "perturbed",
    "plan",
    "planning",
    "relative_frobenius",
    "spectral_wasserstein",
    "streams",
    "trajectories",
    "trajectory",
    "vjp",
    "zo_entk",
]

_LAZY = ("datasets", "experiments", "exercises", "figures", "llm", "models")


def __getattr__(name: str) -> Any:
    """Import a module outside of the core where it is first used."""
    if name in _LAZY:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, those of modules not imported yet among them."""
    return sorted({*globals(), *_LAZY})

"""Zeroth-order optimization, seen through the empirical neural tangent kernel.

The package of the book *Zeroth-Order Optimization: A Kernel Perspective*. Import order is reading
order: a module imports only those before it in `READING_ORDER` of tests/test_imports.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import (
    bounds,
    directions,
    dynamics,
    estimators,
    fidelity,
    jacobians,
    kernels,
    laws,
    optim,
    parameters,
    planning,
    similarity,
    streams,
    tables,
)
from .bounds import jl_epsilon, jl_min_perturbations, kernel_error_bound
from .closure import NonFiniteLossError
from .columns import Table
from .directions import Gaussian, LowRank, Rademacher, Sparse, Sphere, Uniform
from .dynamics import one_step, step_change
from .estimators import estimate_gradient
from .jacobians import jacobian, jvp, vjp
from .kernels import entk, zo_entk, zo_entk_with_std
from .laws import (
    dynamics_error_law,
    estimator_moments,
    kernel_error_law,
    perturbations_needed,
)
from .moments import estimate_moments
from .optim import ZOSGD
from .pairs import alignments, effective_ranks, kernel_error_laws
from .planning import (
    estimate_dynamics_error,
    estimate_kernel_error,
    plan_perturbations,
)
from .probe import perturbed
from .run_planning import plan
from .similarity import (
    alignment,
    cka,
    effective_rank,
    relative_frobenius,
    spectral_wasserstein,
)
from .sketches import sketch, sketch_losses
from .tiles import gram
from .trajectories import deviation_grid, trajectory

if TYPE_CHECKING:
    from . import datasets, exercises, experiments, explorables, figures, llm, models

__version__ = "0.2.0"

__all__ = [
    "ZOSGD",
    "Gaussian",
    "LowRank",
    "NonFiniteLossError",
    "Rademacher",
    "Sparse",
    "Sphere",
    "Table",
    "Uniform",
    "alignment",
    "alignments",
    "bounds",
    "cka",
    "datasets",
    "deviation_grid",
    "directions",
    "dynamics",
    "dynamics_error_law",
    "effective_rank",
    "effective_ranks",
    "entk",
    "estimate_dynamics_error",
    "estimate_gradient",
    "estimate_kernel_error",
    "estimate_moments",
    "estimator_moments",
    "estimators",
    "exercises",
    "experiments",
    "explorables",
    "fidelity",
    "figures",
    "gram",
    "jacobian",
    "jacobians",
    "jl_epsilon",
    "jl_min_perturbations",
    "jvp",
    "kernel_error_bound",
    "kernel_error_law",
    "kernel_error_laws",
    "kernels",
    "laws",
    "llm",
    "models",
    "one_step",
    "optim",
    "parameters",
    "perturbations_needed",
    "perturbed",
    "plan",
    "plan_perturbations",
    "planning",
    "relative_frobenius",
    "similarity",
    "sketch",
    "sketch_losses",
    "spectral_wasserstein",
    "step_change",
    "streams",
    "tables",
    "trajectories",
    "trajectory",
    "vjp",
    "zo_entk",
    "zo_entk_with_std",
]

_LAZY = ("datasets", "experiments", "exercises", "explorables", "figures", "llm", "models")


def __getattr__(name: str) -> Any:
    """Import a module outside of the core where it is first used."""
    if name in _LAZY or name == "concentration":  # which has moved to bounds and laws
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, those of modules not imported yet among them."""
    return sorted({*globals(), *_LAZY})

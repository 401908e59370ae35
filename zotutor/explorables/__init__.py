"""Figures that compute in the page, without a kernel: one module per chapter, under its name.

Each function returns an :class:`~zotutor.explorables.page.Explorable`: a notebook shows it as
controls, a picture and a number, which JavaScript computes from the data in the page, with the same
random numbers as this package. It works on the static site, in JupyterLab and in Colab. Where a
model must run at each move of a slider, use :func:`zotutor.figures.explore`, which needs a kernel.
"""

from . import (
    beyond,
    dimension_free,
    gradients_from_values,
    intro,
    jl_lemma,
    kernel_emerges,
    kernel_fidelity,
    learning_dynamics,
    llm_dynamics,
    llm_finetuning,
    loss_view,
    trajectories,
    zo_sgd,
)
from .page import Explorable

__all__ = [
    "Explorable",
    "beyond",
    "dimension_free",
    "gradients_from_values",
    "intro",
    "jl_lemma",
    "kernel_emerges",
    "kernel_fidelity",
    "learning_dynamics",
    "llm_dynamics",
    "llm_finetuning",
    "loss_view",
    "trajectories",
    "zo_sgd",
]

"""Checkers for the book's exercises: the same in Colab, on a laptop and in CI.

Each takes the student's function or answer, and prints "Correct" or raises :class:`NotYet`, an
AssertionError, with a hint. They compare with the definition at a few arguments, or, where an
estimate is wanted, its mean over many draws with what it estimates. If they differ, common slips
are tried in turn, and the one that reproduces the wrong answer becomes the hint. With the
environment variable ``ZOTUTOR_GRADING=1`` no message holds a value that is expected.

Example:
    >>> check_budget("P")
    Traceback (most recent call last):
    ...
    zotutor.exercises.answers.NotYet: check_budget: each step is more accurate, and ...
"""

from .answers import NotYet
from .beyond import (
    check_expected_square,
    check_lowrank_variance,
    check_rank_needed,
    check_seconds_needed,
)
from .dimension_free import check_copies, check_growing_family
from .gradients_from_values import (
    check_best_eps,
    check_expected_bias,
    check_four_point,
    check_which_directions,
)
from .intro import check_best_factor, check_loss_left
from .jl_lemma import check_norm_variance, check_perturbations_for_distances, check_tail_probability
from .kernel_emerges import check_entry_variance, check_zo_entk_from_values, check_zo_prediction
from .kernel_fidelity import (
    check_alignment_from_error,
    check_alignment_from_responses,
    check_law_from_kernels,
)
from .learning_dynamics import (
    check_log_softmax_jacobian,
    check_predicted_change,
    check_prediction_without_kernel,
    check_softmax_regression_kernel,
)
from .llm_dynamics import (
    check_change_from_passes,
    check_perturbations_to_tell_apart,
    check_text_change,
)
from .llm_finetuning import check_quantum, check_steps_until_checkpoint, check_which_rounding
from .loss_view import check_best_perturbations, check_perturbations_for_share
from .trajectories import check_budget, check_constant, check_steps
from .zo_sgd import check_momentum_step, check_perturbations_per_step, check_trace_from_losses

__all__ = [
    "NotYet",
    "check_alignment_from_error",
    "check_alignment_from_responses",
    "check_best_eps",
    "check_best_factor",
    "check_best_perturbations",
    "check_budget",
    "check_change_from_passes",
    "check_constant",
    "check_copies",
    "check_entry_variance",
    "check_expected_bias",
    "check_expected_square",
    "check_four_point",
    "check_growing_family",
    "check_law_from_kernels",
    "check_log_softmax_jacobian",
    "check_loss_left",
    "check_lowrank_variance",
    "check_momentum_step",
    "check_norm_variance",
    "check_perturbations_for_distances",
    "check_perturbations_for_share",
    "check_perturbations_per_step",
    "check_perturbations_to_tell_apart",
    "check_predicted_change",
    "check_prediction_without_kernel",
    "check_quantum",
    "check_rank_needed",
    "check_seconds_needed",
    "check_softmax_regression_kernel",
    "check_steps",
    "check_steps_until_checkpoint",
    "check_tail_probability",
    "check_text_change",
    "check_trace_from_losses",
    "check_which_directions",
    "check_which_rounding",
    "check_zo_entk_from_values",
    "check_zo_prediction",
]

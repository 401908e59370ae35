"""Checkers for the book's exercises: the same in Colab, on a laptop and in CI.

Each takes the student's function or answer, and prints "Correct" or raises an AssertionError that
gives a hint.
"""

from .beyond import (
    check_expected_square,
    check_lowrank_variance,
    check_rank_needed,
    check_seconds_needed,
)
from .concentration import (
    check_alignment_from_error,
    check_alignment_from_responses,
    check_law_from_kernels,
    check_norm_variance,
    check_perturbations_for_distances,
    check_tail_probability,
)
from .dimension import (
    check_copies,
    check_growing_family,
    check_perturbations_for_share,
)
from .dynamics import (
    check_entry_variance,
    check_log_softmax_jacobian,
    check_predicted_change,
    check_prediction_without_kernel,
    check_softmax_regression_kernel,
    check_zo_entk_from_values,
    check_zo_prediction,
)
from .finetuning import (
    check_quantum,
    check_steps_until_checkpoint,
    check_updates_needed,
)
from .gradients import (
    check_best_eps,
    check_best_factor,
    check_expected_bias,
    check_four_point,
    check_perturbations_for,
    check_steps_needed,
)
from .llm_dynamics import (
    check_change_from_passes,
    check_perturbations_to_tell_apart,
    check_text_change,
)
from .trajectories import check_budget, check_constant, check_steps
from .zo_sgd import (
    check_momentum_step,
    check_perturbations_within,
    check_trace_from_losses,
)

__all__ = [
    "check_alignment_from_error",
    "check_alignment_from_responses",
    "check_best_eps",
    "check_best_factor",
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
    "check_lowrank_variance",
    "check_momentum_step",
    "check_norm_variance",
    "check_perturbations_for",
    "check_perturbations_for_distances",
    "check_perturbations_for_share",
    "check_perturbations_to_tell_apart",
    "check_perturbations_within",
    "check_predicted_change",
    "check_prediction_without_kernel",
    "check_quantum",
    "check_rank_needed",
    "check_seconds_needed",
    "check_softmax_regression_kernel",
    "check_steps",
    "check_steps_needed",
    "check_steps_until_checkpoint",
    "check_tail_probability",
    "check_text_change",
    "check_trace_from_losses",
    "check_updates_needed",
    "check_zo_entk_from_values",
    "check_zo_prediction",
]

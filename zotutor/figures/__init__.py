"""Every matplotlib figure of the book: functions of plain arrays that return a Figure."""

from . import style as style  # first: it says what to install where matplotlib is missing
from .beyond import (
    excess_by_density,
    excess_by_rank,
    factors_by_matrix,
    fidelity_per_second,
    momentum_window,
)
from .dimension_free import error_and_cause, error_distributions
from .gradients_from_values import (
    drift,
    error_against_eps,
    gradient_and_estimate,
    loss_along_line,
    moments,
)
from .intro import accuracy_while_fine_tuning, predicted_distributions
from .jl_lemma import curves, kept_inner_products, one_pair_projected
from .kernel_emerges import block_and_entries, entries, kernel_blocks
from .kernel_fidelity import (
    bound_and_law,
    error_against_alignment,
    error_against_perturbations,
    measures_against_perturbations,
    spectra,
    spread_over_pairs,
)
from .learning_dynamics import (
    agreement,
    class_map,
    digit_row,
    log_prob_changes,
    power_laws,
    three_factors,
)
from .llm_dynamics import (
    next_token_changes,
    run_deviations,
    similarity_maps,
    similarity_of_pairs,
)
from .llm_finetuning import (
    accuracies,
    accuracy_against_costs,
    projected_gradients,
    rounded_walks,
    run_curves,
)
from .loss_view import stable_steps
from .sliders import explore
from .trajectories import (
    breakdown,
    deviation_law,
    law_constants,
    random_walk,
    summed_theory,
    temperature,
)
from .zo_sgd import (
    expected_change,
    loss_after_budget,
    loss_against_eps,
    loss_and_accuracy,
    runs_on_quadratic,
    steps_by_dimension,
    steps_by_width,
)

__all__ = [
    "accuracies",
    "accuracy_against_costs",
    "accuracy_while_fine_tuning",
    "agreement",
    "block_and_entries",
    "bound_and_law",
    "breakdown",
    "class_map",
    "curves",
    "deviation_law",
    "digit_row",
    "drift",
    "entries",
    "error_against_alignment",
    "error_against_eps",
    "error_against_perturbations",
    "error_and_cause",
    "error_distributions",
    "excess_by_density",
    "excess_by_rank",
    "expected_change",
    "explore",
    "factors_by_matrix",
    "fidelity_per_second",
    "gradient_and_estimate",
    "kept_inner_products",
    "kernel_blocks",
    "law_constants",
    "log_prob_changes",
    "loss_after_budget",
    "loss_against_eps",
    "loss_along_line",
    "loss_and_accuracy",
    "measures_against_perturbations",
    "moments",
    "momentum_window",
    "next_token_changes",
    "one_pair_projected",
    "power_laws",
    "predicted_distributions",
    "projected_gradients",
    "random_walk",
    "rounded_walks",
    "run_curves",
    "run_deviations",
    "runs_on_quadratic",
    "similarity_maps",
    "similarity_of_pairs",
    "spectra",
    "spread_over_pairs",
    "stable_steps",
    "steps_by_dimension",
    "steps_by_width",
    "summed_theory",
    "temperature",
    "three_factors",
]

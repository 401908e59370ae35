"""Every matplotlib figure of the book: functions of plain arrays that return a Figure."""

from . import style as style  # first: it says what to install where matplotlib is missing
from .beyond import (
    excess_by_density,
    excess_by_rank,
    factors_by_matrix,
    fidelity_per_second,
    momentum_window,
)
from .concentration import (
    bound_and_law,
    curves,
    error_against_alignment,
    error_against_perturbations,
    kept_inner_products,
    measures_against_perturbations,
    one_pair_projected,
    spectra,
)
from .dimension import error_and_cause, error_distributions, stable_steps
from .dynamics import (
    agreement,
    block_and_entries,
    class_map,
    digit_row,
    entries,
    kernel_blocks,
    log_prob_changes,
    power_laws,
    three_factors,
)
from .finetuning import run_curves
from .gradients import (
    accuracy_while_fine_tuning,
    drift,
    error_against_eps,
    gradient_and_estimate,
    loss_along_line,
    moments,
    opinions,
)
from .llm_dynamics import (
    next_token_changes,
    similarity_maps,
    similarity_of_pairs,
)
from .style import explore
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
    "opinions",
    "power_laws",
    "random_walk",
    "run_curves",
    "runs_on_quadratic",
    "similarity_maps",
    "similarity_of_pairs",
    "spectra",
    "stable_steps",
    "steps_by_dimension",
    "steps_by_width",
    "summed_theory",
    "temperature",
    "three_factors",
]

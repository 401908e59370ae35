"""Every matplotlib figure of the book: functions of plain arrays that return a Figure."""

from . import style as style  # first: it says what to install where matplotlib is missing
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
from .gradients import (
    accuracy_while_fine_tuning,
    drift,
    error_against_eps,
    gradient_and_estimate,
    loss_along_line,
    moments,
    opinions,
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
    "breakdown",
    "class_map",
    "deviation_law",
    "digit_row",
    "drift",
    "entries",
    "error_against_eps",
    "expected_change",
    "explore",
    "gradient_and_estimate",
    "kernel_blocks",
    "law_constants",
    "log_prob_changes",
    "loss_after_budget",
    "loss_against_eps",
    "loss_along_line",
    "loss_and_accuracy",
    "moments",
    "opinions",
    "power_laws",
    "random_walk",
    "runs_on_quadratic",
    "steps_by_dimension",
    "steps_by_width",
    "summed_theory",
    "temperature",
    "three_factors",
]

"""Every matplotlib figure of the book: functions of plain arrays that return a Figure."""

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

__all__ = [
    "accuracy_while_fine_tuning",
    "agreement",
    "block_and_entries",
    "class_map",
    "digit_row",
    "drift",
    "entries",
    "error_against_eps",
    "explore",
    "gradient_and_estimate",
    "kernel_blocks",
    "log_prob_changes",
    "loss_along_line",
    "moments",
    "opinions",
    "power_laws",
    "three_factors",
]

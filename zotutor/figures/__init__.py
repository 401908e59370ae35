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
from .style import explore

__all__ = [
    "agreement",
    "block_and_entries",
    "class_map",
    "digit_row",
    "entries",
    "explore",
    "kernel_blocks",
    "log_prob_changes",
    "power_laws",
    "three_factors",
]

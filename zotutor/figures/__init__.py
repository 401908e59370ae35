"""Every matplotlib figure of the book: functions of plain arrays that return a Figure."""

from .style import explore

__all__ = ["explore"]

"""Every speed claim of this package beside its alternatives: `python -m benchmarks`.

One file per comparison, one runner (:mod:`benchmarks.runner`).
"""

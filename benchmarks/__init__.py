"""Every speed claim of this package, next to its alternatives: `python -m benchmarks`.

One file per comparison, one runner (:mod:`benchmarks.runner`).
"""

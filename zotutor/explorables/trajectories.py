"""Explorables of *Trajectories*."""

from __future__ import annotations

from zotutor.trajectories import DeviationGrid

from .page import Explorable, Table, rounded


def tp_law(grid: DeviationGrid) -> Explorable:
    """Measured deviations of ZO-SGD from SGD, for any T and P of a grid, against C / sqrt(T P).

    Args:
        grid: of :func:`~zotutor.deviation_grid`; every run of it is kept.

    Raises:
        TypeError: for anything else.
        ValueError: if the page would be larger than 200 kB.

    Example:
        >>> import torch, zotutor as zo
        >>> data = torch.eye(3), torch.tensor([0, 1, 2])
        >>> grid = zo.deviation_grid(
        ...     torch.nn.Linear(3, 3),
        ...     data,
        ...     observe=data[0],
        ...     horizon=0.1,
        ...     steps=[4],
        ...     P=[1, 2],
        ...     seeds=[0, 1],
        ... )
        >>> tp_law(grid)
        <explorable trajectories.tp_law>
    """
    if not isinstance(grid, DeviationGrid):
        raise TypeError(
            f"grid: given a {type(grid).__name__}, expected what zotutor.deviation_grid returns"
        )
    seen = grid.deviation.square().mean(-1).sqrt()  # (T, P)
    rows = [
        [f"{T}", f"{P}", f"{seen[i, j]:.3f}", f"{grid.constant / (T * P) ** 0.5:.3f}"]
        for i, T in enumerate(grid.steps)
        for j, P in enumerate(grid.P)
    ]
    return Explorable(
        "trajectories",
        "tp_law",
        "Runs against the T P law",
        {
            "steps": list(grid.steps),
            "Ps": list(grid.P),
            "deviation": rounded(grid.deviation),
            "constant": grid.constant,
        },
        Table(
            "Deviation from SGD over the total change, root mean square of the runs",
            ["T", "P", "measured", "C / √(T P)"],
            rows,
        ),
    )

"""A random projection of gradients: P numbers for each of d, in a way that keeps inner products.

The package's directions are applied in blocks and never stored. The alternatives are normals of
torch's generator, in blocks and at once, and TRAK's projector where it is installed. All are judged
by the same error, at equal P: of the Gram matrix of the sketches against that of the gradients.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import zotutor as zo

from .runner import Call, Case, Comparison, DisagreementError

OURS, NORMALS = "zotutor, Rademacher", "zotutor, Gaussian"
BLOCKS, MATRIX = "torch, normals in blocks", "torch, a matrix of normals"
ROWS = 32


def gradients(d: int, device: str) -> Tensor:
    """ROWS vectors (ROWS, d) with some alignment, as gradients of one model have."""
    source = torch.Generator().manual_seed(0)
    common = torch.randn(1, d, generator=source)
    return (common + 2 * torch.randn(ROWS, d, generator=source)).to(device)


def ours(g: Tensor, P: int, family: zo.directions.Directions) -> Tensor:
    """The sketch U^T g by the package's directions: a block of entries of all P at a time."""
    weight = torch.empty(g.shape[1], device=g.device, requires_grad=True)
    several = replace(family.at([weight], seed=0, step=0), p=range(P))
    found = torch.zeros(len(g), P, device=g.device)
    size = max(64, (1 << 20) // P)
    for start in range(0, g.shape[1], size):
        stop = min(start + size, g.shape[1])
        u = several.entries(0, start, stop, g.dtype)  # (P, stop - start)
        found += g[:, start:stop] @ u.T  # (ROWS, P)
    return found / math.sqrt(P)


def in_blocks(g: Tensor, P: int, block: int = 16) -> Tensor:
    """The same with normals of torch's generator, ``block`` rows at a time."""
    source = torch.Generator(g.device).manual_seed(0)
    parts = [
        g @ torch.randn(g.shape[1], min(block, P - start), generator=source, device=g.device)
        for start in range(0, P, block)
    ]
    return torch.cat(parts, 1) / math.sqrt(P)


def at_once(g: Tensor, P: int) -> Tensor:
    """The same with the whole matrix, d P numbers."""
    source = torch.Generator(g.device).manual_seed(0)
    return g @ torch.randn(g.shape[1], P, generator=source, device=g.device) / math.sqrt(P)


def other_libraries(g: Tensor, P: int) -> dict[str, Call]:
    """TRAK's projector, where it is installed (pip install traker)."""
    found: dict[str, Call] = {}
    try:
        projectors: Any = import_module("trak.projectors")
    except ImportError:
        print("  (TRAK is not installed: left out)")
    else:
        kind = projectors.ProjectionType.rademacher
        options = {"proj_type": kind, "device": g.device, "block_size": 100}
        projector = projectors.BasicProjector(g.shape[1], P, seed=0, **options)
        found["TRAK, BasicProjector"] = lambda: projector.project(g, model_id=0) / math.sqrt(P)
    return found


def ways(d: int, P: int, device: str) -> dict[str, Call]:
    """The sketches of the same gradients."""
    g = gradients(d, device)
    found: dict[str, Call] = {
        BLOCKS: partial(in_blocks, g, P),
        OURS: partial(ours, g, P, zo.Rademacher()),
        NORMALS: partial(ours, g, P, zo.Gaussian()),
    }
    if d * P <= 1 << 27:
        found[MATRIX] = partial(at_once, g, P)
    return found | other_libraries(g, P)


def gram_error(sketch: Tensor, g: Tensor) -> float:
    """How far the Gram matrix of sketches is from that of the gradients, relative."""
    exact = g.double() @ g.double().T
    sketch = sketch.double()
    return float((sketch @ sketch.T - exact).norm() / exact.norm())


def expected_error(g: Tensor, P: int) -> float:
    """What the exact law for normals predicts, in the mean square."""
    squares = g.double().square().sum(1)
    gram = g.double() @ g.double().T
    total = squares.sum().square() + gram.square().sum()
    return float((total / P).sqrt() / gram.norm())


def check(d: int, P: int, found: Any) -> None:
    """Each sketch's Gram error is within a factor of 2 of the law: one draw, a sum of 1,024."""
    g = gradients(d, "cpu")
    law = expected_error(g, P)
    for name, call in found.items():
        error = gram_error(call().cpu(), g)
        if not law / 2 < error < 2 * law:
            raise DisagreementError(f"{name}: Gram error {error:.3g}, the law says {law:.3g}")


def about(d: int, P: int, device: str) -> dict[str, Any]:
    """The Gram errors, and the law."""
    g = gradients(d, "cpu")
    errors = {name: gram_error(call().cpu(), g) for name, call in ways(d, P, device).items()}
    return {
        "d": d,
        "P": P,
        "rows": ROWS,
        "gram_error_law": expected_error(g, P),
        "gram_error": errors,
    }


def case(d: int, P: int) -> Case:
    """One size."""
    options: dict[str, Any] = {"check": partial(check, d, P), "about": partial(about, d, P)}
    return Case(f"d = {d:,}, P = {P}", partial(ways, d, P), BLOCKS, seconds=10.0, **options)


COMPARISON = Comparison(
    "sketch",
    "P random projections of 32 gradients of d entries",
    lambda _: [case(100_000, 512), case(1_000_000, 512)],
)

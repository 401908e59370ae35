"""Projections of per-example gradients: from forward passes, and of gradients formed first.

The projectors of TRAK (pip install traker) and dattri (pip install dattri) are among the ways where
they are installed; one written here, which draws signs a block of columns at a time, always is.
Ways differ in their directions, so that results are compared by their Gram error: at equal P all
have the same law.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import zotutor as zo

from .runner import Call, Case, Comparison, DisagreementError

P, BATCH = 512, 32
OURS, NAIVE = "zo.sketch_losses, no gradient", "gradients, signs in blocks"
TRAK, DATTRI = "gradients, TRAK's BasicProjector", "gradients, dattri's random_project"
CASE = f"d = 1,000,010, P = {P}, batch {BATCH}"


def network() -> nn.Module:
    """D = 1,000,010."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(489, 2000), nn.Tanh(), nn.Linear(2000, 10))


def ways(device: str) -> dict[str, Call]:
    """Each gives (BATCH, P) rows whose inner products estimate those of the gradients."""
    model = network().to(device)
    source = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 489, generator=source).to(device)
    y = torch.randint(0, 10, (BATCH,), generator=source).to(device)

    def losses() -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    def rows() -> Tensor:
        return gradients(model, x, y)

    found: dict[str, Call] = {
        NAIVE: lambda: in_blocks(rows()),
        OURS: lambda: zo.sketch_losses(losses, model, P=P, seed=0),
    }
    for name, way in (("trak", trak), ("dattri", dattri)):
        if importlib.util.find_spec(name) is not None:
            found[TRAK if name == "trak" else DATTRI] = way(rows, device)
    return found


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradients of each example's loss, (N, d)."""
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params: dict[str, Tensor], x_n: Tensor, y_n: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, params, (x_n[None],)), y_n[None])

    parts = vmap(grad(loss), (None, 0, 0))(params, x, y)
    return torch.cat([part.flatten(1) for part in parts.values()], 1)


def in_blocks(g: Tensor, width: int = 16) -> Tensor:
    """G U for random signs, ``width`` columns of U at a time."""
    source = torch.Generator(g.device).manual_seed(0)
    columns = []
    for _ in range(0, P, width):
        bits = torch.randint(0, 2, (g.shape[1], width), generator=source, device=g.device)
        columns.append(g @ (bits.to(g.dtype) * 2 - 1))
    return torch.cat(columns, 1) / P**0.5


def trak(rows: Callable[[], Tensor], device: str) -> Call:
    """TRAK's projector that needs no CUDA extension."""
    from trak.projectors import BasicProjector, ProjectionType

    d = sum(p.numel() for p in network().parameters())
    projector = BasicProjector(
        d, P, 0, ProjectionType.rademacher, torch.device(device), block_size=128
    )
    return lambda: projector.project(rows(), model_id=0) / P**0.5


def dattri(rows: Callable[[], Tensor], device: str) -> Call:
    """Dattri's projector."""
    from dattri.func.projection import random_project

    def call() -> Tensor:
        g = rows()
        project = random_project(
            g, BATCH, proj_dim=P, proj_max_batch_size=32, device=device, proj_seed=0
        )
        return project(g)

    return call


def gram_error(rows: Tensor, g: Tensor) -> float:
    """The relative Frobenius error of the Gram matrix."""
    exact = g.double() @ g.double().T
    return float((rows.double() @ rows.double().T - exact).norm() / exact.norm())


def errors(found: Mapping[str, Call], device: str) -> dict[str, float]:
    """The Gram error of each way."""
    model = network().to(device)
    source = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 489, generator=source).to(device)
    y = torch.randint(0, 10, (BATCH,), generator=source).to(device)
    g = gradients(model, x, y)
    return {name: gram_error(call(), g) for name, call in found.items()}


def law(device: str) -> float:
    """The root mean square of the Gram error of independent signs, over the Gram matrix."""
    model = network().to(device)
    source = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 489, generator=source).to(device)
    y = torch.randint(0, 10, (BATCH,), generator=source).to(device)
    g = gradients(model, x, y)
    exact = (g.double() @ g.double().T).norm()
    return float(zo.kernel_error_law(g, g, P=P) ** 0.5 / exact)


def check(found: Mapping[str, Call]) -> None:
    """No way's Gram error is far from the law."""
    expected = law("cpu")
    for name, error in errors(found, "cpu").items():
        if not 0.3 * expected < error < 2 * expected:
            raise DisagreementError(
                f"{name}: its Gram error is {error:.3g}, the law's {expected:.3g}; correct it "
                "before timing it"
            )


def about(device: str) -> dict[str, Any]:
    """The Gram errors, for the table."""
    found = errors(ways(device), device)
    return {"gram_error": {name: round(error, 4) for name, error in found.items()},
            "gram_error_law": round(law(device), 4)}  # fmt: skip


def cases(device: str) -> list[Case]:
    """One: the size of the issue."""
    checked = check if device == "cpu" else None
    return [Case(CASE, ways, NAIVE, check=checked, about=about, seconds=60.0, rounds=5)]


COMPARISON = Comparison(
    "forward_sketch",
    "Projections of per-example gradients to P numbers, gradients included",
    cases,
)

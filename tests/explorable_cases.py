"""Writes tests/explorable_vectors.json: what the explorables' JavaScript must compute.

python tests/explorable_cases.py

Each case holds the data of an explorable, the values of its controls, and numbers that `zotutor`
computes for them. tests/test_explorables.py checks that the file is what this computes, and that
JavaScript gives the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor import directions as families
from zotutor.experiments.loss_view import max_stable_lr, stable_border
from zotutor.explorables import Explorable
from zotutor.llm.runs.ledger import Contents, Step

VECTORS = Path(__file__).resolve().parent / "explorable_vectors.json"
FAMILIES: dict[str, zo.directions.Directions] = {
    "Rademacher": zo.Rademacher(),
    "Gaussian": zo.Gaussian(),
    "Sparse(0.1)": zo.Sparse(0.1),
    "Sparse(0.5)": zo.Sparse(0.5),
    "LowRank(1)": zo.LowRank(1),
    "LowRank(4)": zo.LowRank(4),
}

Case = tuple[dict[str, Any], dict[str, Any]]
"""The values of the controls, and (a part of) what `compute` must return for them."""

RTOL = 1e-9
OTHER_RTOL = {
    # the page holds a few digits of what the package computed from
    "before_and_after": 1e-3,
    "one_step": 2e-4,
    "entries": 2e-4,
    "moved_tokens": 1e-3,
    "tp_law": 1e-4,
    "planner": 1e-4,
    # a two-point difference of rounded losses, 150 times
    "quadratic": 1e-6,
    # float32 additions of signs: the same operations in the same order
    "ledger": 0.0,
    # the growth of a recursion is read off after a few hundred steps
    "stable_step_of_signs": 2e-3,
}
"""Of the makers below whose numbers do not agree to :data:`RTOL`, and why."""


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normals in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense(family: str, d: int, **draw: int) -> Tensor:
    """The directions of the package over one parameter of d entries, (d, P)."""
    parameter = torch.zeros(d, dtype=torch.float64, requires_grad=True)
    return FAMILIES[family].dense([parameter], **draw)


def model() -> nn.Module:
    """A network of a few parameters in float64."""
    found = zo.models.mlp(3, 1, inputs=4, outputs=3, seed=0)
    return found.double()


def before_and_after() -> tuple[Explorable, list[Case]]:
    """Stored probabilities, and how many pictures are read correctly."""
    pictures, y = normal(3, 2, 2, seed=0), torch.tensor([0, 2, 1])
    before, after = (normal(3, 3, seed=k).softmax(1) for k in (1, 2))
    found = zo.explorables.intro.before_and_after(pictures, y, before=before, after=after)
    right = [int((p.argmax(1) == y).sum()) for p in (before, after)]
    kept = {"y": 2, "from": float(before[1, 2]), "to": float(after[1, 2]), "right": right}
    return found, [({"n": 2}, kept)]


def estimator_error() -> tuple[Explorable, list[Case]]:
    """Errors of estimates along the directions of the package, and their law."""
    found = zo.explorables.gradients_from_values.estimator_error(normal(100, seed=0), seed=7)
    cases = []
    for d, P, family in ((1, 1, "Rademacher"), (64, 4, "Gaussian"), (32, 8, "Sparse(0.1)")):
        g = torch.tensor(found.data["gradient"][:d], dtype=torch.float64)
        errors = []
        for step in range(16):
            U = dense(family, d, P=P, seed=7, step=step) / math.sqrt(P)
            errors.append(float((U @ (U.T @ g) - g).norm() / g.norm()))
        moments = zo.estimator_moments(g, torch.eye(d).double(), P=P, directions=FAMILIES[family])
        law = math.sqrt(max(moments.squared_norm / float(g @ g) - 1, 0.0))
        cases.append(({"d": d, "P": P, "family": family}, {"errors": errors, "law": law}))
    return found, cases


def bowl(h: Tensor, theta: Tensor) -> Tensor:
    """A quadratic with curvatures h."""
    return (h * theta.square()).sum() / 2


def quadratic() -> tuple[Explorable, list[Case]]:
    """Runs of `ZOSGD` itself: on a quadratic, the two-point difference has no bias."""
    found = zo.explorables.zo_sgd.quadratic(seed=3)
    cases = []
    for P, decay, factor in ((1, 1.0, 1.0), (4, 0.5, 2.0)):
        h = torch.arange(1, 257, dtype=torch.float64) ** -decay
        lr = factor * P / (P + 1 + float(h.sum()))
        theta = torch.ones(256, dtype=torch.float64, requires_grad=True)
        optimizer = zo.ZOSGD([theta], lr=lr, eps=1e-2, P=P, seed=4)
        losses = [1.0]
        for _ in range(150):
            optimizer.step(partial(bowl, h, theta))
            losses.append(float((h * theta.detach().square()).sum() / h.sum()))
        kept = {"lr": lr, "intrinsic": float(h.sum()), "runs": [None, losses, None]}
        cases.append(({"P": P, "decay": decay, "factor": factor}, kept))
    return found, cases


def one_step() -> tuple[Explorable, list[Case]]:
    """A, K, G and their product."""
    x, y, net = normal(3, 1, 2, 2, seed=1), torch.tensor([0, 2, 1]), model()
    names = ["one", "two", "three"]
    found = zo.explorables.learning_dynamics.one_step(net, x, y, names=names, rates=[0.01, 0.1])
    step = zo.one_step(net, x[[2]], x[[0]], y[[0]], lr=0.1)
    kept = {
        "A": step.A[0].tolist(),
        "G": step.G[0].tolist(),
        "predicted": step.predicted[0].tolist(),
    }
    return found, [({"learned": "one", "observed": "three", "lr": 0.1}, kept)]


def entries() -> tuple[Explorable, list[Case]]:
    """K_U of the first P directions, its error and the law."""
    x, net, names = normal(2, 1, 2, 2, seed=2), model(), ["one", "two"]
    found = zo.explorables.kernel_emerges.entries(net, x, names=names, P=16, seed=5)
    J, cases = zo.jacobian(net, x), []
    for P in (1, 11):
        K, K_U = zo.entk(net, x, x)[0, 1], zo.zo_entk(net, x, x, P=P, seed=5)[0, 1]
        kept = {
            "K_U": K_U.tolist(),
            "error": float(zo.relative_frobenius(K_U, K)),
            "law": math.sqrt(zo.kernel_error_law(J[0], J[1], P=P)) / float(K.norm()),
        }
        values = {"observed": "one", "learned": "two", "P": P, "row": 0, "column": 2}
        cases.append((values, kept))
    return found, cases


def distortion() -> tuple[Explorable, list[Case]]:
    """Inner products kept by P directions; deviation by the law; the bound."""
    found, cases = zo.explorables.jl_lemma.distortion(seed=6), []
    v, across = torch.full((16,), 0.25).double(), torch.tensor([1.0, -1.0] * 8).double() / 4
    for P, cosine, gamma, family in ((2, 0.3, 0.5, "Rademacher"), (1, 0.0, 1.0, "Gaussian")):
        w = cosine * v + math.sqrt(1 - cosine**2) * across
        kept = []
        for step in range(1000):
            u = dense(family, 16, P=P, seed=6, step=step)
            kept.append(float((v @ u) @ (w @ u)) / P)
        law = zo.kernel_error_law(v[None], w[None], P=P, directions=FAMILIES[family])
        expected = {
            "kept": kept[:50],
            "outside": sum(abs(x - cosine) > gamma for x in kept) / 1000,
            "deviation": math.sqrt(law),
            "bound": 2 * math.exp(-P * zo.bounds.jl_rate(gamma)),
        }
        cases.append(({"P": P, "cosine": cosine, "gamma": gamma, "family": family}, expected))
    return found, cases


def planner() -> tuple[Explorable, list[Case]]:
    """The number of perturbations."""
    found = zo.explorables.kernel_fidelity.planner({"4 and 9": 0.034})
    cases = [
        (
            {"error": error, "pair": pair, "alignment": own},
            {"a": a, "P": zo.perturbations_needed(error, alignment=a)},
        )
        for error, pair, own, a in (
            (0.5, "4 and 9", 1.0, 0.034),
            (0.1, "the slider", 1.0, 1.0),
            (2.0, "the slider", 0.5, 0.5),
        )
    ]
    return found, cases


def gram_sweep() -> tuple[Explorable, list[Case]]:
    """K_U drawn from a Gram matrix: that of a model whose Jacobians are the matrix's root."""
    rows = normal(6, 9, seed=8)
    found = zo.explorables.dimension_free.gram_sweep({"one": ("d", {9: rows @ rows.T})}, seed=9)
    packed = found.data["sweeps"][0]["roots"][0]
    root = torch.tensor([row + [0.0] * (6 - len(row)) for row in packed], dtype=torch.float64)
    left, right = root.split(3)
    errors = []
    for step in range(64):
        U = dense("Gaussian", 6, P=4, seed=9, step=step) / 2
        errors.append(float(zo.relative_frobenius((left @ U) @ (right @ U).T, left @ right.T)))
    law = zo.kernel_error_law(left, right, P=4, directions=zo.Gaussian())
    kept = {
        "a": float(zo.alignment(left, right)),
        "law": math.sqrt(law) / float((left @ right.T).norm()),
        "errors": errors,
    }
    return found, [({"sweep": "one", "P": 4}, {"networks": [kept]})]


def stable_step() -> tuple[Explorable, list[Case]]:
    """The second moment of an estimate and the largest stable step."""
    found, cases = zo.explorables.loss_view.stable_step(), []
    for d, decay, P, family in ((16, 1.0, 4, "Gaussian"), (16, 0.5, 2, "Rademacher")):
        h = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
        g = normal(d, seed=0)
        moments = zo.estimator_moments(g, torch.eye(d).double(), P=P, directions=FAMILIES[family])
        kept = {"trace": float(h.sum()), "length": moments.squared_norm / float(g @ g)}
        if family == "Gaussian":
            kept["lr"] = max_stable_lr(h, P)
        cases.append(({"d": d, "decay": decay, "P": P, "family": family}, kept))
    return found, cases


def stable_step_of_signs() -> tuple[Explorable, list[Case]]:
    """The largest stable step for signs, from the recursion of all second moments."""
    h = torch.arange(1, 17, dtype=torch.float64) ** -0.5
    values = {"d": 16, "decay": 0.5, "P": 2, "family": "Rademacher"}
    kept = {"lr": stable_border(torch.diag(h), P=2, kurtosis=1.0)}
    return zo.explorables.loss_view.stable_step(), [(values, kept)]


def tp_law() -> tuple[Explorable, list[Case]]:
    """Constants of a grid of runs."""
    data = normal(3, 3, seed=4), torch.tensor([0, 1, 2])
    torch.manual_seed(0)
    grid = zo.deviation_grid(
        nn.Linear(3, 3).double(),
        data,
        observe=data[0],
        horizon=0.1,
        steps=[2, 4],
        P=[1, 2],
        seeds=[0, 1, 2],
    )
    constants, _ = grid.rms_constants()
    kept = {"constant": float(constants[1, 0]), "law": grid.constant / 2}
    return zo.explorables.trajectories.tp_law(grid), [({"T": 4, "P": 1}, kept)]


def moved_tokens() -> tuple[Explorable, list[Case]]:
    """Predicted changes of every token, by `step_change`."""
    net, tokenizer = zo.llm.load("tiny")
    tokens = zo.llm.encode(tokenizer, ["The plot was dull.", "The film was very funny."])
    rows = zo.llm.Positions(net, tokens)
    pieces = [[tokenizer.decode(t) for t in text if t >= 0] for text in tokens]
    found = zo.explorables.llm_dynamics.moved_tokens(rows, pieces, lr=1e-3, P=4, seed=2)
    places, targets = rows.places()
    x, y = rows.places(1)
    cases: list[Case] = []
    for P in (4, None):
        step = zo.step_change(rows, places, x, y, lr=1e-3, P=P, seed=2)
        moved = step.predicted.gather(1, targets[:, None])[:, 0].double().tolist()
        cases.append(({"learned": 2, "P": P or "first order", "shown": 1}, {"moved": moved}))
    return found, cases


def ledger() -> tuple[Explorable, list[Case]]:
    """Weights after a few steps of `ZOSGD`, in float32: the same bits."""
    torch.manual_seed(0)
    base, tuned = nn.Linear(16, 10), nn.Linear(16, 10)
    tuned.load_state_dict(base.state_dict())
    optimizer = zo.ZOSGD(tuned.parameters(), lr=1e-3, P=3, seed=2**40 + 1)
    steps, weights = [], []
    for number in range(5):
        coefficients = tuple(normal(3, seed=number).tolist())
        steps.append(Step(number, 2**40 + 1, 1.0, 1e-3, coefficients))
        optimizer.replay(coefficients)
        weights.append(tuned.weight.detach().flatten()[:128].double().tolist())
    contents = Contents({"directions": "rademacher"}, list(steps), 0, b"")
    found = zo.explorables.llm_finetuning.ledger(contents, base, tuned, parameter="weight")
    cases = [
        (
            {"t": t, "shift": "the run's"},
            {"weights": weights[t - 1]} | ({"equal": 128} if t == 5 else {}),
        )
        for t in (1, 5)
    ]
    return found, cases


def structured() -> tuple[Explorable, list[Case]]:
    """Directions as matrices, and the exact law over the Gaussian one."""
    b, g = normal(5, 4, seed=10), normal(5, 4, seed=11)
    found, cases = zo.explorables.beyond.structured(b, g, where="a layer", seed=12), []
    M, N = (torch.tensor(found.data[name], dtype=torch.float64) for name in ("M", "N"))
    parameter = [torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)]

    def law(family: families.Directions) -> float:
        rows = M.view(1, -1), N.view(1, -1)
        return zo.kernel_error_law(*rows, P=1, directions=family, shapes=[torch.Size((5, 4))])

    gaussian = law(zo.Gaussian())
    for name in ("LowRank(1)", "LowRank(4)", "Sparse(0.5)", "Rademacher"):
        family = FAMILIES[name]
        u = family.dense(parameter, P=2000, seed=12, step=0)  # (20, 2000)
        off = (M.flatten() @ u) * (N.flatten() @ u) - (M * N).sum()
        kept = {
            "direction": u[:, 3].view(5, 4).tolist(),
            "law": law(family) / gaussian,
            "drawn": float(off.square().mean()) / gaussian,
            "sample": float((M.flatten() @ u[:, 3]) * (N.flatten() @ u[:, 3])),
        }
        cases.append(({"family": name, "which": 3}, kept))
    return found, cases


MAKERS: tuple[Callable[[], tuple[Explorable, list[Case]]], ...] = (
    before_and_after,
    estimator_error,
    quadratic,
    one_step,
    entries,
    distortion,
    planner,
    gram_sweep,
    stable_step,
    stable_step_of_signs,
    tp_law,
    moved_tokens,
    ledger,
    structured,
)


def vectors() -> list[dict[str, Any]]:
    """Every explorable with its data and cases, as JSON."""
    found = []
    for make in MAKERS:
        explorable, cases = make()
        found.append(
            {
                "chapter": explorable.chapter,
                "name": explorable.name,
                "rtol": OTHER_RTOL.get(make.__name__, RTOL),
                "data": explorable.data,
                "cases": [{"values": values, "result": result} for values, result in cases],
            }
        )
    return found


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), separators=(",", ":"), ensure_ascii=False) + "\n")
    print(f"{VECTORS.name}: {VECTORS.stat().st_size:,} bytes")

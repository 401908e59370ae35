"""Kernels of 10,000 images of MNIST's size against themselves: one logit, and the trace.

With MNIST's files in the folder that ZOTUTOR_MNIST names, the images are those of its test set;
otherwise their pixels are random, which takes the same time. A LeNet of d = 29,624 with random
weights. A few entries are compared with rows of Jacobians in float64.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

import zotutor as zo

from .runner import Call, Case, Comparison, DisagreementError

COUNT = 10_000
FORWARD = "one forward pass of all images"
KINDS: dict[str, Literal["trace"] | int] = {
    "zo.gram of one logit": 0,
    "zo.gram of the trace over 10 logits": "trace",
}


def images(device: str) -> Tensor:
    """COUNT images (COUNT, 1, 28, 28)."""
    if folder := os.environ.get("ZOTUTOR_MNIST"):
        split = zo.datasets.mnist(folder)
        return torch.cat([split.x_train, split.x_test])[-COUNT:].to(device)
    source = torch.Generator().manual_seed(0)
    return torch.rand(COUNT, 1, 28, 28, generator=source).to(device)


def ways(device: str) -> dict[str, Call]:
    """The forward pass of all images, and their kernels."""
    model, x = zo.models.lenet(seed=0).to(device), images(device)

    def forward() -> None:
        with torch.no_grad():
            for part in x.split(500):
                model(part)

    def gram(of: Literal["trace"] | int) -> Tensor:
        return zo.gram(model, x, of=of)

    return {FORWARD: forward} | {name: partial(gram, of) for name, of in KINDS.items()}


def check(found: Mapping[str, Call]) -> None:
    """Some entries agree with J J^T in float64."""
    x = images("cpu")
    chosen = torch.arange(0, COUNT, COUNT // 8)
    J = zo.jacobian(zo.models.lenet(seed=0).double(), x[chosen].double())
    exact = torch.einsum("oid,ujd->ouij", J, J)
    for name, of in KINDS.items():
        expected = exact.diagonal(dim1=2, dim2=3).sum(2) if of == "trace" else exact[:, :, of, of]
        K = found[name]()[chosen][:, chosen]
        off = float((K - expected).abs().max() / expected.abs().max())
        if not off < 1e-5:
            raise DisagreementError(f"{name}: differs from J J^T by {off:.2g} of its largest entry")


def about(_: str) -> dict[str, Any]:
    """Which images they were."""
    return {"images": "MNIST" if os.environ.get("ZOTUTOR_MNIST") else "random pixels"}


def cases(device: str) -> list[Case]:
    """One."""
    checked = check if device == "cpu" else None
    name = f"LeNet, d = 29,624, {COUNT:,} images"
    return [Case(name, ways, FORWARD, check=checked, about=about, seconds=30.0, rounds=3)]


COMPARISON = Comparison("gram", "A data set's kernel with itself, in tiles", cases)

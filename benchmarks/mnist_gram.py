"""Kernels of 10,000 MNIST images against themselves: one logit, and the trace.

python -m benchmarks.mnist_gram FOLDER [--count 10000] [--threads 1] [--json FILE]

FOLDER holds MNIST's t10k files. A LeNet of d = 29,624 with random weights, float32. A few entries
are compared with rows of Jacobians in float64. Wall time says what a busy machine makes of it,
processor time what it costs.
"""

from __future__ import annotations

import argparse
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import zotutor as zo
from zotutor.llm.runs.disk import write_json

from . import machine


def largest_difference(K: Tensor, x: Tensor, of: Literal["trace"] | int) -> float:
    """Over some entries, |K - J J^T| over the largest of them, J in float64."""
    chosen = torch.arange(0, len(x), max(1, len(x) // 8))
    J = zo.jacobian(zo.models.lenet(seed=0).double(), x[chosen].double())
    exact = torch.einsum("oid,ujd->ouij", J, J)
    expected = exact.diagonal(dim1=2, dim2=3).sum(2) if of == "trace" else exact[:, :, of, of]
    return float((K[chosen][:, chosen] - expected).abs().max() / expected.abs().max())


def main() -> None:
    """Measure and print; with --json also write a dated record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    split = zo.datasets.mnist(args.folder)
    x = torch.cat([split.x_train, split.x_test])[: args.count]
    model, rows = zo.models.lenet(seed=0), []
    kinds: tuple[Literal["trace"] | int, ...] = (0, "trace")
    for of in kinds:
        machine.forget_peak()
        before, wall, cpu = machine.resident_bytes(), time.perf_counter(), time.process_time()
        K = zo.gram(model, x, of=of)
        row: dict[str, Any] = {
            "of": of,
            "images": len(x),
            "seconds": round(time.perf_counter() - wall, 1),
            "processor_seconds": round(time.process_time() - cpu, 1),
            "bytes": machine.resident_bytes(peak=True) - before,
            "result_bytes": K.nbytes,
            "difference": largest_difference(K, x, of),
        }
        assert row["difference"] < 1e-4, row
        print(row, flush=True)
        rows.append(row)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.mnist_gram FOLDER --threads {args.threads}",
        "machine": f"{platform.machine()}, {args.threads} thread(s)",
        "torch": torch.__version__,
        "model": "LeNet, d = 29,624",
        "rows": rows,
    }
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    main()

"""The eNTK of neural-tangents on the same weights and inputs: values, and times.

python benchmarks/compare_neural_tangents.py --peer PYTHON [--rounds 7] [--json FILE]

neural-tangents 0.6.5 needs jax 0.4.20 to 0.4.25, which want NumPy 1: PYTHON is that of an
environment of its own,

    python -m venv ENV
    ENV/bin/pip install "jax[cpu]==0.4.25" neural-tangents==0.6.5 "numpy<2" "scipy<1.13"

This script starts itself there, hands it weights and inputs in a file, and takes turns with it on
one thread. Float64 throughout. Times are processor time, which other programs on the
machine change least. The three implementations there are timed apart from their compilation, ours
has none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CASES = {
    "MLP 64-256-256-10, tanh, 32 x 32": ((64, 256, 256, 10), 32),
}
IMPLEMENTATIONS = {
    "structured derivatives": "STRUCTURED_DERIVATIVES",
    "vector products": "NTK_VECTOR_PRODUCTS",
    "Jacobian contraction": "JACOBIAN_CONTRACTION",
}


def draw(sizes: tuple[int, ...], N: int) -> dict[str, np.ndarray]:
    """Weights, biases and inputs of one case."""
    source = np.random.default_rng(0)
    found = {"x_o": source.normal(size=(N, sizes[0])), "x_u": source.normal(size=(N, sizes[0]))}
    for k, (n, m) in enumerate(pairwise(sizes)):
        found[f"W{k}"] = source.normal(size=(m, n)) / n**0.5
        found[f"b{k}"] = 0.1 * source.normal(size=m)
    return found


def answer_as_peer() -> None:
    """In the other environment: reads the names of ways on standard input, answers each in JSON.

    The first answer for a way says how long its compilation took.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import neural_tangents as nt

    given = np.load(sys.argv[2])
    layers = sum(name.startswith("W") for name in given.files)
    # (in, out): structured derivatives do not see through a transpose
    params = [(jnp.asarray(given[f"W{k}"].T), jnp.asarray(given[f"b{k}"])) for k in range(layers)]
    x_o, x_u = jnp.asarray(given["x_o"]), jnp.asarray(given["x_u"])

    def apply(params: Any, x: Any, **_: Any) -> Any:
        for k, (W, b) in enumerate(params):
            x = x @ W + b
            x = jnp.tanh(x) if k + 1 < layers else x
        return x

    made: dict[str, Callable[..., Any]] = {}
    for line in sys.stdin:
        name, start, compiled = line.strip(), time.process_time(), None
        if name not in made:
            kernel = nt.empirical_ntk_fn(
                apply,
                trace_axes=(),
                vmap_axes=0,
                implementation=getattr(nt.NtkImplementation, IMPLEMENTATIONS[name]),
            )
            jitted = jax.jit(kernel)
            K = jitted(x_o, x_u, params).block_until_ready()
            compiled = time.process_time() - start
            np.save(f"{sys.argv[2]}.{len(made)}.npy", np.asarray(K))
            made[name] = jitted
            start = time.process_time()
        made[name](x_o, x_u, params).block_until_ready()
        seconds = time.process_time() - start
        answer = {"seconds": seconds, "first": compiled, "number": list(made).index(name)}
        print(json.dumps(answer), flush=True)


def ours(given: dict[str, np.ndarray]) -> Callable[[], Any]:
    """zo.entk on the same numbers."""
    import torch
    from torch import nn

    import zotutor as zo

    torch.set_num_threads(1)
    layers: list[nn.Module] = []
    for k in range(sum(name.startswith("W") for name in given)):
        m, n = given[f"W{k}"].shape
        layer = nn.Linear(n, m, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(given[f"W{k}"]))
            layer.bias.copy_(torch.from_numpy(given[f"b{k}"]))
        layers += [layer, nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    x_o, x_u = torch.from_numpy(given["x_o"]), torch.from_numpy(given["x_u"])
    return lambda: zo.entk(model, x_o, x_u)


def measure(name: str, peer: str, rounds: int) -> dict[str, Any]:
    """One case: values compared, then times in turn."""
    sizes, N = CASES[name]
    given = draw(sizes, N)
    call = ours(given)
    times: dict[str, list[float]] = {way: [] for way in ("zo.entk", *IMPLEMENTATIONS)}
    first: dict[str, float] = {}
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.npz"
        np.savez(path, **given)  # type: ignore[arg-type]
        K = call().numpy()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [peer, __file__, "--answer", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment | {"JAX_PLATFORMS": "cpu"},
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None

            def ask(way: str) -> dict[str, Any]:
                print(way, file=other.stdin, flush=True)
                return json.loads(other.stdout.readline())  # type: ignore[union-attr]

            for way in IMPLEMENTATIONS:
                found = ask(way)
                first[way] = round(found["first"], 3)
                theirs = np.load(f"{path}.{found['number']}.npy")
                differences[way] = float(np.abs(theirs - K).max() / np.abs(K).max())
                assert differences[way] < 1e-12, (way, differences[way])
            for _ in range(rounds):
                start = time.process_time()
                call()
                times["zo.entk"].append(time.process_time() - start)
                for way in IMPLEMENTATIONS:
                    times[way].append(ask(way)["seconds"])
            other.stdin.close()
    rows = []
    for way, taken in times.items():
        ratios = [a / b for a, b in zip(taken, times["zo.entk"], strict=True)]
        row = {
            "way": way,
            "processor_seconds": float(f"{statistics.median(taken):.3g}"),
            "ratio": float(f"{statistics.median(ratios):.3g}"),
            "quickest": float(f"{min(taken):.3g}"),
        }
        if way in first:
            row |= {"first_call_processor_seconds": first[way], "difference": differences[way]}
        print(f"  {row}", flush=True)
        rows.append(row)
    return {"case": name, "base": "zo.entk", "ways": rows}


def main() -> None:
    """Measure and print; with --json also write a dated record."""
    if sys.argv[1:2] == ["--answer"]:
        answer_as_peer()
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="Python of the other environment")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import torch

    from zotutor.llm.runs.disk import write_json

    cases = []
    for name in CASES:
        print(name, flush=True)
        cases.append(measure(name, args.peer, args.rounds))
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python benchmarks/compare_neural_tangents.py --rounds {args.rounds}",
        "machine": f"{platform.machine()}, 1 thread",
        "versions": {"torch": torch.__version__, "neural-tangents": "0.6.5", "jax": "0.4.25"},
        "dtype": "float64",
        "cases": cases,
    }
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    main()

"""The eNTK of neural-tangents on our weights and inputs: ways of the comparison ``kernel``.

neural-tangents 0.6.5 needs jax 0.4.20 to 0.4.25, which want NumPy 1, so it gets an environment of
its own, whose Python the variable ZOTUTOR_JAX names:

    python -m venv ENV
    ENV/bin/pip install "jax[cpu]==0.4.25" neural-tangents==0.6.5 "numpy<2" "scipy<1.13"
    ZOTUTOR_JAX=ENV/bin/python python -m benchmarks kernel

This file is also the program that runs there. It takes its own time, and says what a first call,
which compiles, takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "ZOTUTOR_JAX"
IMPLEMENTATIONS = {
    "neural-tangents, structured derivatives": "STRUCTURED_DERIVATIVES",
    "neural-tangents, vector products": "NTK_VECTOR_PRODUCTS",
    "neural-tangents, contraction": "JACOBIAN_CONTRACTION",
}


def answer(path: str, clock: Callable[[], float]) -> None:
    """In the other environment: read names of implementations, answer each with its seconds."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import neural_tangents as nt

    given = np.load(path)
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
        name, start = line.strip(), clock()
        if name not in made:
            way = getattr(nt.NtkImplementation, name)
            kernel = nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=way)
            made[name] = jax.jit(kernel)
        K = made[name](x_o, x_u, params).block_until_ready()
        seconds = clock() - start
        if not Path(f"{path}.{name}.npy").exists():
            np.save(f"{path}.{name}.npy", np.asarray(K))
        print(json.dumps(seconds), flush=True)


class Peer:
    """neural-tangents in its own process, on the weights of a perceptron with tanh."""

    def __init__(
        self, weights: Sequence[tuple[Any, Any]], x_o: Any, x_u: Any, *, threads: int
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "given.npz"
        named = {f"W{k}": W for k, (W, _) in enumerate(weights)}
        named |= {f"b{k}": b for k, (_, b) in enumerate(weights)}
        np.savez(self.path, x_o=x_o, x_u=x_u, **named)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)}
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        self._process = subprocess.Popen(
            [os.environ[VARIABLE], __file__, str(self.path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.first = {name: self.seconds(name) for name in IMPLEMENTATIONS}
        """Seconds of a first call, compilation included."""

    def seconds(self, name: str) -> float:
        """One call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(IMPLEMENTATIONS[name], file=self._process.stdin, flush=True)
        return float(json.loads(self._process.stdout.readline()))

    def kernel(self, name: str) -> Any:
        """What a call computes, (N_o, N_u, V, V)."""
        return np.load(f"{self.path}.{IMPLEMENTATIONS[name]}.npy")


def ways(peer: Peer, timed: Callable[[float, Any], Any]) -> dict[str, Callable[[], Any]]:
    """A call of each implementation; ``timed`` makes the result of its seconds and its kernel."""

    def call(name: str) -> Any:
        return timed(peer.seconds(name), peer.kernel(name))

    return {name: partial(call, name) for name in IMPLEMENTATIONS}


if __name__ == "__main__":
    answer(sys.argv[1], time.process_time if sys.argv[2] == "1" else time.perf_counter)

"""Real processes that share a run, forked from one that has loaded everything.

``start`` runs the command in several processes, as torchrun does, and says how each of them ended.
One can be given a fault: at a step it is killed, hangs, is interrupted, computes NaN, or has a bit
of its weights flipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from zotutor import cli, figures, llm
from zotutor.estimators import Projection
from zotutor.llm.stepping import ZerothOrder

# what the command imports on its way, once for all processes
llm.load("tiny")
figures.run_curves([0.0], [])


class Fault(NamedTuple):
    """What goes wrong, on which rank, at which step."""

    kind: str
    rank: int
    step: int


class Ended(NamedTuple):
    """Exit code of a process, what it printed, and the bytes that it gave to each collective."""

    code: int | None
    text: str
    sent: dict[str, list[int]]


def start(folder: Path, count: int, argv: list[str], fault: Fault | None = None) -> list[Ended]:
    """Run ``zotutor`` with ``argv`` in ``count`` processes; what became of each, by rank."""
    context = get_context("forkserver")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(count):
        environment = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        given = fault if fault and fault.rank == rank else None
        options = (environment, argv, folder / f"{rank}", given)
        started.append(context.Process(target=_run, args=options, daemon=True))
    for process in started:
        process.start()
    for process in started:
        if not (fault and fault.kind == "hang" and started[fault.rank] is process):
            process.join(240)
    for process in started:
        process.kill()
        process.join()
    ended = []
    for rank, process in enumerate(started):
        text, sent = (folder / f"{rank}.{ending}" for ending in ("txt", "json"))
        numbers = json.loads(sent.read_text()) if sent.exists() else {}
        ended.append(Ended(process.exitcode, text.read_text(), numbers))
    return ended


def _run(environment: dict[str, str], argv: list[str], files: Path, fault: Fault | None) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ.update(environment)
    sent = _counted()
    if fault:
        _break(fault)
    try:
        with (
            files.with_suffix(".txt").open("w") as text,
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(text),
        ):
            cli.app(argv)
    finally:
        files.with_suffix(".json").write_text(json.dumps(sent))


def _counted() -> dict[str, list[int]]:
    """Note the bytes of each collective; refuse all but two."""
    sent: dict[str, list[int]] = {"all_gather": [], "broadcast": []}
    all_gather, broadcast = dist.all_gather, dist.broadcast

    def gathering(found: list[Tensor], mine: Tensor) -> Any:
        sent["all_gather"].append(mine.nbytes)
        return all_gather(found, mine)

    def broadcasting(given: Tensor, source: int) -> Any:
        sent["broadcast"].append(given.nbytes)
        return broadcast(given, source)

    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a collective that is not counted")

    patched: Any = dist
    patched.all_gather, patched.broadcast = gathering, broadcasting
    for name in (
        "all_gather_into_tensor all_gather_object all_reduce all_to_all barrier "
        "broadcast_object_list gather gather_object irecv isend recv reduce reduce_scatter "
        "scatter scatter_object_list send"
    ).split():
        assert hasattr(dist, name)
        setattr(patched, name, refused)
    return sent


def _break(fault: Fault) -> None:
    measure, take = ZerothOrder.measure, ZerothOrder.take
    signals = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP, "interrupt": signal.SIGINT}

    waiting = [fault.step]

    def measuring(self: ZerothOrder, *batch: Tensor, only: range | None = None) -> Projection:
        if [self.optimizer.steps_taken] == waiting:
            waiting.clear()
            if fault.kind in signals:
                os.kill(os.getpid(), signals[fault.kind])
            elif fault.kind == "nan":
                self._scored.register_forward_hook(lambda *given: given[-1] * float("nan"))
        return measure(self, *batch, only=only)

    def taking(self: ZerothOrder, coefficients: Any, *, lr: float) -> None:
        take(self, coefficients, lr=lr)
        if fault.kind == "flip" and self.optimizer.steps_taken == fault.step + 1:
            with torch.no_grad():
                weights = self.optimizer.param_groups[0]["params"][0].view(-1)
                weights.view(torch.int32)[-1] ^= 1 << 12

    patched: Any = ZerothOrder
    patched.measure, patched.take = measuring, taking

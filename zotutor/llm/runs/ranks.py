"""One run on several processes or machines, which exchange only a few numbers per step.

Every rank holds the model and takes every step itself, so no weight and no gradient crosses the
network: a step is replayed from its P projected gradients, and these are all that the ranks have to
agree on. There are two ways to share the work of measuring them:

"directions": each rank measures some of the P perturbations on the whole batch. The same bits as
from one process; with LowRank directions, whose perturbations share a forward, up to rounding.

"batch": each rank measures all P perturbations on a part of the batch, and the results are averaged
with the numbers of examples as weights. Works for P = 1; the same as one process up to the rounding
of the loss, which in float32 changes a projected gradient by about 1e-7 loss / eps.

Every few steps the ranks compare hashes of their weights. An error on one rank stops all of them at
the same step; a rank that dies is noticed when its numbers do not arrive.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import Any, Literal, Self, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zotutor.checks import check_real
from zotutor.directions import LowRank
from zotutor.estimators import Projection
from zotutor.llm.stepping import Stepper, ZerothOrder
from zotutor.llm.tasks import Accuracy
from zotutor.optim import ZOSGD
from zotutor.probe import NonFiniteLossError

from .disk import RunStoppedError
from .folder import Memory
from .ledger import Step
from .weights import weights_hash

Split = Literal["directions", "batch"]
_FINE, _NOT_FINITE, _INTERRUPTED, _FAILED = range(4)
"""The state of a rank, sent before its numbers."""


class RanksError(RunStoppedError):
    """The ranks of a run lost contact or diverged; rank 0's files are whole and can be resumed."""


class Ranks:
    """The processes that share a run, seen from one of them; ``Ranks()`` is one process alone.

    Args:
        rank: the number of this process, from 0; rank 0 writes the run's folder.
        count: how many there are.
        split: what they share: "directions" or "batch".
        timeout: seconds to wait for the numbers of the others.
        device: where this rank computes.

    Made by :meth:`join` where several processes were started. While its context is active, Ctrl-C
    or SIGTERM stops all ranks together before the next step, and a second one at once.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        *,
        split: Split = "directions",
        timeout: float = 600.0,
        device: str = "cpu",
    ) -> None:
        self.rank, self.count, self.split = rank, count, split
        self.timeout, self.device = timeout, device
        self._asked_to_stop = False
        self._handlers: dict[int, Any] = {}

    @classmethod
    def join(
        cls,
        *,
        split: Split = "directions",
        timeout: float = 600.0,
        device: str = "cpu",
    ) -> Self:
        """Connect to the processes that ``torchrun`` started; one process alone without it.

        Numbers travel by gloo, or by nccl between GPUs, of which each process takes one.

        Args:
            split: "directions" or "batch".
            timeout: seconds to wait for the others, here and later.
            device: where this process computes; "cuda" becomes "cuda:0" in the first process of a
                machine, "cuda:1" in the second, ...

        Raises:
            ValueError: for another split, a timeout that is not positive, or inconsistent
                environment variables.
            RanksError: if the others do not connect in time.

        Example:
            >>> with Ranks.join() as ranks:
            ...     ranks.count
            1
        """
        if split not in get_args(Split):
            raise ValueError(
                f"split: given {split!r}, expected one of {', '.join(get_args(Split))}"
            )
        if check_real("timeout", timeout, low=0.0) == 0:
            raise ValueError("timeout: given 0, expected a number of seconds above 0")
        rank, count = _from_environment()
        if count == 1:
            return cls(split=split, timeout=timeout, device=device)
        backend = "gloo"
        if device == "cuda" and torch.cuda.is_available() and dist.is_nccl_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
            os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # an error, not an abort
            backend = "nccl"
        try:
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        except RuntimeError as error:
            raise RanksError(
                f"rank {rank} of {count}: the others did not come ({_in_short(error)}); start "
                "all of them, where they reach each other, or give a longer timeout"
            ) from error
        return cls(rank, count, split=split, timeout=timeout, device=device)

    def __enter__(self) -> Self:
        if self.count > 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the signal handlers, and leave the group."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if self.count > 1:
            dist.destroy_process_group()

    def _ask_to_stop(self, *_: object) -> None:
        if self._asked_to_stop:  # and waited in vain
            raise KeyboardInterrupt
        self._asked_to_stop = True

    def check(self, stepper: Stepper, batch_size: int) -> None:
        """Refuse steps that leave a rank without work, or that a few numbers do not determine.

        Raises:
            ValueError: for steps of first order; fewer directions, or examples, than ranks.
        """
        if self.count == 1:
            return
        if not isinstance(stepper, ZerothOrder):
            raise ValueError(
                f"method: its steps need whole gradients, which {self.count} ranks cannot share; "
                "run it in one process, or take method 'zo'"
            )
        P = stepper.optimizer.P
        if self.split == "directions" and self.count > P:
            raise ValueError(
                f"split: {self.count} ranks cannot share the P = {P} directions of a step; split "
                f"the batch instead, or take P of {self.count} or more"
            )
        if self.split == "batch" and batch_size < self.count:
            raise ValueError(
                f"split: {self.count} ranks cannot share the {batch_size} rows of a batch; take a "
                f"batch_size of {self.count} or more, or fewer ranks"
            )
        if self.split == "batch" and not stepper.objective.by_rows:
            raise ValueError(
                f"split: the objective {stepper.objective.name!r} is not known to be a mean over "
                "the rows of a batch, which ranks could share; split the directions instead"
            )

    def begin(
        self, make: Callable[[], Memory], facts: Mapping[str, Any], optimizer: ZOSGD
    ) -> Memory:
        """The run so far, from earlier sessions: its folder on rank 0, a copy in memory on others.

        Args:
            make: opens the folder; called on rank 0 only.
            facts: everything that determines the run, as JSON; must be the same on all ranks.
            optimizer: whose steps they are.

        Raises:
            ValueError: on all ranks, if the facts differ.
            RanksError: on the others, if the folder was refused.
        """
        if self.count == 1:
            return make()
        # a hash: it has a fixed size, whatever the facts are
        text = json.dumps([facts, self.split], sort_keys=True)
        differ = self._unlike(sha256(text.encode()).hexdigest(), "the start")
        if differ:
            raise ValueError(
                f"{_named(differ)} began with other options, data or base weights than rank 0; "
                "give every rank the same command, model and files"
            )
        memory = Memory()

        def sizes() -> list[float]:
            nonlocal memory
            if self.rank == 0:
                memory = make()
            return [len(memory.past), len(memory.evaluations)]

        try:
            (steps, evaluations), *_ = self._all(sizes, 2, "the start")
            # all of the past as one list of floats, 2 + P per step and 5 per evaluation
            numbers = [x for s in memory.past for x in (s.loss, s.lr, *s.coefficients)]
            numbers += [x for number, e in memory.evaluations.items() for x in (number, *e)]
            width = 2 + optimizer.P
            size = int(steps) * width + int(evaluations) * 5
            numbers = self._from_first(numbers, size, "the start")
        except BaseException:
            memory.close()
            raise
        if self.rank:
            past, rest = numbers[: int(steps) * width], numbers[int(steps) * width :]
            for k, (loss, lr, *g) in enumerate(_groups(past, width)):
                memory.past.append(Step(k, optimizer.seed, loss, lr, tuple(g)))
            for number, value, low, high, examples in _groups(rest, 5):
                memory.evaluations[int(number)] = Accuracy(value, low, high, int(examples))
        return memory

    def measure(self, stepper: Stepper, tokens: Tensor, labels: Tensor) -> Projection:
        """The measurement of the current step, shared; the result is the same on all ranks.

        Args:
            stepper: of this rank.
            tokens: the whole batch (N, T).
            labels: (N,).

        Raises:
            NonFiniteLossError: on all ranks, if a loss is not finite on one.
            KeyboardInterrupt: on all ranks, if one was interrupted.
            RanksError: if a rank is lost, or has failed otherwise.
        """
        if self.count == 1 or not isinstance(stepper, ZerothOrder):
            return stepper.measure(tokens, labels)
        if self.split == "batch":
            return self._by_examples(stepper, tokens, labels)
        return self._by_directions(stepper, tokens, labels)

    def _by_directions(self, stepper: ZerothOrder, tokens: Tensor, labels: Tensor) -> Projection:
        optimizer = stepper.optimizer
        shares = _shares(optimizer.P, self.count)
        together = isinstance(optimizer.directions, LowRank)

        def work() -> list[float]:
            mine = shares[self.rank]
            numbers: list[float] = []
            # one by one, with each one's loss: their mean must be taken over all ranks' at once
            for only in [mine] if together else [range(p, p + 1) for p in mine]:
                found = stepper.measure(tokens, labels, only=only)
                for g in found.coefficients:
                    numbers += [g, found.loss]
            return numbers

        most = max(map(len, shares))  # all_gather takes the same size from each
        everyone = self._all(work, 2 * most, f"step {optimizer.steps_taken}")
        own = [n[: 2 * len(share)] for n, share in zip(everyone, shares, strict=True)]
        coefficients = tuple(g for numbers in own for g in numbers[::2])
        losses = [loss for numbers in own for loss in numbers[1::2]]
        return Projection(coefficients, sum(losses) / len(losses))

    def _by_examples(self, stepper: ZerothOrder, tokens: Tensor, labels: Tensor) -> Projection:
        optimizer = stepper.optimizer
        shares = _shares(len(labels), self.count)
        mine = shares[self.rank]

        def work() -> list[float]:
            part = slice(mine.start, mine.stop)
            found = stepper.measure(tokens[part], labels[part])
            return [*found.coefficients, found.loss]

        everyone = self._all(work, optimizer.P + 1, f"step {optimizer.steps_taken}")
        weights = [len(share) / len(labels) for share in shares]
        # fsum rounds once: the same sum on every machine
        *coefficients, loss = (
            math.fsum(w * x for w, x in zip(weights, column, strict=True))
            for column in zip(*everyone, strict=True)
        )
        return Projection(tuple(coefficients), loss)

    def total(self, count: Callable[[], int]) -> int:
        """The sum over ranks of what ``count`` returns."""
        if self.count == 1:
            return count()
        return int(sum(n for (n,) in self._all(lambda: [float(count())], 1, "an evaluation")))

    def agreed_hash(self, model: nn.Module, number: int) -> str:
        """The hash of the weights after ``number`` steps, which is the same on all ranks.

        Raises:
            RanksError: if it is not; the message names the ranks that differ from rank 0.
        """
        found = weights_hash(model)
        # cheaper than comparing weights, and 8 numbers whatever the model's size
        if self.count > 1 and (differ := self._unlike(found, f"step {number}")):
            raise RanksError(
                f"after {number} steps the weights of {_named(differ)} differ from those of "
                "rank 0; run the same again: all ranks then start from the ledger. If they differ "
                "again, their devices round differently (take rademacher directions, whose random "
                "signs are the same everywhere), or a memory is faulty"
            )
        return found

    def _unlike(self, digest: str, when: str) -> list[int]:
        """The ranks whose SHA-256 differs from that of rank 0."""
        parts = [float(int(digest[k : k + 8], 16)) for k in range(0, 64, 8)]  # exact: 32 bits each
        everyone = self._all(lambda: parts, len(parts), when)
        return [rank for rank, given in enumerate(everyone) if given != everyone[0]]

    def _all(self, work: Callable[[], list[float]], size: int, when: str) -> list[list[float]]:
        """The numbers that ``work`` returns on each rank, at most ``size``, padded with zeros.

        An error on one rank raises on all of them: a rank that stopped without a message would
        leave the others waiting.
        """
        try:
            numbers = work()
        except BaseException as error:
            with suppress(RanksError):
                self._exchange([_state(error), *[0.0] * size], when)
            raise
        # Ctrl-C reaches ranks at different times; sent along, it stops them at the same step
        state = _INTERRUPTED if self._asked_to_stop else _FINE
        found = self._exchange([state, *numbers, *[0.0] * (size - len(numbers))], when)
        states = [int(given[0]) for given in found]
        for rank, state in enumerate(states):
            if state == _NOT_FINITE:
                raise NonFiniteLossError(f"the loss is not finite on rank {rank}, which says more")
            if state == _FAILED:
                raise RanksError(f"{when}: rank {rank} stopped, and says why")
        if _INTERRUPTED in states:
            raise KeyboardInterrupt
        return [given[1:] for given in found]

    def _exchange(self, numbers: Sequence[float], when: str) -> list[list[float]]:
        """All ranks' numbers, by rank."""
        mine = self._tensor(numbers)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        self._sent(lambda: dist.all_gather(found, mine), when)
        return [given.tolist() for given in found]

    def _from_first(self, numbers: list[float], size: int, when: str) -> list[float]:
        """The numbers of rank 0, on all ranks; ``size`` of them."""
        given = self._tensor(numbers if self.rank == 0 else [0.0] * size)
        self._sent(lambda: dist.broadcast(given, 0), when)
        return given.tolist()

    def _tensor(self, numbers: Sequence[float]) -> Tensor:
        """Where the backend reads it: nccl on the GPU, gloo in ordinary memory."""
        device = self.device if dist.get_backend() == "nccl" else "cpu"
        return torch.tensor(numbers, dtype=torch.float64, device=device)

    def _sent(self, send: Callable[[], Any], when: str) -> None:
        try:
            send()
        except RuntimeError as error:
            raise RanksError(
                f"{when}: a rank was lost, or let the others wait for more than {self.timeout:g} s "
                f"({_in_short(error)}); what rank 0 wrote is whole: the same command "
                "resumes the run, with as many ranks as there are"
            ) from error


def _state(error: BaseException) -> int:
    if isinstance(error, NonFiniteLossError):
        return _NOT_FINITE
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED


def _groups(numbers: list[float], width: int) -> list[list[float]]:
    """The numbers in consecutive groups of ``width``."""
    return [numbers[k : k + width] for k in range(0, len(numbers), width)]


def _shares(total: int, count: int) -> list[range]:
    """``range(total)`` in ``count`` parts of almost equal length."""
    ends = [total * k // count for k in range(count + 1)]
    return [range(ends[k], ends[k + 1]) for k in range(count)]


def _from_environment() -> tuple[int, int]:
    """Rank and number of ranks, as set by ``torchrun``; (0, 1) without it."""
    texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, count = map(int, texts)
    except ValueError:
        rank, count = -1, 0
    if not 0 <= rank < count:
        raise ValueError(
            f"RANK, WORLD_SIZE: the environment has {', '.join(texts)}, expected a number below "
            "the other; start with torchrun, which sets them, or unset both"
        )
    return rank, count


def place_among() -> str:
    """A prefix for messages that says which of several processes this is; empty for one alone.

    >>> place_among()
    ''
    """
    rank, count = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return f"rank {rank} of {count}: " if count not in ("", "1") else ""


def _named(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _in_short(error: BaseException) -> str:
    """An error's first sentence, without the location in torch's source before it."""
    return re.split(r"\. |\n", re.sub(r"^\[[^]]*\] ", "", str(error)))[0]

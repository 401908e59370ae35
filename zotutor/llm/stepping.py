"""One step of fine-tuning in two halves: the measurement on a batch, and the update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zotutor.checks import trainable
from zotutor.directions import LowRank
from zotutor.estimators import Projection
from zotutor.optim import ZOSGD
from zotutor.probe import NonFiniteLossError
from zotutor.streams import Stream, uniforms

from .objectives import CrossEntropy, Objective, seed_of
from .prompts import padded
from .rows import Rows


class Batches:
    """The batch of each step, drawn with replacement: a function of (seed, step) alone.

    Args:
        ids: token ids of the prompts to draw from.
        labels: theirs.
        size: prompts per batch.
        seed: of the draw.
    """

    def __init__(
        self, ids: Sequence[Sequence[int]], labels: Sequence[int], *, size: int, seed: int
    ) -> None:
        self._ids, self._labels = ids, labels
        self._size, self._seed = size, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Token ids (N, T), padded to the longest of the batch, and labels (N,)."""
        stream = Stream.of(self._seed, step, 0xBA7C)
        numbers = uniforms(stream, slice(0, self._size), torch.device("cpu")).tolist()
        drawn = [int(u * len(self._ids)) for u in numbers]
        tokens = padded([self._ids[k] for k in drawn], left=True)
        return tokens, torch.tensor([self._labels[k] for k in drawn])


class Stepper(Protocol):
    """Takes steps in two halves, so that the measurement can be recorded before the update."""

    micro_batch: int | None

    def measure(self, tokens: Tensor, labels: Tensor) -> Projection:
        """The measurement on this batch; no weight changes."""

    def take(self, coefficients: Sequence[float], *, lr: float) -> None:
        """Update the weights from a measurement of this or an earlier session."""


class ZerothOrder:
    """Steps of :class:`~zotutor.ZOSGD`; with LowRank directions one batched forward each."""

    def __init__(
        self,
        scored: Rows,
        optimizer: ZOSGD,
        objective: Objective | None = None,
        *,
        micro_batch: int | None = None,
    ) -> None:
        self._scored, self.optimizer = scored, optimizer
        self.objective, self.micro_batch = objective or CrossEntropy(), micro_batch

    def measure(self, tokens: Tensor, labels: Tensor, *, only: range | None = None) -> Projection:
        """The projected gradients of the current step on a batch, or those in ``only``.

        A batch in pieces has the same value as a whole, up to the rounding of each row's outputs:
        these are put together in order, and then reduced as those of a whole batch are.
        """
        optimizer, objective = self.optimizer, self.objective
        seed = seed_of(optimizer.seed, optimizer.steps_taken)

        def losses(copies: int) -> Tensor:
            found = [
                objective.outputs(self._scored, piece.repeat(copies, 1)).unflatten(0, (copies, -1))
                for piece in tokens.split(self.micro_batch or len(tokens))
            ]  # (copies, M, K) each
            outputs = found[0] if len(found) == 1 else torch.cat(found, 1)  # (copies, N, K)
            return objective.values(outputs, labels.to(outputs.device), seed=seed)

        if isinstance(optimizer.directions, LowRank):
            with _advice_for_fine_tuning():
                return optimizer.measure_batched(losses, only=only)
        return optimizer.measure(lambda: losses(1)[0], only=only)

    def take(self, coefficients: Sequence[float], *, lr: float) -> None:
        """Replay the step from its projected gradients, as a ledger is replayed."""
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.replay(coefficients)


@contextmanager
def _advice_for_fine_tuning() -> Iterator[None]:
    """Replace advice to call another method of ZOSGD, which fine-tuning does not offer."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        what, _, advice = str(error).rpartition("; ")
        if "ZOSGD.step" not in advice:
            raise
        advice = "take directions other than LowRank (--directions rademacher)"
        raise type(error)(f"{what}; {advice}") from error


class FirstOrder:
    """Steps of SGD or AdamW by backpropagation, for comparison."""

    def __init__(
        self,
        scored: Rows,
        method: str,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        micro_batch: int | None = None,
    ) -> None:
        options: dict[str, float] = {"lr": lr, "weight_decay": weight_decay}
        if method == "sgd":
            options["momentum"] = momentum
        elif momentum:
            raise ValueError(
                f"momentum: given {momentum} with {method}, which has its own; omit it"
            )
        kind: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[method]
        self._optimizer = kind(trainable(scored), **options)
        self._scored, self.micro_batch = scored, micro_batch

    def measure(self, tokens: Tensor, labels: Tensor) -> Projection:
        """The loss; the gradient is where autograd puts it, summed over the pieces of a batch."""
        self._optimizer.zero_grad()
        total, size = 0.0, self.micro_batch or len(tokens)
        for piece, given in zip(tokens.split(size), labels.split(size), strict=True):
            logits = self._scored(piece).float()
            loss = nn.functional.cross_entropy(logits, given.to(logits.device))
            if len(piece) < len(tokens):
                loss = loss * (len(piece) / len(tokens))  # so that the sum is the mean over rows
            if not torch.isfinite(loss):
                raise NonFiniteLossError(f"the loss is {float(loss.detach())}")
            loss.backward()
            total += float(loss.detach())
        return Projection((), total)

    def take(self, coefficients: Sequence[float], *, lr: float) -> None:  # noqa: ARG002
        """One step of the optimizer; the gradient is where autograd put it."""
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.step()

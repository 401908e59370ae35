"""A plan for fine-tuning, and the learning rate that `finetune` takes, measured on the model."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from zotutor.checks import check_integer
from zotutor.curvature import Losses
from zotutor.directions import Directions
from zotutor.estimators import default_eps
from zotutor.run_planning import SHARE, Plan, steps_of
from zotutor.run_planning import plan as plan_losses

from .devices import first_device
from .evaluation import check_labels, texts_of
from .lm import Kind
from .preparing import Prepared, prepare
from .runs.ranks import Ranks
from .stepping import Batches
from .tasks import Task

LARGE = 50_000_000
"""Parameters from which on fewer directions and examples are measured, to answer in a minute."""
_FIRST = 1 << 40
"""Number of the first batch measured here: no run takes that many steps."""


class Size(NamedTuple):
    """How much is measured of a model."""

    samples: int
    examples: int

    @classmethod
    def of(cls, d: int, batch_size: int) -> Size:
        """For a model of d parameters: 32 directions on 16 examples each, or 8 on 4."""
        return cls(8, min(batch_size, 4)) if d > LARGE else cls(32, min(batch_size, 16))


def example_losses(prepared: Prepared, batches: Batches) -> Losses:
    """The cross-entropy of each example of a batch, of batches that no run draws."""

    def losses(number: int) -> Tensor:
        logits, labels = scored(prepared, batches(_FIRST + number))
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    return losses


def scored(prepared: Prepared, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A batch's logits (N, V), in float32, and its labels (N,), on the logits' device."""
    tokens, labels = batch
    logits = prepared.rows(tokens.to(first_device(prepared.rows))).float()
    return logits, labels.to(logits.device)


def plan_run(
    prepared: Prepared,
    ids: Sequence[Sequence[int]],
    labels: Sequence[int],
    *,
    steps: int,
    P: int,
    batch_size: int,
    directions: Directions | None,
    eps: float,
    enlarge: bool,
    samples: int | None = None,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """:func:`plan` of a model that is prepared and prompts that are encoded."""
    trainable = [p for p in prepared.rows.parameters() if p.requires_grad]
    size = Size.of(sum(p.numel() for p in trainable), batch_size)
    batches = Batches(ids, labels, size=size.examples, seed=seed)
    return plan_losses(
        example_losses(prepared, batches),
        prepared.rows,
        steps=steps,
        P=P,
        batch_size=batch_size,
        directions=directions,
        eps=eps,
        samples=samples or size.samples,
        seed=seed,
        progress=progress,
        enlarge=enlarge,
    )


def plan(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    *,
    steps: int | None = None,
    budget: int | None = None,
    P: int = 1,
    batch_size: int = 16,
    length: int | None = None,
    kind: Kind | None = None,
    directions: Directions | None = None,
    eps: float | None = None,
    samples: int | None = None,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """:func:`zotutor.plan` for fine-tuning a language model on a task: lr, steps, hours, memory.

    Args:
        model: a causal language model or classifier, in eval mode; nothing is written to it.
        tokenizer: its tokenizer.
        task: from :func:`~zotutor.llm.task`.
        steps: of the run.
        budget: forward passes of a batch, 2 P per step, in place of ``steps``.
        P: perturbations per step.
        batch_size: prompts per step; a few of them are measured at a time, and scaled.
        length: truncate prompts to this many tokens.
        kind: "causal" or "classifier", see :func:`~zotutor.llm.evaluate`.
        directions: family of u; Rademacher by default.
        eps: finite-difference step; by default as in :func:`~zotutor.llm.finetune`, or larger if
            rounding is above a tenth of a difference.
        samples: directions to measure; by default 32, or 8 above 50 million parameters.
        seed: of directions and batches.
        progress: called with the number of forward passes made, and about how many there will be.

    Returns:
        A :class:`zotutor.run_planning.Plan`; ``print`` it.

    Raises:
        TypeError, ValueError: as :func:`~zotutor.plan` and :func:`~zotutor.llm.finetune`.

    Example:
        >>> from zotutor.llm import load, task
        >>> found = plan(*load("tiny"), task("reviews"), budget=1000, samples=4, seed=0)
        >>> found.steps, found.lr > 0
        (500, True)
    """
    steps = steps_of(steps, budget, P=check_integer("P", P, low=1))
    check_labels(task.train, task.words)
    texts = texts_of(task.train)
    prepared = prepare(model, tokenizer, task.words, texts, length=length, kind=kind)
    return plan_run(
        prepared,
        prepared.prompts.ids(texts),
        [example.label for example in task.train],
        steps=steps,
        P=P,
        batch_size=check_integer("batch_size", batch_size, low=1),
        directions=directions,
        # the coarsest dtype in the loss may not be that of a trainable parameter
        eps=default_eps(prepared.dtype) if eps is None else eps,
        enlarge=eps is None,
        samples=samples,
        seed=seed,
        progress=progress,
    )


def reason(found: Plan) -> str:
    """What was chosen, and why, in a sentence."""
    limit, rise = found.border, found.slope
    return (
        f"lr {found.lr:.2g}: {SHARE:g} of {limit.value:.2g} ± {limit.std_error:.1g}, from where on "
        f"runs of {found.steps:,} steps are predicted to diverge; eps {found.eps:.2g}; measured in "
        f"{found.evaluations} forward passes: slopes of {rise.value:.2g}, tr(H) "
        f"{found.trace[0].value:.2g} here and {found.trace[-1].value:.2g} where the loss has risen "
        "by half"
    )


def agreed(value: float, ranks: Ranks) -> float:
    """Rank 0's value, on all ranks: their measurements may differ in the last bits."""
    high, low = struct.unpack(">II", struct.pack(">d", value))
    both = [
        ranks.total(lambda word=word: word if ranks.rank == 0 else 0)  # type: ignore[misc]
        for word in (high, low)
    ]
    found: float = struct.unpack(">d", struct.pack(">II", *both))[0]
    return found

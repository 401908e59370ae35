"""Why is my run flat? The measurements that tell, for a model and a task; see *My run is flat*."""

from __future__ import annotations

import copy
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zotutor.checks import check_integer, check_real
from zotutor.columns import Table
from zotutor.curvature import Losses, Measured, measure
from zotutor.directions import Directions, check_family
from zotutor.estimators import default_eps
from zotutor.optim import ZOSGD
from zotutor.probe import perturbed
from zotutor.run_planning import Plan, from_measured
from zotutor.streams import Stream, uniforms

from .devices import first_device
from .evaluation import check_labels, right_answers, texts_of
from .learning_rate import Size, example_losses, scored
from .lm import Kind
from .preparing import Prepared, prepare
from .stepping import Batches, FirstOrder
from .tasks import Accuracy, Task, accuracy

Verdict = Literal["ok", "look", "bad"]


class Finding(NamedTuple):
    """One measurement, and what it says.

    Example:
        >>> print(Finding("eps", "bad", "eps = 0.3", "give eps=3e-03 or less"))
         bad  eps  eps = 0.3
                   give eps=3e-03 or less
    """

    what: str
    """What was measured: one of the rows of the page *My run is flat*."""
    verdict: Verdict
    value: str
    advice: str
    """What to do, and the chapter that explains it; empty if nothing is wrong."""

    def __str__(self) -> str:
        """As a line of its report."""
        return str(Report([self]))

    def _repr_markdown_(self) -> str:
        return Report([self])._repr_markdown_()


_WIDTH = 74
"""Columns of a report: what a page of the book shows without wrapping."""


class Report(tuple[Finding, ...]):
    """The findings of :func:`diagnose`; ``print`` it."""

    def __str__(self) -> str:
        """A line for each, and another with advice where something is wrong."""
        wide = max(len(found.what) for found in self)
        lines, margin = [], " " * (wide + 8)
        for found in self:
            head = f"{found.verdict:>4}  {found.what:{wide}}  "
            lines += textwrap.wrap(head + found.value, _WIDTH, subsequent_indent=margin)
            lines += textwrap.wrap(
                found.advice, _WIDTH, initial_indent=margin, subsequent_indent=margin
            )
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        table = Table("", "measured", "found", "what to do")
        for found in self:
            table.add(found.verdict, found.what, found.value, found.advice)
        return table.markdown()

    @property
    def wrong(self) -> list[str]:
        """What is bad, the most basic first."""
        return [found.what for found in self if found.verdict == "bad"]


def diagnose(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    *,
    steps: int = 1000,
    lr: float | None = None,
    P: int = 1,
    eps: float | None = None,
    batch_size: int = 16,
    length: int | None = None,
    kind: Kind | None = None,
    directions: Directions | None = None,
    objective: Callable[[Tensor, Tensor], Tensor] | None = None,
    first_order: bool = False,
    samples: int | None = None,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure what can make a run flat: probe, rounding, objective, learning rate, batches, task.

    The model is left as it was. Most of the work is that of :func:`~zotutor.llm.plan`.

    Args:
        model: a causal language model or classifier, in eval mode.
        tokenizer: its tokenizer.
        task: from :func:`~zotutor.llm.task`.
        steps: of the run in question.
        lr: its learning rate; None for the one that is recommended.
        P: its perturbations per step.
        eps: its finite-difference step.
        batch_size: its prompts per step.
        length: truncate prompts to this many tokens.
        kind: "causal" or "classifier".
        directions: family of u; Rademacher by default.
        objective: what it minimizes, of logits (N, V) and labels (N,), for each example (N,); the
            cross-entropy by default.
        first_order: also take 20 steps of AdamW on a copy of the model, by backpropagation.
        samples: directions to measure; by default 32, or 8 above 50 million parameters.
        seed: of directions and batches.
        progress: called with the number of forward passes made, and about how many there will be.

    Returns:
        The findings, as a tuple that prints as a report.

    Raises:
        TypeError, ValueError: as :func:`~zotutor.llm.plan`.

    Example:
        >>> from zotutor.llm import load, task
        >>> report = diagnose(*load("tiny"), task("reviews"), samples=4, lr=1e-4, seed=0)
        >>> report[0].what, report[0].verdict
        ('trainable weights', 'ok')
    """
    steps, P = check_integer("steps", steps, low=1), check_integer("P", P, low=1)
    batch_size = check_integer("batch_size", batch_size, low=1)
    family = check_family(directions)
    check_labels(task.train, task.words)
    texts = texts_of(task.train)
    prepared = prepare(model, tokenizer, task.words, texts, length=length, kind=kind)
    labels = [example.label for example in task.train]
    trainable = [p for p in model.parameters() if p.requires_grad]
    size = Size.of(sum(p.numel() for p in trainable), batch_size)
    batches = Batches(prepared.prompts.ids(texts), labels, size=size.examples, seed=seed)
    losses = _objective_losses(prepared, batches, objective)
    eps = default_eps(prepared.dtype) if eps is None else check_real("eps", eps, low=0.0)
    report = [_trainable(model), _zero_shot(prepared, task, size)]
    report.append(_quantized(losses, model, family, eps, seed))
    if report[-1].verdict == "bad":
        return Report(report)
    given: dict[str, Any] = {"directions": family, "eps": eps, "seed": seed}
    found = measure(losses, model, **given, samples=samples or size.samples, progress=progress)
    plan = from_measured(found, steps=steps, P=P, batch_size=batch_size, seed=seed)
    lr = plan.lr if lr is None else check_real("lr", lr, low=0.0)
    report += [
        _rounding(plan, eps),
        _too_far(found, eps),
        _learning_rate(plan, lr),
        _moved(trainable, plan, lr),
        _update(trainable, losses, given, lr),
        _batch_noise(plan),
        _length(plan),
    ]
    if first_order:
        report.append(_adamw(prepared, batches))
    return Report(report)


def _objective_losses(
    prepared: Prepared, batches: Batches, objective: Callable[[Tensor, Tensor], Tensor] | None
) -> Losses:
    if objective is None:
        return example_losses(prepared, batches)
    wanted = objective

    def losses(number: int) -> Tensor:
        return wanted(*scored(prepared, batches(number)))

    return losses


# ---- the findings -------------------------------------------------------------------------------


def _trainable(model: nn.Module) -> Finding:
    every = sum(p.numel() for p in model.parameters())
    ours = sum(p.numel() for p in model.parameters() if p.requires_grad)
    value = f"{ours:,} of {every:,}"
    if ours < 1e-4 * every:
        advice = "nearly all are frozen: call .requires_grad_(True), or add an adapter"
        return Finding("trainable weights", "look", value, f"{advice} (Fine-tuning)")
    return Finding("trainable weights", "ok", value, "")


def _zero_shot(prepared: Prepared, task: Task, size: Size) -> Finding:
    dev, words = task.dev, task.words
    numbers = uniforms(Stream.of(0, 0xD0C), slice(0, len(dev)), torch.device("cpu")).tolist()
    shuffled = [e for _, e in sorted(zip(numbers, dev, strict=True), key=lambda pair: pair[0])]
    some = shuffled[: 16 * size.examples]
    found: Accuracy = accuracy(
        right_answers(prepared, some, slice(None), batch_size=size.examples), len(some)
    )
    chance = max(sum(e.label == k for e in some) / len(some) for k in {e.label for e in some})
    value = f"accuracy {found}, the most frequent label {100 * chance:.0f} %"
    if found.high < 1 / len(words):
        advice = "below chance: labels or label words are exchanged"
        return Finding("zero-shot", "bad", value, f"{advice} (Fine-tuning)")
    if found.low <= chance:
        advice = "not above chance: without that, fine-tuning by losses rarely begins"
        return Finding(
            "zero-shot", "look", value, f"{advice} (Learning dynamics of a language model)"
        )
    return Finding("zero-shot", "ok", value, "")


def _quantized(
    losses: Losses, model: nn.Module, family: Directions, eps: float, seed: int
) -> Finding:
    """How many losses of examples change between the two sides of a direction."""
    pairs = []
    for k in range(3):
        for c in (-eps, eps):
            with perturbed(model, c, directions=family, seed=seed, step=(1 << 41) + k):
                pairs.append(losses(0).double().cpu())
    below, above = torch.stack(pairs[0::2]), torch.stack(pairs[1::2])  # (3, N) each
    moved = float((above != below).double().mean())
    distinct, count = len(set(torch.stack(pairs).flatten().tolist())), below.shape[1]
    value = f"{100 * moved:.0f} % of examples' losses differ between +eps and -eps"
    if moved == 0 and distinct > (count + 1) // 2:
        advice = "no loss depends on the trainable weights: unfreeze others"
        return Finding("loss moves", "bad", value, f"{advice} (Fine-tuning)")
    if moved < 0.5:
        advice = (
            f"{distinct} distinct values: a loss in steps, such as an accuracy; minimize the "
            "cross-entropy, or take a much larger eps"
        )
        return Finding("loss moves", "bad", value, f"{advice} (A gradient from two values)")
    return Finding("loss moves", "ok", value, "")


def _rounding(plan: Plan, eps: float) -> Finding:
    share = plan.rounding * plan.eps / eps
    value = f"{100 * share:.2g} % of a difference at eps = {eps:g} is rounding"
    if share > 0.1:
        advice = f"give eps={plan.eps:g}, or compute in float32"
        verdict: Verdict = "bad" if share > 0.5 else "look"
        return Finding("rounding", verdict, value, f"{advice} (A gradient from two values)")
    return Finding("rounding", "ok", value, "")


def _too_far(found: Measured, eps: float) -> Finding:
    far = found.distances[-1]
    value = f"eps = {eps:g}; the loss has risen by half at {far:.2g}"
    if eps > far / 4:
        advice = f"probes leave the model: give eps={far / 30:.0e} or less"
        return Finding("eps", "bad", value, f"{advice} (A gradient from two values)")
    return Finding("eps", "ok", value, "")


def _learning_rate(plan: Plan, lr: float) -> Finding:
    share = lr / plan.border.value
    value = f"{lr:.2g}, {share:.2g} of the border {plan.border.value:.2g} ± "
    value += f"{plan.border.std_error:.1g}"
    if share > 1:
        advice = f"too hot: give lr={plan.lr:.2g} (The loss's view)"
        return Finding("learning rate", "bad", value, advice)
    if share < 1 / 40:
        advice = f"too timid for {plan.steps:,} steps: give lr={plan.lr:.2g} (The loss's view)"
        return Finding("learning rate", "bad", value, advice)
    return Finding("learning rate", "ok", value, "")


def _moved(trainable: Sequence[Tensor], plan: Plan, lr: float) -> Finding:
    """The share of weights that a typical update would move if it were rounded to nearest."""
    update = lr * plan.slope.value / math.sqrt(plan.P)
    moved = count = 0
    for theta in trainable:
        flat = theta.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // 10_000)]
        moved += int((some + torch.tensor(update, dtype=some.dtype) != some).sum())
        count += some.numel()
    share = moved / count
    value = f"an update of {update:.1e} would move {100 * share:.0f} %, rounded to nearest"
    if share < 0.5:
        advice = "keep stochastic rounding (zotutor's), or float32 weights (Fine-tuning)"
        verdict: Verdict = "bad" if share < 0.1 else "look"
        return Finding("weights moved", verdict, value, advice)
    return Finding("weights moved", "ok", value, "")


def _update(
    trainable: Sequence[Tensor], losses: Losses, given: dict[str, Any], lr: float
) -> Finding:
    """Whether an update goes along its probe's direction, against the slope: of one parameter."""
    theta = max(trainable, key=lambda p: p.numel())
    optimizer = ZOSGD([theta], lr=lr, **given)
    u = given["directions"].at([theta], seed=given["seed"], step=0).tensor(0, torch.float32)
    before = theta.detach().clone()
    try:
        (slope,) = optimizer.measure(lambda: losses(0).mean()).coefficients
        optimizer.replay([slope])
        moved = theta.detach().double() - before.double()
    finally:
        with torch.no_grad():
            theta.copy_(before)
    along = float((moved * u).sum() / u.double().square().sum())
    value = f"{along:+.2g} along the probe, expected {-lr * slope:+.2g}"
    if abs(along + lr * slope) > 0.5 * abs(lr * slope):
        advice = "update and probe draw different directions (A gradient from two values)"
        return Finding("update", "bad", value, advice)
    return Finding("update", "ok", value, "")


def _batch_noise(plan: Plan) -> Finding:
    share = 1 - plan.signal.value
    value = f"{100 * share:.0f} % of a squared slope at batch size {plan.batch_size}"
    if share > 0.9:
        advice = "a larger batch gains nearly in proportion (The loss's view)"
        return Finding("batch noise", "look", value, advice)
    return Finding("batch noise", "ok", value, "")


def _length(plan: Plan) -> Finding:
    off = plan.deviation.value
    size = f"up to {off:.2g}" if math.isfinite(off) else "unknown"
    value = f"deviation from first order {size} after {plan.steps:,} steps"
    if not off < 1:
        advice = "too few steps times perturbations for the noise to average out (Trajectories)"
        return Finding("T P", "look", value, advice)
    return Finding("T P", "ok", value, "")


def _adamw(prepared: Prepared, batches: Batches) -> Finding:
    """Whether 20 steps of AdamW lower the loss of their batches, on a copy."""
    rows = copy.deepcopy(prepared.rows)
    stepper = FirstOrder(rows, "adamw", lr=1e-4, momentum=0.0, weight_decay=0.0)
    losses = []
    for number in range(20):
        losses.append(stepper.measure(*_to_device(rows, batches(number))).loss)
        stepper.take((), lr=1e-4)
    before, after = (sum(part) / 5 for part in (losses[:5], losses[-5:]))
    value = f"loss {before:.3g} -> {after:.3g} in 20 steps"
    if after > 0.95 * before:
        advice = "first order does not learn it either: look at the task and the prompts"
        return Finding("AdamW", "look", value, advice)
    return Finding("AdamW", "ok", value, "")


def _to_device(rows: nn.Module, batch: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
    device = first_device(rows)
    return (part.to(device) for part in batch)

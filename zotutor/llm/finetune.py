"""Fine-tune a language model with forward passes only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from zotutor.checks import check_integer, trainable
from zotutor.directions import Directions, LowRank
from zotutor.optim import ZOSGD
from zotutor.probe import NonFiniteLossError
from zotutor.streams import Stream, uniforms

from .lm import Rows, encode, word_ids
from .tasks import Accuracy, Example, Task, accuracy

Method = Literal["zo", "sgd", "adamw"]


class Run(NamedTuple):
    """What a fine-tuning run did; the model itself was trained in place."""

    zero_shot: Accuracy
    accuracy: Accuracy
    losses: list[float]
    evaluations: list[tuple[int, Accuracy]]
    seconds: float
    tokens: int


def rows(model: nn.Module, tokenizer: Any, words: Sequence[str]) -> Rows:
    """The model as one row of logits an input: over label words, or a classifier's classes."""
    if not hasattr(model.config, "num_labels") or _is_causal(model):
        return Rows(model, pad=tokenizer.pad_token_id, words=word_ids(tokenizer, words))
    return Rows(model, pad=tokenizer.pad_token_id)


def _is_causal(model: nn.Module) -> bool:
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def evaluate(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    words: Sequence[str],
    *,
    batch_size: int = 64,
    length: int | None = None,
) -> Accuracy:
    """The share of examples whose own label word has the largest logit, with its interval.

    Args:
        model: a causal language model or a classifier, in eval mode.
        tokenizer: its tokenizer.
        examples: prompts with labels; sorted by length, so that batches need little padding.
        words: label words, in the order of the labels.
        batch_size: prompts at a time.
        length: cut prompts to so many tokens.

    Raises:
        ValueError: for no examples.
    """
    if not examples:
        raise ValueError("examples: given none, expected at least one")
    scored, device = rows(model, tokenizer, words), next(model.parameters()).device
    ordered = sorted(examples, key=lambda example: len(example.text))
    right = 0
    with torch.no_grad():
        for start in range(0, len(ordered), batch_size):
            part = ordered[start : start + batch_size]
            tokens = encode(tokenizer, [e.text for e in part], length=length).to(device)
            guesses = scored(tokens).argmax(-1).tolist()
            right += sum(guess == e.label for guess, e in zip(guesses, part, strict=True))
    return accuracy(right, len(ordered))


def finetune(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    *,
    steps: int,
    lr: float,
    P: int = 1,
    eps: float | None = None,
    directions: Directions | None = None,
    method: Method = "zo",
    batch_size: int = 16,
    length: int | None = None,
    evaluate_every: int | None = None,
    dev: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Run:
    """Fine-tune a language model on a prompted task, by default from forward passes only.

    The loss of a batch is the cross-entropy over the label words' logits behind the prompt, as in
    MeZO. Batches are drawn with replacement by ``seed``. With LowRank directions both signs and all
    P perturbations of a step share one batched forward.

    Args:
        model: a causal language model or classifier, in eval mode; trained in place.
        tokenizer: its tokenizer.
        task: from :func:`~zotutor.llm.task`.
        steps: how many, at least 1.
        lr: learning rate.
        P: number of perturbations a step (method "zo").
        eps: finite-difference step; None for the default of the dtype.
        directions: family of u; Rademacher by default.
        method: "zo" for :class:`~zotutor.ZOSGD`; "sgd" or "adamw" for first order beside it.
        batch_size: prompts a step.
        length: cut prompts to so many tokens.
        evaluate_every: steps between evaluations on dev; None for the start and the end only.
        dev: how many dev examples to evaluate on; None for all.
        seed: of directions and batches.
        progress: show a bar with loss, accuracy, tokens a second and the time left.

    Returns:
        The zero-shot accuracy beside the final one, losses, evaluations, seconds and tokens seen.

    Raises:
        TypeError, ValueError: for arguments out of range.
        NonFiniteLossError: if a loss is NaN or infinite; the weights are those of the last good
            step, and the message names the step and what to try.

    References:
        Malladi et al. (2023), MeZO.
    """
    check_integer("steps", steps, low=1)
    check_integer("batch_size", batch_size, low=1)
    if method not in get_args(Method):
        raise ValueError(f"method: given {method!r}, expected one of {', '.join(get_args(Method))}")
    scored, device = rows(model, tokenizer, task.words), next(model.parameters()).device
    check_against = task.dev if dev is None else task.dev[: check_integer("dev", dev, low=1)]
    step = _stepper(scored, method, lr=lr, P=P, eps=eps, directions=directions, seed=seed)

    def score() -> Accuracy:
        return evaluate(model, tokenizer, check_against, task.words, length=length)

    begun = time.perf_counter()
    zero_shot = latest = score()
    evaluations, losses, seen = [(0, zero_shot)], [], 0
    with _bar(steps, progress) as bar:
        for number in range(steps):
            batch = _batch(task.train, batch_size, seed, number)
            tokens = encode(tokenizer, [e.text for e in batch], length=length).to(device)
            labels = torch.tensor([e.label for e in batch], device=device)
            try:
                losses.append(step(tokens, labels))
            except NonFiniteLossError as error:
                error.add_note(
                    f"This was step {number} of {steps}; the weights are those after step "
                    f"{number - 1}. Try a smaller lr (it is {lr}), or bfloat16 in place of float16."
                )
                raise
            seen += tokens.numel()
            if evaluate_every and (number + 1) % evaluate_every == 0 and number + 1 < steps:
                latest = score()
                evaluations.append((number + 1, latest))
            speed = seen / (time.perf_counter() - begun)
            bar.set_postfix_str(
                f"loss {losses[-1]:.3f}, accuracy {latest}, {speed:.0f} tokens/s", refresh=False
            )
            bar.update()
    final = score()
    evaluations.append((steps, final))
    return Run(zero_shot, final, losses, evaluations, time.perf_counter() - begun, seen)


def _bar(steps: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=steps, disable=not progress, unit="step")


def _batch(examples: Sequence[Example], size: int, seed: int, step: int) -> list[Example]:
    """The batch of a step, a function of (seed, step), so that a run can be replayed."""
    numbers = uniforms(Stream.of(seed, step, 0xBA7C), slice(0, size), torch.device("cpu"))
    return [examples[int(u * len(examples))] for u in numbers.tolist()]


def _stepper(
    scored: Rows,
    method: Method,
    *,
    lr: float,
    P: int,
    eps: float | None,
    directions: Directions | None,
    seed: int,
) -> Callable[[Tensor, Tensor], float]:
    """A function of one batch that takes one step and returns the loss."""
    if method != "zo":
        kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
        first = kinds[method](trainable(scored), lr=lr)

        def first_order(tokens: Tensor, labels: Tensor) -> float:
            first.zero_grad()
            loss = nn.functional.cross_entropy(scored(tokens).float(), labels)
            if not torch.isfinite(loss):
                raise NonFiniteLossError(f"the loss is {float(loss.detach())}")
            loss.backward()
            first.step()
            return float(loss.detach())

        return first_order
    optimizer = ZOSGD(scored.parameters(), lr, eps=eps, P=P, directions=directions, seed=seed)
    batched = isinstance(directions, LowRank)

    def zeroth_order(tokens: Tensor, labels: Tensor) -> float:
        def losses(copies: int) -> Tensor:
            logits = scored(tokens.repeat(copies, 1)).float()
            each = nn.functional.cross_entropy(logits, labels.repeat(copies), reduction="none")
            return each.view(copies, -1).mean(1)

        if batched:
            return float(optimizer.step_batched(losses))
        return float(optimizer.step(lambda: losses(1)[0]))

    return zeroth_order

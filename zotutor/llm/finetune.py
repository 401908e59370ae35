"""Fine-tune a language model with forward passes only."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from zotutor.checks import check_integer, check_real
from zotutor.directions import Directions
from zotutor.optim import ZOSGD
from zotutor.probe import NonFiniteLossError

from .lm import Rows, encode, word_ids
from .runs.files import examples_hash
from .runs.folder import Folder, Memory
from .runs.interrupts import uninterrupted
from .runs.ledger import Step
from .runs.ranks import Ranks
from .runs.replay import header_of
from .stepping import Batches, FirstOrder, Stepper, ZerothOrder
from .tasks import Accuracy, Example, Task, accuracy

Method = Literal["zo", "sgd", "adamw"]
Schedule = Literal["constant", "linear"]


class Run(NamedTuple):
    """What a fine-tuning run did; the model itself was trained in place."""

    zero_shot: Accuracy
    accuracy: Accuracy
    losses: list[float]
    evaluations: list[tuple[int, Accuracy]]
    seconds: float
    """Of this call, with its evaluations and the steps it replayed."""
    tokens: int
    """Of the steps measured in this call: 0 if the run was finished before."""

    def plot(self) -> Any:
        """The curves of loss and accuracy, a figure of Matplotlib."""
        return curves(self.losses, self.evaluations)


def curves(losses: list[float], evaluations: list[tuple[int, Accuracy]]) -> Any:
    """The figure of a run; Matplotlib is imported where it is asked for."""
    figures: Any = import_module("zotutor.figures")
    return figures.run_curves(losses, evaluations)


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
    ranks: Ranks | None = None,
) -> Accuracy:
    """The share of examples whose own label word has the largest logit, with its interval.

    Args:
        model: a causal language model or a classifier, in eval mode.
        tokenizer: its tokenizer.
        examples: prompts with labels; sorted by length, so that batches need little padding.
        words: label words, in the order of the labels.
        batch_size: prompts at a time.
        length: cut prompts to so many tokens.
        ranks: the processes that share the prompts, each of which must ask for the same.

    Raises:
        ValueError: for no examples, or one that is longer than the model reads.
    """
    if not examples:
        raise ValueError("examples: given none, expected at least one")
    scored, device = rows(model, tokenizer, words), next(model.parameters()).device
    ordered = sorted(examples, key=lambda example: len(example.text))
    ranks = ranks or Ranks()

    @torch.no_grad()
    def right() -> int:
        found = 0
        for start in range(0, len(ordered), batch_size)[ranks.rank :: ranks.count]:
            part = ordered[start : start + batch_size]
            tokens = encode(tokenizer, [e.text for e in part], length=length).to(device)
            check_width(model, tokens.shape[1])
            guesses = scored(tokens).argmax(-1).tolist()
            found += sum(guess == e.label for guess, e in zip(guesses, part, strict=True))
        return found

    return accuracy(ranks.total(right), len(ordered))


def finetune(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    *,
    steps: int,
    lr: float,
    schedule: Schedule = "constant",
    P: int = 1,
    eps: float | None = None,
    directions: Directions | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    method: Method = "zo",
    batch_size: int = 16,
    length: int | None = None,
    evaluate_every: int | None = None,
    dev: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    save: bool = False,
    hash_every: int = 100,
    ranks: Ranks | None = None,
    progress: bool = True,
    seal_every: int | None = None,
) -> Run:
    """Fine-tune a language model on a prompted task, by default from forward passes only.

    The loss of a batch is the cross-entropy over the label words' logits behind the prompt, as in
    MeZO. Batches are drawn with replacement by ``seed``. With LowRank directions both signs and all
    P perturbations of a step share one batched forward.

    With ``output`` the run is written to a folder while it goes on: the numbers of each step before
    the step is taken. Interrupted, killed or out of disk space, it is taken up again by the same
    call, from the base model, and ends in the same bits as if nothing had happened. Of a finished
    run the same call tunes the model again from the ledger (:func:`~zotutor.llm.replay`).

    Args:
        model: a causal language model or classifier, in eval mode; trained in place.
        tokenizer: its tokenizer.
        task: from :func:`~zotutor.llm.task`.
        steps: how many, at least 1.
        lr: learning rate.
        schedule: "constant", or "linear" for lr (1 - step / steps).
        P: number of perturbations a step (method "zo").
        eps: finite-difference step; None for the default of the dtype.
        directions: family of u; Rademacher by default.
        momentum: as in :class:`~zotutor.ZOSGD` and ``torch.optim.SGD``.
        weight_decay: as in :class:`~zotutor.ZOSGD` and torch's optimizers.
        method: "zo" for :class:`~zotutor.ZOSGD`; "sgd" or "adamw" for first order beside it.
        batch_size: prompts a step.
        length: cut prompts to so many tokens.
        evaluate_every: steps between evaluations on dev; None for the start and the end only.
        dev: how many dev examples to evaluate on; None for all.
        seed: of directions and batches.
        output: folder for the run's ledger, configuration and metrics; None to keep nothing.
        save: write the tuned weights to that folder, too, for ``from_pretrained``.
        hash_every: steps between two hashes of the weights in the ledger.
        ranks: the processes that share the run, :meth:`~zotutor.llm.Ranks.join`; None for one.
        seal_every: deprecated name of ``hash_every``.
        progress: show a bar with loss, accuracy, tokens a second and the time left.

    Returns:
        The zero-shot accuracy beside the final one, losses, evaluations, seconds and tokens seen.

    Raises:
        TypeError, ValueError: for arguments out of range, a folder that holds something else or is
            written to by another process, a ledger that is damaged. Nothing was changed then.
        NonFiniteLossError: if a loss is NaN or infinite; the weights are those of the last good
            step, and the message names the step and what to try.
        KeyboardInterrupt: if interrupted; the weights are those of the last whole step.
        RunStoppedError: if ``output`` could not be written to any more, or a rank was lost.

    References:
        Malladi et al. (2023), MeZO.
    """
    if seal_every is not None:
        warnings.warn("seal_every: renamed to hash_every", DeprecationWarning, stacklevel=2)
        hash_every = seal_every
    steps, batch_size, hash_every = (
        check_integer(name, count, low=1)
        for name, count in (
            ("steps", steps),
            ("batch_size", batch_size),
            ("hash_every", hash_every),
        )
    )
    length, evaluate_every, dev = (
        None if value is None else check_integer(name, value, low=1)
        for name, value in (("length", length), ("evaluate_every", evaluate_every), ("dev", dev))
    )
    lr, seed = check_real("lr", lr, low=0.0), check_integer("seed", seed, low=0, high=1 << 64)
    for name, choice, choices in (("method", method, Method), ("schedule", schedule, Schedule)):
        if choice not in get_args(choices):
            expected = ", ".join(get_args(choices))
            raise ValueError(f"{name}: given {choice!r}, expected one of {expected}")
    if output is None and save:
        raise ValueError("save: given without output, the folder to save to; give that as well")
    if output is not None and method != "zo":
        raise ValueError(
            f"output: given with method {method!r}, whose steps are not made of a few numbers that "
            "a ledger could hold; leave it out, and save the model yourself"
        )
    if method == "zo" and model.training:
        raise ValueError(
            "model: given in training mode, whose dropout makes losses that cannot be compared; "
            "call model.eval() first"
        )
    scored, device = rows(model, tokenizer, task.words), next(model.parameters()).device
    batches, others = (
        Batches(tokenizer, part, size=batch_size, length=length, seed=seed)
        for part in (task.train, task.dev[:dev])
    )
    for part in (batches, others):
        check_width(model, part.longest)
        _check_ids(model, [*part.ids, [tokenizer.pad_token_id]])
        _check_labels(model, scored, part.labels)
    stepper = _stepper(
        scored,
        method,
        lr=lr,
        P=P,
        eps=eps,
        directions=directions,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
    )
    ranks = ranks or Ranks()
    ranks.check(stepper, batch_size)
    folder = Memory()
    if isinstance(stepper, ZerothOrder) and (output is not None or ranks.count > 1):
        options = {
            "task": task.name,
            "examples": examples_hash(task),
            "steps": steps,
            "lr": lr,
            "schedule": schedule,
            "batch_size": batch_size,
            "length": length,
            "evaluate_every": evaluate_every,
            "dev": dev,
            "seal_every": hash_every,  # its name in version 0.1, whose runs resume
        }
        header, about = header_of(model, stepper.optimizer), _about(device)

        def opened() -> Memory:
            return Memory() if output is None else Folder(output, header, options, about)

        folder = ranks.begin(opened, header | options, stepper.optimizer)
    begun, measuring, seen, losses = time.perf_counter(), 0.0, 0, list[float]()
    with folder, _bar(steps, progress and ranks.rank == 0) as bar:
        for number in range(steps + 1):
            due = number in (0, steps) or (evaluate_every and number % evaluate_every == 0)
            if due and number not in folder.evaluations:
                found = evaluate(
                    model, tokenizer, task.dev[:dev], task.words, length=length, ranks=ranks
                )
                folder.evaluated(number, found)
            if number == steps:
                break
            if number < len(folder.past):
                step = folder.past[number]
                with uninterrupted():
                    stepper.take(step.coefficients, lr=step.lr)
            else:
                since = time.perf_counter()
                tokens, labels = batches(number)
                rate = lr * (1 - number / steps) if schedule == "linear" else lr
                with _noted(number, steps, rate):
                    measured = ranks.measure(stepper, tokens.to(device), labels.to(device))
                    step = Step(number, seed, measured.loss, rate, measured.coefficients)
                    with uninterrupted():
                        folder.write(step)
                        stepper.take(step.coefficients, lr=rate)
                seen += tokens.numel()
                measuring += time.perf_counter() - since
            due = (number + 1) % hash_every == 0 or number + 1 == steps
            compare = due if number >= len(folder.past) else number + 1 == len(folder.past)
            agreed = ranks.agreed_hash(model, number + 1) if compare and ranks.count > 1 else None
            folder.taken(step, model, hash_due=bool(due), sha256=agreed)
            losses.append(step.loss)
            latest = folder.evaluations[max(folder.evaluations)]
            speed = f", {seen / measuring:.0f} tokens/s" if seen else ""
            bar.set_postfix_str(f"loss {step.loss:.3f}, accuracy {latest}{speed}", refresh=False)
            bar.update()
        evaluations = sorted(folder.evaluations.items())
        folder.finish(model, tokenizer, save=save)
    seconds = time.perf_counter() - begun
    return Run(evaluations[0][1], evaluations[-1][1], losses, evaluations, seconds, seen)


def _stepper(
    scored: Rows,
    method: str,
    *,
    lr: float,
    P: int,
    eps: float | None,
    directions: Directions | None,
    momentum: float,
    weight_decay: float,
    seed: int,
) -> Stepper:
    if method != "zo":
        return FirstOrder(scored, method, lr=lr, momentum=momentum, weight_decay=weight_decay)
    optimizer = ZOSGD(
        scored.parameters(),
        lr,
        eps=eps,
        P=P,
        directions=directions,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
    )
    return ZerothOrder(scored, optimizer)


def _check_ids(model: Any, ids: list[list[int]]) -> None:
    rows, most = model.get_input_embeddings().weight.shape[0], max(map(max, filter(None, ids)))
    if most >= rows:
        raise ValueError(
            f"tokenizer: its ids go up to {most}, and this model has embeddings for 0 to "
            f"{rows - 1}; give the tokenizer that belongs to the model"
        )


def _check_labels(model: Any, scored: Rows, labels: list[int]) -> None:
    classes = model.config.num_labels if scored.words is None else len(scored.words)
    if not all(0 <= label < classes for label in labels):
        raise ValueError(
            f"task: given labels {min(labels)} to {max(labels)}, expected 0 to {classes - 1}: "
            "one for each label word, or class of the classifier; renumber them"
        )


def check_width(model: nn.Module, width: int) -> None:
    """Refuse prompts of more tokens than the model reads.

    Raises:
        ValueError: naming both lengths.
    """
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and width > most:
        raise ValueError(
            f"length: a prompt has {width} tokens, and this model reads {most}; give length={most}"
        )


@contextmanager
def _noted(number: int, steps: int, lr: float) -> Iterator[None]:
    """Say of a loss that is not finite at which step it came, and what to try."""
    try:
        yield
    except NonFiniteLossError as error:
        error.add_note(
            f"This was step {number} of {steps}; the weights are those after {number} steps. Try a "
            f"smaller lr (it is {lr}), or bfloat16 in place of float16."
        )
        raise


def _about(device: torch.device) -> dict[str, str]:
    try:
        ours = version("zotutor")
    except PackageNotFoundError:  # run from the source tree
        ours = "unknown"
    return {"zotutor": ours, "torch": torch.__version__, "device": device.type}


def _bar(steps: int, progress: bool) -> Any:
    """A bar on standard error in a terminal, in a notebook on standard output."""
    from tqdm import tqdm

    notebook = type(sys.stdout).__module__.startswith(("ipykernel", "google.colab"))
    return tqdm(
        total=steps,
        disable=not progress,
        unit="step",
        file=sys.stdout if notebook else sys.stderr,
    )

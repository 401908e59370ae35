"""What a step of fine-tuning measures and lowers: a loss, a metric, or a score of generated text.

A zeroth-order step needs values only, so that what it lowers need not have a gradient. An accuracy
is flat almost everywhere: the two-point estimate is then one of the gradient of the smoothed
objective E[f(theta + eps u)], and eps is the width of the smoothing; the book's chapter *Beyond*
says what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from zotutor.checks import check_integer
from zotutor.streams import mixed

from .limits import width
from .rows import Rows

Named = Literal["loss", "accuracy", "f1"]
OfLogits = Callable[[Tensor, Tensor], Tensor | float]
"""A function of logits (N, V) and labels (N,) that returns the number to lower."""

WIDTH = 1e-2
"""The default eps for objectives other than the loss, which jump: the width of the smoothing."""


class Objective(Protocol):
    """What a step measures, in two parts: outputs for some rows, and one value for all rows."""

    name: str
    by_rows: bool
    """Whether the value is a mean over rows, so that ranks can share a batch."""

    def outputs(self, scored: Rows, tokens: Tensor) -> Tensor:
        """What the value needs of each row of token ids (M, T): (M, K)."""

    def values(self, outputs: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """The value of each copy of the batch, (copies,), of outputs (copies, N, K)."""


class FromLogits:
    """An objective of the logits: the cross-entropy, a named metric, or the user's function.

    Torch's global random numbers begin in the same state at each evaluation of a step, and in
    another at the next step: what a function draws differs between steps, and not between probes.
    """

    def __init__(self, name: str, function: OfLogits, *, by_rows: bool) -> None:
        self.name, self.by_rows, self._function = name, by_rows, function

    def outputs(self, scored: Rows, tokens: Tensor) -> Tensor:
        """The logits, in float32."""
        return scored(tokens).float()

    def values(self, outputs: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """The function's value for each copy."""
        found = []
        for logits in outputs:
            with _same_random_numbers(seed, logits.device):
                value = self._function(logits, labels)
            found.append(_number(self.name, value).to(logits.device))
        return torch.stack(found)


class CrossEntropy:
    """The mean cross-entropy of the labels, of all copies at once."""

    name, by_rows = "loss", True

    def outputs(self, scored: Rows, tokens: Tensor) -> Tensor:
        """The logits, in float32."""
        return scored(tokens).float()

    def values(self, outputs: Tensor, labels: Tensor, *, seed: int = 0) -> Tensor:  # noqa: ARG002
        """Their means over rows, one for each copy."""
        copies = len(outputs)
        each = nn.functional.cross_entropy(
            outputs.flatten(0, 1), labels.repeat(copies), reduction="none"
        )
        return each.view(copies, -1).mean(1)


def error_rate(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - accuracy: the share of rows whose label has not the largest logit.

    >>> error_rate(torch.eye(3), torch.tensor([0, 1, 1]))
    tensor(0.3333)
    """
    return (logits.argmax(1) != labels).float().mean()


def f1_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - macro F1, the mean over labels of 2 TP / (2 TP + FP + FN).

    Labels that are neither given nor guessed in the batch are left out.

    >>> f1_loss(torch.eye(3), torch.tensor([0, 1, 1]))
    tensor(0.4444)
    """
    V = logits.shape[1]
    guessed = nn.functional.one_hot(logits.argmax(1), V)  # (N, V)
    given = nn.functional.one_hot(labels, V)
    right, either = (guessed * given).sum(0), (guessed + given).sum(0)  # (V,): TP, 2 TP + FP + FN
    return 1 - (2 * right[either > 0] / either[either > 0]).mean()


class Generated:
    """An objective of text that the model generates greedily after each prompt: 1 - mean score.

    For a task of short answers: ``task.words`` are its answers, of any number of tokens, and an
    example's label is the number of its answer. An example counts as right, in the accuracies that
    a run reports, if its score is at least 1. Each token is one more forward pass over the prompts.

    Args:
        score: of (text, answer), where text has neither spaces around it nor what follows the end
            of text; by default 1 if they are equal, and 0 otherwise.
        tokens: how many to generate, at most.

    Example:
        >>> from zotutor.llm import Example, Task, finetune, load
        >>> model, tokenizer = load("tiny")
        >>> examples = (Example("A dull film. It was", 0), Example("A gem. It was", 1))
        >>> answers = Task("answers", ("terrible .", "great ."), examples, examples)
        >>> first_word = lambda text, answer: float(text.split()[:1] == answer.split()[:1])
        >>> objective = Generated(first_word, tokens=2)
        >>> options = {"steps": 2, "lr": 1e-4, "eps": 0.01, "progress": False}
        >>> run = finetune(model, tokenizer, answers, objective=objective, **options)
        >>> run.zero_shot.examples
        2
    """

    by_rows = True

    def __init__(self, score: Callable[[str, str], float] | None = None, *, tokens: int) -> None:
        self.score = score or _equal
        self.tokens = check_integer("tokens", tokens, low=1, high=1 << 20)
        self.name = f"generated text, {tokens} tokens, {name_of(self.score)}"
        self._tokenizer: Any = None
        self._answers: Sequence[str] = ()

    def prepare(self, model: nn.Module, tokenizer: Any, answers: Sequence[str], most: int) -> None:
        """Set what texts are decoded with and compared to; ``most`` tokens is the longest prompt.

        Raises:
            ValueError: if the answer does not fit into what the model reads.
        """
        reads = width(model)
        if reads is not None and most + self.tokens - 1 > reads:
            raise ValueError(
                f"objective: prompts of up to {most} tokens and {self.tokens} generated ones are "
                f"more than the {reads} that this model reads; generate fewer, or give "
                f"length={reads - self.tokens + 1}"
            )
        self._tokenizer, self._answers = tokenizer, answers

    def outputs(self, scored: Rows, tokens: Tensor) -> Tensor:
        """The ids of the generated tokens, (M, tokens), padded with -1 after the end of text."""
        found, end = tokens, self._tokenizer.eos_token_id
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for _ in range(self.tokens):
            ids = scored(found).argmax(1).to(tokens.device)  # (M, V) -> (M,)
            ended |= ids == (-1 if end is None else end)
            found = torch.cat([found, ids.where(~ended, -1)[:, None]], 1)
            if ended.all():
                break
        new = found[:, tokens.shape[1] :]
        return nn.functional.pad(new, (0, self.tokens - new.shape[1]), value=-1)

    def scores(self, ids: Tensor, labels: Sequence[int]) -> list[float]:
        """The score of each row of generated ids (M, tokens)."""
        found = []
        for row, label in zip(ids.tolist(), labels, strict=True):
            text = self._tokenizer.decode([id for id in row if id >= 0], skip_special_tokens=True)
            found.append(float(self.score(text.strip(), self._answers[label].strip())))
        return found

    def values(self, outputs: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """1 - the mean score, for each copy."""
        found = []
        for ids in outputs:
            with _same_random_numbers(seed, ids.device):
                scores = self.scores(ids, labels.tolist())
            found.append(1 - sum(scores) / len(scores))
        return torch.tensor(found, dtype=torch.float64)


def _equal(text: str, answer: str) -> float:
    return float(text == answer)


def named(objective: Named | OfLogits | Generated) -> Objective:
    """The objective of this name, or of this function.

    Raises:
        ValueError: for another name.
        TypeError: for something else.
    """
    if isinstance(objective, Generated):
        return objective
    if objective == "loss":
        return CrossEntropy()
    if objective == "accuracy":
        return FromLogits("accuracy", error_rate, by_rows=True)
    if objective == "f1":
        return FromLogits("f1", f1_loss, by_rows=False)
    if callable(objective):
        return FromLogits(name_of(objective), objective, by_rows=False)
    if isinstance(objective, str):
        raise ValueError(
            f"objective: given {objective!r}, expected loss, accuracy, f1, or a function of logits "
            "and labels"
        )
    raise TypeError(
        f"objective: given a {type(objective).__name__}, expected a name, a function of logits and "
        "labels, or zotutor.llm.Generated"
    )


def name_of(function: Any) -> str:
    """The name of a function, for a run's folder."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _number(name: str, value: Any) -> Tensor:
    if isinstance(value, (int, float)):
        return torch.tensor(float(value), dtype=torch.float64)
    if not isinstance(value, Tensor) or value.shape != ():
        given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(
            f"objective: {name} returned {given}, expected one number for the batch, to be "
            "lowered; end it with .mean()"
        )
    return value.double()


@contextmanager
def _same_random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """A context in which torch's global generators begin at ``seed``; restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def seed_of(seed: int, step: int) -> int:
    """The seed of what an objective draws in a step."""
    return mixed(seed, step, 0x0B7EC) >> 1

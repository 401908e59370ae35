"""The accuracy of a language model on prompted examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from zotutor.checks import check_integer

from .lm import Kind
from .objectives import Generated
from .preparing import Prepared, prepare
from .runs.ranks import Ranks
from .tasks import Accuracy, Example, accuracy


def evaluate(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    words: Sequence[str],
    *,
    batch_size: int = 64,
    length: int | None = None,
    kind: Kind | None = None,
    ranks: Ranks | None = None,
) -> Accuracy:
    """The share of examples whose own label word has the largest logit, with its interval.

    Args:
        model: a causal language model or a classifier, in eval mode.
        tokenizer: its tokenizer.
        examples: prompts with labels; sorted by length, so that batches need little padding.
        words: label words, in the order of the labels.
        batch_size: prompts at a time.
        length: truncate prompts to this many tokens.
        kind: "causal" or "classifier"; by default a model that returns logits for every token is
            causal, and one that returns a vector for each prompt is a classifier.
        ranks: the processes that share the prompts; each must evaluate the same.

    Raises:
        ValueError: for no examples, one that is longer than the model reads, or a label without a
            word; for a model whose logits for a prompt depend on the others in its batch.
    """
    batch_size, ranks = check_integer("batch_size", batch_size, low=1), ranks or Ranks()

    def right(rank: int, count: int) -> int:
        check_labels(examples, words)
        texts = texts_of(examples)
        prepared = prepare(model, tokenizer, words, texts, length=length, kind=kind)
        return right_answers(prepared, examples, slice(rank, None, count), batch_size=batch_size)

    return shared(right, len(examples), ranks)


def shared(right: Callable[[int, int], int], count: int, ranks: Ranks) -> Accuracy:
    """The accuracy from the right answers of all ranks; an error on one stops all."""
    return accuracy(ranks.total(lambda: right(ranks.rank, ranks.count)), count)


@torch.no_grad()
def right_answers(
    prepared: Prepared,
    examples: Sequence[Example],
    batches: slice,
    *,
    batch_size: int = 64,
    generated: Generated | None = None,
) -> int:
    """The number of right answers in some of the batches: label words, or generated texts."""
    ordered, found = sorted(examples, key=lambda example: len(example.text)), 0
    for start in range(0, len(ordered), batch_size)[batches]:
        part = ordered[start : start + batch_size]
        tokens, labels = prepared.prompts.batch(texts_of(part)), [e.label for e in part]
        if generated is not None:
            scores = generated.scores(generated.outputs(prepared.rows, tokens), labels)
            found += sum(score >= 1 for score in scores)
            continue
        guesses = prepared.rows(tokens).argmax(-1).tolist()
        found += sum(guess == label for guess, label in zip(guesses, labels, strict=True))
    return found


def texts_of(examples: Sequence[Example]) -> list[str]:
    """The prompts of examples."""
    return [example.text for example in examples]


def check_labels(examples: Sequence[Example], words: Sequence[str]) -> None:
    """Refuse labels without a word.

    Raises:
        ValueError: naming their range.
    """
    labels = [example.label for example in examples]
    if not all(0 <= label < len(words) for label in labels):
        raise ValueError(
            f"task: given labels {min(labels)} to {max(labels)}, expected 0 to {len(words) - 1}, "
            "one for each label word; renumber them"
        )

"""Prompts as token ids, and the token of a label word after a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PADDING = -1
"""Marks padding in a batch of token ids.

No id of the vocabulary could: many tokenizers pad with their end-of-text token, which may also
occur in a text. :class:`~zotutor.llm.Rows` masks padding."""

_ENDINGS, _ENDING = 32, 6
"""Label words are looked up after prompts with up to 32 different endings of 6 characters."""


@contextmanager
def _truncating(tokenizer: Any, *, left: bool) -> Iterator[None]:
    """A context in which texts are truncated on the left, since a prompt ends in its question."""
    before = tokenizer.truncation_side
    if left:
        tokenizer.truncation_side = "left"
    try:
        yield
    finally:
        tokenizer.truncation_side = before


def _closing(tokenizer: Any) -> int:
    """The number of special tokens that a tokenizer puts after a text, such as [SEP]."""
    bare, whole = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return len(whole) - len(bare) - start
    return 0


def token_ids(
    tokenizer: Any, texts: Sequence[str], *, length: int | None = None, causal: bool = False
) -> list[list[int]]:
    """The token ids of each text, without padding.

    Args:
        tokenizer: of transformers.
        texts: at least one, none of them empty.
        length: truncate texts to this many tokens.
        causal: prompts for a causal model: truncated on the left, and without the special tokens
            that some tokenizers put after a text, since the label word comes next.

    Raises:
        ValueError: for no text, an empty one, or a length that leaves nothing of them.
    """
    if not texts or any(not text.strip() for text in texts):
        raise ValueError("texts: given none or an empty one, expected at least one with words")
    options = {} if length is None else {"truncation": True, "max_length": length}
    special = tokenizer.num_special_tokens_to_add()
    if length is not None and not special < length < 1 << 31:
        raise ValueError(
            f"length: given {length}, expected more than the {special} special tokens that this "
            "tokenizer puts around a text, and less than 2^31"
        )
    with _truncating(tokenizer, left=causal):
        found = tokenizer(list(texts), return_attention_mask=True, **options)
    # the mask leaves out padding, which some tokenizers add unasked
    encoded = [
        [token for token, real in zip(ids, mask, strict=True) if real]
        for ids, mask in zip(found["input_ids"], found["attention_mask"], strict=True)
    ]
    if causal and (closing := _closing(tokenizer)):
        encoded = [ids[:-closing] for ids in encoded]
    if not all(encoded):
        raise ValueError(
            f"texts: {texts[encoded.index([])]!r} is no token at all for this tokenizer; remove it"
        )
    return encoded


def padded(prompts: Sequence[Sequence[int]], *, left: bool) -> Tensor:
    """Token ids of several prompts as one tensor (N, T), padded with :data:`PADDING`.

    >>> padded([[5, 6], [7]], left=True)
    tensor([[ 5,  6],
            [-1,  7]])
    """
    width = max(map(len, prompts))
    tokens = torch.full((len(prompts), width), PADDING)
    for row, ids in zip(tokens, prompts, strict=True):
        place = slice(width - len(ids), width) if left else slice(len(ids))
        row[place] = torch.tensor(ids)
    return tokens


def encode(tokenizer: Any, texts: Sequence[str], *, length: int | None = None) -> Tensor:
    """Texts as token ids (N, T) for :class:`~zotutor.llm.Rows`.

    Padded with -1 on the tokenizer's padding side. Special tokens are the tokenizer's own.

    Args:
        tokenizer: of transformers, as :func:`~zotutor.llm.load` returns.
        texts: at least one, none of them empty.
        length: truncate texts to this many tokens, on the tokenizer's truncation side.

    Raises:
        ValueError: for no text, an empty one, or a length that leaves nothing of them.

    Example:
        >>> from zotutor.llm import load
        >>> encode(load("tiny")[1], ["Dull.", "A dull film."])
        tensor([[ -1,  -1,   2, 181,   4],
                [  2,  11, 181,  39,   4]])
    """
    ids = token_ids(tokenizer, texts, length=length)
    return padded(ids, left=tokenizer.padding_side == "left")


def word_ids(
    tokenizer: Any, words: Sequence[str], prompts: Sequence[str] = ("It was",)
) -> list[int]:
    """The token id of each label word as the continuation of a prompt.

    The id depends on the prompt: after "It was" a byte-level tokenizer uses "ĠYes", after a prompt
    that ends in a newline "Yes". So each word is tokenized together with the prompt, with a space
    between them unless the prompt ends in whitespace, and the last token is the word's (as in
    MeZO).

    Args:
        tokenizer: of transformers.
        words: label words.
        prompts: complete prompts; each different ending is tried, up to 32.

    Raises:
        ValueError: if a word is more than one token, or unknown, or not the same token after every
            prompt; if two words share a token.

    Example:
        >>> from zotutor.llm import load
        >>> word_ids(load("tiny")[1], ["terrible", "great"])
        [29, 17]
    """
    endings: dict[str, str] = {}
    for prompt in prompts:
        endings.setdefault(prompt[-_ENDING:], prompt)
    first, *others = list(endings.values())[:_ENDINGS]
    found = [_token_after(tokenizer, first, word) for word in words]
    for other in others:
        ids = [_token_after(tokenizer, other, word) for word in words]
        if ids != found:
            raise ValueError(
                f"words: {list(words)} are tokens {found} after {first[-20:]!r}, and {ids} after "
                f"{other[-20:]!r}; let all prompts of a task end alike"
            )
    if len(set(found)) != len(found):
        raise ValueError(
            f"words: {list(words)} are tokens {found} for this tokenizer, two of them the same; "
            "take a task, or a tokenizer, whose label words are different tokens"
        )
    return found


def _token_after(tokenizer: Any, prompt: str, word: str) -> int:
    gap = "" if prompt[-1:].isspace() else " "
    before, whole = token_ids(tokenizer, [prompt, prompt + gap + word.strip()], causal=True)
    added = whole[len(before) :]
    if whole[: len(before)] != before:
        raise ValueError(
            f"words: this tokenizer joins {word!r} with the end of the prompt, {prompt[-20:]!r}, "
            "to other tokens than the prompt alone has; let the prompt end in a word or a newline"
        )
    if len(added) != 1 or added[0] == tokenizer.unk_token_id:
        pieces = tokenizer.convert_ids_to_tokens(added)
        raise ValueError(
            f"words: {word!r} is {pieces} after {prompt[-20:]!r} for this tokenizer, expected one "
            "token that it knows; take a task or a tokenizer whose label words are single tokens, "
            'or a model of kind "classifier", which needs none'
        )
    return int(added[0])

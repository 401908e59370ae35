"""A language model as a function from prompts to logits (N, V), independent of the batch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .prompts import PADDING


class Layout(NamedTuple):
    """How prompts of different lengths form a batch such that padding changes no logits."""

    side: Literal["left", "right", "none"]
    """The side of the padding; "none": each length is a batch of its own."""
    positions: bool = False
    """Whether the model is given positions, counted from 0 over the tokens of a prompt."""
    last: bool = False
    """Whether the model computes the logits of the last token only (``logits_to_keep``)."""


def unwrapped(model: nn.Module) -> Any:
    """The model of transformers inside adapters of peft, ``torch.compile`` and ``DataParallel``."""
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):  # torch.compile
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):  # peft
            inner = inner.get_base_model()
        elif isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = inner.module
        else:
            return inner


def configured(model: nn.Module) -> Any:
    """The outermost module with a configuration of transformers, in whatever wrapper it is."""
    inner = unwrapped(model)
    return next((module for module in inner.modules() if hasattr(module, "config")), inner)


def _accepted(model: nn.Module) -> set[str]:
    """The names of the arguments that a model takes."""
    parameters = inspect.signature(unwrapped(model).forward).parameters
    if "input_ids" in parameters:
        return set(parameters)
    return {"input_ids", "attention_mask"}  # a wrapper that hands on whatever it is given


class Rows(nn.Module):
    """A language model that returns logits (N, V), a row per prompt, as kernels and dynamics need.

    For a model with logits for every token, the row is the next-token logits at the last token of
    the prompt, restricted to ``words`` if they are given: then the loss over label words is a
    cross-entropy with V = len(words). Without ``words`` V is the vocabulary. For a classifier the
    row is its logits.

    The logits of a prompt do not depend on the other prompts in its batch. Which padding achieves
    this depends on the model: this class chooses it by the arguments that the model takes,
    :func:`~zotutor.llm.finetune` by trying layouts on the model itself.

    Args:
        model: a causal language model or sequence classifier of transformers, also inside adapters
            of peft, ``torch.compile`` or ``DataParallel``.
        words: token ids of the label words, or None for all logits.
        layout: how batches are padded; by default on the left, if the model takes positions counted
            from 0, and else on the right.
        pad: deprecated; masks this token id as padding. :func:`~zotutor.llm.encode` marks padding.

    The input is a tensor of token ids (N, T), with -1 where there is no token, on either side.

    Example:
        >>> from zotutor.llm import encode, load, word_ids
        >>> model, tokenizer = load("tiny")
        >>> rows = Rows(model, words=word_ids(tokenizer, ["terrible", "great"]))
        >>> rows(encode(tokenizer, ["The plot was dull. It was", "A gem. It was"])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        words: Sequence[int] | None = None,
        layout: Layout | None = None,
        pad: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.words = None if words is None else list(words)
        self._accepted = _accepted(model)
        self.layout = layout or self._usual()
        self._fill = _fill(model)
        self._pad = pad
        if pad is not None:
            warnings.warn(
                "pad is deprecated, and real tokens with that id are masked as well: encode marks "
                "places without a token, so leave pad out",
                DeprecationWarning,
                stacklevel=2,
            )

    def _usual(self) -> Layout:
        left = Layout("left", positions=True, last=True)
        from_0 = not padded_positions(self.model)
        return left if self.takes(left) and from_0 else Layout("right")

    def takes(self, layout: Layout) -> bool:
        """Whether the model takes the arguments that a layout needs."""
        return (not layout.positions or "position_ids" in self._accepted) and (
            not layout.last or "logits_to_keep" in self._accepted
        )

    def real(self, tokens: Tensor) -> Tensor:
        """Which entries (N, T) are tokens, not padding."""
        held = tokens != PADDING
        return held if self._pad is None else held & (tokens != self._pad)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (N, T), -1 for none, to logits (N, V)."""
        if self.layout.side == "none":
            logits = self._by_length(tokens)
        else:
            logits = self._last(*self.aligned(tokens, self.layout.side))
        return logits if self.words is None else logits[:, self.words]

    def aligned(self, tokens: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """The tokens of each prompt, made contiguous and padded on ``side``, and their mask."""
        real = self.real(tokens)
        # a stable sort by the mask moves padding to one side and keeps the order of the tokens
        order = real.long().argsort(dim=1, stable=True, descending=side == "right")
        return tokens.gather(1, order), real.gather(1, order)

    def inputs(self, tokens: Tensor, real: Tensor) -> dict[str, Any]:
        """The model's keyword arguments for aligned tokens (N, T)."""
        found: dict[str, Any] = {"input_ids": tokens.where(real, self._fill)}
        if "attention_mask" in self._accepted:
            found["attention_mask"] = real.long()
        if "use_cache" in self._accepted:
            found["use_cache"] = False
        if self.layout.positions:
            found["position_ids"] = (real.long().cumsum(1) - 1).clamp_min(0)
        return found

    def _last(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Logits (N, V) of aligned tokens: a classifier's, or those of the last token."""
        options: dict[str, Any] = {}
        last = real.sum(1) - 1  # (N,): position of the last token if padded on the right
        left = self.layout.side == "left"
        if self.layout.last:
            options["logits_to_keep"] = 1 if left else last[:, None]
        logits = logits_in(self.model(**self.inputs(tokens, real), **options))
        if logits.dim() == 2:
            return logits
        if left or self.layout.last:
            return logits[:, -1]  # (N, T or 1, V) -> (N, V)
        last = last + logits.shape[1] - tokens.shape[1]  # after the virtual tokens of an adapter
        index = last[:, None, None].expand(-1, 1, logits.shape[2]).to(logits.device)
        return logits.gather(1, index)[:, 0]  # (N, T, V) -> (N, V)

    def _by_length(self, tokens: Tensor) -> Tensor:
        """Logits (N, V) from one call per length among the prompts, without padding."""
        tokens, real = self.aligned(tokens, "right")
        lengths = real.sum(1)
        order, parts = [], []
        for length in lengths.unique().tolist():
            chosen = (lengths == length).nonzero()[:, 0]
            order.append(chosen)
            parts.append(self._last(tokens[chosen, :length], real[chosen, :length]))
        return torch.cat(parts)[torch.cat(order).argsort().to(parts[0].device)]


def logits_in(output: Any) -> Tensor:
    """What a model returned, or its ``.logits``: (N, T, V) or (N, classes).

    Raises:
        ValueError: for anything else.
    """
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor) or found.dim() not in (2, 3):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise ValueError(
            f"model: returned {shape}, expected an output with logits of shape (N, T, V), as a "
            "causal language model, or (N, classes), as a sequence classifier"
        )
    return found


def _fill(model: nn.Module) -> int:
    """The id to put where there is no token: the model's own padding token, if it has one.

    It matters although it is masked: some models count positions, or find the end of the text, by
    comparing ids with it.
    """
    pad = getattr(getattr(configured(model), "config", None), "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0


def padded_positions(model: nn.Module) -> list[nn.Embedding]:
    """Embeddings of positions that are counted from a padding index, as in RoBERTa."""
    return [
        module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, nn.Embedding)
        and "position" in name
        and module.padding_idx is not None
    ]

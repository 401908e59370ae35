"""A language model as one row of logits for each prompt, whichever prompts share its batch."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .lm import Kind, is_out_of_memory
from .prompts import PADDING, padded, token_ids, word_ids


class Layout(NamedTuple):
    """How prompts of different lengths are laid out in a batch so that padding changes no row."""

    side: Literal["left", "right", "none"]
    """Where places without a token go; "none": each length is a batch of its own."""
    positions: bool = False
    """Whether the model is given positions, counted from 0 over the tokens of a row."""
    last: bool = False
    """Whether the model is asked for the logits of the last token alone."""


_CAUSAL = (
    Layout("left", positions=True, last=True),
    Layout("left", last=True),
    Layout("left"),
    # no token of a causal model sees those after it, so that what pads it there changes nothing
    Layout("right", last=True),
    Layout("right"),
    Layout("none"),
)
"""From the cheapest to the one that only a model whose rows depend on each other can fail."""
_CLASSIFIER = (Layout("right"), Layout("left"), Layout("none"))


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


def _accepted(model: nn.Module) -> set[str]:
    """The names of the arguments that a model takes."""
    parameters = inspect.signature(unwrapped(model).forward).parameters
    if "input_ids" in parameters:
        return set(parameters)
    return {"input_ids", "attention_mask"}  # a wrapper that hands on whatever it is given


class Rows(nn.Module):
    """A language model that returns one row of logits per input, as kernels and dynamics want.

    For a model with logits for every token, the row is the next-token logits at the last token of
    the prompt, restricted to ``words`` if they are given: then the loss over label words is a
    cross-entropy with V = len(words). Without ``words`` V is the vocabulary. For a classifier it is
    its logits.

    The row of a prompt is the row of that prompt alone, whichever prompts share its batch. How that
    is achieved depends on the model; :func:`prepare` tries on the model itself what works, where
    this class goes by the arguments that the model takes.

    Args:
        model: a causal language model or sequence classifier of transformers, also inside adapters
            of peft, ``torch.compile`` or ``DataParallel``.
        words: token ids of the label words, or None for all logits.
        layout: how batches are padded; by default on the left, if the model takes positions counted
            from 0, and else on the right.
        pad: deprecated; masks places that hold this id. :func:`~zotutor.llm.encode` marks them.

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
        left, counted_otherwise = _CAUSAL[0], bool(_padded_positions(self.model))
        return left if self.takes(left) and not counted_otherwise else Layout("right")

    def takes(self, layout: Layout) -> bool:
        """Whether the model takes the arguments that a layout needs."""
        return (not layout.positions or "position_ids" in self._accepted) and (
            not layout.last or "logits_to_keep" in self._accepted
        )

    def real(self, tokens: Tensor) -> Tensor:
        """Which places (N, T) hold a token."""
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
        """The tokens of each row moved together, padded on ``side``, and which places hold one."""
        real = self.real(tokens)
        order = real.long().argsort(dim=1, stable=True, descending=side == "right")
        return tokens.gather(1, order), real.gather(1, order)

    def inputs(self, tokens: Tensor, real: Tensor) -> dict[str, Any]:
        """What the model is called with for aligned tokens (N, T)."""
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
        last = real.sum(1) - 1  # (N,) where a row padded on the right ends
        left = self.layout.side == "left"
        if self.layout.last:
            options["logits_to_keep"] = 1 if left else last[:, None]
        logits = _logits(self.model(**self.inputs(tokens, real), **options))
        if logits.dim() == 2:
            return logits
        if left or self.layout.last:
            return logits[:, -1]  # (N, T or 1, V) -> (N, V)
        last = last + logits.shape[1] - tokens.shape[1]  # after the virtual tokens of an adapter
        index = last[:, None, None].expand(-1, 1, logits.shape[2])
        return logits.gather(1, index)[:, 0]  # (N, T, V) -> (N, V)

    def _by_length(self, tokens: Tensor) -> Tensor:
        """Logits (N, V) from a call for each length among the rows, none of them padded."""
        tokens, real = self.aligned(tokens, "right")
        lengths = real.sum(1)
        order, parts = [], []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            order.append(rows)
            parts.append(self._last(tokens[rows, :length], real[rows, :length]))
        return torch.cat(parts)[torch.cat(order).argsort()]


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor) or found.dim() not in (2, 3):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise ValueError(
            f"model: returned {shape}, expected an output with logits of shape (N, T, V), as a "
            "causal language model, or (N, classes), as a sequence classifier"
        )
    return found


def _fill(model: nn.Module) -> int:
    """The id that stands where there is no token: the model's own padding token, if it has one.

    Its value matters although it is masked: some models count positions, or look for the end of the
    text, by comparing ids with it.
    """
    inner = unwrapped(model)
    pad = getattr(getattr(inner, "config", None), "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0


# ---- what suits a model, found on the model itself ----------------------------------------------


class Prompts:
    """Turns prompts into batches for one model, and refuses what it cannot read.

    Args:
        model: of transformers.
        tokenizer: its tokenizer.
        length: truncate prompts to this many tokens; None to leave them whole.
        causal: for a causal model, see :func:`~zotutor.llm.prompts.token_ids`.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, length: int | None, causal: bool
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._length, self._causal = length, causal
        self._device = next(model.parameters()).device

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Their token ids.

        Raises:
            ValueError: for an empty text, one that is longer than the model reads, or ids that it
                has no embeddings for.
        """
        found = token_ids(self._tokenizer, texts, length=self._length, causal=self._causal)
        check_width(self._model, max(map(len, found)))
        _check_ids(self._model, max(map(max, found)))
        return found

    def batch(self, texts: Sequence[str]) -> Tensor:
        """Their token ids (N, T), -1 for none, on the model's device."""
        return padded(self.ids(texts), left=True).to(self._device)


class Prepared(NamedTuple):
    """A model ready to be scored on prompts; made by :func:`prepare`."""

    rows: Rows
    prompts: Prompts
    kind: Kind
    dtype: torch.dtype
    """Of its logits."""
    about: str
    """What was decided, in a sentence."""


def prepare(
    model: nn.Module,
    tokenizer: Any,
    words: Sequence[str],
    texts: Sequence[str],
    *,
    length: int | None = None,
    kind: Kind | None = None,
) -> Prepared:
    """Rows of logits over the labels of a task, checked on the model itself and some prompts.

    A model that returns logits for every token is a causal language model, scored by the label
    words after the prompt; one that returns a row for each prompt is a classifier. Then the
    shortest prompt and the longest are given to the model, each alone and both in one batch: the
    first layout of a batch in which the rows are the same is taken.

    Args:
        model: a causal language model or sequence classifier.
        tokenizer: its tokenizer.
        words: label words, in the order of the labels.
        texts: the prompts that will be scored.
        length: truncate prompts to this many tokens.
        kind: "causal" or "classifier" to overrule what the model's output says.

    Raises:
        ValueError: if the model cannot be called on prompts; if a label word is not one token after
            them; if the model has another number of classes than the task has labels; if a row
            depends on the others in its batch however it is laid out.
    """
    if not texts:
        raise ValueError("examples: given none, expected at least one")
    if kind not in (None, "causal", "classifier"):
        raise ValueError(f"kind: given {kind!r}, expected 'causal' or 'classifier', or None")
    ordered = sorted(set(texts), key=len)
    ends = [ordered[0], ordered[-1]]
    with _evaluating(model):
        prompts = Prompts(model, tokenizer, length=length, causal=kind != "classifier")
        every = _called(model, prompts.ids(ends[:1])[0])
        kind = kind or ("causal" if every.dim() == 3 else "classifier")
        prompts = Prompts(model, tokenizer, length=length, causal=kind == "causal")
        layout = _layout(model, kind, prompts.ids(ends))
    V = every.shape[-1]
    if kind == "causal":
        ids = word_ids(tokenizer, words, texts)
        if max(ids) >= V:
            raise ValueError(
                f"model: returns {V} logits for each token, and the label words are tokens {ids}; "
                "it is no language model, or not that of this tokenizer"
            )
        rows = Rows(model, words=ids, layout=layout)
        tokens = ", ".join(f"{word!r} ({n})" for word, n in zip(words, ids, strict=True))
        about = f"causal language model, scored by the token after the prompt: {tokens}"
    else:
        if len(words) != V:
            raise ValueError(
                f"model: returns {V} logits for a prompt, and the task has {len(words)} labels; "
                f'take a classifier with {len(words)} classes, or give kind="causal" if its logits '
                "are those of the next token"
            )
        rows = Rows(model, layout=layout)
        about = f"classifier with {V} classes"
    where = "batches of one length" if layout.side == "none" else f"padded on the {layout.side}"
    return Prepared(rows, prompts, kind, every.dtype, f"{about}; {where}")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients meanwhile; each module goes back to its own mode."""
    training = [module for module in model.modules() if module.training]
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module in training:
            module.training = True


def _called(model: nn.Module, ids: list[int]) -> Tensor:
    """All logits that the model returns for one prompt alone, called as its library would call it.

    Raises:
        ValueError: if it is not such a model; if its logits are not finite.
    """
    rows = Rows(model, layout=Layout("none"))
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    failure: Exception | None = None
    try:
        logits = _logits(model(**rows.inputs(tokens, tokens >= 0)))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        failure = error
    name, config = type(unwrapped(model)).__name__, getattr(unwrapped(model), "config", None)
    if getattr(config, "is_encoder_decoder", False) and (failure or logits.dim() == 3):
        raise ValueError(
            f"model: {name} is an encoder-decoder, whose decoder does not continue the prompt; "
            "take a causal language model, or a sequence classifier"
        ) from failure
    if failure:
        reason = (str(failure).splitlines() or [""])[0]
        raise ValueError(
            f"model: {name} cannot be called on a prompt of {len(ids)} tokens "
            f"({type(failure).__name__}: {reason}); give a causal language model or a sequence "
            "classifier of transformers, and its own tokenizer"
        ) from failure
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"model: its logits for a prompt of {len(ids)} tokens are not finite; look for NaN or "
            "infinity in its weights, or load it in bfloat16 or float32 if it is in float16"
        )
    return logits


def _layout(model: nn.Module, kind: Kind, ids: list[list[int]]) -> Layout:
    """The first layout in which two prompts have the rows that each has alone."""
    short, long = ids
    alone = [_called(model, row) for row in ids]  # each (1, T, V) or (1, V)
    expected = torch.cat([z[:, -1] if z.dim() == 3 else z for z in alone]).double()  # (2, V)
    # models in float64 compute positions and softmax in float32
    eps = max(torch.finfo(coarsest(model, alone[0].dtype)).eps, torch.finfo(torch.float32).eps)
    tolerance = math.sqrt(eps)
    # a third prompt shows whether rows of one length depend on each other
    other = [short[0], *reversed(short[1:-1]), *short[1:][-1:]]
    batch = padded([short, other, long], left=True).to(alone[0].device)
    errors, reason = [], ""
    for layout in _CAUSAL if kind == "causal" else _CLASSIFIER:
        found = _tried(model, batch, layout)
        if isinstance(found, str):
            reason = found
            continue
        errors.append(_difference(found[[0, 2]], expected))
        if errors[-1] <= tolerance:
            return layout
    if not errors:
        raise ValueError(
            f"model: cannot be called on {len(batch)} prompts at a time, though on one ({reason})"
        )
    raise ValueError(
        f"model: the logits of a prompt change by {100 * min(errors):.2g} % when others are in its "
        f"batch, where rounding explains {100 * tolerance:.2g} %, even if none is padded; results "
        "would depend on how prompts are batched: take a model whose rows do not depend on each "
        "other"
    )


def _tried(model: nn.Module, batch: Tensor, layout: Layout) -> Tensor | str:
    """The rows of a batch in one layout, or why the model does not take it."""
    rows = Rows(model, layout=layout)
    if not rows.takes(layout):
        return "it takes no such arguments"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = rows(batch)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            return str(error)  # the next layout needs less
    ignored = [str(w.message) for w in said if "osition" in str(w.message)]  # by adapters of peft
    return ignored[0] if ignored else found.double()


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two rows of logits, relative to the spread of the row.

    Both as root mean squares over V, and the spread around the row's mean, which softmax does not
    see. Where the spread is below rounding, the size of the logits takes its place.
    """
    if found.shape != expected.shape:
        return math.inf
    spread = expected - expected.mean(1, keepdim=True)
    floor = 1e-3 * expected.abs().amax(1)
    size = torch.maximum(spread.square().mean(1).sqrt(), floor)
    error = (found - expected).square().mean(1).sqrt()
    ratio = torch.where(error == 0, 0.0, error / size)
    return float(ratio.max().nan_to_num(math.inf))


def coarsest(model: nn.Module, logits: torch.dtype) -> torch.dtype:
    """The coarsest dtype that the logits go through; frozen weights and autocast count.

    Args:
        model: whose parameters and buffers count, trainable or not.
        logits: the dtype that it returns.
    """
    device = next(model.parameters()).device.type
    dtypes = {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} | {logits}
    if torch.is_autocast_enabled(device):
        dtypes.add(torch.get_autocast_dtype(device))
    usual = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return max(dtypes.intersection(usual), key=lambda dtype: torch.finfo(dtype).eps)


# ---- what a model can read ----------------------------------------------------------------------


def _check_ids(model: nn.Module, most: int) -> None:
    inner = unwrapped(model)
    if not hasattr(inner, "get_input_embeddings"):
        return
    count = inner.get_input_embeddings().weight.shape[0]
    if most >= count:
        raise ValueError(
            f"tokenizer: its ids go up to {most}, and this model has embeddings for 0 to "
            f"{count - 1}; give the tokenizer that belongs to the model"
        )


def _padded_positions(model: nn.Module) -> list[nn.Embedding]:
    """Embeddings of positions that are counted from a padding index, as in RoBERTa."""
    return [
        module
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, nn.Embedding)
        and "position" in name
        and module.padding_idx is not None
    ]


def width(model: nn.Module) -> int | None:
    """The number of tokens that a model reads at most; None if it says of no limit.

    Learned positions that begin after a padding index leave fewer than the configuration says:
    RoBERTa reads 512 of 514. The virtual tokens of an adapter take some as well.
    """
    inner = unwrapped(model)
    most = getattr(getattr(inner, "config", None), "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    for positions in _padded_positions(model):
        most = min(most, positions.num_embeddings - int(positions.padding_idx or 0) - 1)
    adapter = getattr(model, "active_peft_config", None)
    return most - (getattr(adapter, "num_virtual_tokens", None) or 0)


def check_width(model: nn.Module, given: int) -> None:
    """Refuse prompts of more tokens than the model reads.

    Raises:
        ValueError: naming both lengths.
    """
    most = width(model)
    if most is not None and given > most:
        raise ValueError(
            f"length: a prompt has {given} tokens, and this model reads {most}; give length={most}"
        )

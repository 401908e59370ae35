"""How to score a model, found out on the model itself before any work.

As a causal model or a classifier, and with which padding prompts of different lengths can share a
batch without changing each other's logits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .devices import first_device
from .limits import check_ids, check_width
from .lm import Kind, is_out_of_memory
from .prompts import padded, token_ids, word_ids
from .rows import Layout, Rows, configured, logits_in, unwrapped

_CAUSAL = (
    Layout("left", positions=True, last=True),
    Layout("left", last=True),
    Layout("left"),
    # tokens of a causal model do not attend to later ones, so padding on the right is harmless
    Layout("right", last=True),
    Layout("right"),
    Layout("none"),
)
"""From the cheapest to the one without padding, which fails only if prompts affect each other."""
_CLASSIFIER = (Layout("right"), Layout("left"), Layout("none"))


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
        self._device = first_device(model)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Their token ids.

        Raises:
            ValueError: for an empty text, one that is longer than the model reads, or ids that it
                has no embeddings for.
        """
        found = token_ids(self._tokenizer, texts, length=self._length, causal=self._causal)
        check_width(self._model, max(map(len, found)))
        check_ids(self._model, max(map(max, found)))
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
    """The coarsest dtype used in computing the logits."""
    about: str
    """What was decided, in a sentence."""


def prepare(
    model: nn.Module,
    tokenizer: Any,
    words: Sequence[str] | None,
    texts: Sequence[str],
    *,
    length: int | None = None,
    kind: Kind | None = None,
) -> Prepared:
    """A model's logits over the labels of a task, checked on the model itself and a few prompts.

    A model that returns logits for every token is a causal language model, scored by the label
    words after the prompt; one that returns a vector for each prompt is a classifier. Then the
    prompts with the fewest tokens, the median number and the most are given to the model, each
    alone and all in one batch; the first layout in which both ways give the same logits is chosen.

    Args:
        model: a causal language model or sequence classifier.
        tokenizer: its tokenizer.
        words: label words, in the order of the labels; None for the logits of all tokens of a
            causal model.
        texts: the prompts that will be scored.
        length: truncate prompts to this many tokens.
        kind: "causal" or "classifier"; by default inferred from the model's output.

    Raises:
        ValueError: if the model cannot be called on prompts, or a prompt is too long for it; if its
            logits for a token depend on later tokens; if a label word is not one token after the
            prompts; if the model has another number of classes than the task has labels; if in
            every layout the logits of a prompt depend on the others in its batch.
    """
    if not texts:
        raise ValueError("examples: given none, expected at least one")
    if kind not in (None, "causal", "classifier"):
        raise ValueError(f"kind: given {kind!r}, expected 'causal' or 'classifier', or None")
    with _evaluating(model):
        prompts = Prompts(model, tokenizer, length=length, causal=kind != "classifier")
        with _Dtypes() as seen:
            every = _called(model, prompts.ids(texts[:1])[0])
        kind = kind or ("causal" if every.dim() == 3 else "classifier")
        prompts = Prompts(model, tokenizer, length=length, causal=kind == "causal")
        labels, about = None, f"classifier with {every.shape[-1]} classes"
        if words is None:
            if kind != "causal":
                raise ValueError(
                    "objective: generated text, and this model is a classifier; give a causal "
                    "language model"
                )
            about = "causal language model, scored by the text that it generates"
        elif kind == "causal":
            labels, about = _label_words(tokenizer, words, texts, every)
        else:
            _check_classes(words, every)
        ids = sorted(prompts.ids(texts), key=len)
        layout = _layout(model, kind, [ids[0], ids[len(ids) // 2], ids[-1]])
    rows = Rows(model, words=labels, layout=layout)
    where = "batches of one length" if layout.side == "none" else f"padded on the {layout.side}"
    return Prepared(rows, prompts, kind, coarsest(model, *seen.found), f"{about}; {where}")


def _label_words(
    tokenizer: Any, words: Sequence[str], texts: Sequence[str], logits: Tensor
) -> tuple[list[int], str]:
    """The tokens of label words, and what to say of them."""
    labels, V = word_ids(tokenizer, words, texts), logits.shape[-1]
    if max(labels) >= V:
        raise ValueError(
            f"model: returns {V} logits for each token, and the label words are tokens {labels}; "
            "it is no language model, or not that of this tokenizer"
        )
    tokens = ", ".join(f"{word!r} ({n})" for word, n in zip(words, labels, strict=True))
    return labels, f"causal language model, scored by the token after the prompt: {tokens}"


def _check_classes(words: Sequence[str], logits: Tensor) -> None:
    V = logits.shape[-1]
    if len(words) != V:
        raise ValueError(
            f"model: returns {V} logits for a prompt, and the task has {len(words)} labels; take a "
            f'classifier with {len(words)} classes, or give kind="causal" if its logits are those '
            "of the next token"
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """A context in evaluation mode without gradients; restores each module's mode afterwards."""
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
        ValueError: for a model that cannot be called so, or whose logits are not finite.
    """
    rows = Rows(model, layout=Layout("none"))
    tokens = torch.tensor([ids], device=first_device(model))
    failure: Exception | None = None
    try:
        logits = logits_in(model(**rows.inputs(tokens, tokens >= 0)))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        failure = error
    name, inner = type(unwrapped(model)).__name__, configured(model)
    both = getattr(getattr(inner, "config", None), "is_encoder_decoder", False)
    if both and (inner.can_generate() if failure else logits.dim() == 3):
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
    """The first layout in which each of some prompts has the logits that it has alone."""
    alone = [_called(model, row) for row in ids]  # each (1, T, V) or (1, V)
    expected = torch.cat([z[:, -1] if z.dim() == 3 else z for z in alone]).double()  # (3, V)
    # models in float64 compute positions and softmax in float32
    eps = max(torch.finfo(coarsest(model, alone[0].dtype)).eps, torch.finfo(torch.float32).eps)
    tolerance = math.sqrt(eps)
    if alone[-1].dim() == 3:
        _check_causal(model, ids[-1], alone[-1], tolerance)
    short = ids[0]
    # one more prompt, as long as the short one: do prompts of one length affect each other?
    other = [short[0], *reversed(short[1:-1]), *short[1:][-1:]]
    batch = padded([other, *ids], left=True).to(first_device(model))
    errors, reason = [], ""
    for layout in _CAUSAL if kind == "causal" else _CLASSIFIER:
        found = _tried(model, batch, layout)
        if isinstance(found, str):
            reason = found
            continue
        errors.append(_difference(found[1:], expected))
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


def _check_causal(model: nn.Module, ids: list[int], logits: Tensor, tolerance: float) -> None:
    """Refuse a model that sees the second half of a prompt where it reads the first.

    Then the logits at the last token are no guess at the next one.
    """
    half = len(ids) // 2
    place = half - 1 - len(ids)  # from the end: an adapter may put virtual tokens in front
    if half:
        other = _called(model, [*ids[:half], *ids[::-1][half:]])
        error = _difference(other[:, place].double(), logits[:, place].double())
        if error > tolerance:
            raise ValueError(
                f"model: its logits for a token change by {100 * error:.2g} % with the tokens "
                f"after it, where rounding explains {100 * tolerance:.2g} %, so that they are no "
                "guess at the next token; take a causal language model (some need is_decoder=True "
                "in their config.json), or a sequence classifier"
            )


def _tried(model: nn.Module, batch: Tensor, layout: Layout) -> Tensor | str:
    """The logits of a batch in one layout, or the reason why the model does not take it."""
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
    """The largest difference of found and expected logits (N, V), relative to their spread over V.

    Both are root mean squares over V. The spread is taken around the mean, to which softmax is
    invariant; where it is below rounding, the size of the logits takes its place.
    """
    if found.shape != expected.shape:
        return math.inf
    spread = expected - expected.mean(1, keepdim=True)
    floor = 1e-3 * expected.abs().amax(1)
    size = torch.maximum(spread.square().mean(1).sqrt(), floor)
    error = (found - expected).square().mean(1).sqrt()
    ratio = torch.where(error == 0, 0.0, error / size)
    return float(ratio.max().nan_to_num(math.inf))


class _Dtypes(TorchFunctionMode):
    """Records the dtypes of what torch functions return, inside of autocast for example."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.found.add(result.dtype)
        return result


def coarsest(model: nn.Module, *seen: torch.dtype) -> torch.dtype:
    """The coarsest dtype used in computing the logits, including frozen weights and autocast.

    Args:
        model: whose parameters and buffers count, trainable or not.
        seen: dtypes of what it computes on the way.
    """
    dtypes = {tensor.dtype for tensor in (*model.parameters(), *model.buffers())}.union(seen)
    usual = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return max(dtypes.intersection(usual), key=lambda dtype: torch.finfo(dtype).eps)

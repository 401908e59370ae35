"""Language models as this book uses them: loaded without pickles, and asked for rows of logits."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zotutor.checks import check_integer

from .gguf import plain_folder
from .packages import find

Kind = Literal["causal", "classifier"]

TINY = Path(__file__).with_name("tiny")
"""The folder of the model that ships: an OPT of 0.66 million parameters, see its README.md."""


def transformers() -> Any:
    """The transformers library, or an error that says which extra to install."""
    try:
        import transformers as library
    except ImportError as error:
        raise ImportError(
            "language models need transformers, which is not installed; run: "
            'pip install "zotutor[llm]"'
        ) from error
    return library


def load(
    name_or_folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    kind: Kind = "causal",
    labels: int = 2,
    revision: str | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Any]:
    """A language model in evaluation mode, and its tokenizer.

    Weights are read from safetensors only, and no code that comes with a model is run. Attention is
    the library's default; :func:`~zotutor.jvp` swaps in one with a forward-mode derivative itself.

    Args:
        name_or_folder: "tiny" for the small model that ships with this package; "smollm2" for
            SmolLM2-135M-Instruct, which ``zotutor fetch`` brings; a folder in the format of
            ``save_pretrained``; a GGUF file, or a folder with one; or the name of a model on the
            hub, such as "facebook/opt-125m".
        dtype: float32, bfloat16 or float16.
        device: where to put the model.
        kind: "causal" for a causal language model; "classifier" for an encoder with a sequence
            classification head, made anew from ``seed`` if the weights have none.
        labels: number of classes of a classifier.
        revision: commit hash, which pins what is downloaded from the hub; required for a hub name.
            Of "facebook/opt-125m" itself and other older models only a commit of the pull request
            that converted them holds safetensors.
        seed: of a new classification head.

    Returns:
        The model, in eval mode, and its tokenizer, which pads and cuts on the left for a causal
        model, since a prompt ends in its question.

    Raises:
        ImportError: without transformers.
        FileNotFoundError: for a folder without config.json, safetensors or a tokenizer.
        ValueError: for a hub name without revision, an unknown kind, or weights that are damaged or
            do not fit.
        OSError: if the hub cannot be reached and the model is not in its cache, or the revision
            holds no safetensors.

    Example:
        >>> model, tokenizer = load("tiny")
        >>> sum(p.numel() for p in model.parameters()), len(tokenizer)
        (661248, 387)
    """
    library = transformers()
    if kind not in ("causal", "classifier"):
        raise ValueError(f"kind: given {kind!r}, expected 'causal' or 'classifier'")
    check_integer("seed", seed, low=0, high=1 << 64)
    source, options = _source(name_or_folder, revision, dtype)
    tokenizer = library.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    common = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False, **options}
    local = options.get("local_files_only", False)
    with _readable(f"{source}: as a {kind} model", kind), quiet(library, local=local):
        if kind == "causal":
            model = library.AutoModelForCausalLM.from_pretrained(source, **common)
            tokenizer.padding_side = tokenizer.truncation_side = "left"  # prompts end in a question
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = library.AutoModelForSequenceClassification.from_pretrained(
                    source, num_labels=labels, **common
                )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ValueError(
            f"{source}: its tokenizer names no padding token and no end of text; set "
            "tokenizer.pad_token to one of its tokens, and save it again"
        )
    return model.to(device).eval(), tokenizer


def no_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, of the device or of the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@contextmanager
def _readable(what: str, kind: str) -> Iterator[None]:
    """Say of weights that cannot be loaded what may be wrong with them."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if no_memory(error):
            raise
        advice = ", or give as many labels as its head has" if kind == "classifier" else ""
        raise ValueError(
            f"{what} its weights cannot be loaded ({str(error).splitlines()[0]}); they are "
            f"damaged, or of another shape than its config.json says: fetch them again{advice}"
        ) from error


@contextmanager
def quiet(library: Any, *, local: bool) -> Iterator[None]:
    """Without the word that a head is new, which is asked for; local files without a bar either."""
    logging = library.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _source(
    name_or_folder: str | Path, revision: str | None, dtype: torch.dtype
) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` is given: a folder, or a hub name pinned to a revision."""
    if name_or_folder == "smollm2":
        return str(plain_folder(find("smollm2"), dtype=dtype)), {"local_files_only": True}
    folder = TINY if name_or_folder == "tiny" else Path(name_or_folder).expanduser()
    gguf = _gguf(folder)
    if gguf is not None:
        return str(plain_folder(gguf, dtype=dtype)), {"local_files_only": True}
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder}: has no config.json; give a save_pretrained folder")
        if not any(folder.glob("*.safetensors")):
            raise FileNotFoundError(
                f"{folder}: has no *.safetensors; pickled weights are not read, since they can "
                "run code: convert them with model.save_pretrained(folder)"
            )
        if not any(any(folder.glob(name)) for name in ("tokenizer*", "vocab*", "*.model")):
            raise FileNotFoundError(
                f"{folder}: has no tokenizer; write one there: tokenizer.save_pretrained(folder)"
            )
        return str(folder), {"local_files_only": True}
    if isinstance(name_or_folder, Path) or name_or_folder.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name_or_folder}: no such folder; check the path")
    if re.fullmatch("[0-9a-f]{40}", revision or "") is None:
        raise ValueError(
            f"revision: given {revision!r} for the hub model {name_or_folder!r}, expected the hash "
            "of a commit (40 hexadecimal digits), so that what is downloaded cannot change; its "
            "page on the hub lists them. It must be one that holds safetensors: older models have "
            "them in a pull request only"
        )
    return str(name_or_folder), {"revision": revision}


def _gguf(path: Path) -> Path | None:
    """A GGUF file, or the only one in a folder without safetensors; None if there is none."""
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise ValueError(
            f"{path}: holds {len(found)} GGUF files ({', '.join(f.name for f in found)}); give the "
            "path of one"
        )
    return found[0] if found else None


class Rows(nn.Module):
    """A language model that returns one row of logits an input, as kernels and dynamics want.

    For a causal model the row is the next-token logits at the last position, restricted to
    ``words`` if they are given: then the loss over label words is a cross-entropy with
    V = len(words). Without ``words`` V is the vocabulary. For a classifier it is its logits.

    Args:
        model: a causal language model or sequence classifier of transformers.
        pad: id of the padding token; positions that hold it are masked.
        words: token ids of the label words, or None for the whole vocabulary.

    The input is a tensor of token ids (N, T), padded on the left for a causal model.
    """

    def __init__(self, model: nn.Module, *, pad: int, words: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.pad = pad
        self.words = None if words is None else list(words)
        accepted = inspect.signature(model.forward).parameters
        self._last_only = "logits_to_keep" in accepted
        self._positions = "position_ids" in accepted and self._last_only

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (N, T) to logits (N, V)."""
        last = {"logits_to_keep": 1} if self._last_only else {}
        logits: Tensor = self.model(**self.inputs(tokens), **last).logits
        if logits.dim() == 3:
            logits = logits[:, -1]  # (N, T or 1, V) -> (N, V)
        return logits if self.words is None else logits[:, self.words]

    def inputs(self, tokens: Tensor) -> dict[str, Any]:
        """What the model is called with for token ids (N, T): mask and positions beside them."""
        mask = (tokens != self.pad).long()
        found: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
        if self._last_only:
            found["use_cache"] = False
        if self._positions:
            found["position_ids"] = (mask.cumsum(-1) - 1).clamp_min(0)
        return found


def truncation(length: int | None) -> dict[str, Any]:
    """What a tokenizer is told, to cut texts to ``length`` tokens; nothing for None."""
    return {} if length is None else {"truncation": True, "max_length": length}


def encode(tokenizer: Any, texts: Sequence[str], *, length: int | None = None) -> Tensor:
    """Texts as token ids (N, T), padded to the longest, cut to ``length`` tokens if it is given.

    Raises:
        ValueError: for no text, or an empty one.
    """
    if not texts or any(not text.strip() for text in texts):
        raise ValueError("texts: given none or an empty one, expected at least one with words")
    cut = truncation(length)
    ids: Tensor = tokenizer(list(texts), padding=True, return_tensors="pt", **cut)["input_ids"]
    return ids


def word_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """The token that stands for each label word behind a prompt.

    Raises:
        ValueError: if a word is more than one token, or unknown, or two share one.
    """
    found = []
    for word in words:
        ids = tokenizer(" " + word.strip(), add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise ValueError(
                f"words: {word!r} is {len(ids)} tokens or unknown to this tokenizer, expected one "
                "token; choose another label word"
            )
        found.append(int(ids[0]))
    if len(set(found)) != len(found):
        raise ValueError(f"words: given {list(words)}, two of which are one token; choose others")
    return found

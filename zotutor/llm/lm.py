"""Loading language models and their tokenizers, without pickles and without remote code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zotutor.checks import check_integer, check_path

from .adapters import load_adapter
from .gguf import plain_folder
from .library import quiet, transformers
from .packages import find
from .quantized import Quantized, keep_layout, loading_options

Kind = Literal["causal", "classifier"]

TINY = Path(__file__).with_name("tiny")
"""The folder of the model that ships: an OPT of 0.66 million parameters, see its README.md."""


def load(
    name_or_folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    kind: Kind = "causal",
    labels: int = 2,
    quantize: Quantized | None = None,
    adapter: str | Path | None = None,
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
            classification head, initialized from ``seed`` if the weights have none.
        labels: number of classes of a classifier.
        quantize: "8bit" or "4bit" to store the weights of linear layers so, with bitsandbytes,
            which need not be on a GPU. They cannot be trained; :func:`~zotutor.llm.add_adapter`
            adds what can. For zeroth order "4bit" is the better choice: "8bit" rounds activations
            as well, by far more than a probe of eps = 1e-3 changes them.
        adapter: a folder of peft's ``save_pretrained``, such as the ``weights`` of a run with an
            adapter; see :func:`~zotutor.llm.load_adapter`.
        revision: commit hash, which pins what is downloaded from the hub; required for a hub name.
            Of "facebook/opt-125m" itself and other older models only a commit of the pull request
            that converted them holds safetensors.
        seed: of a new classification head.

    Returns:
        The model, in eval mode, and its tokenizer, which pads and truncates on the left for a
        causal model, since a prompt ends in its question.

    Raises:
        ImportError: without transformers, or bitsandbytes or peft where they are needed.
        FileNotFoundError: for a folder without config.json, safetensors or a tokenizer.
        ValueError: for a hub name without revision; an unknown kind; an encoder-decoder as a causal
            model; weights that are damaged or do not fit.
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
    stored = loading_options(library, quantize, dtype, device)
    source, options = _source(name_or_folder, revision, dtype)
    options["trust_remote_code"] = False
    with _readable(source):
        if kind == "causal":
            _check_decoder(source, library.AutoConfig.from_pretrained(source, **options))
        tokenizer = library.AutoTokenizer.from_pretrained(source, **options)
    common = {_dtype_argument(library): dtype, "use_safetensors": True, **stored, **options}
    local = options.get("local_files_only", False)
    with _readable(source, kind), quiet(library, local=local):
        if kind == "causal":
            model = library.AutoModelForCausalLM.from_pretrained(source, **common)
            tokenizer.padding_side = tokenizer.truncation_side = "left"  # prompts end in a question
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = library.AutoModelForSequenceClassification.from_pretrained(
                    source, num_labels=labels, **common
                )
    if tokenizer.pad_token is None:  # for callers that pad by it; encode does not
        tokenizer.pad_token = tokenizer.eos_token
    if kind == "classifier" and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id  # a decoder looks for its last token
    model = (model if stored else model.to(device)).eval()
    keep_layout(model)
    return model if adapter is None else load_adapter(model, adapter), tokenizer


def _dtype_argument(library: Any) -> str:
    """``dtype``, which transformers before 4.56 calls ``torch_dtype``."""
    version = tuple(int(part) for part in library.__version__.split(".")[:2])
    return "dtype" if version >= (4, 56) else "torch_dtype"


def _check_decoder(source: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{source}: is an encoder-decoder ({config.model_type}), whose decoder does not "
            'continue a prompt; take a causal language model, or load it with kind="classifier"'
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has too little memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@contextmanager
def _readable(source: str, kind: str | None = None) -> Iterator[None]:
    """Turn errors of loading a model into ones that say what may be wrong with its files.

    The libraries raise errors of any type for files with unexpected contents.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        if str(error).startswith("Unrecognized configuration class"):
            name = {"causal": "causal language model", "classifier": "sequence classifier"}
            other = "classifier" if kind == "causal" else "causal"
            raise ValueError(
                f"{source}: transformers has no {name[kind or 'causal']} of this model's "
                f'architecture; load it with kind="{other}", or take another model'
            ) from error
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), "")
        if isinstance(error, (SafetensorError, RuntimeError)) and kind:
            labels = ", or give as many labels as its head has" if kind == "classifier" else ""
            raise ValueError(
                f"{source}: as a {kind} model its weights cannot be loaded ({reason}); they are "
                f"damaged, or of another shape than its config.json says: fetch them again{labels}"
            ) from error
        raise ValueError(
            f"{source}: cannot be read as a model ({type(error).__name__}: {reason}); its "
            "config.json, tokenizer or index of weights is damaged: fetch them again"
        ) from error


def _source(
    name_or_folder: str | Path, revision: str | None, dtype: torch.dtype
) -> tuple[str, dict[str, Any]]:
    """The arguments of ``from_pretrained``: a folder, or a hub name pinned to a revision."""
    if name_or_folder == "smollm2":
        return str(plain_folder(find("smollm2"), dtype=dtype)), {"local_files_only": True}
    folder = TINY if name_or_folder == "tiny" else check_path("model", name_or_folder)
    gguf = _gguf(folder)
    if gguf is not None:
        return str(plain_folder(gguf, dtype=dtype)), {"local_files_only": True}
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder}: holds an adapter, without its base; load the base model with "
                f"adapter={str(folder)!r}"
            )
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

"""A GGUF file as a folder that ``from_pretrained`` reads: converted once, then kept.

GGUF is the one-file format of quantized models. transformers turns its tensors back into floating
point, which takes seconds to minutes and leaves a model that it will not save; a plain model of the
same configuration takes the weights and is saved with its tokenizer in the cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from zotutor.downloads import cache_folder

from .library import quiet, transformers

_UNREADABLE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)
"""What transformers raises for a file that it cannot read; it has no error of its own."""


def plain_folder(file: Path, *, dtype: torch.dtype) -> Path:
    """The folder with the model of a GGUF file in ``dtype``, and its tokenizer.

    Its name holds the file's SHA-256, so that another file is another folder. It is written under
    another name and renamed: it is there as a whole, or not at all.

    Args:
        file: a GGUF file.
        dtype: float32, bfloat16 or float16; weights are rounded once, from float32.

    Raises:
        ImportError: without the packages gguf and accelerate.
        ValueError: for a file that transformers cannot read.
    """
    name = f"{file.stem}-{_sha256(file)[:16]}-{str(dtype).removeprefix('torch.')}"
    folder = cache_folder() / "gguf" / name
    if folder.is_dir():
        return folder
    with _bar_in_terminals():
        model, tokenizer = _read(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(p.numel() * dtype.itemsize for p in model.parameters())
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise OSError(
            f"{folder.parent}: its disk has {free:,} bytes left, and {needed:,} are needed for the "
            "converted weights; free space, or set XDG_CACHE_HOME to a folder on another disk"
        )
    aside = folder.with_name(f".{name}.{uuid.uuid4().hex}.part")
    try:
        with quiet(transformers(), local=True):
            model.to(dtype).save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        try:
            aside.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


@contextmanager
def _bar_in_terminals() -> Iterator[None]:
    """Show the bar of a conversion as text in a terminal, and nowhere else.

    transformers draws tqdm's widget in a notebook, whatever its own switch says. On a page of the
    book a widget would load scripts from other servers.
    """
    transformers()  # or say how to install it
    from tqdm import tqdm

    module = import_module("transformers.modeling_gguf_pytorch_utils")
    shown = partial(tqdm, disable=not sys.stderr.isatty())
    with patch.object(module, "tqdm", shown, create=True):
        yield


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read(file: Path) -> tuple[Any, Any]:
    """A plain model in float32 with the weights of a GGUF file, and its tokenizer."""
    library = transformers()
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{file}: GGUF files are read with the packages gguf and accelerate, of which "
            f'{error.name} is not installed; run: pip install "zotutor[llm]"'
        ) from error
    options: dict[str, Any] = {
        "gguf_file": file.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    folder = os.fspath(file.parent)
    try:
        with quiet(library, local=True):
            tokenizer = library.AutoTokenizer.from_pretrained(folder, **options)
            read = library.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, **options
            )
    except _UNREADABLE as error:
        raise ValueError(
            f"{file}: cannot be read as a GGUF language model ({str(error).splitlines()[0]}); "
            "fetch it again, or give a save_pretrained folder of the model"
        ) from error
    config = read.config
    for left in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, left):
            delattr(config, left)
    with torch.device("meta"):
        plain = library.AutoModelForCausalLM.from_config(config)
    plain = plain.to_empty(device="cpu")
    plain.load_state_dict(read.state_dict())  # strict: every weight, and no other
    plain.tie_weights()
    return plain, tokenizer

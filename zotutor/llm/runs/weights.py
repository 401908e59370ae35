"""The weights of a model: their hash, and the folder that ``from_pretrained`` reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zotutor.checks import trainable
from zotutor.llm.adapters import is_adapted, save_adapter
from zotutor.llm.devices import held_parameters
from zotutor.llm.library import quiet, transformers
from zotutor.llm.quantized import is_quantized, state_of

from .disk import RunStoppedError, check_free_space, make_folder, remove_empty, sync_folder


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters, in ``named_parameters()`` order: shapes, dtypes and bits.

    Of a quantized model also what else its weights consist of, such as scales and integer buffers.
    The same on every device. Extra memory: one parameter.

    >>> import copy
    >>> model = nn.Linear(2, 1, bias=False)
    >>> weights_hash(model) == weights_hash(copy.deepcopy(model))
    True
    """
    found = sha256()
    quantized = [module for module in model.modules() if is_quantized(module)]
    apart = {id(tensor) for module in quantized for tensor in module._parameters.values()}
    plain = (tensor for tensor in held_parameters(model) if id(tensor) not in apart)
    for tensor in chain(plain, *map(state_of, quantized)):
        for part in _parts(tensor):
            found.update(f"{part.dtype} {tuple(part.shape)};".encode())
            raw = part.detach().contiguous().reshape(-1).view(torch.uint8)
            found.update(raw.cpu().numpy().data)
    return found.hexdigest()


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor, or the tensors that one of another library, with integers and scales, holds."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))


def dtypes(model: nn.Module) -> str:
    """The dtypes of a model's parameters, as text: "float32"."""
    return "+".join(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}))


def save_pretrained(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to a folder, under another name first: all or nothing.

    Of a model with an adapter, only that; without a tokenizer if it is None. Overwrites
    ``folder.part`` next to it and, if the folder exists, ``folder.old``.

    Raises:
        RunStoppedError: if they cannot be written; no partial folder is left.
    """
    from safetensors import SafetensorError

    aside, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    shutil.rmtree(aside, ignore_errors=True)
    made: list[Path] = []
    try:
        made = make_folder(folder.parent)
        saved = trainable(model) if is_adapted(model) else model.parameters()
        check_free_space(folder.parent, sum(tensor.nbytes for tensor in saved))
        _write(model, tokenizer, aside)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.replace(old)
            aside.replace(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.replace(folder)
        sync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, RunStoppedError):
            raise
        raise RunStoppedError(
            f"{folder}: the weights could not be written ({error}); free space or make the place "
            "writable, and run the same again: they come from the ledger"
        ) from error


def _write(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write both, and flush them to the disk."""
    with quiet(transformers(), local=True):
        if is_adapted(model):
            save_adapter(model, folder)
        else:
            model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())

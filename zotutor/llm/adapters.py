"""Adapters of peft: a few new parameters, trained alone on a frozen language model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from zotutor.checks import check_integer, check_path

from .devices import first_device
from .limits import width
from .rows import unwrapped

AdapterKind = Literal["lora", "prefix", "prompt"]


def add_adapter(
    model: nn.Module,
    kind: AdapterKind = "lora",
    *,
    rank: int = 8,
    targets: Sequence[str] | None = None,
    virtual_tokens: int = 8,
    seed: int,
) -> nn.Module:
    """A language model with a new adapter of peft; the model itself is frozen.

    - "lora": W + 2 B A for each matrix W (m, n) in ``targets``, with A (rank, n) random and
      B (m, rank) zero, so that the model computes what it did before.
    - "prompt": the embeddings of ``virtual_tokens`` tokens in front of every prompt, which begin
      as those of tokens of the vocabulary, drawn at random.
    - "prefix": keys and values of such tokens in every layer, which begin as those that the model
      itself computes for tokens drawn at random (as in MeZO; peft's own start, standard normal
      numbers, undoes what a pretrained model knows).

    :func:`~zotutor.llm.finetune` then tunes and records the adapter alone: with ``save`` it writes
    the format of peft's ``save_pretrained``, which :func:`load_adapter` reads.

    Args:
        model: a causal language model or, for "lora", also a classifier. It is changed in place,
            and belongs to what is returned.
        kind: "lora", "prefix" or "prompt".
        rank: r of "lora".
        targets: the names of the linear layers that get a "lora", such as ["q_proj", "v_proj"];
            by default those that peft knows for this architecture.
        virtual_tokens: how many, of "prefix" and "prompt".
        seed: of the initial numbers: the same model and seed give the same adapter.

    Returns:
        The model of peft, in eval mode.

    Raises:
        ImportError: without peft.
        ValueError: for another kind, numbers out of range, a model that has an adapter already, or
            an architecture for which peft knows no targets.

    References:
        Hu et al. (2022), LoRA; Lester et al. (2021), prompt tuning; Li and Liang (2021), prefix
        tuning; Malladi et al. (2023), who train the first and the last with forward passes only.

    Example:
        >>> from zotutor.llm import load
        >>> model = add_adapter(load("tiny")[0], "lora", rank=4, seed=0)
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
        6144
    """
    if kind not in get_args(AdapterKind):
        raise ValueError(
            f"kind: given {kind!r}, expected one of {', '.join(get_args(AdapterKind))}"
        )
    check_integer("rank", rank, low=1)
    check_integer("virtual_tokens", virtual_tokens, low=1)
    check_integer("seed", seed, low=0, high=1 << 64)
    if is_adapted(model):
        raise ValueError("model: has an adapter already; give the base model, loaded again")
    most = width(model)
    if kind != "lora" and most is not None and virtual_tokens >= most:
        raise ValueError(
            f"virtual_tokens: given {virtual_tokens}, and this model reads {most} tokens; give "
            "fewer, to leave room for prompts"
        )
    library = peft()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config, numbers = _configured(library, model, kind, rank, targets, virtual_tokens)
        with _quietly():
            try:
                adapted = library.get_peft_model(model, config)
            except ValueError as error:
                raise ValueError(
                    f"targets: peft does not accept {targets} for this model ({error}); give names "
                    "of its linear layers"
                ) from error
        if kind == "lora":
            _drawn_where_layers_compute(adapted)
    if numbers is not None:
        with torch.no_grad():
            adapted.prompt_encoder["default"].embedding.weight.copy_(numbers)
    return adapted.eval()


def _configured(
    library: Any,
    model: Any,
    kind: AdapterKind,
    rank: int,
    targets: Sequence[str] | None,
    virtual_tokens: int,
) -> tuple[Any, Tensor | None]:
    """The configuration of an adapter, and its initial numbers where they are not peft's."""
    causal = hasattr(model, "lm_head") or model.can_generate()
    if kind == "lora":
        kind_of_task = "CAUSAL_LM" if causal else "SEQ_CLS"
        names = None if targets is None else list(targets)
        sizes = {"r": rank, "lora_alpha": 2 * rank}
        return library.LoraConfig(task_type=kind_of_task, target_modules=names, **sizes), None
    if not causal:
        raise ValueError(
            f"kind: given {kind!r} for a classifier, whose prompts it cannot precede; take 'lora'"
        )
    task: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": virtual_tokens}
    embeddings = model.get_input_embeddings().weight
    ids = torch.randint(embeddings.shape[0], (virtual_tokens,)).to(embeddings.device)
    if kind == "prompt":
        return library.PromptTuningConfig(**task), embeddings[ids].detach().clone()
    return library.PrefixTuningConfig(**task), _keys_and_values(model, ids)


def _drawn_where_layers_compute(adapted: nn.Module) -> None:
    """Draw the numbers of "lora" again, in order; on an offloaded layer peft has drawn none.

    So they are the same wherever the layers of the base are.
    """
    for module in adapted.modules():
        reset: Any = getattr(module, "reset_lora_parameters", None)
        if reset is None:
            continue
        for part in module.modules():
            if any(p.is_meta and p.requires_grad for p in part.parameters(recurse=False)):
                part.to_empty(device=first_device(module), recurse=False)
        reset("default", True)


@torch.no_grad()
def _keys_and_values(model: Any, ids: Tensor) -> Tensor:
    """What a model keeps of a text, (tokens, layers * 2 * width), as prefix tuning stores it."""
    training = model.training
    cache = model.eval()(input_ids=ids[None], use_cache=True).past_key_values
    model.train(training)
    parts = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]
    return torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1)  # (heads, T, n) each


def load_adapter(model: nn.Module, folder: str | Path) -> nn.Module:
    """A base model with a saved adapter, which can be trained further.

    Args:
        model: the base model that the adapter was trained on; changed in place, as by
            :func:`add_adapter`.
        folder: in the format of peft's ``save_pretrained``: the ``weights`` of a run of
            :func:`~zotutor.llm.finetune`, or its ``initial``, the adapter before its first step.

    Raises:
        ImportError: without peft.
        FileNotFoundError: for a folder without an adapter.
        ValueError: for a model that has an adapter already, or weights that do not fit it.

    Example:
        >>> import tempfile
        >>> from zotutor.llm import load
        >>> model = add_adapter(load("tiny")[0], "prompt", virtual_tokens=2, seed=0)
        >>> folder = tempfile.mkdtemp()
        >>> save_adapter(model, folder)
        >>> type(load_adapter(load("tiny")[0], folder)).__name__
        'PeftModelForCausalLM'
    """
    path = check_path("adapter", folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{path}: has no {name}; give a folder that a peft model's save_pretrained wrote"
            )
    if is_adapted(model):
        raise ValueError("model: has an adapter already; give the base model, loaded again")
    library = peft()
    with _quietly(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*issing adapter keys")
        try:
            config = library.PeftConfig.from_pretrained(path)
            # peft loads virtual tokens as frozen only
            trainable = not config.is_prompt_learning
            loaded = library.PeftModel.from_pretrained(model, path, is_trainable=trainable)
        except (RuntimeError, UserWarning, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path}: its adapter does not fit this model ({reason}); give the base model that "
                "it was trained on"
            ) from error
    if not trainable:
        loaded.active_peft_config.inference_mode = False
        loaded.prompt_encoder.requires_grad_(True)
    return loaded.eval()


def save_adapter(model: Any, folder: str | Path) -> None:
    """Write the adapter of a model, without its base, in the format of peft's ``save_pretrained``.

    The embeddings of the base are never part of it; peft would ask the hub whether to add them.
    """
    unconfigured = {"save_embedding_layers": False} if hasattr(model, "get_base_model") else {}
    model.save_pretrained(folder, **unconfigured)


def is_adapted(model: nn.Module) -> bool:
    """Whether a model has an adapter, so that ``save_pretrained`` writes only that."""
    return hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False)


def describe(model: Any) -> str | None:
    """The adapters of a model in a few words, for a run's folder; None without one.

    >>> from zotutor.llm import load
    >>> describe(add_adapter(load("tiny")[0], "lora", rank=4, seed=0))
    'LORA, r=4, of q_proj, v_proj'
    """
    if not is_adapted(model):
        return None
    configurations = getattr(model, "peft_config", None) or unwrapped(model).peft_config
    return "; ".join(map(_in_words, configurations.values()))


def _in_words(config: Any) -> str:
    kind, rank = config.peft_type.value, getattr(config, "r", None)
    if rank is None:
        return f"{kind}, {getattr(config, 'num_virtual_tokens', '?')} virtual tokens"
    targets = config.target_modules
    names = targets if isinstance(targets, str) else ", ".join(sorted(targets or ()))
    return f"{kind}, r={rank}, of {names}"


def peft() -> Any:
    """The peft library, or an error that says how to install it."""
    try:
        import peft as library
    except ImportError as error:
        raise ImportError(
            "adapters need peft, which is not installed; run: pip install peft"
        ) from error
    return library


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings of what peft sets right itself, or that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        yield

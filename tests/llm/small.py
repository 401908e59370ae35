"""Language models of some thousand weights, tokenizers, and a task that they can learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zotutor.llm import Example, Task
from zotutor.llm.runs.weights import save_pretrained

WORDS = "a an the film is was dull bright great terrible it It so very . good bad".split()
VOCABULARY = {word: n for n, word in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
V = len(VOCABULARY)


def word_tokenizer(**special: str | None) -> Any:
    """A tokenizer of whole words, which pads with <pad> unless told otherwise."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    options = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"} | special
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **options)


def save_model(path: Path, layers: int = 2) -> Path:
    """Write one with random weights to a folder of the hub's format."""
    import transformers

    config = transformers.OPTConfig(
        vocab_size=V,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_pretrained(transformers.OPTForCausalLM(config), word_tokenizer(), path)
    return path


def toy_task() -> Task:
    good = Example("the film is bright . It was", 1)
    bad = Example("a very dull film . It was", 0)
    return Task("toy", ("terrible", "great"), (good, bad) * 4, (good, bad) * 3)


# ---- one model of each convention ---------------------------------------------------------------

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}
_ROTARY = _SIZES | {"num_key_value_heads": 2, "pad_token_id": 0}
_T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 34,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_GPT2: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 34}
_OPT: dict[str, Any] = {
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 34,
    "pad_token_id": 0,
    "bos_token_id": 2,
}
_BLOOM: dict[str, Any] = {"hidden_size": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0}
_MAMBA: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "state_size": 4,
    "pad_token_id": 0,
}
_MIXTRAL = _ROTARY | {"num_local_experts": 4, "num_experts_per_tok": 2}
_ROBERTA = _SIZES | {"pad_token_id": 0, "is_decoder": True}

CAUSAL: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    # what it counts positions by, or what else is special about it
    "learned": ("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "mask": ("OPTForCausalLM", "OPTConfig", _OPT),
    "rotary": ("LlamaForCausalLM", "LlamaConfig", _ROTARY),
    "alibi": ("BloomForCausalLM", "BloomConfig", _BLOOM),
    "padding index": ("RobertaForCausalLM", "RobertaConfig", _ROBERTA),
    "experts": ("MixtralForCausalLM", "MixtralConfig", _MIXTRAL),
    "recurrent": ("MambaForCausalLM", "MambaConfig", _MAMBA),
}
CLASSIFIERS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "absolute": ("BertForSequenceClassification", "BertConfig", _SIZES),
    "padding index": (
        "XLMRobertaForSequenceClassification",
        "XLMRobertaConfig",
        _SIZES | {"pad_token_id": 1},
    ),
    "no mask": ("FNetForSequenceClassification", "FNetConfig", _SIZES),
    "decoder": ("GPT2ForSequenceClassification", "GPT2Config", _GPT2 | {"pad_token_id": 0}),
    "rotary decoder": ("LlamaForSequenceClassification", "LlamaConfig", _ROTARY),
    "encoder-decoder": ("BartForSequenceClassification", "BartConfig", _BART),
    "relative": ("T5ForSequenceClassification", "T5Config", _T5),
}
GENERATING: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "T5": ("T5ForConditionalGeneration", "T5Config", _T5),
    "BART": ("BartForConditionalGeneration", "BartConfig", _BART),
}


def network(kind: tuple[str, str, Mapping[str, Any]], **options: Any) -> Any:
    """A model in eval mode, of weights so large that every position and every token matters."""
    import transformers

    model_type, config_type, sizes = kind
    common = {"vocab_size": V, "bos_token_id": 2, "eos_token_id": 2}
    config: Any = getattr(transformers, config_type)(**(common | dict(sizes) | options))
    make: Callable[..., nn.Module] = getattr(transformers, model_type)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = make(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return model.eval()

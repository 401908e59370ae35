"""A causal language model of some thousand weights in the hub's format, and a task it can learn."""

from __future__ import annotations

from pathlib import Path

import torch

from zotutor.llm import Example, Task
from zotutor.llm.runs.weights import save_pretrained

WORDS = "a an the film is was dull bright great terrible it It so very . good bad".split()


def save_model(path: Path, layers: int = 2) -> Path:
    """Write one with random weights to a folder of the hub's format."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: n for n, word in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    config = transformers.OPTConfig(
        vocab_size=len(vocabulary),
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
        save_pretrained(transformers.OPTForCausalLM(config), tokenizer, path)
    return path


def toy_task() -> Task:
    good = Example("the film is bright . It was", 1)
    bad = Example("a very dull film . It was", 0)
    return Task("toy", ("terrible", "great"), (good, bad) * 4, (good, bad) * 3)

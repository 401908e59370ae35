"""Four kinds of transformer, language models and classifiers, tiny and random; batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, LAYERS = 61, 16, 2, 2


def _opt(*, classifier: bool = False) -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM, OPTForSequenceClassification

    return (OPTForSequenceClassification if classifier else OPTForCausalLM)(
        OPTConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, ffn_dim=40,
            num_attention_heads=HEADS, max_position_embeddings=32, word_embed_proj_dim=WIDTH,
            pad_token_id=1, bos_token_id=2, eos_token_id=2,
        )
    )  # fmt: skip


def _gpt2(*, classifier: bool = False) -> nn.Module:
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    return (GPT2ForSequenceClassification if classifier else GPT2LMHeadModel)(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=32,
            bos_token_id=2, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


def _llama(*, classifier: bool = False) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    return (LlamaForSequenceClassification if classifier else LlamaForCausalLM)(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
            intermediate_size=40, num_attention_heads=HEADS, num_key_value_heads=1,
            max_position_embeddings=32, bos_token_id=2, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, intermediate_size=40, max_position_embeddings=32,
            pad_token_id=1,
        )
    )  # fmt: skip


KINDS: dict[str, Callable[[], nn.Module]] = {
    "opt": _opt,
    "gpt2": _gpt2,
    "llama": _llama,
    "bert": _bert,
    "opt classifier": partial(_opt, classifier=True),
    "gpt2 classifier": partial(_gpt2, classifier=True),
    "llama classifier": partial(_llama, classifier=True),
}


def made(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model in eval mode, every parameter normal with variance 1 / fan_in (norms around 1)."""
    state = torch.get_rng_state()
    model = KINDS[kind]().eval()
    torch.set_rng_state(state)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = WIDTH**-0.5 if p.dim() > 1 else 0.2
            p.copy_(torch.randn(p.shape, generator=source) * scale)
            if "norm" in name.lower() or "ln_" in name:
                p.add_(float(name.endswith("weight")))
    return model.to(dtype)


def tokens(rows: int = 3, length: int = 6, seed: int = 1) -> Tensor:
    """Token numbers (rows, length)."""
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=source)


def logits(model: nn.Module, ids: Tensor, copies: int = 1) -> Tensor:
    """Logits, (copies * rows, V), of the last position or of the classifier."""
    ids = ids.repeat(copies, 1)
    output: Any = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return output.logits[:, -1] if output.logits.dim() == 3 else output.logits


def losses(model: nn.Module, ids: Tensor, copies: int = 1) -> Tensor:
    """Cross-entropy against fixed labels, one for each copy, (copies,)."""
    z = logits(model, ids, copies).float()
    y = torch.arange(len(ids)).repeat(copies) % z.shape[-1]
    each = nn.functional.cross_entropy(z, y, reduction="none")
    return each.view(copies, -1).mean(1)

"""The models that several comparisons share; random weights unless the name says otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OPT = {
    "OPT tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "OPT-125M": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "OPT-1.3B": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32},
    "OPT-6.7B": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
    "OPT-13B": {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40},
    "OPT-30B": {"hidden_size": 7168, "num_hidden_layers": 48, "num_attention_heads": 56},
}
"""The configurations of Zhang et al. (2022)."""


def opt(name: str, device: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """An OPT configuration with random weights, in eval mode."""
    from transformers import OPTConfig, OPTForCausalLM

    shape: Any = OPT[name]
    config = OPTConfig(
        vocab_size=50272,
        ffn_dim=4 * shape["hidden_size"],
        word_embed_proj_dim=shape["hidden_size"],
        max_position_embeddings=2048,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                model = OPTForCausalLM(config)
        finally:
            torch.set_default_dtype(default)
    return model.eval()


def smollm2(device: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """SmolLM2-135M, pretrained; `zotutor fetch smollm2` brings it."""
    from zotutor.llm import load

    return load("smollm2", dtype=dtype, device=device)[0]


def missing_smollm2() -> str:
    """What to do for SmolLM2-135M to be here; "" if it is."""
    from zotutor.llm.packages import find

    try:
        find("smollm2")
    except FileNotFoundError as error:
        return str(error)
    return ""


def batch_of(rows: int, length: int, device: str, vocabulary: int) -> Tensor:
    """Random tokens (rows, length)."""
    source = torch.Generator().manual_seed(1)
    return torch.randint(5, vocabulary, (rows, length), generator=source).to(device)

"""What a model can read: which token ids, and how many at a time."""

from __future__ import annotations

from torch import nn

from .rows import configured, padded_positions


def check_ids(model: nn.Module, most: int) -> None:
    """Refuse token ids up to ``most`` that the model has no embeddings for.

    Raises:
        ValueError: naming both numbers.
    """
    try:
        count = configured(model).get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        return  # it does not say
    if most >= count:
        raise ValueError(
            f"tokenizer: its ids go up to {most}, and this model has embeddings for 0 to "
            f"{count - 1}; give the tokenizer that belongs to the model"
        )


def width(model: nn.Module) -> int | None:
    """The maximum number of tokens that a model reads; None if its configuration has no limit.

    Learned positions that begin after a padding index leave fewer than the configuration says:
    RoBERTa reads 512 of 514. An adapter's virtual tokens count as well.
    """
    config = getattr(configured(model), "config", None)
    names = ("max_position_embeddings", "max_seq_len")  # the second is MPT's
    most = next((getattr(config, name) for name in names if hasattr(config, name)), None)
    if not isinstance(most, int) or most < 1:
        return None
    for positions in padded_positions(model):
        most = min(most, positions.num_embeddings - int(positions.padding_idx or 0) - 1)
    adapters = [getattr(module, "active_peft_config", None) for module in model.modules()]
    return most - max(getattr(adapter, "num_virtual_tokens", None) or 0 for adapter in adapters)


def check_width(model: nn.Module, given: int) -> None:
    """Refuse prompts of more tokens than the model reads.

    Raises:
        ValueError: naming both lengths.
    """
    most = width(model)
    if most is not None and given > most:
        raise ValueError(
            f"length: a prompt has {given} tokens, and this model reads {most}; give length={most}"
        )

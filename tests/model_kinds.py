"""Every kind of model that J, J v, J^T g, the kernel and the planner must work on.

Small, from configurations, in evaluation mode. The reference is plain: one backward pass for each
logit of each input, in float64 where the model can be cast to it (:func:`naive_rows`).
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

VOCABULARY = 17


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class RawParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, 3))
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nd,dv->nv", x, self.w).tanh() * (1 + self.scale)


class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 4)
        self.out = nn.Linear(4, VOCABULARY, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).mean(1).tanh())[:, :3]


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attend(x, x, x, need_weights=False)[0][:, -1])


class Transformer(nn.Module):
    """Has a fused path of its own in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[:, -1])


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.body = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1).tanh()


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCABULARY, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.bag(tokens).tanh())


class Square(nn.Module):
    """A parametrization: the weight is the square of what is trained, and a part of it."""

    def forward(self, w: Tensor) -> Tensor:
        return w.square() + 0.5 * w


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
        self.head = nn.Linear(4, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=self.reentrant))


class OldFunction(torch.autograd.Function):
    """Without setup_context, so that torch.func cannot go through it, nor forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * x.cos()


class OnceDifferentiable(torch.autograd.Function):
    """Its backward leaves no graph: a second derivative is refused."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * x.cos()


class WithFunction(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function.apply(self.first(x)))


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model[0].register_full_backward_hook(lambda module, grad_in, grad_out: None)
    model[2].register_forward_hook(lambda module, args, output: output * 1.5)
    return model


class MixedDtypes(nn.Module):
    """A body in one precision, a head in a finer one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x.to(self.body.weight.dtype)).tanh()
        return self.head(h.to(self.head.weight.dtype))


class StopsGradient(nn.Module):
    """A factor that counts as a constant: computed under no_grad, or detached."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        with torch.no_grad():
            scale = self.first.weight.square().sum().sqrt() + h.abs().mean(1, keepdim=True)
        return self.second(h * scale) * self.second.bias.exp().detach()


class ReturnsLogits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.body(x), loss=None)


class LastToken(nn.Module):
    """A causal language model of transformers, its logits at the last position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens).logits[:, -1, :5]


HEADS = {"GPT2": "GPT2LMHeadModel", "Bert": "BertLMHeadModel"}


def language_model(kind: str, **options: Any) -> nn.Module:
    """A small causal language model of transformers from a configuration, in eval mode."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, HEADS.get(kind, f"{kind}ForCausalLM"))(config)
    return LastToken(model)


def _batch_norm() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    )
    norm: Any = model[1]
    norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1]))
    norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.5]))
    return model


def _vectors(N: int, seed: int) -> Tensor:
    return normal(N, 4, seed=seed)


def _images(N: int, seed: int) -> Tensor:
    return normal(N, 1, 4, 4, seed=seed)


def _sequences(N: int, seed: int) -> Tensor:
    return normal(N, 3, 4, seed=seed)


def _tokens(N: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (N, 4), generator=source)


GPT2: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 2}
SMALL: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 1}
LLAMA: dict[str, Any] = SMALL | {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
}


def _opt() -> nn.Module:
    return language_model(
        "OPT",
        **SMALL,
        hidden_size=8,
        ffn_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=8,
        max_position_embeddings=16,
    )


@dataclass(frozen=True)
class Kind:
    """A kind of model, and inputs for it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Tensor]
    exact: bool = True
    """Whether it runs in float64, as the reference does."""

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """In evaluation mode, with parameters that are normal with variance 1 / fan_in."""
        model = self.build().eval()
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                fan_in = max(1, p.numel() // len(p)) if p.dim() > 1 else 4
                p.copy_(torch.randn(p.shape, generator=source, dtype=torch.float64) / fan_in**0.5)
        return model.to(dtype)

    def reference(self) -> nn.Module:
        """The same numbers in float64."""
        model = self.model()
        if not self.exact:
            model.model.config._experts_implementation = "eager"  # type: ignore[union-attr]
        return model

    def x(self, N: int, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
        x = self.inputs(N, seed)
        return x.to(dtype) if x.is_floating_point() else x


KINDS: dict[str, Kind] = {
    "linear": Kind(lambda: nn.Linear(4, 3), _vectors),
    "conv": Kind(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), _images),
    "batch norm in eval": Kind(_batch_norm, _images),
    "multi-head attention": Kind(MultiHead, _sequences),
    "transformer layer": Kind(Transformer, _sequences),
    "lstm": Kind(lambda: Recurrent(nn.LSTM), _sequences),
    "gru": Kind(lambda: Recurrent(nn.GRU), _sequences),
    "raw parameters": Kind(RawParameters, _vectors),
    "tied weights": Kind(TiedWeights, _tokens),
    "opt": Kind(_opt, _tokens),
    "gpt-2": Kind(
        lambda: language_model(
            "GPT2", vocab_size=VOCABULARY, n_positions=16, n_embd=8, n_layer=2, n_head=2, **GPT2
        ),
        _tokens,
    ),
    "llama": Kind(lambda: language_model("Llama", **LLAMA), _tokens),
    "bert": Kind(
        lambda: language_model(
            "Bert",
            **SMALL,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            is_decoder=True,
        ),
        _tokens,
    ),
    "bloom": Kind(
        lambda: language_model("Bloom", **SMALL, hidden_size=8, n_layer=2, n_head=2), _tokens
    ),
    "mixture of experts": Kind(
        lambda: language_model("Mixtral", **LLAMA, num_local_experts=4, num_experts_per_tok=2),
        _tokens,
        exact=False,  # its grouped matrix product takes float32, bfloat16 and float16
    ),
    "embedding bag": Kind(Bag, _tokens),
    "sparse embedding": Kind(
        lambda: nn.Sequential(nn.Embedding(VOCABULARY, 3, sparse=True), Mean(), nn.Linear(3, 3)),
        _tokens,
    ),
    "weight norm": Kind(
        lambda: nn.Sequential(
            parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)
        ),
        _vectors,
    ),
    "parametrized": Kind(
        lambda: nn.Sequential(
            parametrize.register_parametrization(nn.Linear(4, 5), "weight", Square()),
            nn.Linear(5, 3),
        ),
        _vectors,
    ),
    "checkpointed": Kind(Checkpointed, _vectors),
    "custom function": Kind(lambda: WithFunction(OldFunction), _vectors),
    "once differentiable": Kind(lambda: WithFunction(OnceDifferentiable), _vectors),
    "hooks": Kind(_hooked, _vectors),
    "mixed dtypes": Kind(MixedDtypes, _vectors),
    "stopped gradient": Kind(StopsGradient, _vectors),
    "returns .logits": Kind(ReturnsLogits, _vectors),
}


def logits(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x)
    return output if isinstance(output, Tensor) else output.logits


def naive_rows(model: nn.Module, x: Tensor) -> Tensor:
    """J (N, V, d): one backward pass for each logit of each input, given to the model alone."""
    params = [p for p in model.parameters() if p.requires_grad]
    J = []
    for n in range(len(x)):
        rows = []
        with torch.enable_grad():
            V = logits(model, x[n : n + 1]).shape[1]
        for i in range(V):
            with torch.enable_grad():
                z = logits(model, x[n : n + 1])[0, i]
            grads = torch.autograd.grad(z, params, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g.to_dense()).reshape(-1).double()
                        for p, g in zip(params, grads, strict=True)
                    ]
                )
            )
        J.append(torch.stack(rows))
    return torch.stack(J)


def in_precision(model: nn.Module, name: str, dtype: torch.dtype) -> nn.Module:
    """A copy in ``dtype``; of "mixed dtypes" the head stays one step finer."""
    model = copy.deepcopy(model).to(dtype)
    if name == "mixed dtypes":
        finer = {torch.bfloat16: torch.float32, torch.float32: torch.float64}
        with contextlib.suppress(KeyError):
            model.head.to(finer[dtype])
    return model

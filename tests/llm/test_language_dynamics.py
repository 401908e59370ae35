"""Rows for every position, the theorem on sequences, and the fidelity of a step, against naive."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zotutor as zo
from zotutor.dynamics import cross_entropy_gradient, log_softmax_jacobian
from zotutor.llm.dynamics import Positions, StepFidelity, step_fidelity

transformers = pytest.importorskip("transformers", reason="the extra `llm` is not installed")
NONE, V = -1, 11
TOKENS = torch.tensor([[3, 4, 5, 6], [NONE, 7, 4, 9]])


def network(kind: str) -> nn.Module:
    """A causal model of two layers in float64."""
    common: dict[str, Any] = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 2}
    configs = {
        "opt": transformers.OPTConfig(
            hidden_size=8,
            word_embed_proj_dim=8,
            ffn_dim=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            eos_token_id=2,
            **common,
        ),
        "gpt2": transformers.GPT2Config(
            n_embd=8, n_layer=2, n_head=2, n_positions=16, eos_token_id=2, **common
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = transformers.AutoModelForCausalLM.from_config(configs[kind])
    return model.double().eval()


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_a_place_says_what_its_prefix_says(kind: str) -> None:
    model = network(kind)
    sequences = Positions(model, TOKENS)
    places, targets = sequences.places()
    logits = sequences(places)
    assert logits.shape == (5, V)
    assert targets.tolist() == [4, 5, 6, 4, 9]
    alone = zo.llm.Rows(model)
    for row, (text, position) in zip(logits, places.tolist(), strict=True):
        prefix = TOKENS[text, : position + 1]
        prefix = prefix[prefix != NONE]
        torch.testing.assert_close(row, alone(prefix[None])[0])


def test_places_in_any_order_and_more_than_once() -> None:
    sequences = Positions(network("opt"), TOKENS)
    places, _ = sequences.places()
    order = torch.tensor([4, 0, 0, 2])
    torch.testing.assert_close(sequences(places[order]), sequences(places)[order])
    mine, follows = sequences.places(1)
    assert mine.tolist() == [[1, 1], [1, 2]]
    assert follows.tolist() == [4, 9]


def test_padding_on_the_right_is_no_place() -> None:
    right = Positions(network("opt"), torch.tensor([[3, 4, NONE], [3, 4, 5]]))
    places, targets = right.places()
    assert places.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert targets.tolist() == [4, 4, 5]
    torch.testing.assert_close(right(places[:1]), right(places[1:2]))


def test_bad_tokens_and_texts() -> None:
    model = network("opt")
    for tokens in (torch.tensor([3, 4]), torch.tensor([[NONE, 3], [3, 4]])):
        with pytest.raises(ValueError, match="at least two tokens"):
            Positions(model, tokens)
    with pytest.raises(ValueError, match="texts: given 2"):
        Positions(model, TOKENS).places(2)


def test_the_gradient_of_a_text_is_that_of_the_usual_loss() -> None:
    model = network("opt")
    sequences = Positions(model, TOKENS[:1])
    places, targets = sequences.places()
    G = cross_entropy_gradient(sequences(places).detach(), targets)
    usual: Tensor = model(input_ids=TOKENS[:1], labels=TOKENS[:1]).loss
    parts = torch.autograd.grad(usual, list(model.parameters()))
    whole = torch.cat([part.reshape(-1) for part in parts])
    torch.testing.assert_close(zo.vjp(sequences, places, G / len(places)), whole)


@pytest.mark.parametrize("P", [None, 3])
def test_the_theorem_on_sequences(P: int | None) -> None:
    """Part 1 with all blocks formed; part 2, a text's change, from its own G, and from h and g."""
    sequences = Positions(network("opt"), TOKENS)
    (x_o, y_o), (x_u, y_u) = sequences.places(1), sequences.places(0)
    step = zo.step_change(sequences, x_o, x_u, y_u, lr=0.1, P=P, seed=4)
    J_o, J_u = zo.jacobian(sequences, x_o), zo.jacobian(sequences, x_u)
    d = J_o.shape[-1]
    U = torch.eye(d, dtype=torch.float64)
    if P is not None:
        U = zo.Rademacher().dense(sequences, P=P, seed=4, step=0).double() / math.sqrt(P)
    K = torch.einsum("mid,dp,ljp,w->mlij", J_o, U, J_u @ U, torch.ones(1, dtype=torch.float64))
    A = log_softmax_jacobian(sequences(x_o).detach())
    G_o = cross_entropy_gradient(sequences(x_o).detach(), y_o)
    G_u = cross_entropy_gradient(sequences(x_u).detach(), y_u)
    blocks = -0.1 / len(x_u) * torch.einsum("mij,mljk,lk->mi", A, K, G_u)
    torch.testing.assert_close(step.predicted, blocks)
    text = step.predicted.gather(1, y_o[:, None]).sum()
    torch.testing.assert_close(text, 0.1 / len(x_u) * torch.einsum("mi,mlij,lj->", G_o, K, G_u))
    h = -torch.einsum("mid,mi->d", J_o, G_o)
    g = torch.einsum("lid,li->d", J_u, G_u) / len(x_u)
    torch.testing.assert_close(text, -0.1 * (h @ U) @ (U.T @ g))


class Naive(nn.Module):
    """Three inputs, two layers, in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def batch(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian(), zo.LowRank(rank=1)])
def test_step_fidelity_is_the_dense_law_and_its_draws(family: zo.directions.Directions) -> None:
    model, x_o, x_u, y_u = Naive(), batch(2, 0), batch(3, 1), torch.tensor([0, 2, 1])
    found = step_fidelity(model, x_o, x_u, y_u, P=4, directions=family, draws=3, seed=5)
    A = log_softmax_jacobian(model(x_o).detach())
    B = (A @ zo.jacobian(model, x_o)).flatten(0, 1)
    g = zo.vjp(model, x_u, cross_entropy_gradient(model(x_u).detach(), y_u) / 3)
    exact = B @ g
    identity = torch.eye(len(B), dtype=torch.float64)
    shapes = [p.shape for p in model.parameters()]
    law = zo.dynamics_error_law(identity, B, g, P=4, directions=family, lr=1.0, shapes=shapes)
    assert found.d == g.numel() == 31
    assert found.law == pytest.approx(math.sqrt(law) / float(exact.norm()))
    expected = exact.square().sum() / B.square().sum() / g.square().sum()
    assert found.alignment == pytest.approx(float(expected))
    for step in range(3):
        u = family.dense(model, P=4, seed=5, step=step).double()
        seen = u @ (u.T @ g) / 4
        off = (B @ seen - exact).norm() / exact.norm()
        assert float(found.errors[step]) == pytest.approx(float(off), rel=1e-5)
        gradient = (seen - g).norm() / g.norm()
        assert float(found.gradient_errors[step]) == pytest.approx(float(gradient), rel=1e-5)


@pytest.mark.statistical
def test_step_fidelity_draws_have_the_size_of_the_law() -> None:
    """400 draws: the mean square within four standard errors."""
    found = step_fidelity(
        Naive(), batch(2, 0), batch(1, 1), torch.tensor([0]), P=2, draws=400, seed=0
    )
    squares = found.errors.double().square()
    bar = float(squares.std()) / 20
    assert abs(float(squares.mean()) - found.law**2) < 4 * bar
    assert bar < 0.15 * found.law**2


def test_root_mean_square() -> None:
    found = StepFidelity(1, 1.0, 1.0, torch.tensor([3.0, 3.0]), torch.ones(2))
    assert found.root_mean_square() == (3.0, 0.0)


def test_step_fidelity_refuses_what_means_nothing() -> None:
    x, y = batch(1, 0), torch.tensor([0])
    with pytest.raises(ValueError, match="draws: given 1"):
        step_fidelity(Naive(), x, x, y, P=1, draws=1, seed=0)
    with pytest.raises(ValueError, match="changes nothing"):
        step_fidelity(Bowl(), x, x, y, P=1, seed=0)


class Bowl(nn.Module):
    """Moves both logits alike, so that no log-probability changes."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.level.expand(len(x), 2)

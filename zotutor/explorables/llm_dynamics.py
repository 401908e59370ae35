"""Explorables of *Learning dynamics of a language model*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zotutor.checks import check_integer, check_real
from zotutor.directions import Rademacher
from zotutor.dynamics import cross_entropy_gradient
from zotutor.jacobians import jvp, vjp

from .arguments import check_seed
from .page import Explorable, Table, rounded

if TYPE_CHECKING:
    from zotutor.llm import Positions


def moved_tokens(
    rows: Positions, pieces: Sequence[Sequence[str]], *, lr: float, P: int, seed: int
) -> Explorable:
    """Which tokens of which text a step on one of the texts moves, for 1 to P directions.

    The page holds, for each direction, how far it moves the log-probability of every token, and the
    slope of each text's loss along it. Their products, averaged over the first directions, are the
    changes that the zeroth-order step predicts: P forward passes for all steps together.

    Args:
        rows: a language model and the tokens of a few texts, :class:`~zotutor.llm.Positions`.
        pieces: the tokens of each text as strings, the first included.
        lr: the learning rate of the step.
        P: how many directions, random signs of step 0, one forward-mode pass each.
        seed: of the directions, 0 <= seed < 2^53.

    Raises:
        TypeError, ValueError: for pieces that do not match the tokens, or numbers out of range.

    Example:
        >>> from zotutor.llm import Positions, encode, load
        >>> model, tokenizer = load("tiny")
        >>> tokens = encode(tokenizer, ["The plot was dull."])
        >>> pieces = [[tokenizer.decode(token) for token in text] for text in tokens]
        >>> moved_tokens(Positions(model, tokens), pieces, lr=1e-4, P=2, seed=0)
        <explorable llm_dynamics.moved_tokens>
    """
    lr = check_real("lr", lr, low=0.0, open_low=True)
    check_integer("P", P, low=1)
    check_seed(seed)
    places, targets = rows.places()  # (M, 2) and (M,)
    counts = torch.bincount(places[:, 0], minlength=len(rows.tokens)).tolist()
    given = [len(text) - 1 for text in pieces]
    if given != counts:
        raise ValueError(
            f"pieces: given texts of {[n + 1 for n in given]} tokens, expected "
            f"{[n + 1 for n in counts]}; decode each token of rows.tokens that is not -1"
        )
    with torch.no_grad():
        pi = rows(places).softmax(1)  # (M, V)

    def moved(direction: Tensor) -> Tensor:
        """The derivative of every token's log-probability along a direction, (M,)."""
        z = jvp(rows, places, direction)  # (M, V)
        return z.gather(1, targets[:, None])[:, 0] - (pi * z).sum(1)

    gradients = []
    for text in range(len(counts)):
        x, y = rows.places(text)
        with torch.no_grad():
            G = cross_entropy_gradient(rows(x), y)
        gradients.append(vjp(rows, x, G / len(x)))  # (d,)
    first = [moved(g) for g in gradients]
    responses, slopes = [], []
    for p in range(P):
        u = Rademacher().dense(rows, P=1, seed=seed, step=0, first=p)[:, 0]
        responses.append(moved(u))
        slopes.append(torch.stack([g @ u for g in gradients]))
    sizes = [(lr * change.square().mean().sqrt()).item() for change in first]
    return Explorable(
        "llm_dynamics",
        "moved_tokens",
        "Which tokens a step moves",
        {
            "texts": [{"pieces": list(text)} for text in pieces],
            "lr": lr,
            "first": rounded(torch.stack(first)),  # (texts, M)
            "slopes": rounded(torch.stack(slopes, dim=1)),  # (texts, P)
            "responses": rounded(torch.stack(responses)),  # (P, M)
        },
        Table(
            f"Root mean square change of all tokens after a first-order step, η = {lr}",
            ["step on", "change of log π"],
            [["".join(text), f"{size:.2g}"] for text, size in zip(pieces, sizes, strict=True)],
        ),
    )

"""Learning dynamics of a language model: logits at every position, and steps without a Jacobian.

A loss over whole sequences is a sum over places, each a sequence and a position in it. By causality
the logits at a place depend only on the tokens up to it, so that every place is an input of its
own, and statements about inputs hold for places (thm-sequence-step).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zotutor.calling import as_logits, resolve_model
from zotutor.checks import check_batch, check_integer, check_labels
from zotutor.deprecation import moved, seed_was_optional
from zotutor.directions import Directions, check_draw
from zotutor.dynamics import change_of_log_probs_at, loss_gradient_at, random_projection
from zotutor.planning import exact_dynamics

from .rows import Layout, Rows


class Positions(Rows):
    """A causal language model that returns the next-token logits at each place, (M, V).

    A place is a sequence and a position in it. Places (M, 2) are this model's inputs: the kernel,
    the planner and :func:`~zotutor.one_step` treat each as an input. One forward pass over the
    sequences involved serves all their places (teacher forcing).

    Args:
        model: a causal language model of transformers, in eval mode.
        tokens: token ids (N, T), -1 for none, as :func:`~zotutor.llm.encode` returns.
        pad: deprecated; masks this token id as padding as well.

    Raises:
        ValueError: if ``tokens`` is not (N, T), or one of its rows has less than two tokens.

    Example:
        >>> from zotutor.llm import encode, load
        >>> model, tokenizer = load("tiny")
        >>> tokens = encode(tokenizer, ["The plot was dull.", "The film was very dull."])
        >>> rows = Positions(model, tokens)
        >>> places, targets = rows.places(0)
        >>> tokenizer.decode(targets)
        'the plot was dull.'
        >>> rows(places).shape
        torch.Size([5, 387])
    """

    tokens: Tensor

    def __init__(self, model: nn.Module, tokens: Tensor, *, pad: int | None = None) -> None:
        super().__init__(model, layout=Layout("right"), pad=pad)
        if tokens.dim() != 2 or bool((self.real(tokens).sum(1) < 2).any()):
            raise ValueError(
                f"tokens: given shape {tuple(tokens.shape)}, expected (N, T) with at least two "
                "tokens in each row, one to read and one to predict"
            )
        self.register_buffer("tokens", tokens, persistent=False)

    def places(self, *texts: int) -> tuple[Tensor, Tensor]:
        """Every place of given sequences that has a next token, and that token.

        Args:
            texts: numbers of sequences in ``tokens``; all of them if none is given.

        Returns:
            Places (M, 2), in reading order, and their next tokens (M,).
        """
        for text in texts:
            check_integer("texts", text, low=0, high=len(self.tokens))
        wanted = torch.tensor(texts or range(len(self.tokens)), device=self.tokens.device)
        read = self.real(self.tokens[wanted])
        row, position = (read[:, :-1] & read[:, 1:]).nonzero(as_tuple=True)
        places = torch.stack([wanted[row], position], dim=1)
        return places, self.tokens[places[:, 0], places[:, 1] + 1]

    def forward(self, places: Tensor) -> Tensor:
        """Places (M, 2) to logits (M, V) of the token that follows each."""
        texts, row = places[:, 0].unique(return_inverse=True)
        tokens = self.tokens[texts]
        # tokens do not attend to later ones, so padding on the right changes no place's logits
        logits = as_logits(self.model(**self.inputs(*self.aligned(tokens, "right"))))
        position = self.real(tokens).long().cumsum(1)[row, places[:, 1]] - 1
        position = position + logits.shape[1] - tokens.shape[1]  # after an adapter's virtual tokens
        found: Tensor = logits[row, position]  # (texts, T, V) -> (M, V)
        return found


class StepFidelity(NamedTuple):
    """How well P random directions reproduce a first-order step; see :func:`step_fidelity`."""

    d: int
    alignment: float
    law: float
    errors: Tensor
    gradient_errors: Tensor
    """Errors of the gradient estimate U U^T g itself, for the same draws."""

    def root_mean_square(self) -> tuple[float, float]:
        """The root mean square of the errors, with its standard error."""
        squares = self.errors.double().square()
        size = math.sqrt(squares.mean())
        return size, float(squares.std() / math.sqrt(len(squares)) / (2 * size))


@seed_was_optional
def step_fidelity(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    draws: int = 8,
    seed: int,
) -> StepFidelity:
    r"""The relative error of a ZO step's predicted change of log pi(. | x_o): exact law, and draws.

    With B = A J_o, all rows of all x_o stacked, and g the gradient of the mean cross-entropy,

    .. math:: \sqrt{\operatorname E \lvert B U U^\top g - B g \rvert^2} \,/\, \lvert B g \rvert,

    whose square at P = 1 is 1/a' + 1 plus a term in the kurtosis, with the alignment a' = |B g|^2 /
    (norm(B)_F^2 |g|^2). The law takes one backward pass for each of the N_o V rows of B, which are
    not stored; a draw takes P passes over g and one forward-mode pass. For a large V use
    :func:`~zotutor.estimate_dynamics_error`, whose cost does not grow with V.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x_o: observed inputs (N_o, ...).
        x_u: updated-on inputs (N_u, ...).
        y_u: their labels (N_u,).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        draws: how often U is drawn, at least 2.
        seed: of the draws, 0 <= seed < 2^64; draw k uses the directions of step k.

    Returns:
        Named tuple of d, the alignment a', the law's relative error, the relative errors drawn
        (draws,), and those of the gradient's estimate (draws,).

    Raises:
        TypeError, ValueError: for bad batches, labels, P, directions, draws or seed; ValueError if
            the step changes nothing here, when a relative error means nothing.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> found = step_fidelity(nn.Linear(2, 3), x, x, torch.tensor([0]), P=4, seed=0)
        >>> found.d, found.errors.shape
        (9, torch.Size([8]))
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_integer("draws", draws, low=2)
    family = check_draw(directions, P=P, seed=seed, step=0)
    check_labels("y_u", y_u, count=x_u.shape[0])
    params = resolve_model(model)
    g = loss_gradient_at(params, x_u, y_u, "x_u", "y_u").g
    exact = change_of_log_probs_at(params, x_o, g)  # B g
    size = float(exact.norm())
    if size == 0.0:
        raise ValueError(
            "x_o, x_u: a step on x_u changes nothing at x_o, so that a relative error means "
            "nothing; choose inputs that share parameters"
        )
    pieces = [terms for _, terms in exact_dynamics(params, x_o, g, family)]
    norms, aligned, excess = (sum(column) for column in zip(*pieces, strict=True))
    errors, gradient_errors = [], []
    for step in range(draws):
        estimate = random_projection(g, params, P=P, directions=family, seed=seed, step=step)
        errors.append(float((change_of_log_probs_at(params, x_o, estimate) - exact).norm()) / size)
        gradient_errors.append(float((estimate - g).norm() / g.norm()))
    law = math.sqrt((norms + aligned + excess) / aligned / P)
    drawn = torch.tensor(errors), torch.tensor(gradient_errors)
    return StepFidelity(g.numel(), aligned / norms, law, *drawn)


__getattr__ = moved(
    __name__, dict.fromkeys(("minilm_table", "minilm_as_markdown"), "zotutor.tables")
)

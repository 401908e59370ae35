"""Learning dynamics of a language model: a row for every position, and steps seen without a J.

A loss over whole sequences is a loss over places, each a sequence and a position in it. By
causality the logits at a place depend on the tokens up to it only, so that every place is an input
of its own, and all that is said of inputs holds for places.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zotutor.checks import check_batch, check_integer, check_labels, trainable
from zotutor.concentration import pair_terms
from zotutor.directions import Directions, check_draw
from zotutor.dynamics import change_of_log_probs, cross_entropy_gradient, random_projection
from zotutor.jacobians import as_logits, logits_of, named_trainable, vjp

from .rows import Layout, Rows


class Positions(Rows):
    """A causal language model that returns one row of next-token logits for each place.

    A place is a sequence and a position in it; places (M, 2) are the input, so that the kernel, the
    planner and :func:`~zotutor.one_step` take a place for what they call an input. One forward pass
    over the sequences asked for serves all their places (teacher forcing).

    Args:
        model: a causal language model of transformers, in eval mode.
        tokens: token ids (N, T), -1 for none, as :func:`~zotutor.llm.encode` returns.
        pad: deprecated; masks places that hold this id as well.

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
        """Every place of some sequences that has a next token, and that token.

        Args:
            texts: rows of ``tokens``; all of them if none is given.

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
        # on the right, where no token before it sees it, padding changes no place's logits
        logits = as_logits(self.model(**self.inputs(*self.aligned(tokens, "right"))))
        position = self.real(tokens).long().cumsum(1)[row, places[:, 1]] - 1
        position = position + logits.shape[1] - tokens.shape[1]  # after an adapter's virtual tokens
        found: Tensor = logits[row, position]  # (texts, T, V) -> (M, V)
        return found


class StepFidelity(NamedTuple):
    """How much of one step survives P random directions; see :func:`step_fidelity`."""

    d: int
    alignment: float
    law: float
    errors: Tensor
    gradient_errors: Tensor
    """Of the estimate U U^T g of the gradient itself, with the same draws."""

    def root_mean_square(self) -> tuple[float, float]:
        """Of the errors, with its standard error."""
        squares = self.errors.double().square()
        size = math.sqrt(squares.mean())
        return size, float(squares.std() / math.sqrt(len(squares)) / (2 * size))


def step_fidelity(
    model: nn.Module,
    x_o: Tensor,
    x_u: Tensor,
    y_u: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    draws: int = 8,
    seed: int = 0,
) -> StepFidelity:
    """The relative error of a ZO step's predicted change of log pi(. | x_o): exact law, and draws.

    With B = A J_o, all rows of all x_o stacked, and g the gradient of the mean cross-entropy:

        ``sqrt(E |B U U^T g - B g|^2) / |B g|``,

    whose square at P = 1 is 1/a' + 1 and a term of the kurtosis, with the alignment
    ``a' = |B g|^2 / (|B|_F^2 |g|^2)``. The law takes one backward pass for each of the N_o V rows
    of B, of which none is kept; a draw takes P passes over g and one forward-mode pass. For a large
    V use :func:`~zotutor.estimate_dynamics_error`, which needs no pass for each row.

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
        >>> found = step_fidelity(nn.Linear(2, 3), x, x, torch.tensor([0]), P=4)
        >>> found.d, found.errors.shape
        (9, torch.Size([8]))
    """
    check_batch("x_o", x_o)
    check_batch("x_u", x_u)
    check_integer("draws", draws, low=2)
    family = check_draw(directions, P=P, seed=seed, step=0)
    params, shapes = named_trainable(model), [tensor.shape for tensor in trainable(model)]
    with torch.no_grad():
        pi, z_u = (logits_of(model, params, x) for x in (x_o, x_u))
    pi = pi.softmax(-1)
    y_u = check_labels("y_u", y_u, count=x_u.shape[0], classes=z_u.shape[1])
    g = vjp(model, x_u, cross_entropy_gradient(z_u, y_u) / x_u.shape[0])
    exact = change_of_log_probs(model, x_o, g)  # B g
    size = float(exact.norm())
    if size == 0.0:
        raise ValueError(
            "x_o, x_u: a step on x_u changes nothing at x_o, so that a relative error means "
            "nothing; choose inputs that share parameters"
        )
    norms = aligned = excess = 0.0
    for n, pi_n in enumerate(pi):
        for e_i in torch.eye(len(pi_n), dtype=pi.dtype, device=pi.device):
            b = vjp(model, x_o[n : n + 1], (e_i - pi_n)[None])  # a row of A J_o
            terms = pair_terms(b[None], g[None], directions=family, shapes=shapes)
            norms += terms.norms
            aligned += terms.aligned
            excess += terms.excess
    errors, gradient_errors = [], []
    for step in range(draws):
        seen = random_projection(g, model, P=P, directions=family, seed=seed, step=step)
        errors.append(float((change_of_log_probs(model, x_o, seen) - exact).norm()) / size)
        gradient_errors.append(float((seen - g).norm() / g.norm()))
    law = math.sqrt((norms + aligned + excess) / aligned / P)
    drawn = torch.tensor(errors), torch.tensor(gradient_errors)
    return StepFidelity(g.numel(), aligned / norms, law, *drawn)


def minilm_table() -> dict[str, Any]:
    """The numbers that ``tools/measure_minilm.py`` measured, with their date and data.

    Returns:
        The file ``zotutor/data/minilm_kernel.json``, as it is.
    """
    text = files("zotutor").joinpath("data", "minilm_kernel.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def minilm_as_markdown(table: dict[str, Any]) -> str:
    """:func:`minilm_table` as a table in Markdown: a column for each model and state.

    Args:
        table: as :func:`minilm_table` returns.

    Returns:
        A header, and rows for the alignment of three kinds of pairs; the relative error of the
        kernel of two different inputs, measured and by the law; what the predictions of FO and ZO
        steps of two sizes leave over; alignment and error of a step on a batch; telling apart.

    Example:
        >>> print(minilm_as_markdown(minilm_table()).splitlines()[0].count("|"))
        6
    """
    columns = [
        (f"{name}, {state}", model["d"], numbers)
        for name, model in table["models"].items()
        for state, numbers in model["states"].items()
    ]
    lines = ["| | " + " | ".join(name for name, _, _ in columns) + " |"]
    lines.append("|:--|" + "--:|" * len(columns))

    def row(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    row("$d$", [f"{d:,}" for _, d, _ in columns])
    for kind, title in (
        ("itself", "an input with itself"),
        ("same label", "two inputs of one label"),
        ("other label", "two of different labels"),
    ):
        cells = [f"{n['kernel']['alignment'][kind]:.3f}" for _, _, n in columns]
        row(f"alignment, {title}", cells)
    for i, first in enumerate(columns[0][2]["kernel"]["errors"]):
        found = [n["kernel"]["errors"][i] for _, _, n in columns]
        cells = [
            f"{e['relative_error']:.2f} ± {e['std_error']:.2f} ({e['law']:.2f})" for e in found
        ]
        row(f"error of $K_U$, $P = {first['P']}$ (law)", cells)
    for i, first in enumerate(columns[0][2]["one_step"]["steps"]):
        order = "FO" if first["P"] is None else f"ZO, $P = {first['P']}$"
        found = [n["one_step"]["steps"][i] for _, _, n in columns]
        title = f"residual, {order}, FO change {first['change']:g}"
        row(title, [f"{100 * s['relative_residual']:.1f} %" for s in found])
    steps = [n["one_step"]["fidelity"] for _, _, n in columns]
    row("alignment of a step on a batch", [f"{s['alignment']:.3f}" for s in steps])
    cells = [f"{s['relative_error']:.2f} ± {s['std_error']:.2f} ({s['law']:.2f})" for s in steps]
    row(f"error of the step, $P = {steps[0]['P']}$ (law)", cells)
    apart = [n["telling_apart"] for _, _, n in columns]
    row("telling apart, cosine", [f"{a['cosine']:.3f}" for a in apart])
    row("telling apart, $P$ for 50 %", [f"{a['P_for_half']:,}" for a in apart])
    return "\n".join(lines)

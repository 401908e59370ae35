"""For every checker, three mistakes that students make, each recognized with a hint of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import test_exercises_dimension_free as dimension_free
import test_exercises_gradients_from_values as gradients
import test_exercises_kernel_emerges as emerges
import test_exercises_llm_dynamics as llm_dynamics
import torch
from test_exercises import CHECKERS, RIGHT, checker

import zotutor as zo
from zotutor.bounds import jl_rate
from zotutor.exercises import NotYet

Mistake = tuple[Any, str]


def scaled(name: str, factor: Callable[..., Any] | float) -> Callable[..., Any]:
    """The right answer times a number, or times a function of the arguments."""

    def student(*args: Any, **kwargs: Any) -> Any:
        by = factor(*args, **kwargs) if callable(factor) else factor
        return RIGHT[name](*args, **kwargs) * by

    return student


def other(word: str, words: tuple[str, str]) -> str:
    return words[word == words[0]]


DIRECTIONS, ROUNDINGS = ("independent", "orthogonal"), ("nearest", "random")

MISTAKES: dict[str, list[Mistake]] = {
    "alignment_from_error": [
        (lambda r, P: 1 / (P * r**2), "the 1 is missing"),
        (lambda r, P: 1 / (P * r**2 + 1), "changes sides"),
        (lambda r, P: P * r**2 - 1, "This is 1/a"),
    ],
    "alignment_from_responses": [
        (lambda v, w: (v @ w.T).square().sum() / (v.square().sum() * w.square().sum()), "noise"),
        (scaled("alignment_from_responses", 16), "too seldom"),
        (scaled("alignment_from_responses", 1 / 16), "too often"),
    ],
    "best_eps": [
        (lambda delta, third: (3 * delta / third) ** 0.5, "cube root"),
        (lambda delta, third: (6 * delta / third) ** (1 / 3), "terms are equal"),
        (lambda delta, third: (delta / third) ** (1 / 3), "factor is lost"),
        (lambda delta, third: 2 * (delta / third) ** 0.5, "forward difference"),
    ],
    "best_factor": [
        (lambda d, kurtosis: 1 - 1 / d, "kurtosis is to come in"),
        (lambda d, kurtosis: 1 / (d + kurtosis - 1), "what is left"),
        (lambda d, kurtosis: 1 - 1 / (d + kurtosis), "is .d . kappa - 1"),
        (lambda d, kurtosis: (1 - 1 / (d + kurtosis - 1)) ** 2, "quadratic in theta already"),
    ],
    "best_perturbations": [
        (lambda d, machines: RIGHT["best_perturbations"](d, 1), "for one machine"),
        (lambda d, machines: 64, "step is the longest"),
        (lambda d, machines: 1, "wastes the second"),
    ],
    "budget": [
        ("P", "more accurate, and there are fewer"),
        ("T", "more steps, and each of them is less"),
        ("neither", 'answer with "P", "T" or "same"'),
    ],
    "change_from_passes": [
        (scaled("change_from_passes", -1), "against the gradient"),
        (scaled("change_from_passes", 4), "therefore 1/P"),
        (lambda c, r, lr: -lr * c.mean() * r.mean(0), "each direction first"),
    ],
    "constant": [
        (lambda a: math.sqrt(1 / a), "is missing"),
        (lambda a: 1 / a + 1, "take the root"),
        (lambda a: math.sqrt(1 / a) + 1, "under the root"),
        (lambda a: math.sqrt(a + 1), "the alignment divides"),
    ],
    "copies": [
        (scaled("copies", 2), "divided by sqrt.m."),
        (scaled("copies", 0.5), "You divide by m"),
        (lambda J, m: J.repeat(1, m) / math.sqrt(m), "another order"),
        (dimension_free.padded, "zeros"),
    ],
    "entry_variance": [
        (scaled("entry_variance", 4), "divide by P"),
        (lambda J, M, kurtosis, P: RIGHT["entry_variance"](J, M, kurtosis, P) ** 0.5, "deviation"),
        (lambda J, M, kurtosis, P: emerges.variance(J, M, 3, P), "Gaussian directions only"),
        (
            lambda J, M, kurtosis, P: emerges.variance(J, M, kurtosis, P) + (J @ M.T) ** 2 / P,
            "second moment",
        ),
    ],
    "expected_bias": [
        (lambda kurtosis, eps: eps**2, "signs only"),
        (scaled("expected_bias", 6), "1/6 of the Taylor series"),
        (scaled("expected_bias", 1 / 6), "cancels"),
        (lambda kurtosis, eps: kurtosis * eps, "no term of first order"),
    ],
    "expected_square": [
        (lambda g, P, kurtosis: RIGHT["expected_square"](g, P, kurtosis) - g**2, "the variance"),
        (lambda g, P, kurtosis: RIGHT["expected_square"](g, 1, kurtosis) / P, "over P"),
        (scaled("expected_square", lambda g, P, kurtosis: P), "divide by P"),
        (lambda g, P, kurtosis: RIGHT["expected_square"](g, P, 3.0), "for Gaussian"),
        (lambda g, P, kurtosis: RIGHT["expected_square"](g, P, 1.0), "for random signs"),
    ],
    "four_point": [
        (gradients.two_point, "combine it with the one at 2 eps"),
        (lambda f, theta, u, eps: gradients.two_point(f, theta, u, 2 * eps), "at eps"),
        (scaled("four_point", 3), "divide by 3"),
        (scaled("four_point", lambda f, theta, u, eps: u), "without u"),
    ],
    "growing_family": [
        (lambda size: zo.models.mlp(size, 1, seed=0), "does not fall"),
        (dimension_free.FrozenTable, "hardly grows"),
        (dimension_free.Shelf, "share nothing"),
    ],
    "law_from_kernels": [
        (lambda A, B, K, P: A.trace() * B.trace() / P, "second term of the law"),
        (scaled("law_from_kernels", 5), "Divide by P"),
        (lambda A, B, K, P: (A.norm() * B.norm() + K.square().sum()) / P, "not its norm"),
        (lambda A, B, K, P: RIGHT["law_from_kernels"](A, B, K, P) / K.square().sum(), "relative"),
    ],
    "log_softmax_jacobian": [
        (lambda logits: zo.dynamics.log_softmax_jacobian(logits).mT, "the transpose"),
        (lambda logits: logits.softmax(-1)[:, :, None] * RIGHT["log_softmax_jacobian"](logits),
         "derivative of the softmax"),
        (scaled("log_softmax_jacobian", -1), "sign is turned"),
        (lambda logits: RIGHT["log_softmax_jacobian"](logits) - torch.eye(3), "identity"),
    ],
    "loss_left": [
        (lambda d, P, passes: RIGHT["loss_left"](d, P, 2 * passes), "costs two passes"),
        (lambda d, P, passes: RIGHT["loss_left"](d, P, P * passes), "not 2"),
        (lambda d, P, passes: RIGHT["loss_left"](d, P, 2 * P), "one step"),
        (lambda d, P, passes: 0.99 ** (passes / 2) if P == 1 else (1 - 1 / d) ** (passes / 2 / P),
         "best factor for P = 1"),
    ],
    "lowrank_variance": [
        (lambda M, N, r: RIGHT["lowrank_variance"](M, N, r) + (M * N).sum() ** 2, "second moment"),
        (lambda M, N, r: M.square().sum() * N.square().sum() + (M * N).sum() ** 2, "missing"),
        (lambda M, N, r: RIGHT["lowrank_variance"](M, N, 1), "divided by r"),
        (lambda M, N, r: RIGHT["lowrank_variance"](M, N, r, squares=True), "multiplies"),
    ],
    "momentum_step": [
        (lambda f, p, b, **k: RIGHT["momentum_step"](f, p, b.clone(), **k), "in place"),
        (lambda f, p, b, **k: RIGHT["momentum_step"](f, p, b, damp=0.2, **k), "averages"),
        (lambda f, p, b, **k: RIGHT["momentum_step"](f, p, b, **(k | {"step": 0})), "same dir"),
        (lambda f, p, b, **k: RIGHT["momentum_step"](f, p, b, **(k | {"lr": -0.05})), "uphill"),
    ],
    "norm_variance": [
        (lambda a, P: 2 * a.square().sum() ** 2 / P, "Gaussian's variance"),
        (lambda a, P: (2 * a.square().sum() ** 2 - (a**4).sum()) / P, "the factor kappa - 3"),
        (lambda a, P: RIGHT["norm_variance"](a, P) ** 0.5, "standard deviation"),
        (lambda a, P: RIGHT["norm_variance"](a, 1), "for one direction"),
    ],
    "perturbations_for_distances": [
        (
            lambda n, eps, delta: math.ceil(4 * math.log(n) / (eps**2 / 2 - eps**3 / 3)),
            "scikit-learn",
        ),
        (lambda n, eps, delta: math.ceil(math.log(n * n / delta) / jl_rate(eps)), "n.2 events"),
        (
            lambda n, eps, delta: math.ceil(math.log(n * (n - 1) / 2 / delta) / jl_rate(eps)),
            "two tails, a longer",
        ),
        (lambda n, eps, delta: RIGHT["perturbations_for_distances"](n, eps, delta) - 1, "down"),
    ],
    "perturbations_for_share": [
        (lambda h, s: RIGHT["perturbations_for_share"](h, s) - 1, "One more is needed"),
        (lambda h, s: RIGHT["perturbations_for_share"](h, s) + 1, "One fewer will do"),
        (lambda h, s: math.ceil(s / (1 - s) * (1 + len(h))), "counts all eigenvalues alike"),
    ],
    "perturbations_per_step": [
        (lambda n, d, probe, update: RIGHT["perturbations_per_step"](1, d, probe, update), "same"),
        (lambda n, d, probe, update: RIGHT["perturbations_per_step"](n, d, probe, 0.0), "update"),
        (
            lambda n, d, probe, update: min(
                range(1, 1000), key=lambda P: (2 * -(-P // n) * probe + update) / P
            ),
            "with the 1",
        ),
    ],
    "perturbations_to_tell_apart": [
        (lambda H, t, g, r: llm_dynamics.needed(H.mean(0), g, r), "with its label"),
        (lambda H, t, g, r: llm_dynamics.needed(t @ H, g, r, more=0.0), "is missing"),
        (
            lambda H, t, g, r: math.ceil((1 / llm_dynamics.cosine(H, t, g) + 1) / r**2),
            "cosine squared",
        ),
    ],
    "predicted_change": [
        (scaled("predicted_change", -1), "sign is turned"),
        (scaled("predicted_change", 4), "You sum"),
        (scaled("predicted_change", 1 / 0.3), "learning rate is missing"),
        (lambda A, K, G, lr: RIGHT["predicted_change"](A, K.mT, G, lr), "transposed"),
    ],
    "prediction_without_kernel": [
        (scaled("prediction_without_kernel", -1), "sign is turned"),
        (scaled("prediction_without_kernel", 3), "mean over x_u"),
        (scaled("prediction_without_kernel", 5), "learning rate is missing"),
    ],
    "quantum": [
        (scaled("quantum", lambda loss, eps: 2 * eps), "spacing of the loss"),
        (lambda loss, eps: 2.0**-7 / (2 * eps), "depends on the loss"),
        (scaled("quantum", 2), "divide by 2 eps"),
        (scaled("quantum", 0.5), "count the leading one"),
    ],
    "rank_needed": [
        (lambda factor: math.ceil(3 / factor), "not 3/r"),
        (lambda factor: math.floor(3 / (factor - 1)), "rounded down"),
        (lambda factor: math.ceil(1 / (factor - 1)), "the 3 is lost"),
        (lambda factor: math.ceil(2 / (factor - 1)), "not 2/r"),
    ],
    "seconds_needed": [
        (scaled("seconds_needed", lambda squared, s, r: r), "error squared"),
        (scaled("seconds_needed", lambda squared, s, r: squared), "square it again"),
        (scaled("seconds_needed", lambda squared, s, r: 1 / s), "each takes some seconds"),
        (lambda squared, s, r: math.ceil(squared / r**2) * s, "do not round"),
    ],
    "softmax_regression_kernel": [
        (lambda x, y, V: (x @ y.T)[:, :, None, None] * torch.eye(V), "bias is missing"),
        (lambda x, y, V: (x @ y.T + 1)[:, :, None, None].expand(-1, -1, V, V), "share no"),
        (lambda x, y, V: x @ y.T + 1, "in front of the identity"),
    ],
    "steps": [
        (lambda C, deviation: math.ceil(C / deviation), "root of T"),
        (lambda C, deviation: math.floor((C / deviation) ** 2), "rounded down"),
        (lambda C, deviation: math.ceil(C**2 / deviation), "squared as well"),
    ],
    "steps_until_checkpoint": [
        (lambda d, P: 2 * d / 48, "grows with P"),
        (scaled("steps_until_checkpoint", 2), "float32"),
        (scaled("steps_until_checkpoint", 0.5), "takes 2 bytes"),
        (lambda d, P: 2 * d / (8 * P), "40 bytes more"),
    ],
    "tail_probability": [
        (scaled("tail_probability", 0.5), "one tail"),
        (lambda P, eps: 2 * math.exp(-P * eps**2 / 4), "no bound"),
        (lambda P, eps: 2 * math.exp(-2 * P * jl_rate(eps)), "lacks its 1/2"),
        (lambda P, eps: 2 * math.exp(-jl_rate(eps)), "P is missing"),
    ],
    "text_change": [
        (scaled("text_change", -1), "minus the log-probability"),
        (scaled("text_change", lambda g, h, tokens, lr: 1 / tokens), "sum them up"),
        (scaled("text_change", lambda g, h, tokens, lr: 1 / lr), "learning rate"),
    ],
    "trace_from_losses": [
        (scaled("trace_from_losses", 0.5), "Half of it"),
        (scaled("trace_from_losses", 64), "divide by P"),
        (scaled("trace_from_losses", -1), "sign is turned"),
        (lambda *args, **kwargs: 0.0, "This is 0"),
    ],
    "which_directions": [
        (lambda r, d, tokens: "orthogonal", "to make them so"),
        (lambda r, d, tokens: "independent", "small error"),
        (lambda *args: other(RIGHT["which_directions"](*args), DIRECTIONS), "other way round"),
    ],
    "which_rounding": [
        (lambda update, spacing, steps: "nearest", "the same error is made"),
        (lambda update, spacing, steps: "random", "its variance"),
        (lambda *args: other(RIGHT["which_rounding"](*args), ROUNDINGS), "other way round"),
    ],
    "zo_entk_from_values": [
        (scaled("zo_entk_from_values", 3), "divide by P"),
        (scaled("zo_entk_from_values", 4), "divide each difference by 2 eps"),
        (lambda *args: RIGHT["zo_entk_from_values"](*args, [0] * 3), "same direction"),
    ],
    "zo_prediction": [
        (scaled("zo_prediction", -1), "sign is turned"),
        (scaled("zo_prediction", 3**0.5), "each time with"),
        (lambda *args: emerges.prediction(*args[:-1]), "first-order prediction"),
        (scaled("zo_prediction", 3), "unscaled|mean over x_u"),
    ],
}  # fmt: skip


def test_every_checker_has_three_mistakes() -> None:
    """A new checker needs an entry: what do students get wrong?"""
    assert sorted(MISTAKES) == [name.removeprefix("check_") for name in CHECKERS]
    few = {name: len(mistakes) for name, mistakes in MISTAKES.items() if len(mistakes) < 3}
    assert few == {}


def hint(name: str, student: Any) -> str:
    with pytest.raises(NotYet) as caught:
        checker(name)(student)
    return str(caught.value)


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("mode", ["reading", "grading"])
def test_each_mistake_gets_a_hint_of_its_own(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint that fits, and no other: a mistake that is recognized says nothing of ratios."""
    monkeypatch.setenv("ZOTUTOR_GRADING", str(int(mode == "grading")))
    found = [(expected, hint(name, student)) for student, expected in MISTAKES[name]]
    for expected, message in found:
        assert re.search(expected, message), message
        assert "the ratio is" not in message
        assert "the shape is right, the numbers are not" not in message
    assert len({message.partition(": ")[2] for _, message in found}) == len(found)

"""What the hidden tests of the problem set call: one function for each test, with its data.

The autograder holds this file, the student's notebook does not. As the checkers of the chapters do,
each compares with a closed form or with its own computation, and names a common mistake where one
explains the answer; right answers in float32 pass. Importing it turns on the grading mode of
zotutor's checkers, so that no message shows an expected value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("ZOTUTOR_GRADING", "1")

import zotutor as zo
from zotutor.bounds import jl_rate
from zotutor.exercises.answers import (
    NotYet,
    ask,
    compare_number,
    compare_tensor,
    normal,
    number,
)

Student = Callable[..., Any]


class Loss:
    """A smooth loss of a vector that counts its calls."""

    def __init__(self, d: int, seed: int) -> None:
        """Draw its weights."""
        self.weights = normal(d, seed=seed)
        self.calls = 0

    def __call__(self, theta: Tensor) -> Tensor:
        """The loss at theta: a slope, a curvature and a third derivative."""
        self.calls += 1
        along = theta @ self.weights.to(theta.dtype)
        return along.sin() + theta.square().sum() + theta[0] ** 3


def estimate(student: Student, *, P: int, d: int = 6, eps: float = 0.1) -> None:
    """Question 1: the two-point estimate along P directions."""
    loss = Loss(d, seed=P)
    theta, u = normal(d, seed=P + 1), normal(d, P, seed=P + 2)
    values = [
        (float(loss(theta + eps * v)), float(loss(theta - eps * v)), float(loss(theta)))
        for v in u.T
    ]
    slopes = torch.tensor([(above - below) / (2 * eps) for above, below, _ in values]).double()
    forward = torch.tensor([(above - here) / eps for above, _, here in values]).double()
    expected = u @ slopes / P
    slips = [
        (-expected, "the sign is turned: L(theta + eps u) comes first"),
        (2 * expected, "the two probes are 2 eps apart: divide by 2 eps"),
        (u @ forward / P, "this is the forward difference; measure on both sides"),
    ]
    if P > 1:
        slips += [
            (u @ slopes, "this is the sum over the directions; the estimate is their mean"),
            (u @ slopes / math.sqrt(P), "U occurs twice, each time with 1 / sqrt(P)"),
            (u[:, 0] * slopes[0], "only the first direction was used"),
        ]
    given = theta.clone()
    loss.calls = 0
    call = f"estimate(loss, theta, u, eps) with P = {P}"
    answer = ask(student, call, loss, given, u.clone(), eps)
    compare_tensor(call, answer, expected, slips, rtol=1e-4)


def estimate_cost(student: Student) -> None:
    """Question 1: two loss values for each direction, and theta as it was."""
    loss, P = Loss(5, seed=0), 3
    theta, u = normal(5, seed=1), normal(5, P, seed=2)
    given = theta.clone()
    call = "estimate(loss, theta, u, eps)"
    compare_shape(call, ask(student, call, loss, given, u.clone(), 0.1), (5,))
    if not torch.equal(given, theta):
        raise NotYet(f"{call}: theta was written; evaluate at new tensors, theta + eps * u[:, p]")
    if loss.calls != 2 * P:
        raise NotYet(f"{call}: called the loss {loss.calls} times for P = {P}; use two a direction")


def compare_shape(call: str, answer: Any, shape: tuple[int, ...]) -> None:
    """Raise NotYet unless an answer is a tensor of a shape."""
    if not isinstance(answer, Tensor) or tuple(answer.shape) != shape:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise NotYet(f"{call}: returned {found}, expected a tensor of shape {shape}")


def bias(student: Student, *, kurtosis: float) -> None:
    """Question 2: the bias of the expected estimate for the sum of fourth powers."""
    for seed, eps in ((0, 0.1), (1, 0.03)):
        theta = normal(5, seed=seed)
        expected = 4 * kurtosis * eps**2 * theta
        slips = [
            (6 * expected, "the 1/6 of the Taylor series is missing"),
            (expected / 6, "the third derivative of theta^4 is 24 theta"),
            (expected / 4, "the third derivative of theta^4 is 24 theta; 24 / 6 = 4 remains"),
            (expected / eps, "a two-point difference has no term of first order in eps"),
            (4 * theta**3 + expected, "this is E[g_hat]; subtract the gradient"),
        ]
        if kurtosis != 1.0:
            slips.append((expected / kurtosis, "E[u_i^4] is kappa, which is 1 for signs only"))
        call = f"bias(theta, {kurtosis:g}, {eps:g})"
        compare_tensor(call, ask(student, call, theta.clone(), kurtosis, eps), expected, slips)


def perturbations(student: Student, *, error: float) -> None:
    """Question 3: how many perturbations give a gradient to a relative error."""
    for d, kurtosis in ((50, 1.0), (1000, 3.0), (200, 30.0)):
        exact = (d + kurtosis - 2) / error**2
        slips = [
            (math.ceil(exact * error), "the law is for the square of the error"),
            (math.ceil(d / error**2), "kappa is missing: E|g_hat|^2 has d + kappa - 2"),
            (
                math.ceil((d + kurtosis - 1) / error**2),
                "this is the second moment at P = 1; the error has one |g|^2 less",
            ),
            (exact, "P is a whole number: round up"),
            (math.floor(exact), "rounded down, P does not reach the error: round up"),
        ]
        call = f"perturbations({d}, {kurtosis:g}, {error:g})"
        expected = math.ceil(exact)
        slips = [(wrong, hint) for wrong, hint in slips if wrong != expected]
        compare_number(call, ask(student, call, d, kurtosis, error), expected, slips, whole=True)


def projected_kernel(student: Student, *, P: int, n: int = 4, V: int = 3) -> None:
    """Question 4: K_U of softmax regression, by hand."""
    x_o, x_u = normal(n, seed=P), normal(n, seed=P + 1)
    u_W, u_b = normal(P, V, n, seed=P + 2), normal(P, V, seed=P + 3)
    moved_o, moved_u = u_W @ x_o + u_b, u_W @ x_u + u_b  # (P, V)
    every = moved_o.T @ moved_u
    bare = (u_W @ x_o).T @ (u_W @ x_u) / P
    slips = [
        (every.T / P, "the block is transposed: its rows belong to x_o"),
        (bare, "the bias is missing: it moves z_i by u_b[p, i], whatever x is"),
        (
            (x_o @ x_u + 1) * torch.eye(V, dtype=torch.float64),
            "this is K, which K_U is on average; here it is the K_U of the directions given",
        ),
    ]
    if P > 1:
        slips += [
            (every, "U = [u_1 .. u_P] / sqrt(P) occurs twice in K_U: divide by P"),
            (every / math.sqrt(P), "U occurs twice, each time with 1 / sqrt(P): divide by P"),
            (
                torch.outer(moved_o.mean(0), moved_u.mean(0)),
                "multiply for each direction first, then take the mean",
            ),
        ]
    call = f"projected_kernel(x_o, x_u, u_W, u_b) with P = {P}"
    answer = ask(student, call, x_o.clone(), x_u.clone(), u_W.clone(), u_b.clone())
    compare_tensor(call, answer, every / P, slips)


def entry_variance(student: Student, *, kurtosis: float) -> None:
    """Question 5: the variance of each entry of that K_U."""
    for seed, (n, V, P) in enumerate(((4, 3, 1), (6, 4, 5))):
        x_o, x_u = normal(n, seed=seed), normal(n, seed=seed + 10)
        norms = (x_o @ x_o + 1) * (x_u @ x_u + 1)
        inner = x_o @ x_u + 1
        fourth = (x_o**2) @ (x_u**2) + 1
        eye = torch.eye(V, dtype=torch.float64)
        expected = (norms + (inner**2 + (kurtosis - 3) * fourth) * eye) / P
        bare = (x_o @ x_o) * (x_u @ x_u)
        bare_diagonal = (x_o @ x_u) ** 2 + (kurtosis - 3) * (fourth - 1)
        slips = [
            (
                ((norms + inner**2 + (kurtosis - 3) * fourth) * eye) / P,
                "off the diagonal K is 0, its noise is not: |a|^2 |b|^2 / P remains",
            ),
            (
                (norms + inner**2 + (kurtosis - 3) * fourth).expand(V, V) / P,
                "rows i and j share no parameter where i differs from j: two terms are 0 there",
            ),
            (
                (bare + bare_diagonal * eye) / P,
                "the bias counts as an input that is 1: |a|^2 = |x_o|^2 + 1",
            ),
            (expected + inner**2 * eye / P, "this is the second moment; subtract K^2"),
            (expected.sqrt(), "this is the standard deviation"),
        ]
        if P > 1:
            slips.append((expected * P, "divide by P"))
        if kurtosis != 3.0:
            slips.append(
                (
                    (norms + inner**2 * eye) / P,
                    "true for Gaussian directions only: the term with kappa - 3 is missing",
                )
            )
        call = f"entry_variance(x_o, x_u, {kurtosis:g}, {P}, {V})"
        answer = ask(student, call, x_o.clone(), x_u.clone(), kurtosis, P, V)
        compare_tensor(call, answer, expected, slips)


def exact(J_o: Tensor, J_u: Tensor, kurtosis: float, P: int) -> float:
    """E norm(K_U - K)_F^2, by the exact law."""
    K = J_o @ J_u.T
    columns = (J_o.square().sum(0) * J_u.square().sum(0)).sum()
    squares = J_o.square().sum() * J_u.square().sum() + K.square().sum()
    return float((squares + (kurtosis - 3) * columns) / P)


def law(student: Student, *, kurtosis: float) -> None:
    """Question 6: the exact law."""
    for seed, P in ((0, 1), (1, 8)):
        J_o, J_u = normal(3, 10, seed=seed), normal(3, 10, seed=seed + 5)
        expected = exact(J_o, J_u, kurtosis, P)
        size = float((J_o @ J_u.T).square().sum())
        norms = float(J_o.square().sum() * J_u.square().sum())
        slips = [
            (expected - size / P, "the term norm(K)_F^2 is missing"),
            (expected + size / P, "this is the second moment; subtract the mean's square"),
            (expected / size, "this is relative to norm(K)_F^2; the absolute error is wanted"),
            (math.sqrt(expected), "the law is for the square; take no root"),
            ((norms + size**0.5) / P, "the second term is the squared norm of K"),
        ]
        if P > 1:
            slips.append((expected * P, "divide by P"))
        if kurtosis != 3.0:
            slips.append(((norms + size) / P, "the term with kappa - 3 is missing"))
        call = f"law(J_o, J_u, {kurtosis:g}, {P})"
        answer = ask(student, call, J_o.clone(), J_u.clone(), kurtosis, P)
        compare_number(call, answer, expected, slips)


def monte_carlo(student: Student, *, part: str) -> None:
    """Question 6: a mean over draws ("mean") and its standard error ("error").

    With 4,000 draws the mean is within 5 of its standard errors of the law but once in a million
    draws, and the standard error within 15 % of its own value.
    """
    J_o, J_u, P, draws = normal(3, 10, seed=2), normal(3, 10, seed=7), 4, 4000
    generator = torch.Generator().manual_seed(2026)
    call = f"monte_carlo(J_o, J_u, {P}, {draws}, generator)"
    answer = ask(student, call, J_o.clone(), J_u.clone(), P, draws, generator)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise NotYet(f"{call}: returned {type(answer).__name__}, expected (mean, standard_error)")
    mean, error = (number(call, part) for part in answer)
    expected = exact(J_o, J_u, 3.0, P)
    spread = _spread(J_o, J_u, P, draws)
    if part == "mean":
        off = 5 * spread / math.sqrt(draws)
        hints = {
            P: "U is [u_1 .. u_P] / sqrt(P); is a division by P missing?",
            1 / P: "divided by P once too often",
            expected**-0.5: "take the mean of the squared norm, not of the norm",
        }
        for factor, hint in hints.items():
            if math.isclose(mean, factor * expected, rel_tol=0.1):
                raise NotYet(f"{call}: {hint}")
        if abs(mean - expected) > off:
            raise NotYet(f"{call}: the mean is not that of norm(K_U - K)_F^2")
    else:
        right = spread / math.sqrt(draws)
        if math.isclose(error, spread, rel_tol=0.15):
            raise NotYet(f"{call}: this is the spread of one draw; divide by sqrt(draws)")
        if math.isclose(error, spread**2 / draws, rel_tol=0.3):
            raise NotYet(f"{call}: this is the variance of the mean; take its root")
        if not math.isclose(error, right, rel_tol=0.15):
            raise NotYet(f"{call}: the standard error is std(draws) / sqrt(number of draws)")


def _spread(J_o: Tensor, J_u: Tensor, P: int, draws: int) -> float:
    """The spread of norm(K_U - K)_F^2 over draws of Gaussian directions."""
    u = normal(draws, J_o.shape[1], P, seed=99)
    errors = ((J_o @ u) @ (J_u @ u).mT / P - J_o @ J_u.T).square().sum((1, 2))
    return float(errors.std())


def law_perturbations(student: Student) -> None:
    """Question 7: the number of perturbations from the alignment."""
    for a, r in ((0.034, 0.5), (0.3, 0.17), (1.0, 0.3)):
        exactly = (1 / a + 1) / r**2
        slips = [
            (math.ceil(1 / a / r**2), "the law has 1/a + 1; the 1 is missing"),
            (math.ceil((1 / a + 1) / r), "the law is for the square of the relative error"),
            (exactly, "P is a whole number: round up"),
            (math.floor(exactly), "rounded down, P does not reach the error: round up"),
        ]
        call = f"law_perturbations({a:g}, {r:g})"
        compare_number(call, ask(student, call, a, r), math.ceil(exactly), slips, whole=True)


def _guaranteed(V: int, a: float, r: float, delta: float) -> float:
    gamma = r * math.sqrt(a)
    return (2 * math.log(2 * V) - math.log(delta)) / jl_rate(gamma)


def guaranteed(student: Student) -> None:
    """Question 7: the number of perturbations that the bound guarantees."""
    for V, a, r, delta in ((10, 0.3, 0.9, 0.01), (50, 0.5, 0.6, 0.1)):
        exactly = _guaranteed(V, a, r, delta)
        log, gamma = 2 * math.log(2 * V) - math.log(delta), r * math.sqrt(a)
        slips = [
            (
                math.ceil((2 * math.log(V) - math.log(delta)) / jl_rate(gamma)),
                "n = 2 V: the rows of J_o and those of J_u",
            ),
            (math.ceil(log / jl_rate(r)), "gamma is relative to the norms: gamma = r sqrt(a)"),
            (math.ceil(log / jl_rate(r * a)), "gamma = r sqrt(a), since a is a ratio of squares"),
            (
                math.ceil(4 * log / gamma**2),
                "gamma^2 / 4 is slightly larger than psi, so this P guarantees a little less",
            ),
            (math.ceil(log / (2 * jl_rate(gamma))), "psi = [gamma - ln(1 + gamma)] / 2"),
            (exactly, "P is a whole number: round up"),
        ]
        call = f"guaranteed({V}, {a:g}, {r:g}, {delta:g})"
        answer = ask(student, call, V, a, r, delta)
        compare_number(call, answer, math.ceil(exactly), slips, whole=True)


def times(answer: Any) -> None:
    """Question 7: bound over law, for two pictures of the digits."""
    split = zo.datasets.digits()
    model = zo.models.mlp(64, 2, seed=0).double()
    J = zo.jacobian(model, split.x_test[:2].double())
    a = float(zo.alignment(J[0], J[1]))
    expected = math.ceil(_guaranteed(10, a, 0.5, 0.01)) / math.ceil((1 / a + 1) / 0.25)
    slips = [
        (1 / expected, "upside down: how many times more does the bound ask for?"),
        (math.sqrt(expected), "compare numbers of perturbations, not errors"),
    ]
    compare_number("times", answer, expected, slips, rtol=0.01)


def _cheapest(a: float, deviation: float, update: float) -> tuple[float, int, int]:
    squared = 1 / a + 1

    def cost(P: int) -> tuple[float, int, int]:
        T = math.ceil(squared / (deviation**2 * P))
        return T * (2 * P + update), T, P

    return min(cost(P) for P in range(1, 65))


def cheapest(student: Student, *, update: float) -> None:
    """Question 8: the cheapest steps and perturbations for a deviation."""
    for a, deviation in ((0.045, 0.13), (0.2, 0.04)):
        _, T, P = _cheapest(a, deviation, update)
        call = f"cheapest({a:g}, {deviation:g}, {update:g})"
        answer = ask(student, call, a, deviation, update)
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            raise NotYet(f"{call}: returned {type(answer).__name__}, expected (T, P)")
        steps, many = (number(call, part) for part in answer)
        least = _cheapest(a, deviation, update)[0]
        if (many, steps) == (T, P):
            raise NotYet(f"{call}: steps first, then perturbations")
        if not (1 <= many <= 64 and many == round(many) and steps == round(steps)):
            raise NotYet(f"{call}: T and P are whole numbers, P from 1 to 64")
        if steps * many < (1 / a + 1) / deviation**2 * (1 - 1e-9):
            hint = "does the alignment enter as 1/a + 1, and the deviation squared?"
            raise NotYet(f"{call}: T P is too small for this deviation; {hint}")
        if steps * (2 * many + update) > least * (1 + 1e-9):
            hint = "a step costs 2 P passes and one update; compare all P from 1 to 64"
            raise NotYet(f"{call}: the deviation is reached, and for less; {hint}")


def _losses(h: Tensor, theta: Tensor, lr: float, P: int, kurtosis: float, steps: int) -> Tensor:
    m, losses = theta.square(), []
    for _ in range(steps + 1):
        losses.append((h * m).sum() / 2)
        g = h.square() * m
        m = m * (1 - 2 * lr * h) + lr**2 * (g.sum() + (P + kurtosis - 2) * g) / P
    return torch.stack(losses)


def expected_losses(student: Student, *, steps: int) -> None:
    """Question 9: the expected loss of ZO-SGD on a quadratic, step by step."""
    h = torch.tensor([2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    theta = normal(4, seed=3)
    for lr, P, kurtosis in ((0.1, 1, 1.0), (0.05, 4, 3.0)):
        expected = _losses(h, theta, lr, P, kurtosis, steps)
        descent = theta * (1 - lr * h) ** torch.arange(steps + 1.0).double()[:, None]
        slips = [
            ((h * descent.square()).sum(1) / 2, "this is gradient descent: the noise is missing"),
            (2 * expected, "the loss is half of sum h theta^2"),
            (expected[1:], "begin with the loss at theta_0: steps + 1 numbers"),
        ]
        if kurtosis != 3.0:
            slips.append((_losses(h, theta, lr, P, 3.0, steps), "kappa does not enter"))
        if P > 1:
            slips.append((_losses(h, theta, lr, 1, kurtosis, steps), "P does not enter"))
        call = f"expected_losses(h, theta, {lr:g}, {P}, {kurtosis:g}, {steps})"
        answer = ask(student, call, h.clone(), theta.clone(), lr, P, kurtosis, steps)
        compare_tensor(call, answer, expected, slips)


def _stable(h: Tensor, P: int) -> float:
    """The largest lr with which no expectation grows: the root of the book's equation, Gaussian."""
    low, high = 0.0, 2 * P / (P + 1) / float(h.max())
    for _ in range(200):
        lr = (low + high) / 2
        rest = 2 - (1 + 1 / P) * lr * h
        fits = bool(rest.min() > 0) and float((lr / P * (h / rest)).sum()) <= 1
        low, high = (lr, high) if fits else (low, lr)
    return low


def largest_stable_lr(student: Student, *, equal: bool) -> None:
    """Question 9: the largest stable learning rate for Gaussian directions."""
    spectra = {
        True: torch.full((12,), 2.0, dtype=torch.float64),
        False: torch.tensor([4.0, 2.0, 1.0, 0.5, 0.5, 0.1, 0.0], dtype=torch.float64),
    }
    h = spectra[equal]
    for P in (1, 5):
        expected = _stable(h, P)
        top = float(h.max())
        slips = [
            (2 / top, "this is gradient descent's; the noise of the estimate is missing"),
            (2 * P / float(h.sum()), "this is the limit of small P over rank"),
            (1 / top, "this is the step that is best for gradient descent along one eigenvector"),
        ]
        if P > 1:
            slips.append((_stable(h, 1), "this is for P = 1"))
        if not equal:
            bound = 2 * P / (P + 1 + len(h)) / top
            slips.append((bound, "this takes all eigenvalues to be as large as the largest"))
        call = f"largest_stable_lr(h, {P}) with {len(h)} eigenvalues"
        answer = ask(student, call, h.clone(), P)
        compare_number(call, answer, expected, slips, rtol=1e-3)


def _replayed(
    theta: Tensor, ledger: list[list[float]], lr: float, seed: int, *, fixed: bool = False
) -> Tensor:
    theta = theta.clone()
    parameter = nn.Parameter(theta.clone())
    for step, numbers in enumerate(ledger):
        P = len(numbers)
        at = 0 if fixed else step
        u = zo.Rademacher().dense([parameter], P=P, seed=seed, step=at).to(theta.dtype)
        theta = theta - lr / P * u @ torch.tensor(numbers, dtype=theta.dtype)
    return theta


def replay(student: Student, *, steps: int, P: int) -> None:
    """Question 10: the end of a run from its start and its ledger."""
    start, lr, seed = normal(40, seed=steps), 0.05, 31 + P
    ledger = normal(steps, P, seed=steps + 1).tolist()
    expected = _replayed(start, ledger, lr, seed)
    slips = [(2 * start - expected, "each step goes uphill: subtract")]
    if P > 1:
        slips.append((start + P * (expected - start), "divide by P"))
    if steps > 1:
        fixed = _replayed(start, ledger, lr, seed, fixed=True)
        slips.append((fixed, "every step uses the directions of step 0: pass `step` on"))
    call = f"replay(start, ledger, lr, seed) of {steps} steps with P = {P}"
    answer = ask(student, call, start.clone(), [list(row) for row in ledger], lr, seed)
    compare_tensor(call, answer, expected, slips)


def altered_step(student: Student) -> None:
    """Question 10: which record was altered."""
    for seed, at in ((0, 3), (1, 0), (2, 7)):
        start = normal(200, seed=seed)
        ledger = normal(8, 2, seed=seed + 20).tolist()
        end = _replayed(start, ledger, 0.1, seed)
        ledger[at][1] += 0.5
        call = "altered_step(start, end, ledger, lr, seed)"
        given = [list(row) for row in ledger]
        answer = ask(student, call, start.clone(), end.clone(), given, 0.1, seed)
        slips = [(at + 1, "steps are counted from 0")]
        hint = (
            "what is left, end minus the replay, is a multiple of one direction: which step's "
            "directions is it along?"
        )
        compare_number(call, answer, at, slips, whole=True, hint=hint)


def predicted_change(student: Student) -> None:
    """Question 11: a step of a network, predicted from forward passes."""
    model = zo.models.mlp(5, 1, inputs=4, outputs=3, seed=3).double()
    x, y = normal(5, 4, seed=1), torch.tensor([0, 2, 1, 1, 0])

    @torch.no_grad()
    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    @torch.no_grad()
    def watched() -> Tensor:
        return model(x[:1]).log_softmax(-1)[0, 2]

    eps, P, seed, lr = 1e-3, 3, 9, 0.1
    c, r = (_slopes(f, model, P=P, eps=eps, seed=seed) for f in (loss, watched))
    expected = -lr * float(c @ r) / P
    slips = [
        (-expected, "a step goes against the gradient: mind the sign"),
        (P * expected, "divide by P"),
        (expected / lr, "the learning rate is missing"),
        (4 * expected, "both probes together are 2 eps apart: divide by 2 eps"),
        (-lr * float(c.mean() * r.mean()), "multiply for each direction first"),
        (-lr * float(c[0] * r[0]), "all probes went along one direction: give p=p"),
    ]
    call = "predicted_change(loss, watched, model, lr, P, eps, seed)"
    answer = ask(student, call, loss, watched, model, lr, P, eps, seed)
    compare_number(call, answer, expected, slips, rtol=1e-4)


@torch.no_grad()
def _slopes(f: Callable[[], Tensor], model: nn.Module, *, P: int, eps: float, seed: int) -> Tensor:
    """The derivative of f along each direction of step 0."""
    slopes = []
    for p in range(P):
        with zo.perturbed(model, eps, seed=seed, step=0, p=p):
            above = float(f())
        with zo.perturbed(model, -eps, seed=seed, step=0, p=p):
            slopes.append((above - float(f())) / (2 * eps))
    return torch.tensor(slopes, dtype=torch.float64)


TEXTS = (
    "Although the cast is truly charming, the film is rather dull.",
    "Although the script is very elegant, the sequel is really boring.",
)


def tiny(predicted: Any, measured: Any) -> None:
    """Question 11: both numbers for the language model that ships with the package."""
    model, tokenizer = zo.llm.load("tiny")
    model.double()
    sequences = zo.llm.Positions(model, zo.llm.encode(tokenizer, TEXTS))
    places, targets = sequences.places()

    @torch.no_grad()
    def log_prob(n: int) -> Tensor:
        own = places[:, 0] == n
        return sequences(places[own]).log_softmax(-1).gather(1, targets[own, None]).sum()

    c = _slopes(lambda: -log_prob(0), model, P=8, eps=1e-3, seed=5)
    r = _slopes(lambda: log_prob(1), model, P=8, eps=1e-3, seed=5)
    expected = -1e-5 * float(c @ r) / 8
    slips = [(-expected, "a step goes against the gradient: mind the sign")]
    compare_number("predicted", predicted, expected, slips, rtol=0.02)
    given = number("measured", measured)
    if abs(given - expected) > 0.1 * abs(expected):
        raise NotYet(
            "measured: it differs from the prediction by more than a tenth; was it one step of "
            "ZOSGD on loss(), from the weights that were loaded?"
        )

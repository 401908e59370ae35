"""Second moments of an estimate at a model and data, without forming a Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .calling import called, model_of, plain_attention, recording, resolve_model
from .checks import check_batch, check_integer, check_labels
from .deprecation import seed_was_optional
from .directions import Directions, LowRank, check_draw
from .dynamics import loss_gradient_at
from .jacobians import filled
from .laws import Form, Moments, mean_of_draws
from .parameters import Parameters, at_least_float32
from .planning import random_signs, summary


@seed_was_optional
def estimate_moments(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    P: int,
    directions: Directions | None = None,
    samples: int = 64,
    seed: int,
) -> tuple[Moments, Moments]:
    r""":func:`~zotutor.estimator_moments` of the mean cross-entropy, without its Hessian H.

    g and g^T H g are exact, from one and two backward passes; tr(H) and what else a family needs
    are estimated by Hessian-vector products with random signs (Hutchinson, 1990), one per sample,
    and for LowRank three more for each matrix of the model.

    Args:
        model: returns logits (N, V) for a batch (N, ...).
        x: inputs (N, ...).
        y: labels (N,).
        P: number of perturbations, at least 1.
        directions: family of u; Rademacher by default.
        samples: draws of signs, at least 2.
        seed: of the signs, 0 <= seed < 2^64.

    Returns:
        Two ``Moments``: the estimates, and their standard errors. E|g_hat|^2 is exact.

    Raises:
        TypeError, ValueError: for a bad batch, labels, P or samples.

    Example:
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> moments, errors = estimate_moments(nn.Linear(2, 2), x, y, P=1, seed=0)
        >>> moments.squared_norm > 0, errors.squared_norm
        (True, 0.0)
    """
    check_batch("x", x)
    check_integer("samples", samples, low=2)
    family = check_draw(directions, P=P, seed=seed, step=0)
    params = resolve_model(model)
    check_labels("y", y, count=x.shape[0])
    g = loss_gradient_at(params, x, y).g
    hessian_times = hessian_product(params, x, y.long())
    d, along, squared = g.numel(), float(g @ hessian_times(g)), float(g.double().square().sum())
    curvatures = []
    for s in range(samples):
        v = random_signs((d,), seed, s, 0, like=g)
        diagonal = v * hessian_times(v)  # its mean is the diagonal of H
        trace, fourth = float(diagonal.sum()), float(diagonal @ g.square())
        factored = 0.0
        if isinstance(family, LowRank):
            factored = _factored_sample(g, params, hessian_times, seed, s)
        form = Form(d, trace, along, squared, fourth, factored)
        curvatures.append(mean_of_draws(form, family, P))
    # E|g_hat|^2 is the case H = I, for which the trace, the diagonal and the factored sum are known
    identity = Form(d, d, squared, squared, squared, _factored_identity(g, params))
    norm = mean_of_draws(identity, family, P)
    curvature = summary(curvatures)
    return Moments(norm, curvature.value), Moments(0.0, curvature.std_error)


def _matrices(g: Tensor, params: Parameters) -> list[tuple[slice, Tensor]]:
    """The slice and the matrix N of each matrix-shaped part of g."""
    return [
        (slice(start, stop), g[start:stop].view(params.matrices[i] or ()))
        for i, _, start, stop in params
        if params.matrices[i] is not None
    ]


def _factored_identity(g: Tensor, params: Parameters) -> float:
    """``Form.factored`` for H = I: (m + n + 1) |N|^2 for each matrix."""
    return sum(
        (sum(N.shape) + 1) * float(N.double().square().sum()) for _, N in _matrices(g, params)
    )


def _factored_sample(
    g: Tensor, params: Parameters, hessian_times: Callable[[Tensor], Tensor], seed: int, s: int
) -> float:
    """One unbiased sample of ``Form.factored``, from Hessian-vector products within a matrix.

    With signs s (of length m) and t (n), t' (m), s' (n): the three sums are the means of z^T H z
    for z = s (t'^T N), of z^T H z for z = (N s') t^T, and of x^T H y for x = (N s') t^T and
    y = (N t) s'^T, each z laid out as the matrix.
    """
    total = 0.0
    for number, (cut, N) in enumerate(_matrices(g, params)):
        m, n = N.shape
        draws = random_signs((2 * (m + n),), seed, s, 1, number, like=g)
        s_m, t_m, s_n, t_n = draws.split([m, m, n, n])
        spread = torch.outer(s_m, t_m @ N)
        x, y = torch.outer(N @ s_n, t_n), torch.outer(N @ t_n, s_n)
        for left, right in ((spread, spread), (x, x), (x, y)):
            v = torch.zeros_like(g)
            v[cut] = right.reshape(-1)
            total += float(left.reshape(-1) @ hessian_times(v)[cut])
    return total


def hessian_product(params: Parameters, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The map v -> H v for the Hessian H of the mean cross-entropy, by two backward passes.

    Raises:
        ValueError: for a model with a function that is once differentiable.
    """
    model = model_of(params)
    with plain_attention(), recording(model):
        z = called(model, x.clone() if x.is_inference() else x.detach())
        loss = nn.functional.cross_entropy(z.to(at_least_float32(z.dtype)), y)
        found = torch.autograd.grad(loss, params.tensors, create_graph=True, allow_unused=True)
    grads = [(i, grad) for i, grad in enumerate(found) if grad is not None and grad.requires_grad]
    if _once_differentiable([grad for _, grad in grads]):
        raise ValueError(
            "model: it has no second derivative, since a function in it is once differentiable; "
            "leave that function out, or write its backward with differentiable operations"
        )

    def product(v: Tensor) -> Tensor:
        parts = params.split(v)
        with plain_attention(), recording(model):
            columns = torch.autograd.grad(
                [grad for _, grad in grads],
                params.tensors,
                [parts[i].to(grad.dtype) for i, grad in grads],
                retain_graph=True,
                allow_unused=True,
            )
        return params.flatten(filled(columns, params.tensors))

    return product


def _once_differentiable(tensors: Sequence[Tensor]) -> bool:
    """Whether a graph has a node of `once_differentiable`, where derivatives end."""
    todo, seen = [tensor.grad_fn for tensor in tensors], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("::Error"):
            return True
        seen.add(node)
        todo += [parent for parent, _ in node.next_functions]
    return False

"""Gradient estimates from function values: projected gradients, and their sum along directions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from .checks import check_eps
from .closure import Loss, check, check_callable, no_random_numbers, scalar
from .directions import Direction, Directions, LowRank, check_draw, chunks, draw, weighted_sum
from .fused import Batched
from .parameters import Parameters, ParametersLike, resolve
from .probe import Substitution, probing, toward

Method = Literal["two-point", "forward", "one-point", "jvp"]


class Projection(NamedTuple):
    """What a zeroth-order step measures: P projected gradients, and the loss.

    ``coefficients[p]``, the projected gradient g_p, estimates u_p . grad L; ``loss`` is the mean of
    the loss values.
    """

    coefficients: tuple[float, ...]
    loss: float


def default_eps(dtype: torch.dtype) -> float:
    """The finite-difference step used when eps is None.

    1e-3 for float32 and float16, 1e-2 for bfloat16, 1e-5 for float64: near where the rounding error
    of the loss, which grows as 1/eps, equals the bias, which grows as eps^2 (thm-two-point-bias).

    >>> default_eps(torch.bfloat16)
    0.01
    """
    return {torch.float64: 1e-5, torch.bfloat16: 1e-2}.get(dtype, 1e-3)


def resolve_eps(eps: float | None, params: Parameters) -> float:
    """``eps`` checked against the dtypes of ``params``, or the largest of their defaults."""
    if eps is None:
        return max(map(default_eps, params.dtypes))
    return check_eps(eps, params.dtypes)


def evaluate(loss_fn: Loss, mode: Substitution) -> Tensor:
    """The loss within the probe that ``mode`` is aimed at, as a 0-d tensor, float32 at least.

    Raises:
        TypeError, NonFiniteLossError: see :func:`zotutor.closure.scalar`.
        ValueError: if no parameter was read.
    """
    with mode:
        loss = loss_fn()
    loss = scalar(mode.result(loss))
    if mode.reads == 0:
        raise ValueError(
            "closure: it read none of the parameters given, so that no probe can change its loss; "
            "compute the loss from these parameters (another thread, or a copy made before, does "
            "not)"
        )
    return loss


def _check_closure(loss_fn: Loss, mode: Substitution, direction: Direction, c: float) -> float:
    """The loss at theta + c u, after checking that it can be probed at all."""

    def loss_at(read: Callable[[Tensor], Tensor]) -> float:
        with no_random_numbers():
            return float(evaluate(loss_fn, toward(mode, direction, c, read)))

    return check(loss_at, mode.params)


@cache
def _load_forward_mode() -> None:
    """Make torch import what forward mode needs, without its warning about ``torch.jit``."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


class Differentiation(Substitution):
    """A substitution by dual numbers that refuses operations which would drop the derivative."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, unless it is an operator of another library."""
        # torch treats an operator without a forward-mode rule as constant, without an error
        name = str(func) if isinstance(func, (OpOverload, OpOverloadPacket)) else "aten."
        if not name.startswith(("aten.", "prims.")):
            raise RuntimeError(
                f"closure: torch does not know a forward-mode derivative of {name}, and would drop "
                "it without a word; use method='two-point'"
            )
        return super().__torch_function__(func, types, args, kwargs)


def _derivative(loss_fn: Loss, mode: Substitution, direction: Direction) -> tuple[float, float]:
    """The loss and u . grad L, exactly, by forward-mode differentiation."""

    def dual(i: int, theta: Tensor) -> Tensor:
        if not torch._C._is_fwd_grad_enabled():
            raise RuntimeError(
                f"closure: parameter {i} is read where forward-mode differentiation is off (as in "
                "a custom autograd.Function), and its part of the derivative would be lost; use "
                "method='two-point'"
            )
        return forward_ad.make_dual(theta.detach().clone(), direction.tensor(i, theta.dtype))

    _load_forward_mode()
    # fused attention has no forward-mode rule
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        loss = evaluate(loss_fn, mode.aim(dual))
        tangent = forward_ad.unpack_dual(loss).tangent
        if tangent is None:
            raise ValueError(
                "closure: its loss carries no derivative: it was detached, turned into a number, "
                "or jumps (as an accuracy does); return a tensor computed from the parameters, or "
                "use method='two-point'"
            )
        return float(loss), float(tangent)


def projected_gradients_at(
    loss_fn: Loss,
    params: Parameters,
    directions: Sequence[Direction],
    *,
    eps: float,
    method: Method,
    checked: bool = False,
) -> Projection:
    """:func:`projected_gradients` along given directions, of arguments that were checked.

    Args:
        loss_fn: the closure; called once or twice more than the method needs, to check it, unless
            it was ``checked`` before.
        params: the parameters that the directions were drawn over.
        directions: u_p.
        eps: finite-difference step.
        method: see :func:`projected_gradients`.
        checked: whether :mod:`zotutor.closure` has checked this closure already.
    """
    kind = Differentiation if method == "jvp" else Substitution
    with probing(params, kind) as mode, no_random_numbers():

        def loss_at(direction: Direction, c: float) -> float:
            return float(evaluate(loss_fn, toward(mode, direction, c)))

        if method == "jvp":
            if not checked:
                _check_closure(loss_fn, mode, directions[0], 0.0)
            pairs = [_derivative(loss_fn, mode, direction) for direction in directions]
            return _with_mean_loss([c for _, c in pairs], [loss for loss, _ in pairs])
        above: list[float] = []
        if not checked:
            first = _check_closure(loss_fn, mode, directions[0], eps)
            # the check's loss is also that of the first probe, if the operations were the same;
            # large models are checked without `Fused`, whose losses may round differently
            if directions[0].parts is not None:
                above.append(first)
        if method == "forward":
            # at theta itself, but with the operations of a probe, so that rounding cancels
            here = loss_at(directions[0], 0.0)
            above += [loss_at(direction, eps) for direction in directions[len(above) :]]
            return Projection(tuple((loss - here) / eps for loss in above), here)
        below: list[float] = []
        for p, direction in enumerate(directions):
            if p >= len(above):
                above.append(loss_at(direction, eps))
            if method == "two-point":
                below.append(loss_at(direction, -eps))
        if method == "one-point":
            return _with_mean_loss([loss / eps for loss in above], above)
        both = list(zip(above, below, strict=True))
        slopes = [(a - b) / (2 * eps) for a, b in both]
        return _with_mean_loss(slopes, [(a + b) / 2 for a, b in both])


def _with_mean_loss(coefficients: list[float], losses: list[float]) -> Projection:
    return Projection(tuple(coefficients), sum(losses) / len(losses))


def projected_gradients_batched(
    losses_fn: Callable[[int], Tensor],
    params: Parameters,
    directions: Sequence[Direction],
    *,
    eps: float,
    checked: bool = False,
) -> Projection:
    """The two-point projected gradients along LowRank ``directions``, from one batched forward.

    ``losses_fn(copies)`` repeats its batch that many times along dimension 0, and returns one loss
    per copy: at +eps u_0, -eps u_0, +eps u_1, ... Unless it was ``checked`` before, two of the
    copies are first compared with probes of a single batch.

    Raises:
        ValueError: for another family, or copies whose losses differ from those of a single batch.
        NotImplementedError: for an operation on a parameter that
            :class:`~zotutor.fused.Batched` does not support.
    """
    if not all(isinstance(direction.family, LowRank) for direction in directions):
        raise ValueError(
            f"directions: given {directions[0].family}, expected LowRank, whose factors let "
            "many directions share one forward; use LowRank(rank), or the sequential step"
        )
    twice = [direction for direction in directions for _ in range(2)]

    def losses_at(c: float) -> list[float]:
        cs = [c, -c] * len(directions)
        with mode.aim(_no_copy, Batched(mode.number, twice, cs)):
            found = losses_fn(len(cs))
        return [float(loss) for loss in _losses(found, len(cs))]

    with probing(params) as mode, no_random_numbers():
        if not checked:
            _check_copies(losses_fn, losses_at, mode, directions, eps)
        losses = losses_at(eps)
    pairs = list(zip(losses[::2], losses[1::2], strict=True))
    return _with_mean_loss([(above - below) / (2 * eps) for above, below in pairs], losses)


def _no_copy(i: int, theta: Tensor) -> Tensor:
    raise NotImplementedError(f"closure: a batched probe cannot hand out parameter {i} whole")


def _losses(found: Any, copies: int) -> list[Tensor]:
    """The losses that a closure returned for several copies, each checked."""
    if not isinstance(found, Tensor) or found.shape != (copies,):
        given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(
            f"closure: returned {given}, expected one loss for each copy, ({copies},); reduce the "
            "losses with .view(copies, -1).mean(1)"
        )
    return [scalar(loss) for loss in found.unbind()]


def _check_copies(
    losses_fn: Callable[[int], Tensor],
    losses_at: Callable[[float], list[float]],
    mode: Substitution,
    directions: Sequence[Direction],
    eps: float,
) -> None:
    """Refuse a closure whose copies have other losses than single batches at the same parameters.

    A model that moves its batch to another dimension mixes the copies, which shapes do not always
    reveal. The first and the last copy are compared with probes of a single batch, at a distance
    large enough that the losses of the copies differ clearly.
    """
    squares = sum(float(t.detach().double().square().sum()) for t in mode.params.tensors)
    far = max(eps, 0.1 * (squares / mode.params.d) ** 0.5)  # a tenth of the parameters' RMS

    def alone() -> Tensor:
        return _losses(losses_fn(1), 1)[0]

    copies = losses_at(far)
    single = [_check_closure(alone, mode, directions[0], far)]
    single.append(float(evaluate(alone, toward(mode, directions[-1], -far))))
    spacing = max(torch.finfo(dtype).eps for dtype in mode.params.dtypes)
    scale = max(map(abs, [*single, *copies]))
    # mixed-up copies are off by about the spread of the losses; rounding by some spacings
    allowed = 0.01 * (max(copies) - min(copies)) + 64 * spacing * scale
    for expected, found in zip(single, (copies[0], copies[-1]), strict=True):
        if abs(found - expected) > allowed:
            raise ValueError(
                f"closure: a copy in a batch of {len(copies)} has loss {found}, and {expected} at "
                "the same parameters alone, so that the copies are not independent along "
                "dimension 0 (the model may move its batch elsewhere); use ZOSGD.step"
            )


def projected_gradients(
    loss_fn: Loss,
    params: ParametersLike,
    *,
    directions: Directions | None = None,
    P: int = 1,
    eps: float | None = None,
    method: Method = "two-point",
    seed: int,
    step: int = 0,
) -> Projection:
    """The P projected gradients of a zeroth-order method: estimates of u_p . grad L(theta).

    two-point: [L(theta + eps u_p) - L(theta - eps u_p)] / (2 eps), 2 P evaluations, bias O(eps^2);
    forward: [L(theta + eps u_p) - L(theta)] / eps, P + 1 evaluations, bias O(eps);
    one-point: L(theta + eps u_p) / eps, P evaluations, variance O(1 / eps^2);
    jvp: the directional derivative itself, P forward-mode passes, no eps.

    Arguments, errors: as :func:`estimate_gradient`.

    Returns:
        ``coefficients``, P floats, and ``loss``, the mean of the loss values (for "forward" the
        loss at theta).

    Example:
        >>> theta = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> found = projected_gradients(lambda: theta.sum(), [theta], P=2, method="jvp", seed=0)
        >>> found.loss, len(found.coefficients)
        (7.0, 2)
    """
    found, drawn, eps = _prepare(loss_fn, params, directions, P, eps, method, seed, step)
    return projected_gradients_at(loss_fn, found, drawn, eps=eps, method=method)


def estimate_gradient(
    loss_fn: Loss,
    params: ParametersLike,
    *,
    directions: Directions | None = None,
    P: int = 1,
    eps: float | None = None,
    method: Method = "two-point",
    seed: int,
    step: int = 0,
) -> tuple[Tensor, ...]:
    """An estimate of grad L(theta) from P random directions: (1/P) sum_p g_p u_p.

    The projected gradient g_p estimates u_p . grad L by ``method`` (see
    :func:`projected_gradients`). Since E[u u^T] = I, E[(u . g) u] = g: with exact directional
    derivatives ("jvp") the estimate is unbiased, and its second moment is
    |g|^2 (1 + (d + kappa - 2) / P) for independent entries (thm-second-moment). theta is never
    written: each probe evaluates the loss at theta + c u_p as :func:`~zotutor.perturbed` does.

    Args:
        loss_fn: closure without argument that returns the loss as a 0-d tensor; no backward.
        params: a model, or its parameters, with or without names; frozen ones are left out.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        P: number of perturbations, at least 1.
        eps: finite-difference step, at least the spacing of numbers at 1 in the parameters'
            dtype; None for :func:`default_eps`. Must be None for "jvp".
        method: "two-point" (the default, and the most accurate from values), "forward" (half the
            evaluations at large P), "one-point" (one evaluation, huge variance: for theory), "jvp"
            (exact; every operation must support forward-mode differentiation).
        seed: 0 <= seed < 2^64.
        step: which optimizer step; each draws its own directions.

    Returns:
        One tensor for each trainable parameter, of its shape, dtype and device, in
        ``named_parameters()`` order, as ``torch.autograd.grad`` returns them.

    Raises:
        TypeError: for a closure that returns no scalar; integer parameters.
        ValueError: for P < 1; eps <= 0 or too small for the dtype; an unknown method; a closure
            that reads no parameter or draws random numbers; a model in training mode with dropout
            or batch norm.
        NonFiniteLossError: if a loss is NaN or infinite; the parameters are as they were.

    For a training step use :class:`~zotutor.ZOSGD`, which never forms the estimate.

    References:
        Spall (1992), two-point; Nesterov and Spokoiny (2017), forward; Flaxman, Kalai and McMahan
        (2005), one-point; Baydin et al. (2022), jvp.

    Example:
        >>> theta = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> loss = lambda: theta.square().sum() / 2
        >>> (g,) = estimate_gradient(loss, [theta], P=1000, method="jvp", seed=0)
        >>> bool((g - theta).norm() < 0.3)
        True
    """
    found, drawn, eps = _prepare(loss_fn, params, directions, P, eps, method, seed, step)
    measured = projected_gradients_at(loss_fn, found, drawn, eps=eps, method=method)
    weights = [g / P for g in measured.coefficients]
    gradient = []
    for i, tensor, _, _ in found:
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        for start, stop in chunks(tensor.numel(), tensor.device):
            flat[start:stop] = weighted_sum(drawn, weights, i, start, stop, tensor.dtype)
        gradient.append(flat.view(tensor.shape))
    return tuple(gradient)


def _prepare(
    loss_fn: Loss,
    params: ParametersLike,
    directions: Directions | None,
    P: int,
    eps: float | None,
    method: Method,
    seed: int,
    step: int,
) -> tuple[Parameters, list[Direction], float]:
    if method not in get_args(Method):
        raise ValueError(f"method: given {method!r}, expected one of {', '.join(get_args(Method))}")
    if method == "jvp" and eps is not None:
        raise ValueError(f"eps: given {eps} with method 'jvp', which takes no step; leave it out")
    check_callable(loss_fn)
    family = check_draw(directions, P=P, seed=seed, step=step)
    found = resolve(params)
    eps = resolve_eps(eps, found)
    return found, draw(family, found, P=P, seed=seed, step=step), eps

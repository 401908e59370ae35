"""ZO-SGD as a `torch.optim.Optimizer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .checks import check_integer, check_real
from .closure import Loss, check_callable, identity
from .directions import Direction, Directions, check_draw, chunks, draw, weighted_sum, weighted_sums
from .estimators import (
    Projection,
    projected_gradients_at,
    projected_gradients_batched,
    resolve_eps,
)
from .parameters import Parameters, at_least_float32, resolve
from .rounding import round_stochastically
from .streams import Stream

_REMEMBERED = 16
"""How many closures a ZOSGD remembers to have checked."""


class ZOSGD(Optimizer):
    """Zeroth-order stochastic gradient descent, from loss values only.

    At step t, with u_p drawn by (seed, t, p),

        g_p = [L(theta + eps u_p) - L(theta - eps u_p)] / (2 eps),
        theta <- theta - (lr / P) sum_p g_p u_p.

    The closure is called 2 P times, all of them before theta changes; in the first step once or
    twice more, since :mod:`zotutor.closure` then checks that it can be probed at all. No probe
    writes theta, and neither a direction nor the estimate is ever formed: extra memory is one
    parameter for a probe and two chunks (1 MB each in float32), whatever P is; for a
    model of at most 2^18 parameters, or with LowRank, also the step's directions or their factors,
    at most 16 MB. Momentum adds a buffer of the size of the model.

    Directions depend on the order of the parameters. Given ``model.parameters()`` or
    ``model.named_parameters()`` it is that of ``named_parameters()``, so that steps use the
    directions that :func:`~zotutor.zo_entk` draws for the model. Several groups do not determine
    the order: they need ``model`` as well.

    Args:
        params: as for any torch optimizer: ``model.parameters()``, ``model.named_parameters()`` or
            groups with their own lr, momentum and weight_decay. Frozen ones are left out.
        lr: learning rate eta, at least 0. Stable values are smaller than for SGD, by a factor of
            about P / (P + 1 + tr(H) / lambda), with lambda the largest eigenvalue of the Hessian H.
        eps: finite-difference step; None for the default of the dtype (1e-3 in float32).
        P: number of perturbations per step, at least 1.
        directions: family of u; :class:`~zotutor.Rademacher` by default.
        momentum: m in [0, 1): b <- m b + g_hat, theta <- theta - lr b, as in ``torch.optim.SGD``.
        weight_decay: adds weight_decay * theta to the estimate, as in ``torch.optim.SGD``.
        model: the model whose trainable parameters the groups hold, all of them; directions then
            follow its order, whatever the groups and the order within them.
        seed: 0 <= seed < 2^64; with the step counter it fixes every direction.

    Raises:
        TypeError, ValueError: at construction, for arguments out of range, or several groups
            without ``model``; at a step, for a closure that returns no scalar, reads no parameter,
            or returns different values at the same parameters.
        RuntimeError: at a step, for a closure that reads or writes parameters where the probe
            cannot see it.
        NonFiniteLossError: at a step whose loss is NaN or infinite; parameters, buffers and the
            step counter are as they were.

    ``state_dict`` holds the step counter and what determines the directions: loading it into an
    optimizer with another seed or family raises. Schedulers change ``lr`` as for any optimizer.

    To look at an estimate, or to use it in another optimizer, call
    :func:`~zotutor.estimate_gradient` instead.

    References:
        Spall (1992); Malladi et al. (2023), MeZO, which regenerates directions from a seed.

    Example:
        >>> theta = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> optimizer = ZOSGD([theta], lr=0.1, seed=0)
        >>> for _ in range(100):
        ...     loss = optimizer.step(lambda: theta.square().sum() / 2)
        >>> bool(loss < 1e-3)
        True
    """

    model: nn.Module | None = None
    _checked: tuple[Hashable, ...] = ()
    _known: tuple[list[Any], Parameters] | None = None
    _current: tuple[Any, list[Direction]] | None = None

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        eps: float | None = None,
        P: int = 1,
        directions: Directions | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        model: nn.Module | None = None,
        seed: int,
    ) -> None:
        """Check the arguments; nothing is allocated."""
        if isinstance(params, nn.Module):
            raise TypeError(
                f"params: given a {type(params).__name__}, expected its parameters, as for any "
                "torch optimizer; give model.parameters()"
            )
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model: given a {type(model).__name__}, expected a torch.nn.Module")
        if not isinstance(params, (Tensor, str)) and isinstance(params, Iterable):
            params = list(params)  # may be an iterator, which can be read once only
        if not isinstance(params, list) or not any(isinstance(item, dict) for item in params):
            resolve(params)
        self.directions = check_draw(directions, P=P, seed=seed, step=0)
        self.P, self.seed = int(P), int(seed)
        self.steps_taken = 0
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.model = model
        self.eps = resolve_eps(eps, self._resolved())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As for any optimizer, after a check of the group's lr, momentum and weight_decay."""
        _check_options(self.defaults | param_group)
        super().add_param_group(param_group)
        if hasattr(self, "eps"):  # a later group, maybe of a coarser dtype
            try:
                resolve_eps(self.eps, self._resolved())
            except (TypeError, ValueError):
                del self.param_groups[-1]
                raise

    def _resolved(self) -> Parameters:
        """The trainable parameters, in the order that directions number them.

        Resolved again if a parameter was added, frozen, or moved to another device.
        """
        # much cheaper than resolving a large model again at each step
        key = [
            (id(p), p.requires_grad, p.shape, p.dtype, p.device)
            for group in self.param_groups
            for p in group["params"]
        ]
        if self._known is None or self._known[0] != key or self.model is not None:
            self._known = key, self._resolve()
        return self._known[1]

    def _resolve(self) -> Parameters:
        given = resolve(p for group in self.param_groups for p in group["params"])
        if self.model is None:
            if len(self.param_groups) > 1:
                raise ValueError(
                    f"params: given {len(self.param_groups)} groups, which do not say in which "
                    "order the model has these parameters, and directions depend on it; give "
                    "model=model in addition"
                )
            return given
        whole = resolve(self.model)
        held = set(map(id, given.tensors))
        has = {id(tensor): name for name, tensor in zip(whole.names, whole.tensors, strict=True)}
        if held - set(has):
            raise ValueError(
                f"params: {len(held - set(has))} of the tensors given are not parameters of model; "
                "give the model that they belong to"
            )
        missing = [name for key, name in has.items() if key not in held]
        if missing:
            raise ValueError(
                f"params: the model's trainable parameter {missing[0]} is in no group"
                f"{f', nor are {len(missing) - 1} others' if missing[1:] else ''}; add it to one, "
                "or freeze it with .requires_grad_(False)"
            )
        return Parameters(whole.names, whole.tensors)  # in the model's order

    @torch.no_grad()
    def step(self, closure: Loss) -> Tensor:  # type: ignore[override]
        """One step: 2 P calls of the closure, then one update.

        Args:
            closure: computes and returns the loss (a 0-d tensor), without backward.

        Returns:
            The mean of the 2 P losses, 0-d, float64 on the CPU: L(theta) up to O(eps^2).
        """
        params = self._resolved()
        found = self._measure(params, closure, None)  # raises before theta changes
        self._update(params, found.coefficients)
        return torch.tensor(found.loss, dtype=torch.float64)

    @torch.no_grad()
    def step_batched(self, closure: Callable[[int], Tensor]) -> Tensor:
        """One step from one batched forward, for LowRank directions; the same up to rounding.

        All 2 P probes share each read of the weights, most of the time on small batches.

        Args:
            closure: called once, with 2 P; repeats its batch that many times along dimension 0,
                computes without backward, and returns one loss for each copy, (2 P,).

        Returns:
            The mean of the 2 P losses.

        Raises:
            ValueError: for a family other than LowRank.
            NotImplementedError: for an operation on a parameter other than linear layers,
                embeddings, layer norms and elementwise products and sums; use :meth:`step` then.
        """
        params = self._resolved()
        found = self._measure_batched(params, closure, None)
        self._update(params, found.coefficients)
        return torch.tensor(found.loss, dtype=torch.float64)

    @torch.no_grad()
    def measure(self, closure: Loss, *, only: range | None = None) -> Projection:
        """The first half of :meth:`step`, which changes neither theta nor the step counter.

        ``step(closure)`` is ``replay(measure(closure).coefficients)``. Between the two halves the P
        numbers can be saved, or collected from several processes that each measure a part of the
        perturbations.

        Args:
            closure: as for :meth:`step`; called twice for each perturbation.
            only: which of the perturbations 0, ..., P - 1; None for all.

        Returns:
            The projected gradients g_p, one per perturbation in ``only``, and the mean loss.

        Raises:
            TypeError, ValueError, NonFiniteLossError: as :meth:`step`; ValueError for an ``only``
                that is empty or not within range(P).

        Example:
            >>> theta = torch.tensor([3.0, 4.0], requires_grad=True)
            >>> optimizer = ZOSGD([theta], lr=0.1, P=2, seed=0)
            >>> first = optimizer.measure(lambda: theta.sum(), only=range(1))
            >>> second = optimizer.measure(lambda: theta.sum(), only=range(1, 2))
            >>> optimizer.replay(first.coefficients + second.coefficients)
            >>> optimizer.steps_taken
            1
        """
        return self._measure(self._resolved(), closure, only)

    def _measure(self, params: Parameters, closure: Loss, only: range | None) -> Projection:
        check_callable(closure)
        who = identity(closure)
        found = projected_gradients_at(
            closure,
            params,
            self._part(params, only),
            eps=self.eps,
            method="two-point",
            checked=who in self._checked,
        )
        self._remember(who)
        return found

    @torch.no_grad()
    def measure_batched(
        self, closure: Callable[[int], Tensor], *, only: range | None = None
    ) -> Projection:
        """The first half of :meth:`step_batched`: :meth:`measure` in one batched forward."""
        return self._measure_batched(self._resolved(), closure, only)

    def _measure_batched(
        self, params: Parameters, closure: Callable[[int], Tensor], only: range | None
    ) -> Projection:
        if not callable(closure):
            raise TypeError(
                f"closure: given {closure!r}, expected a function of the number of copies that "
                "returns one loss for each; write `lambda copies: losses(copies)`"
            )
        who = ("batched", identity(closure))
        drawn = self._part(params, only)
        checked = who in self._checked
        found = projected_gradients_batched(closure, params, drawn, eps=self.eps, checked=checked)
        self._remember(who)
        return found

    def _remember(self, who: Hashable) -> None:
        if who not in self._checked:
            self._checked = (who, *self._checked)[:_REMEMBERED]

    def _drawn(self, params: Parameters) -> list[Direction]:
        """The directions of the current step, shared by its two halves."""
        key = (self.directions, self.P, self.seed, self.steps_taken, params.shapes, params.devices)
        if self._current is None or self._current[0] != key:
            drawn = draw(self.directions, params, P=self.P, seed=self.seed, step=self.steps_taken)
            self._current = key, drawn
        return self._current[1]

    def _part(self, params: Parameters, only: range | None) -> list[Direction]:
        drawn = self._drawn(params)
        if only is None:
            return drawn
        if not isinstance(only, range) or not only or not all(0 <= p < self.P for p in only):
            raise ValueError(
                f"only: given {only!r}, expected a range within the {self.P} perturbations of a "
                f"step, not empty; give such as range({self.P})"
            )
        return [drawn[p] for p in only]

    @torch.no_grad()
    def replay(self, coefficients: Sequence[float]) -> None:
        """The second half of :meth:`step`: the update from P projected gradients, without a loss.

        Args:
            coefficients: g_0, ..., g_(P-1), as :meth:`measure` or
                :func:`~zotutor.estimators.projected_gradients` returns them.

        Raises:
            ValueError: if there are not P of them, or one is not finite.
        """
        if len(coefficients) != self.P or not all(map(math.isfinite, coefficients)):
            raise ValueError(
                f"coefficients: given {list(coefficients)}, expected {self.P} finite numbers"
            )
        self._update(self._resolved(), coefficients)

    def _update(self, params: Parameters, coefficients: Sequence[float]) -> None:
        """Subtract (lr / P) sum_p g_p u_p from theta, and increment the step counter."""
        drawn = self._drawn(params)
        if self._at_once(params, drawn, coefficients):
            self.steps_taken += 1
            self._current = None
            return
        group_of = {id(theta): group for group in self.param_groups for theta in group["params"]}
        for i, theta, _, _ in params:
            group = group_of[id(theta)]
            # without momentum, lr is part of the weights: for signs at P = 1 the update is then
            # exactly +-lr g, and theta is rounded once, the same on every device
            scale = (1.0 if group["momentum"] else -float(group["lr"])) / self.P
            weights = [scale * g for g in coefficients]
            # the flat copy of a strided theta is written back below
            flat = theta.view(-1) if theta.is_contiguous() else theta.reshape(-1)
            for start, stop in chunks(theta.numel(), theta.device):
                update = weighted_sum(drawn, weights, i, start, stop, theta.dtype)
                self._apply(
                    theta, flat[start:stop], update, start, group, partial(drawn[0].stream, i, 2)
                )
            if not theta.is_contiguous():
                theta.copy_(flat.view(theta.shape))
        self.steps_taken += 1
        self._current = None

    def _at_once(
        self, params: Parameters, drawn: Sequence[Direction], coefficients: Sequence[float]
    ) -> bool:
        """Update a small model by `_foreach` calls, and return True; False if it needs the loop.

        The same bits as the loop: the same operations in the same order, without its overhead.
        """
        group, thetas = self.param_groups[0], params.tensors
        if len(self.param_groups) > 1 or group["momentum"] or group["weight_decay"]:
            return False
        if not drawn[0].parts_fit(thetas):
            return False
        lr = float(group["lr"])
        if lr:
            updates = weighted_sums(drawn, [-lr / self.P * g for g in coefficients])
            torch._foreach_add_(list(thetas), list(updates))
        return True

    def _apply(
        self,
        theta: Tensor,
        part: Tensor,
        update: Tensor,
        start: int,
        group: dict[str, Any],
        rounding: Callable[[], Stream],
    ) -> None:
        """Move ``part`` of theta: ``update`` is -lr g_hat, or g_hat if there is momentum.

        ``rounding`` returns the stream for stochastic rounding in half precision, independent of
        every direction; a function, since float32 has no use for it.
        """
        exact = at_least_float32(theta.dtype)
        lr, momentum, decay = float(group["lr"]), group["momentum"], group["weight_decay"]
        if decay:  # part of the estimate, as in SGD, and so of the momentum
            update.add_(part.to(exact), alpha=decay if momentum else -lr * decay)
        if momentum:
            state = self.state[theta]
            if "momentum_buffer" not in state:
                # a buffer created in inference mode could not be updated outside of it
                with torch.inference_mode(False):
                    state["momentum_buffer"] = torch.zeros(
                        theta.numel(), dtype=exact, device=theta.device
                    )
            buffer = state["momentum_buffer"][start : start + part.numel()]
            update = buffer.mul_(momentum).add_(update) * -lr
        if not lr:
            return
        if exact == theta.dtype:
            part.add_(update)
        else:  # to nearest, updates below half a spacing would all be lost (thm-rounding)
            part.copy_(round_stochastically(update.add_(part), theta.dtype, rounding(), start))

    def state_dict(self) -> dict[str, Any]:
        """As for any optimizer, with an entry "zo": step counter, seed, P, eps, directions."""
        return super().state_dict() | {
            "zo": {"steps_taken": self.steps_taken, "eps": self.eps, "P": self.P} | self._identity()
        }

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the base class leaves out the attributes it does not know."""
        names = ("steps_taken", "eps", "P", "seed", "directions", "model")
        return super().__getstate__() | {name: getattr(self, name) for name in names}

    def _identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "directions": repr(self.directions)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of another ZOSGD with the same seed and directions.

        Raises:
            TypeError, ValueError: if seed or directions differ, or the state is not one that a
                ZOSGD over parameters of these shapes can be in. Nothing is changed in that case.
        """
        zo = self._checked_state(state_dict)  # everything, before anything changes
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "zo"})
        thetas = [theta for group in self.param_groups for theta in group["params"]]
        for number, saved in state_dict["state"].items():
            # from `state_dict`: the base class has rounded its copy to the parameter's dtype
            theta = thetas[number]
            buffer = saved["momentum_buffer"].to(theta.device, at_least_float32(theta.dtype))
            self.state[theta]["momentum_buffer"] = buffer.clone()
        self.steps_taken, self.eps, self.P = zo["steps_taken"], zo["eps"], zo["P"]
        self._current = None

    def _checked_state(self, state_dict: Any) -> dict[str, Any]:
        """The entry "zo" of a state, after checking all of it."""
        parts = {"zo": Mapping, "state": Mapping, "param_groups": Sequence}
        for name, kind in parts.items():
            if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get(name), kind):
                raise ValueError(
                    f"state_dict: given one without {name!r}, expected that of a ZOSGD; give what "
                    "its state_dict() returned"
                )
        zo = dict(state_dict["zo"])
        missing = {"seed", "directions", "steps_taken", "eps", "P"} - set(zo)
        if missing:
            raise ValueError(
                f"state_dict: its entry 'zo' has no {min(missing)}; give what the state_dict() of "
                "a ZOSGD returned"
            )
        for name, here in self._identity().items():
            if zo[name] != here:
                raise ValueError(
                    f"state_dict: {name} is {zo[name]!r}, this optimizer's is {here!r}; construct "
                    f"the optimizer with {name}={zo[name]} to continue the same run"
                )
        zo["P"] = check_integer("state_dict: P", zo["P"], low=1)
        zo["steps_taken"] = check_integer("state_dict: steps_taken", zo["steps_taken"], low=0)
        zo["eps"] = resolve_eps(zo["eps"], self._resolved())
        for group in state_dict["param_groups"]:
            _check_options(self.defaults | dict(group), "state_dict: ")
        thetas = [theta for group in self.param_groups for theta in group["params"]]
        if sum(len(group["params"]) for group in state_dict["param_groups"]) == len(thetas):
            for number, saved in state_dict["state"].items():
                _check_buffer(number, saved, thetas)
        return zo  # the base class refuses another number of parameters


def _check_options(options: Mapping[str, Any], where: str = "") -> None:
    """Refuse a group whose lr, momentum or weight_decay is out of range."""
    lr = check_real(f"{where}lr", options["lr"], low=0.0)
    decay = check_real(f"{where}weight_decay", options["weight_decay"], low=0.0)
    if max(1.0, lr) * decay > torch.finfo(torch.float32).max:
        raise ValueError(
            f"{where}weight_decay: given {decay}, more than float32 holds; give less than 1 / lr, "
            "beyond which weights grow"
        )
    if check_real(f"{where}momentum", options["momentum"], low=0.0) >= 1.0:
        raise ValueError(
            f"{where}momentum: given {options['momentum']}, expected in [0, 1); give one below 1"
        )


def _check_buffer(number: Any, saved: Any, thetas: Sequence[Tensor]) -> None:
    """Refuse the saved state of a parameter that is not its momentum."""
    here = f"state_dict: the state of parameter {number}"
    if not isinstance(number, int) or not 0 <= number < len(thetas):
        raise ValueError(f"{here} is of none of {len(thetas)} parameters; load it for its model")
    buffer = saved.get("momentum_buffer") if isinstance(saved, Mapping) else None
    if not isinstance(buffer, Tensor) or not buffer.is_floating_point():
        raise ValueError(
            f"{here} has no momentum_buffer; give what a ZOSGD's state_dict() returned"
        )
    if buffer.numel() != thetas[number].numel():
        raise ValueError(
            f"{here} has {buffer.numel()} numbers, and the parameter has shape "
            f"{tuple(thetas[number].shape)}; load it for its model"
        )
    if not bool(buffer.isfinite().all()):
        raise ValueError(f"{here} holds NaN or infinity; load an earlier checkpoint")

"""How a batch of logits uses each parameter: a Jacobian in factors, never written out.

A forward pass of the whole batch notes each use of a parameter (:mod:`zotutor.recorder`); V
backward passes give the gradients in what those uses returned, for all inputs at once, of which
:mod:`zotutor.factors` makes inner products. The rows of a parameter used in a way that is not known
are written out.

Nothing is trusted: the gradient of a random combination of all logits is compared with what the
factors give, for each parameter, and the logits of one input with those that it has on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .calling import logits, model_of
from .factors import Explicit, Outer, Size, Use, add_inner_products, combined, joined, parts_written
from .jacobians import Pullback, jacobian_at
from .parameters import Parameters, at_least_float32
from .recorder import Recorder

_FLOAT32_INSIDE = 1e-6
"""Models in float64 may compute a part in float32, whose rounding this is."""


@dataclass
class Uses:
    """The Jacobian of a batch, by parameter; made by :func:`record`."""

    params: Parameters
    x: Tensor
    name: str
    """What errors call x."""
    V: int
    found: dict[int, list[Use]] = field(default_factory=dict)
    """By position of the parameter."""
    unknown: frozenset[int] = frozenset()
    """Parameters whose rows have to be written out."""
    biases: dict[int, int] = field(default_factory=dict)
    """Weights and vectors used once, by one operation, and at one position."""
    _rows: dict[frozenset[int], Explicit] = field(default_factory=dict)

    def rows(self, numbers: frozenset[int]) -> Explicit:
        """The Jacobian in some parameters, (N, V, their sizes)."""
        if numbers not in self._rows:
            chosen = sorted(numbers)
            part = Parameters(
                tuple(self.params.names[i] for i in chosen),
                tuple(self.params.tensors[i] for i in chosen),
                self.params.model,
            )
            # of all parameters at once, errors are those of the Jacobian itself
            whole = len(chosen) == len(self.params)
            J = jacobian_at(self.params if whole else part, self.x, self.name)
            self._rows = {numbers: Explicit(J)}
        return self._rows[numbers]

    def numbers(self) -> int:
        """How many numbers are kept for each input."""
        kept = sum(
            use.values.numel()
            if isinstance(use, Explicit)
            else use.delta.numel() + use.input.numel()
            for found in self.found.values()
            for use in found
        )
        by_rows = sum(self.params.sizes[i] for i in self.unknown)
        return kept // self.x.shape[0] + self.V * by_rows


def size_of(tensor: Tensor) -> Size:
    """(m, n) of a parameter as a matrix; (size, 1) of a vector."""
    rows = tensor.shape[0] if tensor.dim() >= 2 else tensor.numel()
    return rows, tensor.numel() // max(1, rows)


def record(params: Parameters, x: Tensor, name: str) -> Uses:
    """The uses of parameters in the logits of a batch, from one forward and V + 1 backward passes.

    Args:
        params: of a model.
        x: inputs (N, ...).
        name: what errors call x.

    Returns:
        The uses, checked. Where something is not as it should be (a model that mixes the inputs of
        a batch, a backward pass that fails), all parameters are ``unknown``; the Jacobian written
        out is then right, or says what is wrong with the model.
    """
    everything = frozenset(range(len(params)))
    try:
        pullback, recorder = _forward(params, x)
        uses = Uses(params, x, name, pullback.logits.shape[1])
        _backward(pullback, recorder, uses)
        wrong = _disagreeing(pullback, uses)
        mixed = bool(wrong & set(uses.found)) or not _alone(pullback, x)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001  of many types; an error of the model is raised again by rows
        return Uses(params, x, name, logits(model_of(params), x[:1]).shape[1], unknown=everything)
    if mixed:
        return Uses(params, x, name, uses.V, unknown=everything)
    uses.unknown |= wrong
    return uses


def _forward(params: Parameters, x: Tensor) -> tuple[Pullback, Recorder]:
    recorder = Recorder(params.tensors, x.shape[0])
    return Pullback(params, x, mode=recorder), recorder


def _backward(pullback: Pullback, recorder: Recorder, uses: Uses) -> None:
    """One backward pass for each logit, to the places where parameters were used."""
    N, V = pullback.logits.shape
    uses.unknown = frozenset(recorder.unknown)
    seen = [s for s in recorder.seen if s.i not in uses.unknown]
    ways = [s.keep(V) for s in seen]
    kept: list[Tensor | None] = [None] * len(seen)
    places = list(dict.fromkeys(s.edge for s in seen))  # a weight and its bias have the same
    where = [places.index(s.edge) for s in seen]
    for v, deltas in enumerate(pullback.at(places) if places else ()):
        for k, (take, _) in enumerate(ways):
            delta = deltas[where[k]]
            if delta is None:
                continue
            part = take(delta)
            buffer = kept[k]
            if buffer is None:
                buffer = kept[k] = part.new_zeros(N, V, *part.shape[1:])
            buffer[:, v] = part
    for s, (_, wrap), buffer in zip(seen, ways, kept, strict=True):
        if buffer is not None:
            uses.found.setdefault(s.i, []).append(wrap(buffer))
    once = {i for i, several in uses.found.items() if len(several) == 1}
    for i, several in uses.found.items():
        uses.found[i] = joined(several)
    for i, j in recorder.biases.items():
        use = uses.found[i][0] if {i, j} <= once else None
        if isinstance(use, Outer) and use.delta.shape[2] == 1:
            uses.biases[i] = j


def _disagreeing(pullback: Pullback, uses: Uses) -> set[int]:
    """Parameters for which the factors do not give the gradient of a random sum of all logits.

    An error of less than sqrt(eps) of the whole gradient changes the kernel by less than rounding:
    a formula that is wrong is wrong by about the gradient of its parameter.
    """
    z = pullback.logits
    source = torch.Generator(z.device).manual_seed(0)
    # no two rows alike, as those of signs may be: an exchange of inputs would not be seen
    c = torch.randn(z.shape, generator=source, device=z.device).to(z.dtype)
    parts = [None if part is None else part.detach().to_dense() for part in pullback.parts(c)]
    size = sum(float(part.double().square().sum()) for part in parts if part is not None)
    rounding = max(torch.finfo(dtype).eps for dtype in (z.dtype, *uses.params.dtypes)) ** 0.5
    rounding = max(rounding, _FLOAT32_INSIDE)
    wrong = set()
    for i, part in enumerate(parts):
        if i in uses.unknown:
            continue
        tensor = uses.params.tensors[i]
        found = [combined(use, c, size_of(tensor)) for use in uses.found.get(i, [])]
        difference = sum(found, torch.zeros((), device=z.device))
        if part is not None:
            difference = difference - part.flatten()
        error = float(difference.double().norm())
        if not error <= rounding * size**0.5:  # or not a number
            wrong.add(i)
    return wrong


def _alone(pullback: Pullback, x: Tensor) -> bool:
    """Whether the last input has the same logits on its own."""
    z = pullback.logits
    if len(z) == 1:
        return True
    own = logits(model_of(pullback.params), x[-1:].detach())[0]
    # float32 at best: some models compute a part in it, whatever they are given
    dtypes = (z.dtype, *pullback.params.dtypes, torch.float32)
    rounding = max(torch.finfo(dtype).eps for dtype in dtypes) ** 0.5
    return bool((own - z[-1]).abs().max() <= rounding * z.abs().max())


def _with_bias(use: Use) -> Outer:
    """The use of a weight and of the vector added to its product: (a . a' + 1)(delta . delta')."""
    assert isinstance(use, Outer)
    a = use.input  # (N, 1, n)
    return Outer(use.delta, torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2), use.transposed)


def inner_products(o: Uses, u: Uses, *, trace: bool = False) -> Tensor:
    """K at all pairs of inputs, (N_o, V, N_u, V), or its trace, (N_o, N_u).

    In float32 at least: rounding a kernel to bfloat16 can cost more than the ZO error in question.
    """
    tensors, unknown = o.params.tensors, o.unknown | u.unknown
    dtype = o.params.dtype
    N_o, N_u = o.x.shape[0], u.x.shape[0]
    shape = (N_o, N_u) if trace else (N_o, o.V, N_u, u.V)
    total = torch.zeros(shape, dtype=at_least_float32(dtype), device=o.x.device)
    if any(tensors[i].numel() for i in unknown):
        rows = o.rows(unknown), u.rows(unknown)
        add_inner_products(total, *rows, (rows[0].values.shape[2], 1))
    together = {
        i: j
        for i, j in o.biases.items()
        if u.biases.get(i) == j and not unknown & {i, j} and tensors[i].numel()
    }
    for i in together:
        a, b = (_with_bias(side.found[i][0]) for side in (o, u))
        m, n = size_of(tensors[i])
        add_inner_products(total, a, b, (m + a.transposed, n + (not a.transposed)))
    done = unknown | set(together) | set(together.values())
    for i, tensor in enumerate(tensors):
        if i not in done and tensor.numel():
            for one in o.found.get(i, []):
                for other in u.found.get(i, []):
                    add_inner_products(total, one, other, size_of(tensor))
    return total


def gradients(*sides: Uses) -> Iterator[list[Tensor]]:
    """The gradients of all logits at several sets of inputs, written out a part at a time.

    Args:
        sides: what :func:`record` returned for each set.

    Yields:
        For each set (N, V, some parameters), in float32 at least; together (N, V, d).
    """
    first = sides[0]
    unknown = frozenset[int]().union(*(side.unknown for side in sides))
    dtype = at_least_float32(first.params.dtype)
    if any(first.params.sizes[i] for i in unknown):
        rows = [[side.rows(unknown)] for side in sides]
        yield from parts_written(rows, (rows[0][0].values.shape[2], 1), dtype)
    for i, tensor in enumerate(first.params.tensors):
        if i in unknown or not tensor.numel():
            continue
        size = size_of(tensor)
        nothing = [
            [Explicit(tensor.new_zeros(side.x.shape[0], side.V, 1).expand(-1, -1, tensor.numel()))]
            for side in sides
        ]
        found = [side.found.get(i) or zero for side, zero in zip(sides, nothing, strict=True)]
        if any(side.found.get(i) for side in sides):
            yield from parts_written(found, size, dtype)

"""Matmuls and embedding lookups at theta + c u that never hold all of theta + c u.

Three savings over giving an operation a scratch copy of its weight:

- A large dense matrix is perturbed and multiplied by blocks of rows, in the same memory. That saves
  memory, not arithmetic: blocks of 2^22 entries take as long as the whole matrix would, and smaller
  ones up to a fifth longer on 1,024 tokens.
- A lookup perturbs only the rows that are looked up.
- A factored direction u = A B^T is applied after the product: x W^T + c (x B) A^T.

The last works for many directions in one batched forward as well (:class:`Batched`): the copies of
the batch share each read of the weights, and differ in their low-rank factors only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .directions import CHUNK, Direction, LowRank
from .parameters import at_least_float32

BLOCK = 1 << 22
"""Entries of a dense matrix perturbed at a time on a CPU; a GPU takes 2^26."""

LARGE = BLOCK
"""A dense matrix of up to this many entries is perturbed whole."""


class Fused:
    """Operations at theta + c u for one direction.

    Called like ``Substitution.__torch_function__``; it returns NotImplemented for the operations
    that it has no faster form of, which then get a scratch copy.

    Args:
        number: the position of each tracked parameter, by id.
        direction: u.
        c: signed distance.
    """

    def __init__(self, number: dict[int, int], direction: Direction, c: float) -> None:
        self._number = number
        self._direction = direction
        self._c = c
        self._factored = isinstance(direction.family, LowRank)
        self._block: Tensor | None = None  # reused: allocating costs as much as drawing signs
        self._known: dict[Any, Callable[..., Any]] = {
            F.linear: self._linear,
            F.embedding: self._embedding,
        }
        if self._factored:
            self._known[torch.addmm] = self._addmm

    def __call__(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operation's result, or NotImplemented if it needs a scratch copy."""
        known = self._known.get(func)
        if known is None or not _plain(*args, *kwargs.values()) or self._recorded(args, kwargs):
            return NotImplemented
        return known(*args, **kwargs)

    def _recorded(self, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether autograd records an activation: `out=` and in-place products would break that.

        It does for losses that contain derivatives in the inputs.
        """
        return torch.is_grad_enabled() and any(
            isinstance(value, Tensor) and value.requires_grad and id(value) not in self._number
            for value in (*args, *kwargs.values())
        )

    def _position(self, weight: Tensor, least: int) -> int | None:
        """The position of a tracked matrix, if it is large enough (or factored); else None."""
        i = self._number.get(id(weight))
        worth = self._factored or weight.numel() > least
        return i if i is not None and weight.dim() == 2 and worth else None

    def _vector(self, theta: Tensor | None) -> Tensor | None:
        """A bias, perturbed whole if it is tracked."""
        i = None if theta is None else self._number.get(id(theta))
        return theta if theta is None or i is None else self._direction.perturbed(i, theta, self._c)

    def _factors(self, i: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        assert isinstance(self._direction.family, LowRank)
        return self._direction.family.factors(self._direction, i, dtype)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        x, i = input, self._position(weight, LARGE)
        # shapes that do not fit are left to torch's own error
        if i is None or id(x) in self._number or x.shape[-1:] != weight.shape[1:]:
            return NotImplemented
        # a block of a strided weight would be a copy
        if not (self._factored or weight.is_contiguous()):
            return NotImplemented
        m, n = weight.shape
        flat, bias, weight = x.reshape(-1, n), self._vector(bias), weight.detach()  # (T, n)
        if self._factored:
            A, B = self._factors(i, x.dtype)  # (m, r), (n, r)
            out = F.linear(flat, weight, bias).addmm_(flat @ B, A.T, alpha=self._c)  # (T, m)
            return out.view(*x.shape[:-1], m)
        out = flat.new_empty(flat.shape[0], m)
        size = max(1, (BLOCK << 4 if x.is_cuda else BLOCK) // n)  # rows of the weight per block
        for start in range(0, m, size):
            stop = min(start + size, m)
            block = self._scratch((stop - start) * n, weight)
            self._direction.perturbed(i, weight, self._c, start * n, stop * n, block)
            part, columns = block.view(-1, n).T, out[:, start:stop]  # (n, stop - start), (T, ...)
            if bias is None:
                torch.mm(flat, part, out=columns)
            else:  # in one operation: adding it afterwards would round twice in half precision
                torch.addmm(bias[start:stop], flat, part, out=columns)
        return out.view(*x.shape[:-1], m)

    def _scratch(self, count: int, like: Tensor) -> Tensor:
        """Flat memory for one block, reused by the next."""
        if self._block is None or self._block.numel() < count or self._block.dtype != like.dtype:
            self._block = like.new_empty(count)
        return self._block[:count]

    def _embedding(
        self,
        input: Tensor,
        weight: Tensor,
        *options: Any,
        **named: Any,
    ) -> Any:
        ids, i = input, self._position(weight, CHUNK)
        if i is None or _renormalizes(options, named):
            return NotImplemented
        exact = at_least_float32(weight.dtype)
        looked_up = F.embedding(ids, weight.detach()).to(exact)  # (*ids, n)
        u = self._direction.rows(i, ids, exact)  # (*ids, n)
        return looked_up.add_(u, alpha=self._c).to(weight.dtype)

    def _addmm(self, input: Any, mat1: Any, mat2: Any, *more: Any, **scales: Any) -> Any:
        """GPT-2's Conv1D: bias + x W with W (n, m), which unlike Linear's is not transposed.

        Dense directions get a scratch copy: the blocks of rows above would be strided columns here.
        """
        if more or scales:
            return NotImplemented
        bias, x, weight = input, mat1, mat2
        i = self._position(weight, LARGE)
        if i is None or id(x) in self._number:
            return NotImplemented
        A, B = self._factors(i, x.dtype)
        shift = self._vector(bias)
        assert shift is not None
        return torch.addmm(shift, x, weight.detach()).addmm_(x @ A, B.T, alpha=self._c)


def _plain(*values: Any) -> bool:
    """Whether all tensors are plain: no subclass, no vmap around them, no autocast of them."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return all(
        type(tensor) in (Tensor, nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and not torch.is_autocast_enabled(tensor.device.type)
        for tensor in tensors
    )


def _renormalizes(options: Any, named: dict[str, Any]) -> bool:
    """Whether a lookup rescales long rows first (max_norm, the second option)."""
    return named.get("max_norm", options[1] if len(options) > 1 else None) is not None


class Batched:
    """Operations on a batch of S copies, copy s at theta + c_s u_s, u_s factored.

    Activations have the copies one after the other along dimension 0: (S * N, ...).

    Args:
        number: the position of each tracked parameter, by id.
        directions: u_s, all of one LowRank family.
        cs: c_s, one for each.
    """

    def __init__(
        self, number: dict[int, int], directions: Sequence[Direction], cs: Sequence[float]
    ) -> None:
        self._number = number
        self._directions = directions
        self._cs = cs
        self._batch: int | None = None
        self._factor_cache: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._known: dict[Any, Callable[..., Any]] = {
            F.linear: self._linear,
            F.embedding: self._embedding,
            F.layer_norm: self._layer_norm,
            torch.addmm: self._addmm,
        }
        self._elementwise = {
            getattr(torch.Tensor, name)
            for name in "mul __mul__ __rmul__ add __add__ __radd__ sub __sub__".split()
        } | {torch.mul, torch.add, torch.sub}

    def __call__(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operation's result for all copies.

        Raises:
            NotImplementedError: for an operation on a parameter that is not known here.
        """
        result = NotImplemented
        if func in self._known:
            result = self._known[func](*args, **kwargs)
        elif func in self._elementwise and len(args) == 2 and not kwargs:
            result = func(*self._spread(*args))
        if result is NotImplemented:
            raise NotImplementedError(
                f"closure: {getattr(func, '__name__', func)} reads a parameter in a way that a "
                "batched probe does not know; take a sequential step, with ZOSGD.step"
            )
        return result

    def _factors(self, i: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """c_s A_s (S, m, r) and B_s (S, n, r); cached, since tied weights need them twice."""
        if (i, dtype) not in self._factor_cache:
            pairs = {}  # +eps and -eps of one direction share their factors
            for u in self._directions:
                if u.p not in pairs:
                    assert isinstance(u.family, LowRank)
                    pairs[u.p] = u.family.factors(u, i, dtype)
            A = torch.stack(
                [c * pairs[u.p][0] for u, c in zip(self._directions, self._cs, strict=True)]
            )
            B = torch.stack([pairs[u.p][1] for u in self._directions])
            self._factor_cache[i, dtype] = A, B
        return self._factor_cache[i, dtype]

    def _vectors(self, theta: Tensor) -> Tensor:
        """Each theta + c_s u_s for a vector (n,), as (S, n); theta itself if it is not tracked."""
        i = self._number.get(id(theta))
        if i is None:
            return theta.expand(len(self._cs), -1)
        exact = at_least_float32(theta.dtype)
        base, drawn = theta.detach().to(exact), {}
        for u in self._directions:
            if u.p not in drawn:  # both signs share it
                drawn[u.p] = u.entries(i, 0, theta.numel(), exact)
        pairs = zip(self._directions, self._cs, strict=True)
        moved = torch.stack([torch.add(base, drawn[u.p], alpha=c) for u, c in pairs])
        return moved.to(theta.dtype)

    def _copies(self, x: Tensor) -> Tensor:
        """(S * N, ..., n) as (S, N * ..., n)."""
        self._check_copies(x)
        return x.reshape(len(self._cs), -1, x.shape[-1])

    def _check_copies(self, x: Tensor, dimensions: int = 2) -> None:
        S = len(self._cs)
        if x.dim() < dimensions or x.shape[0] % S:
            raise ValueError(
                f"closure: an activation of shape {tuple(x.shape)} cannot be {S} copies of a "
                "batch; repeat every input `copies` times along dimension 0"
            )

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool) -> Any:
        if id(x) in self._number:
            return NotImplemented
        i = self._number.get(id(weight))
        parts, plain = self._copies(x), weight.detach()  # (S, T, in)
        out = parts @ (plain if transposed else plain.T)  # (S, T, out)
        if i is not None:
            A, B = self._factors(i, x.dtype)
            left, right = (A, B) if transposed else (B, A)
            # one by one: a batched product with a single column is several times slower on a CPU
            inner = torch.stack([part @ factor for part, factor in zip(parts, left, strict=True)])
            out.baddbmm_(inner, right.mT)  # (S, T, r) and (S, r, out)
        if bias is not None:
            out += self._vectors(bias)[:, None]
        return out.view(*x.shape[:-1], out.shape[-1])

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        return self._product(input, weight, bias, transposed=False)

    def _addmm(self, input: Any, mat1: Any, mat2: Any, *more: Any, **scales: Any) -> Any:
        if more or scales or input.dim() != 1:
            return NotImplemented
        return self._product(mat1, mat2, input, transposed=True)

    def _embedding(
        self,
        input: Tensor,
        weight: Tensor,
        *options: Any,
        **named: Any,
    ) -> Any:
        if _renormalizes(options, named):
            return NotImplemented
        ids, i, S = input, self._number[id(weight)], len(self._cs)
        if ids.shape[0] == 1 and self._batch is not None:  # positions, shared by all inputs
            ids = ids.expand(self._batch, *ids.shape[1:])
        self._check_copies(ids, 1)
        self._batch = ids.shape[0]
        flat = ids.reshape(S, -1)
        if not torch.equal(flat, flat[:1].expand_as(flat)):
            raise ValueError(
                f"closure: the {S} copies of a batch look up different rows of an embedding, so "
                "that their losses cannot be compared; repeat the whole batch with "
                "ids.repeat(copies, 1), not each row in place"
            )
        looked_up = F.embedding(ids, weight.detach())
        A, B = self._factors(i, weight.dtype)
        rows = torch.stack([a[number] for a, number in zip(A, flat, strict=True)])  # (S, T, r)
        # (S, T, n) + (S, T, r) (S, r, n)
        return looked_up.view(S, flat.shape[1], -1).baddbmm(rows, B.mT).view(looked_up.shape)

    def _layer_norm(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Any:
        if len(normalized_shape) != 1 or id(input) in self._number:
            return NotImplemented
        out = self._copies(F.layer_norm(input, normalized_shape, None, None, eps))
        if weight is not None:
            out = out * self._vectors(weight)[:, None]
        if bias is not None:
            out = out + self._vectors(bias)[:, None]
        return out.view(input.shape)

    def _spread(self, *operands: Any) -> list[Any]:
        """The two operands, the vector parameter among them expanded to one vector per input."""
        tracked = [isinstance(o, Tensor) and id(o) in self._number for o in operands]
        theta, x = operands if tracked[0] else reversed(operands)
        if all(tracked) or theta.dim() != 1 or not isinstance(x, Tensor) or x.dim() < 2:
            raise NotImplementedError(
                "closure: a batched probe knows elementwise operations between a vector "
                "parameter and an activation only; take a sequential step, with ZOSGD.step"
            )
        self._check_copies(x)
        vectors = self._vectors(theta)  # (S, n)
        vectors = vectors.repeat_interleave(x.shape[0] // len(self._cs), 0)  # (S * N, n)
        vectors = vectors.view(-1, *[1] * (x.dim() - 2), vectors.shape[-1])  # (S * N, 1, ..., n)
        return [vectors, x] if tracked[0] else [x, vectors]

"""Zeroth-order steps in the Trainer of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from zotutor.estimators import Projection
from zotutor.optim import ZOSGD

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object


class DeferredZOSGD(ZOSGD):
    """A ZOSGD for loops that call ``loss.backward()``, and ``step()`` without a closure.

    The backward pass of :meth:`loss_of` leaves the projected gradients, scaled as the loop scales
    its loss, where :meth:`step` finds them.
    """

    _slopes: Tensor | None = None

    def loss_of(self, found: Projection) -> Tensor:
        """The measured loss, 0-d, with the projected gradients as its derivative."""
        if self._slopes is None:
            self._slopes = torch.zeros(self.P, dtype=torch.float64, requires_grad=True)
        coefficients = torch.tensor(found.coefficients, dtype=torch.float64)
        with torch.enable_grad():
            return found.loss + (self._slopes * coefficients).sum()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """The update, from all measurements since the last; with a closure, as ZOSGD's."""
        if closure is not None:
            return super().step(closure)
        slopes = None if self._slopes is None else self._slopes.grad
        if slopes is None:
            raise RuntimeError("step: nothing was measured; call loss_of(...).backward() before")
        self._slopes = None
        return self.replay(slopes.tolist())


class ZerothOrderSteps(Trainer):
    """A mix-in that lets the Trainer of transformers take zeroth-order steps.

    Everything else is the Trainer's: data, logging, evaluation, checkpoints, schedulers, gradient
    accumulation (all measurements of a step are along the same directions). Put it first::

        class ZerothOrderTrainer(zo.llm.ZerothOrderSteps, transformers.Trainer):
            pass


        ZerothOrderTrainer(model, arguments, train_dataset=data, zeroth_order={"P": 4})

    ``learning_rate``, ``weight_decay`` and ``seed`` are those of the arguments; ``max_grad_norm``
    and ``optim`` have no effect. Losses are computed in eval mode, without activations kept. For a
    ledger, replay and several processes use :func:`~zotutor.llm.finetune`.

    Args:
        args, kwargs: as for the Trainer.
        zeroth_order: dict of other options of :class:`~zotutor.ZOSGD`: P, eps, directions, ...

    Raises:
        ValueError: for several processes or GPUs, and for fp16, whose scaling needs gradients.
    """

    def __init__(self, *args: Any, zeroth_order: Any = None, **kwargs: Any) -> None:
        self.zeroth_order = dict(zeroth_order or {})
        super().__init__(*args, **kwargs)

    def create_optimizer(self, *_: Any, **__: Any) -> Any:
        """A ZOSGD over the model's trainable parameters."""
        if self.args.world_size > 1 or self.args.n_gpu > 1 or self.args.fp16:
            advice = "take bf16, or zotutor.llm.finetune with ranks"
            raise ValueError(f"zeroth_order: works in one process, without fp16; {advice}")
        if self.optimizer is None:
            parameters, given = cast(nn.Module, self.model).parameters(), self.args
            options: Any = {"weight_decay": given.weight_decay, "seed": given.seed}
            options |= {"lr": given.learning_rate} | self.zeroth_order
            self.optimizer = DeferredZOSGD(parameters, **options)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """In training, the measurement of a step; in evaluation, the Trainer's loss."""
        whole = super().compute_loss
        if not model.training:
            return whole(model, inputs, *args, **kwargs)
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # of accelerate
        try:
            model.eval()
            found = optimizer.measure(lambda: whole(model, dict(inputs), *args, **kwargs))
        finally:
            model.train()
        return optimizer.loss_of(found).to(self.args.device)

"""Zeroth-order steps in the real Trainer of transformers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small import CAUSAL, V, network
from torch import nn

import zotutor as zo
from zotutor.llm import ZerothOrderSteps, add_adapter, weights_hash
from zotutor.llm.trainer import DeferredZOSGD

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


class ZerothOrderTrainer(ZerothOrderSteps, transformers.Trainer):  # type: ignore[misc, name-defined]
    """As its docstring says."""


def rows(count: int = 8, length: int = 6) -> list[dict[str, Any]]:
    """Counting texts, whose next token is the last one plus one, of different lengths' worth."""
    data = []
    for k in range(count):
        ids = [(3 + k + j) % (V - 3) + 3 for j in range(length)]
        labels = [-100] * (k % 3) + ids[k % 3 :]  # rows weigh differently in a mean over tokens
        data.append({"input_ids": ids, "labels": labels})
    return data


def collated(parts: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Any]:
    def make(model: Any = None, zeroth_order: Any = None, **options: Any) -> Any:
        given: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"),
            "learning_rate": 1e-2,
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "save_strategy": "no",
            "dataloader_pin_memory": False,
        } | options
        return ZerothOrderTrainer(
            model or network(CAUSAL["rotary"]),
            transformers.TrainingArguments(**given),
            train_dataset=rows(),
            eval_dataset=rows(4),
            data_collator=collated,
            zeroth_order=zeroth_order,
        )

    return make


def loss_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).loss


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_steps_are_those_of_zosgd(trainer: Callable[..., Any], accumulated: int) -> None:
    """The same weights as a plain loop over the batches that the Trainer drew."""
    model = network(CAUSAL["rotary"])
    mirror = copy.deepcopy(model)
    drawn: list[dict[str, torch.Tensor]] = []

    class Recording(ZerothOrderTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if model.training:
                drawn.append({name: value.clone() for name, value in inputs.items()})
            return super().compute_loss(model, inputs, *args, **kwargs)

    one = trainer(
        model,
        {"P": 2, "eps": 1e-3},
        gradient_accumulation_steps=accumulated,
        lr_scheduler_type="constant",
    )
    one.__class__ = Recording
    one.train()
    optimizer = zo.ZOSGD(mirror.parameters(), 1e-2, P=2, eps=1e-3, seed=42)
    assert len(drawn) == 4 * accumulated
    losses = []
    for k in range(0, len(drawn), accumulated):
        whole = {n: torch.cat([d[n] for d in drawn[k : k + accumulated]]) for n in drawn[0]}
        losses.append(float(optimizer.step(partial(loss_of, mirror, whole))))
    for found, expected in zip(model.parameters(), mirror.parameters(), strict=True):
        # a slope is a difference of losses over 2 eps: rounding of 1e-6 in them is 1e-3 in it
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert logged(one, "loss") == pytest.approx(losses, abs=2e-3)
    assert optimizer.steps_taken == one.optimizer.optimizer.steps_taken == 4
    if accumulated == 1:  # the same calls on the same numbers
        assert weights_hash(model) == weights_hash(mirror)


def test_scheduler_evaluation_and_no_gradient(trainer: Callable[..., Any]) -> None:
    one = trainer(lr_scheduler_type="linear", eval_strategy="steps", eval_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        reached: list[bool] = []
        forward = transformers.LlamaForCausalLM.forward

        @functools.wraps(forward)  # the Trainer drops what a forward does not take
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            reached.append(torch.is_grad_enabled())
            return forward(self, *args, **kwargs)

        patch.setattr(transformers.LlamaForCausalLM, "forward", watched)
        one.train()
    assert reached
    assert not any(reached), "no forward pass keeps activations"
    assert all(parameter.grad is None for parameter in one.model.parameters())
    assert logged(one, "learning_rate") == pytest.approx([1e-2, 0.75e-2, 0.5e-2, 0.25e-2])
    assert len(logged(one, "eval_loss")) == 2
    with torch.no_grad():
        batch = collated(rows(4))
        expected = float(one.model.eval()(**batch).loss)
    assert one.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_resumes_to_the_same_bits(trainer: Callable[..., Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    zeroth_order = {"P": 2, "momentum": 0.5}
    whole = trainer(None, zeroth_order, **options, output_dir=str(tmp_path / "whole"))
    whole.train()
    rest = trainer(None, zeroth_order, **options, output_dir=str(tmp_path / "rest"))
    rest.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert rest.state.global_step == 4
    assert weights_hash(rest.model) == weights_hash(whole.model)
    assert logged(rest, "loss")[-2:] == logged(whole, "loss")[-2:]


def test_it_learns(trainer: Callable[..., Any]) -> None:
    """Counting: over three seeds the loss falls by a quarter at least; lr from a sweep."""
    for seed in range(3):
        one = trainer(None, {"P": 4}, max_steps=120, learning_rate=3e-3, seed=seed)
        one.train()
        losses = logged(one, "loss")
        assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_an_adapter_alone_is_trained(trainer: Callable[..., Any]) -> None:
    pytest.importorskip("peft")
    model = add_adapter(network(CAUSAL["rotary"]), "lora", seed=0)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    before = weights_hash(model)
    trainer(model).train()
    assert weights_hash(model) != before
    assert all(torch.equal(p, frozen.get(n, p)) for n, p in model.named_parameters())


def test_what_cannot_work_is_refused(trainer: Callable[..., Any]) -> None:
    one = trainer()
    one.args.fp16 = True
    with pytest.raises(ValueError, match="without fp16; take bf16"):
        one.create_optimizer()
    theta = nn.Parameter(torch.ones(2))
    optimizer = DeferredZOSGD([theta], 0.1, seed=0)
    with pytest.raises(RuntimeError, match="nothing was measured"):
        optimizer.step()


def test_two_measurements_add_up() -> None:
    """Backward passes of scaled losses: their sum is the slope of the sum, in one update."""
    theta, other = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    optimizer = DeferredZOSGD([theta], 0.1, P=2, seed=0)
    plain = zo.ZOSGD([other], 0.1, P=2, seed=0)
    for weight in (0.25, 0.75):
        found = optimizer.measure(lambda: theta.sum())
        (weight * optimizer.loss_of(found)).backward()
    assert theta.grad is None
    optimizer.step()
    plain.step(lambda: other.sum())
    torch.testing.assert_close(theta, other)
    loss = optimizer.step(lambda: theta.square().sum())
    assert float(loss) > 0
    assert optimizer.steps_taken == 2

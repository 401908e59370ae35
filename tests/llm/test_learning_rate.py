"""A learning rate that was measured: chosen, recorded, resumed, watched."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from small import save_model, toy_task
from torch import nn

from zotutor import llm
from zotutor.llm.learning_rate import agreed, reason
from zotutor.llm.runs.ledger import read
from zotutor.llm.runs.ranks import Ranks
from zotutor.llm.watching import WINDOW, Watch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("opt"), layers=1)


def tuned(folder: Path, **options: Any) -> tuple[nn.Module, llm.Run]:
    model, tokenizer = llm.load(str(folder))
    given: dict[str, Any] = {"steps": 4, "batch_size": 4, "progress": False, "seed": 3}
    return model, llm.finetune(model, tokenizer, toy_task(), **given | options)


def test_without_a_learning_rate_a_planned_one_is_taken(folder: Path, tmp_path: Path) -> None:
    _, run = tuned(folder, output=tmp_path / "run")
    assert run.plan is not None
    planned = llm.plan(*llm.load(str(folder)), toy_task(), steps=4, batch_size=4, seed=3)
    assert run.plan.lr == planned.lr
    assert {step.lr for step in read(tmp_path / "run" / "ledger.bin").steps} == {planned.lr}
    assert f"lr {planned.lr:.2g}" in reason(planned)


def test_the_file_is_that_of_a_run_with_the_same_number_given(folder: Path, tmp_path: Path) -> None:
    _, run = tuned(folder, output=tmp_path / "measured")
    assert run.plan is not None
    tuned(folder, output=tmp_path / "given", lr=run.plan.lr, eps=run.plan.eps)
    for name in ("ledger.bin", "config.json", "metrics.jsonl"):
        one, other = (tmp_path / part / name for part in ("measured", "given"))
        assert one.read_bytes() == other.read_bytes()


def test_a_resumed_run_takes_the_recorded_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = tuned(folder, steps=6, lr=0.0123, output=tmp_path / "whole")
    tuned(folder, steps=4, lr=0.0123, output=tmp_path / "parts")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("zotutor.llm.finetuning.plan_run", never)
    resumed, run = tuned(folder, steps=6, output=tmp_path / "parts")
    assert run.plan is None
    assert llm.weights_hash(resumed) == llm.weights_hash(whole)


def test_momentum_takes_a_smaller_one(folder: Path) -> None:
    _, run = tuned(folder, momentum=0.9)
    assert run.plan is not None
    _, plain = tuned(folder)
    assert plain.plan is not None
    assert run.plan.lr == plain.plan.lr  # what was measured is the same; the step is a tenth


def test_first_order_needs_one(folder: Path) -> None:
    with pytest.raises(TypeError, match="lr: given None, expected a number"):
        tuned(folder, method="adamw")


@pytest.mark.parametrize("value", [1.7e-5, 3.0, 0.1])
def test_ranks_agree_to_the_last_bit(value: float) -> None:
    assert agreed(value, Ranks()) == value


# ---- watching -----------------------------------------------------------------------------------


def said(losses: list[float], slope: float = 1.0, **options: Any) -> list[str]:
    given: dict[str, Any] = {"eps": 1e-3, "dtype": torch.float32}
    watch = Watch(**given | options)
    return [text for loss in losses if (text := watch.saw(loss, [slope]))]


def test_a_run_that_learns_is_left_in_peace() -> None:
    assert said([1.0 - 0.001 * k for k in range(500)]) == []


def test_a_noisy_run_is_left_in_peace() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = (1 + 0.8 * torch.randn(2000, generator=generator)).abs().tolist()
    assert said(losses) == []


def test_a_rising_loss_is_said_once() -> None:
    (text,) = said([1.0 + 0.01 * k for k in range(300)])
    assert "the loss has risen from" in text
    assert "too large" in text


def test_drowned_differences_are_said_once() -> None:
    (text,) = said([1.0] * 100, slope=1e-4)
    assert "follow rounding" in text
    assert said([1.0] * 100, slope=1e-4, dtype=torch.float64) == []
    assert said([1.0] * (WINDOW - 1), slope=1e-4) == []


def test_a_run_warns_while_it_diverges(folder: Path) -> None:
    says = r"step \d+: (the loss has risen|most differences)"  # or logits that no step moves
    with pytest.warns(RuntimeWarning, match=says):
        tuned(folder, steps=60, lr=30.0, evaluate_every=None)


def test_a_run_at_the_planned_rate_does_not_warn(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned(folder, steps=60)


# ---- five runs that were broken on purpose ------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> tuple[Any, Any, Any]:
    return (*llm.load("tiny"), llm.task("reviews"))


def findings(model: Any, tokenizer: Any, task: Any, **options: Any) -> llm.Report:
    given: dict[str, Any] = {"lr": 4e-4, "steps": 500, "samples": 8, "seed": 0}
    return llm.diagnose(model, tokenizer, task, **given | options)


def test_nothing_is_wrong_with_a_run_that_works(whole: tuple[Any, Any, Any]) -> None:
    before = llm.weights_hash(whole[0])
    report = findings(*whole)
    assert report.wrong == []
    assert llm.weights_hash(whole[0]) == before
    assert str(report).count("\n") >= 9


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"eps": 0.3}, "eps"),
        ({"lr": 0.05}, "learning rate"),
        ({"lr": 1e-7}, "learning rate"),
        (
            {"objective": lambda z, y: (z.argmax(-1) != y).float()},
            "loss moves",
        ),
    ],
)
def test_a_broken_run_is_found(
    whole: tuple[Any, Any, Any], options: dict[str, Any], what: str
) -> None:
    assert what in findings(*whole, **options).wrong


def test_a_dtype_that_drowns_is_found() -> None:
    model, tokenizer = llm.load("tiny", dtype=torch.bfloat16)
    report = findings(model, tokenizer, llm.task("reviews"), lr=2e-6)
    assert "weights moved" in report.wrong
    assert "weights moved" not in findings(*llm.load("tiny"), llm.task("reviews"), lr=2e-6).wrong


def test_frozen_weights_are_found(whole: tuple[Any, Any, Any]) -> None:
    model, tokenizer = llm.load("tiny")
    model.requires_grad_(False)
    model.register_module("new_head", nn.Linear(8, 8))
    report = findings(model, tokenizer, whole[2])
    assert "loss moves" in report.wrong
    assert "unfreeze" in str(report)


def test_exchanged_labels_are_found(whole: tuple[Any, Any, Any]) -> None:
    model, tokenizer, task = whole
    llm.finetune(model, tokenizer, task, steps=30, lr=1e-3, method="adamw", progress=False)
    report = findings(model, tokenizer, task._replace(words=task.words[::-1]))
    assert "zero-shot" in report.wrong

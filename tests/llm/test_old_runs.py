"""A run that version 0.1 wrote resumes and replays bit for bit.

`data/run_0_1` is what version 0.1.0 left after 5 of 8 steps (P = 2, Rademacher) on the shipped
model when it was interrupted; the hash below is that of its weights then. Random signs and one
rounding per update make it the same on every machine. Losses are another matter: they come from
matmuls, so those of later steps are compared with the same steps on this machine.
"""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the extra `llm` is not installed")

from zotutor import llm
from zotutor.llm.runs import files
from zotutor.llm.runs.ledger import read
from zotutor.llm.stepping import ZerothOrder

OLD = Path(__file__).parent / "data" / "run_0_1"
AFTER_5 = "d17ce5ec703b55e9e46151a4d88366008cd239995ad834d4b3b169644c86519a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def resumed(output: Path, **options: Any) -> tuple[llm.Run, Any]:
    model, tokenizer = llm.load("tiny")
    given: dict[str, Any] = {"steps": 8, "lr": 1e-4, "P": 2, "batch_size": 2, "evaluate_every": 4}
    given |= {"dev": 4, "hash_every": 2, "seed": 3, "output": output, "progress": False} | options
    task = llm.task("reviews", shots=4)
    return llm.finetune(model, tokenizer, task, **given), model


def test_it_replays_to_the_weights_it_had() -> None:
    model, _ = llm.load("tiny")
    found = llm.replay(OLD, model)
    assert (found.steps, found.checked, found.sha256) == (5, 4, AFTER_5)
    assert llm.weights_hash(model) == AFTER_5


def test_it_resumes_and_takes_the_steps_that_were_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "ledger.bin").read_bytes()
    measured: list[tuple[int, Any]] = []
    measure = ZerothOrder.measure

    def measuring(self: ZerothOrder, *args: Any, **options: Any) -> Any:
        found = measure(self, *args, **options)
        measured.append((self.optimizer.steps_taken, found.coefficients))
        return found

    monkeypatch.setattr(ZerothOrder, "measure", measuring)
    run, model = resumed(folder)
    contents = read(folder / "ledger.bin")
    assert (folder / "ledger.bin").read_bytes().startswith(before)
    assert [(step.number, step.coefficients) for step in contents.steps[5:]] == measured
    assert [number for number, _ in measured] == [5, 6, 7]
    assert [entry.number for entry in contents.hashes] == [2, 4, 6, 8]
    assert run.losses[:5] == [step.loss for step in read(OLD / "ledger.bin").steps]
    again, _ = llm.load("tiny")
    assert llm.replay(folder, again).checked == 8
    assert llm.weights_hash(again) == llm.weights_hash(model)
    old = json.loads((OLD / "config.json").read_text())
    new = json.loads((folder / "config.json").read_text())
    for name in ("zotutor", "torch", "device"):  # of the session
        del old[name], new[name]
    assert new == old


def test_what_it_evaluated_is_not_evaluated_again(folder: Path) -> None:
    run, _ = resumed(folder)
    kept = [e for e in files.read_metrics(OLD) if "accuracy" in e]
    assert [(n, a.value) for n, a in run.evaluations[:2]] == [
        (e["step"], e["accuracy"]) for e in kept
    ]


def test_the_name_of_an_option_in_0_1_still_works(folder: Path) -> None:
    with pytest.warns(DeprecationWarning, match="seal_every: renamed to hash_every"):
        resumed(folder, hash_every=100, seal_every=2)
    with pytest.warns(DeprecationWarning, match="seals: renamed to hashes"):
        assert read(folder / "ledger.bin").seals == read(folder / "ledger.bin").hashes
    with pytest.warns(DeprecationWarning, match="Seal: renamed to WeightsHash"):
        Seal = import_module("zotutor.llm.ledger").Seal
    assert Seal is llm.ledger.WeightsHash


def test_another_run_is_refused_by_the_name_of_today(folder: Path) -> None:
    with pytest.raises(llm.RunError, match="its hash_every is 2, and 3 was given"):
        resumed(folder, hash_every=3)

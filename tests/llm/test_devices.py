"""Models that accelerate places on several devices, or partly on disk.

CI has one device. What can be shown there: weights on disk, loaded by accelerate's hooks while a
layer computes; that a step never asks for the one device of all parameters; and that each part of a
direction is drawn where its parameter is, with the numbers that belong to its position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from small import CAUSAL, network, toy_task, word_tokenizer
from torch import Tensor

import zotutor as zo
from zotutor.directions import Directions
from zotutor.llm import add_adapter, finetune, load_adapter, replay, weights_hash
from zotutor.llm.devices import first_device
from zotutor.llm.learning_rate import example_losses
from zotutor.llm.preparing import prepare
from zotutor.llm.stepping import Batches
from zotutor.parameters import Parameters

accelerate = pytest.importorskip("accelerate")
pytest.importorskip("transformers", reason="the extra `llm` is not installed")


def on_disk(folder: Path, **elsewhere: str) -> Any:
    """A Llama whose first layer and head are on disk but while they compute."""
    places = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"} | elsewhere
    return accelerate.dispatch_model(
        network(CAUSAL["rotary"]),
        device_map=places,
        main_device="cpu",
        offload_dir=str(folder),
        force_hooks=True,
    )


def tuned(model: Any, output: Path | None = None, **options: Any) -> Any:
    given: dict[str, Any] = {"steps": 4, "lr": 0.05, "batch_size": 4, "seed": 3, "progress": False}
    return finetune(model, word_tokenizer(), toy_task(), output=output, **given | options)


def test_an_offloaded_base_is_the_base(tmp_path: Path) -> None:
    """The same kernels on the same numbers, wherever they were before: the same bits."""
    pytest.importorskip("peft")
    offloaded = on_disk(tmp_path / "weights")
    assert any(p.is_meta for p in offloaded.parameters())
    assert weights_hash(offloaded) == weights_hash(network(CAUSAL["rotary"]))
    model = add_adapter(offloaded, "lora", seed=5)
    assert not any(p.is_meta for p in model.parameters() if p.requires_grad)
    plain = add_adapter(network(CAUSAL["rotary"]), "lora", seed=5)
    runs = [tuned(model, tmp_path / "run", save=True), tuned(plain)]
    assert runs[0].losses == runs[1].losses
    assert weights_hash(model) == weights_hash(plain)
    start = load_adapter(network(CAUSAL["rotary"]), tmp_path / "run" / "initial")
    assert replay(tmp_path / "run", start).sha256 == weights_hash(plain)


def test_weights_that_an_update_would_not_reach_are_refused(tmp_path: Path) -> None:
    model = on_disk(tmp_path / "weights")
    with pytest.raises(ValueError, match=r"layers\.0\.\S+ is offloaded .*add_adapter keeps what"):
        tuned(model)
    for parameter in model.parameters():
        parameter.requires_grad_(not parameter.is_meta)
    same = network(CAUSAL["rotary"])
    for one, other in zip(same.parameters(), model.parameters(), strict=True):
        one.requires_grad_(other.requires_grad)
    assert tuned(model).losses == tuned(same).losses, "what is in memory can be trained"


FAMILIES = (zo.Rademacher(), zo.Gaussian(), zo.Sphere(), zo.Sparse(0.5), zo.LowRank(2))


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_a_step_asks_for_no_one_device(family: Directions, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Parameters) -> torch.device:
        raise AssertionError("a step read the single device of all parameters")

    monkeypatch.setattr(Parameters, "device", property(refuse))
    for P, width in ((2, 8), (2, 700)):  # computed at once, and where they are used
        model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 600))
        optimizer = zo.ZOSGD(model.parameters(), 1e-3, P=P, directions=family, seed=0)
        x = torch.ones(1, 4)

        def loss(model: torch.nn.Module = model, x: Tensor = x) -> Tensor:
            return cast(Tensor, model(x).square().mean())

        def losses(n: int, model: torch.nn.Module = model, x: Tensor = x) -> Tensor:
            return cast(Tensor, model(x.repeat(n, 1)).square().mean(1))

        optimizer.step(loss)
        if isinstance(family, zo.LowRank):
            optimizer.step_batched(losses)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != zo.Sphere()], ids=repr)
def test_each_part_is_drawn_where_its_parameter_is(family: Directions) -> None:
    """The second parameter is on "meta", where tensors have a device and no numbers."""
    here = [torch.zeros(3, 4, requires_grad=True) for _ in range(3)]
    away = [here[0], torch.zeros(3, 4, device="meta", requires_grad=True), here[2]]
    one, split = (family.at(params, seed=1, step=2) for params in (here, away))
    for i in (0, 2):
        assert torch.equal(split.entries(i, 0, 12, torch.float32), one.tensor(i).flatten())
    part = family._entries(split, 1, slice(0, 12), torch.float32)
    assert (part.device.type, part.shape) == ("meta", (12,))


def test_a_batch_begins_where_the_first_layer_computes(tmp_path: Path) -> None:
    assert first_device(network(CAUSAL["rotary"])) == torch.device("cpu")
    assert first_device(on_disk(tmp_path)) == torch.device("cpu")
    nothing = torch.nn.Linear(2, 2, device="meta")
    assert first_device(nothing) == torch.device("cpu")


def test_losses_to_plan_by_of_a_base_whose_embedding_is_on_disk(tmp_path: Path) -> None:
    """The first parameter is on "meta" until its layer computes: a batch cannot follow it there."""
    embedding = {"model.embed_tokens": "disk"}
    found = []
    for model in (network(CAUSAL["rotary"]), on_disk(tmp_path, **embedding)):
        texts = [example.text for example in toy_task().train]
        prepared = prepare(model, word_tokenizer(), toy_task().words, texts)
        batches = Batches(prepared.prompts.ids(texts), [0] * len(texts), size=4, seed=0)
        with torch.no_grad():
            found.append(example_losses(prepared, batches)(0))
    assert next(model.parameters()).is_meta
    assert torch.equal(*found)

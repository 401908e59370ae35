"""Adapters of peft and quantized bases: tuned alone, recorded, resumed, replayed, loaded again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from small import CAUSAL, CLASSIFIERS, network, save_model, toy_task, word_tokenizer
from torch import Tensor, nn

import zotutor as zo
from zotutor.llm import (
    LedgerError,
    RunError,
    add_adapter,
    finetune,
    load,
    load_adapter,
    replay,
    weights_hash,
)
from zotutor.llm.quantized import is_quantized
from zotutor.llm.runs.replay import ledger_in

peft = pytest.importorskip("peft")
pytest.importorskip("transformers", reason="the extra `llm` is not installed")

Kind = Literal["lora", "prefix", "prompt"]
KINDS: tuple[Kind, ...] = ("lora", "prefix", "prompt")


class Int8Linear(nn.Module):
    """x W^T with W = scale * integers, kept as int8 buffers: a frozen layer without parameters."""

    integers: Tensor
    scale: Tensor

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        scale = plain.weight.detach().abs().amax(1, keepdim=True) / 127  # (m, 1)
        self.register_buffer("integers", (plain.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.integers * self.scale).T


def int8_model() -> Any:
    """A Llama whose feed-forward layers are stored in integers."""
    model = network(CAUSAL["rotary"])
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(layer.mlp, name, Int8Linear(getattr(layer.mlp, name)))
    return model.eval()


BASES: dict[str, Callable[[], Any]] = {
    "learned positions": lambda: network(CAUSAL["learned"]),
    "rotary": lambda: network(CAUSAL["rotary"]),
    "OPT": lambda: network(CAUSAL["mask"]),
    "int8": int8_model,
}


def tuned(model: Any, output: Path | None = None, **options: Any) -> Any:
    given: dict[str, Any] = {"steps": 4, "lr": 0.05, "batch_size": 4, "hash_every": 2, "seed": 3}
    given |= {"progress": False} | options
    return finetune(model, word_tokenizer(), toy_task(), output=output, **given)


def frozen_part(model: Any) -> dict[str, Tensor]:
    """All of a model's state but the adapter."""
    adapter = {name for name, p in model.named_parameters() if p.requires_grad}
    return {k: v.clone() for k, v in model.state_dict().items() if k not in adapter}


# ---- the life of a run --------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_tuned_alone_and_comes_back(kind: Kind, base: str, tmp_path: Path) -> None:
    """Tuned, written, replayed from its start, and loaded: the same bits each time."""
    model = add_adapter(BASES[base](), kind, rank=2, virtual_tokens=3, seed=5)
    before, initial = frozen_part(model), weights_hash(model)
    run = tuned(model, tmp_path / "run", save=True)
    digest = weights_hash(model)
    assert digest != initial
    assert all(torch.equal(v, before[k]) for k, v in frozen_part(model).items())
    assert any(loss != run.losses[0] for loss in run.losses)

    start = load_adapter(BASES[base](), tmp_path / "run" / "initial")
    assert weights_hash(start) == initial
    found = replay(tmp_path / "run", start)
    assert (found.sha256, found.steps, found.checked) == (digest, 4, 4)
    assert weights_hash(load_adapter(BASES[base](), tmp_path / "run" / "weights")) == digest
    again = load_adapter(BASES[base](), tmp_path / "run" / "weights")
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    saved = {path.name for path in (tmp_path / "run" / "weights").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= saved
    assert not {name for name in saved if name.startswith("model")}, "the base is not written"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_ends_in_the_same_bits(kind: Kind, tmp_path: Path) -> None:
    def make() -> Any:
        return add_adapter(BASES["OPT"](), kind, virtual_tokens=3, seed=5)

    whole, parts = make(), make()
    tuned(whole, tmp_path / "whole", steps=6)
    tuned(make(), tmp_path / "parts", steps=3)
    tuned(parts, tmp_path / "parts", steps=6)
    assert weights_hash(parts) == weights_hash(whole)
    read = [zo.llm.ledger.read(tmp_path / name / "ledger.bin").steps for name in ("whole", "parts")]
    assert read[0] == read[1]
    first = "initial/adapter_model.safetensors"
    assert (tmp_path / "parts" / first).read_bytes() == (tmp_path / "whole" / first).read_bytes()


def test_the_update_is_that_of_the_adapter_alone() -> None:
    """In float64 against plain code: the adapter moves along its own directions, from number 0."""
    model = add_adapter(BASES["learned positions"](), "lora", rank=2, seed=5).double()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    mirror = copy.deepcopy(model)
    run = tuned(model, steps=1, lr=0.5, eps=1e-3)
    directions = zo.Rademacher().dense(mirror, P=1, seed=3, step=0)[:, 0]  # (d,)
    pieces = directions.split([before[name].numel() for name in names])
    moved = [(dict(model.named_parameters())[n].detach() - before[n]).flatten() for n in names]
    steps = {round(float(s), 9) for m, u in zip(moved, pieces, strict=True) for s in m / u}
    assert len(steps) == 1, "one number, -lr g, times the direction"
    assert steps != {0.0}
    assert run.losses


def test_a_seed_fixes_an_adapter() -> None:
    for kind in KINDS:
        one, same, other = (
            weights_hash(add_adapter(BASES["OPT"](), kind, virtual_tokens=3, seed=seed))
            for seed in (1, 1, 2)
        )
        assert one == same != other
    state = torch.get_rng_state()
    add_adapter(BASES["OPT"](), "lora", seed=1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.parametrize("base", ["learned positions", "rotary", "OPT"])
def test_a_prefix_begins_with_what_the_model_keeps_of_tokens(base: str) -> None:
    """The logits after a prefix are those after its tokens themselves."""
    model = BASES[base]()
    ids = torch.tensor([[5, 9, 12]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_, **__: torch.tensor([7, 3]))
        adapted = add_adapter(copy.deepcopy(model), "prefix", virtual_tokens=2, seed=0)
        prompted = add_adapter(copy.deepcopy(model), "prompt", virtual_tokens=2, seed=0)
    with torch.no_grad(), warnings.catch_warnings():
        expected = model(input_ids=torch.cat([torch.tensor([[7, 3]]), ids], 1)).logits[:, -1]
        for one in (adapted, prompted):
            torch.testing.assert_close(one(input_ids=ids).logits[:, -1], expected)


def test_an_adapter_learns() -> None:
    """Ten of ten seeds lower the loss of the toy task; lr from a sweep on seed 0."""
    found = []
    for seed in range(4):
        model = add_adapter(BASES["rotary"](), "lora", seed=seed)
        run = tuned(model, steps=150, lr=0.01, batch_size=8, P=4, seed=seed)
        found.append(sum(run.losses[-10:]) / 10 < 0.5 * sum(run.losses[:10]) / 10)
    assert sum(found) >= 3, found


# ---- quantized bases ----------------------------------------------------------------------------


def test_integers_are_part_of_the_hash_and_stay() -> None:
    model = int8_model()
    plain = weights_hash(model)
    layer = next(module for module in model.modules() if is_quantized(module))
    layer.integers[0, 0] += 1
    assert weights_hash(model) != plain
    layer.integers[0, 0] -= 1
    layer.scale[0] *= 1.5
    assert weights_hash(model) != plain, "scales are no parameters, and count"


def test_an_integer_model_is_the_model_of_its_values() -> None:
    """The same steps as on the same numbers in float32: integers only store them."""
    model = int8_model()
    same = copy.deepcopy(model)
    for layer in same.model.layers:
        for name, module in list(layer.mlp.named_children()):
            if isinstance(module, Int8Linear):
                dense = nn.Linear(module.in_features, module.out_features, bias=False)
                dense.weight.data = module.integers * module.scale
                setattr(layer.mlp, name, dense)
    runs = [tuned(add_adapter(m, "lora", seed=5)) for m in (model, same)]
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-6)


def test_another_quantized_base_is_refused(tmp_path: Path) -> None:
    tuned(add_adapter(int8_model(), "lora", seed=5), tmp_path / "run")
    other = int8_model()
    other.model.layers[0].mlp.up_proj.scale *= 1.01
    with pytest.raises(LedgerError, match="load the base model that was fine-tuned"):
        replay(tmp_path / "run", load_adapter(other, tmp_path / "run" / "initial"))


def test_a_base_without_anything_to_train_is_refused() -> None:
    model = int8_model().requires_grad_(False)
    with pytest.raises(ValueError, match=r"6 of its layers store integers; add an adapter"):
        tuned(model)
    with pytest.raises(ValueError, match=r"all its parameters are frozen; add an adapter"):
        tuned(BASES["OPT"]().requires_grad_(False))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_bitsandbytes(bits: Literal["8bit", "4bit"], tmp_path: Path) -> None:
    """The same life of a run, where bitsandbytes is installed."""
    pytest.importorskip("bitsandbytes")
    folder = save_model(tmp_path / "base")

    def make() -> Any:
        return load(folder, quantize=bits)[0]

    model = add_adapter(make(), "lora", seed=5)
    assert {p.dtype for p in model.parameters()} > {torch.float32}
    tuned(model, tmp_path / "run", save=True)
    start = load_adapter(make(), tmp_path / "run" / "initial")
    assert replay(tmp_path / "run", start).sha256 == weights_hash(model)
    again = load(folder, quantize=bits, adapter=tmp_path / "run" / "weights")[0]
    assert weights_hash(again) == weights_hash(model)


def test_without_bitsandbytes_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zotutor.llm.quantized.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        load("tiny", quantize="4bit")
    with pytest.raises(ValueError, match="quantize: given '3bit', expected one of 8bit, 4bit"):
        load("tiny", quantize="3bit")  # type: ignore[arg-type]


# ---- refused ------------------------------------------------------------------------------------


def test_what_cannot_be_adapted_is_refused(tmp_path: Path) -> None:
    base = BASES["OPT"]()
    with pytest.raises(ValueError, match="kind: given 'ia3', expected one of lora"):
        add_adapter(base, "ia3", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="virtual_tokens: given 34, and this model reads 34"):
        add_adapter(base, "prompt", virtual_tokens=34, seed=0)
    with pytest.raises(ValueError, match="targets: peft does not accept"):
        add_adapter(base, "lora", targets=["no_such_layer"], seed=0)
    classifier = network(CLASSIFIERS["absolute"], num_labels=2)
    with pytest.raises(ValueError, match="kind: given 'prefix' for a classifier"):
        add_adapter(classifier, "prefix", seed=0)
    adapted = add_adapter(BASES["OPT"](), "lora", seed=0)
    with pytest.raises(ValueError, match="has an adapter already"):
        add_adapter(adapted, "lora", seed=0)
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        load_adapter(BASES["OPT"](), tmp_path)


def test_another_adapter_does_not_resume_a_run(tmp_path: Path) -> None:
    tuned(add_adapter(BASES["OPT"](), "lora", rank=2, seed=5), tmp_path / "run")
    for other in (
        add_adapter(BASES["OPT"](), "lora", rank=4, seed=5),
        add_adapter(BASES["OPT"](), "lora", rank=2, seed=6),
    ):
        with pytest.raises(RunError, match=r"holds another run: its (number of|base model)"):
            tuned(other, tmp_path / "run")
    with pytest.raises(ValueError, match="its adapter does not fit this model"):
        load_adapter(network(CAUSAL["rotary"]), tmp_path / "run" / "initial")


def test_a_folder_with_an_adapter_says_how_it_is_loaded(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "base")
    model = add_adapter(load(folder)[0], "lora", seed=5)
    tuned(model, tmp_path / "run", save=True)
    with pytest.raises(ValueError, match="holds an adapter, without its base; load the base model"):
        load(tmp_path / "run" / "weights")
    loaded, _ = load(folder, adapter=tmp_path / "run" / "weights")
    assert weights_hash(loaded) == weights_hash(model)


def test_a_run_without_an_adapter_writes_no_initial(tmp_path: Path) -> None:
    tuned(BASES["OPT"](), tmp_path / "run")
    assert not (tmp_path / "run" / "initial").exists()
    assert ledger_in(tmp_path / "run").exists()


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_tunes_replays_and_loads(kind: Kind, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from zotutor.cli import app

    def zotutor(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    folder, run = save_model(tmp_path / "base"), tmp_path / "run"
    (tmp_path / "data").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        rows = "sentence\tlabel\nthe film is bright .\t1\na very dull film .\t0\n"
        (tmp_path / "data" / name).write_text(rows, encoding="utf-8")
    common: list[object] = ["--model", folder, "--task", "sst2", "--data", tmp_path / "data"]
    common += ["--lr", 0.05, "--steps", 3, "--batch-size", 2, "--dtype", "bfloat16"]
    common += ["--output", run]
    done = zotutor("finetune", *common, "--adapter", kind, "--rank", 2, "--save")
    assert done.exit_code == 0, done.output
    digest = done.stdout.split()[-1]
    model = load(folder, dtype=torch.bfloat16, adapter=run / "weights")[0]
    assert weights_hash(model) == digest
    again = zotutor("replay", run, "--model", folder, "--save", tmp_path / "tuned")
    assert again.exit_code == 0, again.output
    assert f"{digest}, as recorded" in again.stdout
    assert weights_hash(load(folder, dtype=torch.bfloat16, adapter=tmp_path / "tuned")[0]) == digest
    assert kind.upper() in zotutor("info", run).stdout
    same = zotutor("finetune", *common, "--adapter", kind, "--rank", 2, "--save")
    assert "was finished before" in same.stdout
    refused = zotutor("finetune", *common, "--quantize", "4bit")
    assert refused.exit_code == 1
    assert "give --adapter lora as well" in refused.stderr

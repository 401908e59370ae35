"""Loading, prompting, tasks and fine-tuning, on folders in the hub's format made here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import WORDS, save_model, toy_task, word_tokenizer

import zotutor as zo
from zotutor.llm import Rows, encode, evaluate, lm, tasks, word_ids
from zotutor.llm.finetuning import Method, finetune
from zotutor.llm.runs.weights import save_pretrained

transformers = pytest.importorskip("transformers", reason="the extra `llm` is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("opt"))


@pytest.fixture(scope="module")
def encoder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT-style encoder without a classification head."""
    path = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 3,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def global_state_untouched() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def test_padding_does_not_change_the_row_of_an_input(folder: Path) -> None:
    model, tokenizer = lm.load(folder)
    scored = Rows(model, words=word_ids(tokenizer, ["terrible", "great"]))
    texts = ["dull film", "the film is so very bright"]
    both = scored(encode(tokenizer, texts))
    for row, text in zip(both, texts, strict=True):
        alone = scored(encode(tokenizer, [text]))[0]
        torch.testing.assert_close(row, alone)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        plain = model(input_ids=ids).logits[0, -1]
        torch.testing.assert_close(alone, plain[word_ids(tokenizer, ["terrible", "great"])])


def test_the_model_that_ships_is_loaded_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = lm.load("tiny")
    assert isinstance(model, transformers.OPTForCausalLM)
    assert sum(file.stat().st_size for file in lm.TINY.iterdir()) < 4e6
    card = (lm.TINY / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256((lm.TINY / "model.safetensors").read_bytes()).hexdigest()
    assert digest in card
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    plain = transformers.AutoModelForCausalLM.from_pretrained(lm.TINY, local_files_only=True)
    ids = encode(tokenizer, ["The film was dull. It was"])
    torch.testing.assert_close(plain.eval()(ids).logits, model(ids).logits)
    capfd.readouterr()
    lm.load("tiny", kind="classifier")
    assert capfd.readouterr() == ("", "")


def enough_seeds(learns: Callable[[int], bool], *, wanted: int, budget: int) -> bool:
    """Whether this many of the first seeds learn. Training amplifies every rounding, so that on
    another machine a seed is another run: one alone may fail anywhere, most of them may not."""
    found = 0
    for seed in range(budget):
        found += learns(seed)
        if found == wanted:
            return True
    return False


@pytest.mark.slow
@pytest.mark.statistical
def test_the_model_that_ships_can_be_tuned_by_forward_passes() -> None:
    """One of at most three seeds; all of the five that were tried reach 73 % or more (at the low
    end). If 95 % of seeds do, this fails on one machine in 8,000."""
    reviews = tasks.task("reviews")

    def learns(seed: int) -> bool:
        model, tokenizer = lm.load("tiny")
        run = finetune(
            model, tokenizer, reviews, steps=100, lr=4e-4, dev=256, progress=False, seed=seed
        )
        assert 0.55 < run.zero_shot.value < 0.7
        return run.accuracy.low > 0.7

    assert enough_seeds(learns, wanted=1, budget=3)


def test_a_prompt_that_is_cut_keeps_its_question() -> None:
    tokenizer = lm.load("tiny")[1]
    whole = encode(tokenizer, ["The plot was dull, but the film is great. It was"])[0].tolist()
    cut = encode(tokenizer, [tokenizer.decode(whole[1:])], length=6)[0].tolist()
    assert cut == [whole[0], *whole[-5:]]
    assert tokenizer.decode(cut[-2:]) == "it was"


def test_without_words_the_row_is_the_vocabulary(folder: Path) -> None:
    model, tokenizer = lm.load(folder)
    rows = Rows(model)(encode(tokenizer, ["dull film"]))
    assert rows.shape == (1, len(WORDS) + 3)


def test_a_new_classification_head_comes_from_the_seed(encoder: Path) -> None:
    weights: list[Any] = []
    for seed in (0, 0, 1):
        model: Any = lm.load(encoder, kind="classifier", labels=3, seed=seed)[0]
        weights.append(model.classifier.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].shape[0] == 3


def test_a_model_is_put_on_the_device_given(folder: Path) -> None:
    """On "meta", which every machine has."""
    assert {p.device.type for p in lm.load(folder, device="meta")[0].parameters()} == {"meta"}
    assert {p.device.type for p in lm.load(folder)[0].parameters()} == {"cpu"}


def test_padding_is_with_the_end_where_there_is_no_token_for_it(tmp_path: Path) -> None:
    """As for GPT-2, whose classifier needs to know: it reads the last token that is no padding."""
    config = transformers.GPT2Config(
        vocab_size=len(WORDS) + 3, n_embd=16, n_layer=1, n_head=2, n_positions=34, eos_token_id=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config)
    save_pretrained(model, word_tokenizer(pad_token=None), tmp_path)
    assert lm.load(tmp_path)[1].pad_token == "</s>"
    classifier: Any
    classifier, tokenizer = lm.load(tmp_path, kind="classifier")
    assert classifier.config.pad_token_id == tokenizer.pad_token_id == 2
    batch = tokenizer(["dull film", "the film is so very bright"], padding=True)
    both = classifier(**batch.convert_to_tensors("pt")).logits
    alone = classifier(**tokenizer("dull film", return_tensors="pt")).logits
    torch.testing.assert_close(both[:1], alone)


@pytest.mark.parametrize("kind", ["causal", "classifier"])
def test_a_padding_token_is_kept_where_there_is_one(folder: Path, kind: Any) -> None:
    model: Any
    model, tokenizer = lm.load(folder, kind=kind)
    assert tokenizer.pad_token == "<pad>"
    config: Any = model.config
    assert config.pad_token_id == 0


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        ("facebook/opt-125m", {}, ValueError, "revision.*hash"),
        ("facebook/opt-125m", {"revision": "main"}, ValueError, "given 'main'.*40 hex"),
        ("./no-such-folder", {}, FileNotFoundError, "no such folder"),
        (".", {"kind": "encoder"}, ValueError, "kind: given 'encoder'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    name: str, options: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        lm.load(name, **options)  # type: ignore[arg-type]


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config"):
        lm.load(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="pickled weights are not read"):
        lm.load(tmp_path)


def test_label_words_must_be_one_token_each(folder: Path) -> None:
    _, tokenizer = lm.load(folder)
    with pytest.raises(ValueError, match=r"'splendid' is \['<unk>'\] after 'It was'"):
        word_ids(tokenizer, ["splendid"])
    with pytest.raises(ValueError, match="two of them the same"):
        word_ids(tokenizer, ["great", "great"])
    with pytest.raises(ValueError, match="texts"):
        encode(tokenizer, ["  "])


@pytest.mark.statistical
@pytest.mark.parametrize("directions", [None, zo.LowRank(1)], ids=repr)
def test_zeroth_order_lowers_the_loss_of_a_toy_task(
    folder: Path, directions: zo.directions.Directions | None
) -> None:
    """Two of at most eight seeds. Of twenty tried 15 learn, 6 of 10 with LowRank: at that rate this
    fails on one machine in a hundred. Without learning no seed gets there."""

    def learns(seed: int) -> bool:
        model, tokenizer = lm.load(folder)
        run = finetune(
            model,
            tokenizer,
            toy_task(),
            steps=60,
            lr=0.02,
            P=2,
            directions=directions,
            batch_size=8,
            evaluate_every=30,
            progress=False,
            seed=seed,
        )
        assert [step for step, _ in run.evaluations] == [0, 30, 60]
        assert run.tokens > 0
        return run.accuracy.value == 1.0 and sum(run.losses[-5:]) < 0.7 * sum(run.losses[:5])

    assert enough_seeds(learns, wanted=2, budget=8)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_first_order_beside_it(folder: Path, method: Method) -> None:
    model, tokenizer = lm.load(folder)
    run = finetune(
        model,
        tokenizer,
        toy_task(),
        steps=30,
        lr=0.01,
        method=method,
        batch_size=8,
        dev=4,
        progress=False,
    )
    assert run.losses[-1] < run.losses[0]
    assert run.accuracy.examples == 4


@pytest.mark.statistical
def test_a_classifier_is_fine_tuned_as_well(encoder: Path) -> None:
    """Two of at most six seeds; of eight tried seven do: it fails on one machine in 5,000."""

    def learns(seed: int) -> bool:
        model, tokenizer = lm.load(encoder, kind="classifier")
        run = finetune(
            model,
            tokenizer,
            toy_task(),
            steps=40,
            lr=0.02,
            P=2,
            batch_size=8,
            progress=False,
            seed=seed,
        )
        return run.accuracy.value == 1.0 and sum(run.losses[-5:]) < sum(run.losses[:5])

    assert enough_seeds(learns, wanted=2, budget=6)


def test_the_same_seed_gives_the_same_run(folder: Path) -> None:
    runs = []
    for _ in range(2):
        model, tokenizer = lm.load(folder)
        runs.append(
            finetune(model, tokenizer, toy_task(), steps=3, lr=0.01, progress=False, seed=5).losses
        )
    assert runs[0] == runs[1]  # the same program twice in one process: the same kernels


@pytest.mark.parametrize("method", ["zo", "sgd"])
def test_a_loss_that_is_not_finite_names_the_step(folder: Path, method: Method) -> None:
    model, tokenizer = lm.load(folder)
    with pytest.raises(zo.NonFiniteLossError) as caught:
        finetune(model, tokenizer, toy_task(), steps=3, lr=1e30, method=method, progress=False)
    assert "step 1 of 3" in caught.value.__notes__[0]


def test_arguments_of_a_run_are_checked(folder: Path) -> None:
    model, tokenizer = lm.load(folder)
    with pytest.raises(ValueError, match="method: given 'adam'"):
        finetune(model, tokenizer, toy_task(), steps=1, lr=0.1, method="adam")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps: given 0"):
        finetune(model, tokenizer, toy_task(), steps=0, lr=0.1)
    with pytest.raises(ValueError, match="examples: given none"):
        evaluate(model, tokenizer, [], ("a", "b"))


def write(folder: Path, train: str, dev: str | None = None, ending: str = "tsv") -> Path:
    (folder / f"train.{ending}").write_text(train, encoding="utf-8")
    (folder / f"dev.{ending}").write_text(train if dev is None else dev, encoding="utf-8")
    return folder


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
@pytest.mark.parametrize("break_", ["\n", "\r\n"])
def test_files_are_read_as_other_programs_write_them(
    tmp_path: Path, ending: str, break_: str
) -> None:
    """With a mark in front, separators of lines that are none, and texts of any size."""
    texts = ["a fine\u2028film", "dull\x85 and\x0c long", "so " * 60_000 + "bad"]
    if ending == "tsv":
        lines = ["sentence\tlabel", *(f"{text}\t1" for text in texts)]
    else:
        lines = [json.dumps({"sentence": t, "label": 1}, ensure_ascii=False) for t in texts]
    for name in ("train", "dev"):
        content = "\ufeff" + "".join(line + break_ for line in lines)
        (tmp_path / f"{name}.{ending}").write_bytes(content.encode())
    assert [e.text for e in tasks.task("sst2", tmp_path).train] == [f"{t} It was" for t in texts]


def test_tasks_from_a_folder(tmp_path: Path) -> None:
    given = tasks.task("sst2", write(tmp_path, 'sentence\tlabel\nfine \t1\n"dull\t0\n'))
    assert given.train == (tasks.Example("fine It was", 1), tasks.Example('"dull It was', 0))
    row = {"passage": "Snow is white.", "question": "is snow white", "answer": True}
    other = tmp_path / "boolq"
    other.mkdir()
    given = tasks.task("boolq", write(other, json.dumps(row) + "\n", ending="jsonl"))
    assert given.dev[0] == tasks.Example("Snow is white. Is snow white?\n", 1)
    assert given.words == ("No", "Yes")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sentence\tlabel\nfine\t2\n", "row 2: has label '2', expected one of 0, 1"),
        ("sentence\tlabel\n \t1\n", "row 2: its sentence is empty"),
        ("sentence\tlabel\nfine\n", "row 2: has 1 cells, expected 2"),
        ("text\tlabel\nfine\t1\n", "expected sentence too"),
        ("sentence\nfine\n", "expected label too"),
        ("sentence\tlabel\n", "holds no example"),
        ("", "holds no example"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tasks.task("sst2", write(tmp_path, text))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds none of"):
        tasks.task("sst2", tmp_path)
    for text, says in (("{", "row 1: is not JSON"), ("[1]", "expected a JSON object")):
        with pytest.raises(ValueError, match=says):
            tasks.task("boolq", write(tmp_path, text + "\n", ending="jsonl"))
    (tmp_path / "train.tsv").write_bytes(b"sentence\tlabel\nfi\xffne\t1\n")
    with pytest.raises(ValueError, match="row 2: is not UTF-8 at byte"):
        tasks.task("sst2", tmp_path)
    with pytest.raises(ValueError, match="name: given 'mnli'"):
        tasks.task("mnli")
    with pytest.raises(ValueError, match="revision: given None for the data set"):
        tasks.task("rte")


def test_few_shots_by_seed() -> None:
    first, again, other = (tasks.task("reviews", shots=8, seed=s) for s in (0, 0, 1))
    assert first.train == again.train != other.train
    assert [e.label for e in first.train] == [0] * 8 + [1] * 8
    with pytest.raises(ValueError, match="shots: given 100000"):
        tasks.task("reviews", shots=100_000)


def test_wilson_interval_covers() -> None:
    found = tasks.accuracy(0, 20)
    assert found.low == pytest.approx(0.0, abs=1e-12)
    assert found.high == pytest.approx(0.1611, abs=1e-4)  # Wilson's, by hand
    assert str(tasks.accuracy(20, 20)).startswith("100.0 %")

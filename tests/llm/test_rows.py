"""The logits of a row are those of the row alone, whatever the model and whoever shares the batch.

The right value is always the model's own: called by its library's defaults on one prompt, without
padding, a mask or positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from small import CAUSAL, CLASSIFIERS, GENERATING, V, network, toy_task, word_tokenizer
from torch import Tensor, nn

import zotutor as zo
from zotutor.llm import Example, Positions, Rows, encode, evaluate, finetune
from zotutor.llm.limits import width
from zotutor.llm.preparing import coarsest, prepare
from zotutor.llm.prompts import padded
from zotutor.llm.rows import Layout, logits_in
from zotutor.llm.stepping import Batches

transformers = pytest.importorskip("transformers", reason="the extra `llm` is not installed")
WORDS = ("terrible", "great")
TEXTS = (
    "dull . </s>",  # an end of text is a token like others, and pads in many tokenizers
    "it is great </s>",
    "a very dull film is a film so very dull it is bad . It is terrible </s>",
)


def alone(model: nn.Module, tokenizer: Any, texts: Sequence[str] = TEXTS) -> Tensor:
    """The row of each text, by a plain call of the model on it."""
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            logits = logits_in(model(input_ids=ids))
            rows.append(logits[0, -1] if logits.dim() == 3 else logits[0])
    return torch.stack(rows)


def together(model: nn.Module, tokenizer: Any, kind: str) -> Tensor:
    prepared = prepare(model, tokenizer, WORDS, TEXTS)
    assert prepared.kind == kind
    assert kind in prepared.about
    prepared.rows.words = None
    with torch.no_grad():
        return prepared.rows(prepared.prompts.batch(TEXTS))


@pytest.mark.parametrize("pad", ["<pad>", "</s>", None])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", CAUSAL)
def test_a_causal_model_scores_a_prompt_as_if_it_were_alone(
    positions: str, side: str, pad: str | None
) -> None:
    model, tokenizer = network(CAUSAL[positions]), word_tokenizer(pad_token=pad)
    tokenizer.padding_side = side
    torch.testing.assert_close(together(model, tokenizer, "causal"), alone(model, tokenizer))


@pytest.mark.parametrize("positions", CAUSAL)
def test_rows_made_by_hand_go_by_the_arguments_that_the_model_takes(positions: str) -> None:
    model, tokenizer = network(CAUSAL[positions]), word_tokenizer(pad_token="</s>")
    for side in ("left", "right"):
        tokenizer.padding_side = side
        tokens = encode(tokenizer, TEXTS)
        with torch.no_grad():
            torch.testing.assert_close(Rows(model)(tokens), alone(model, tokenizer))


@pytest.mark.parametrize("positions", CLASSIFIERS)
def test_a_classifier_scores_a_prompt_as_if_it_were_alone(positions: str) -> None:
    model = network(CLASSIFIERS[positions], num_labels=2)
    tokenizer = word_tokenizer(pad_token="<unk>" if model.config.pad_token_id else "<pad>")
    torch.testing.assert_close(together(model, tokenizer, "classifier"), alone(model, tokenizer))


@pytest.mark.parametrize("positions", ["no mask", "ids only"])
def test_prompts_are_compared_by_tokens_not_by_characters(positions: str) -> None:
    """The shortest and the longest text have as many tokens here, and a third one has fewer."""
    tokenizer = word_tokenizer()
    model = {
        "no mask": lambda: network(CLASSIFIERS["no mask"], num_labels=2),
        "ids only": lambda: OnlyIds(network(CAUSAL["learned"])).eval(),
    }[positions]()
    texts = ("a a a a", "great terrible", "terrible terrible terrible terrible")
    prepared = prepare(model, tokenizer, WORDS, texts)
    prepared.rows.words = None
    with torch.no_grad():
        found = prepared.rows(prepared.prompts.batch(texts))
    torch.testing.assert_close(found, alone(model, tokenizer, texts))


def test_a_model_that_masks_nothing_is_given_one_length_at_a_time() -> None:
    model = network(CLASSIFIERS["no mask"], num_labels=2)
    prepared = prepare(model, word_tokenizer(), WORDS, TEXTS)
    assert prepared.rows.layout == Layout("none")
    assert "batches of one length" in prepared.about


@pytest.mark.parametrize("positions", CAUSAL)
def test_places_in_texts_have_the_logits_of_their_prefix(positions: str) -> None:
    model, tokenizer = network(CAUSAL[positions]), word_tokenizer(pad_token="</s>")
    for side in ("left", "right"):
        tokenizer.padding_side = side
        sequences = Positions(model, encode(tokenizer, TEXTS))
        places, _ = sequences.places()
        with torch.no_grad():
            found = sequences(places)
            for row, (text, column) in zip(found, places.tolist(), strict=True):
                prefix = sequences.tokens[text, : column + 1]
                plain = model(input_ids=prefix[prefix >= 0][None]).logits[0, -1]
                torch.testing.assert_close(row, plain)


# ---- adapters and wrappers ----------------------------------------------------------------------


def adapted(config: str, base: str, **options: Any) -> Any:
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = peft.get_peft_model(network(CAUSAL[base]), getattr(peft, config)(**options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora" in name or "prompt" in name:
                    parameter.normal_(0.0, 0.3)
    return model.eval()


ADAPTERS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: adapted(
        "LoraConfig",
        "learned",
        task_type="CAUSAL_LM",
        target_modules=["c_attn"],
        fan_in_fan_out=True,
    ),
    "LoRA without a task": lambda: adapted(
        "LoraConfig", "learned", target_modules=["c_attn"], fan_in_fan_out=True
    ),
    "prefix": lambda: adapted(
        "PrefixTuningConfig", "learned", task_type="CAUSAL_LM", num_virtual_tokens=3
    ),
    "prefix, rotary": lambda: adapted(
        "PrefixTuningConfig", "rotary", task_type="CAUSAL_LM", num_virtual_tokens=3
    ),
    "prompt": lambda: adapted(
        "PromptTuningConfig", "learned", task_type="CAUSAL_LM", num_virtual_tokens=3
    ),
    "prompt, rotary": lambda: adapted(
        "PromptTuningConfig", "rotary", task_type="CAUSAL_LM", num_virtual_tokens=3
    ),
    "prompt, mask": lambda: adapted(
        "PromptTuningConfig", "mask", task_type="CAUSAL_LM", num_virtual_tokens=3
    ),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_change_nothing_about_padding(adapter: str) -> None:
    model, tokenizer = ADAPTERS[adapter](), word_tokenizer(pad_token="</s>")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = together(model, tokenizer, "causal")
    assert not said
    torch.testing.assert_close(found, alone(model, tokenizer))


class Opaque(nn.Module):
    """A wrapper that hands on what it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class OnlyIds(Opaque):
    def forward(self, input_ids: Tensor) -> Any:
        return self.inner(input_ids=input_ids).logits


class OnlyLogits(Opaque):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits


class Autocast(Opaque):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(*args, **kwargs).logits.float()


def named_otherwise(model: Any) -> Any:
    model.__class__ = type("Mine", (type(model),), {})
    return model


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "subclass": named_otherwise,
    "data parallel": nn.DataParallel,
    "opaque": Opaque,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("positions", ["learned", "mask"])
def test_a_model_in_a_wrapper_is_what_it_returns(wrapper: str, positions: str) -> None:
    tokenizer = word_tokenizer()
    expected = alone(network(CAUSAL[positions]), tokenizer)
    found = together(WRAPPERS[wrapper](network(CAUSAL[positions])), tokenizer, "causal")
    torch.testing.assert_close(found, expected)
    classifier = network(CLASSIFIERS["absolute"], num_labels=2)
    expected = alone(classifier, tokenizer)
    found = together(WRAPPERS[wrapper](classifier), tokenizer, "classifier")
    torch.testing.assert_close(found, expected)


WHOLE: dict[str, Callable[[], Any]] = {
    "LoRA": ADAPTERS["LoRA"],
    "prefix": ADAPTERS["prefix"],
    "prompt": ADAPTERS["prompt"],
    "compiled": lambda: WRAPPERS["compiled"](network(CAUSAL["learned"])),
    "recurrent": lambda: network(CAUSAL["recurrent"]),
    "opaque": lambda: Opaque(network(CAUSAL["alibi"])).eval(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_loss_of_a_step_is_that_of_the_rows_alone(name: str) -> None:
    """(L(theta + eps u) + L(theta - eps u)) / 2 is L(theta) but for eps^2, on a plain call."""
    model, tokenizer, task = WHOLE[name](), word_tokenizer(pad_token="</s>"), toy_task()
    batches = prepare(model, tokenizer, task.words, [e.text for e in task.train])
    ids = batches.prompts.ids([e.text for e in task.train])
    tokens, labels = Batches(ids, [e.label for e in task.train], size=6, seed=4)(0)
    words = torch.tensor(batches.rows.words)
    with torch.no_grad():
        rows = [model(input_ids=row[row >= 0][None]).logits[0, -1] for row in tokens]
    expected = nn.functional.cross_entropy(torch.stack(rows)[:, words], labels)
    options: dict[str, Any] = {"batch_size": 6, "eps": 1e-4, "seed": 4, "progress": False}
    run = finetune(model, tokenizer, task, steps=2, lr=1e-4, **options)
    assert run.losses[0] == pytest.approx(float(expected), abs=1e-4)
    assert "causal language model" in run.about


def test_a_model_may_return_logits_themselves() -> None:
    tokenizer = word_tokenizer()
    expected = alone(network(CAUSAL["learned"]), tokenizer)
    found = together(OnlyLogits(network(CAUSAL["learned"])), tokenizer, "causal")
    torch.testing.assert_close(found, expected)


def test_the_kind_can_be_overruled() -> None:
    class Last(OnlyLogits):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            return super().forward(input_ids, attention_mask)[:, -1]

    model, tokenizer = network(CAUSAL["mask"]), word_tokenizer()
    examples = toy_task().dev
    expected = evaluate(model, tokenizer, examples, WORDS)
    assert evaluate(Last(model), tokenizer, examples, WORDS, kind="causal") == expected
    with pytest.raises(ValueError, match=f"returns {V} logits for a prompt.*2 labels"):
        evaluate(Last(model), tokenizer, examples, WORDS)
    with pytest.raises(ValueError, match="kind: given 'encoder'"):
        evaluate(model, tokenizer, examples, WORDS, kind="encoder")  # type: ignore[arg-type]


# ---- refusals -----------------------------------------------------------------------------------


class Mixing(Opaque):
    """The rows of a batch are mixed."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        logits = self.inner(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits + logits.mean(0, keepdim=True)


def runs(model: Any, tokenizer: Any) -> list[Callable[[], Any]]:
    task = toy_task()
    texts = [example.text for example in task.dev]
    return [
        lambda: finetune(model, tokenizer, task, steps=1, lr=0.1, progress=False),
        lambda: evaluate(model, tokenizer, task.dev, task.words),
        lambda: prepare(model, tokenizer, task.words, texts),
    ]


def test_rows_that_depend_on_each_other_are_refused() -> None:
    for run in runs(Mixing(network(CAUSAL["mask"])).eval(), word_tokenizer()):
        with pytest.raises(ValueError, match=r"change by \d+ % when others are in its batch"):
            run()


@pytest.mark.parametrize("name", GENERATING)
def test_an_encoder_decoder_that_generates_is_refused(name: str, tmp_path: Any) -> None:
    model, tokenizer = network(GENERATING[name]), word_tokenizer()
    for run in runs(model, tokenizer):
        with pytest.raises(ValueError, match="is an encoder-decoder, whose decoder does not"):
            run()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is an encoder-decoder.*kind=\"classifier\""):
        zo.llm.load(tmp_path)


def test_an_architecture_without_such_a_model_is_refused(tmp_path: Any) -> None:
    albert = ("AlbertForSequenceClassification", "AlbertConfig", CLASSIFIERS["absolute"][2])
    network(albert).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no causal language model .* kind=\"classifier\", or"):
        zo.llm.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "config", "sizes"),
    [
        ("BertLMHeadModel", "BertConfig", CLASSIFIERS["absolute"][2]),  # is_decoder is missing
        ("BertForMaskedLM", "BertConfig", CLASSIFIERS["absolute"][2]),
        ("XLNetLMHeadModel", "XLNetConfig", {"d_model": 16, "n_layer": 2, "n_head": 2}),
    ],
)
def test_a_model_whose_tokens_see_those_after_them_is_refused(
    name: str, config: str, sizes: Any
) -> None:
    for run in runs(network((name, config, sizes)), word_tokenizer()):
        with pytest.raises(
            ValueError, match=r"change by .* with the tokens after it.*is_decoder=True"
        ):
            run()


def test_a_classifier_that_wants_an_end_of_text_says_so() -> None:
    model, tokenizer = network(CLASSIFIERS["relative"], num_labels=2), word_tokenizer()
    with pytest.raises(ValueError, match=r"cannot be called on a prompt of 3 tokens.*eos"):
        prepare(model, tokenizer, WORDS, ["the film is"])


@pytest.mark.parametrize("embeddings", [nn.Parameter(torch.ones(2, 2)), NotImplementedError()])
def test_a_model_need_not_say_where_its_embeddings_are(embeddings: Any) -> None:
    """As in Perceiver, and in CANINE."""

    class Silent(Opaque):
        def get_input_embeddings(self) -> Any:
            if isinstance(embeddings, Exception):
                raise embeddings
            return embeddings

    model, tokenizer = Silent(network(CAUSAL["learned"])).eval(), word_tokenizer()
    torch.testing.assert_close(together(model, tokenizer, "causal"), alone(model, tokenizer))


def test_what_is_no_language_model_is_refused() -> None:
    tokenizer = word_tokenizer()
    tagger = network(("BertForTokenClassification", "BertConfig", CLASSIFIERS["absolute"][2]))
    for model, says in (
        (nn.Linear(2, 2), "Linear cannot be called on a prompt of"),
        (tagger, "returns 2 logits for each token"),
        (network(CLASSIFIERS["absolute"], num_labels=3), "returns 3 logits.*2 labels"),
        (network(CLASSIFIERS["decoder"], num_labels=2, pad_token_id=None), "4 prompts at a time"),
    ):
        for run in runs(model.eval(), tokenizer):
            with pytest.raises(ValueError, match=says):
                run()


def test_weights_that_are_not_finite_are_refused_before_the_first_step() -> None:
    model = network(CAUSAL["mask"])
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    for run in runs(model, word_tokenizer()):
        with pytest.raises(ValueError, match=r"its logits for a prompt of . tokens are not finite"):
            run()


def test_the_check_leaves_the_mode_of_every_module() -> None:
    model = network(CAUSAL["mask"], dropout=0.5).train()
    model.model.decoder.layers[0].eval()
    before = [module.training for module in model.modules()]
    prepare(model, word_tokenizer(), WORDS, TEXTS)
    assert [module.training for module in model.modules()] == before


def test_labels_need_a_word_each() -> None:
    examples = [Example("the film", 0), Example("it is", 2)]
    with pytest.raises(ValueError, match="labels 0 to 2, expected 0 to 1"):
        evaluate(network(CAUSAL["mask"]), word_tokenizer(), examples, WORDS)


# ---- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("positions", CAUSAL)
def test_rounding_is_told_from_padding(positions: str, dtype: torch.dtype) -> None:
    if (positions, dtype) == ("experts", torch.float64):
        pytest.skip("transformers has no grouped matmul in float64")
    model, tokenizer = network(CAUSAL[positions]).to(dtype), word_tokenizer(pad_token="</s>")
    found, expected = together(model, tokenizer, "causal"), alone(model, tokenizer)
    spread = float((expected - expected.mean(1, keepdim=True)).double().square().mean().sqrt())
    # positions and softmax are in float32 in models of float64
    rounding = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    torch.testing.assert_close(found, expected, rtol=0.0, atol=4 * rounding * spread)


def test_eps_is_that_of_the_coarsest_arithmetic() -> None:
    class Asked(zo.llm.Ranks):
        eps = 0.0

        def check(self, stepper: Any, batch_size: int) -> None:
            self.eps = stepper.optimizer.eps

    def eps(model: Any) -> float:
        ranks = Asked()
        finetune(model, word_tokenizer(), toy_task(), steps=1, lr=0.0, progress=False, ranks=ranks)
        return ranks.eps

    float32 = network(CAUSAL["learned"])
    assert eps(float32) == 1e-3
    assert eps(network(CAUSAL["learned"]).double()) == 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert eps(float32) == 1e-2
    assert eps(Autocast(float32).eval()) == 1e-2  # as in accelerate: within, and back to float32
    assert eps(torch.compile(Autocast(float32).eval(), backend="eager")) == 1e-2
    mixed = network(CAUSAL["learned"]).requires_grad_(False).bfloat16()
    mixed.transformer.ln_f.float().requires_grad_(True)
    assert coarsest(mixed, torch.bfloat16) == torch.bfloat16
    lora = ADAPTERS["LoRA"]()
    for name, parameter in lora.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if "lora" in name else torch.bfloat16)
    assert {p.dtype for p in lora.parameters() if p.requires_grad} == {torch.float32}
    assert eps(lora) == 1e-2


# ---- widths -------------------------------------------------------------------------------------

MPT = {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 34, "expansion_ratio": 2}


@pytest.mark.parametrize(
    ("model", "most"),
    [
        (lambda: network(CAUSAL["learned"]), 34),
        (lambda: network(CAUSAL["mask"]), 34),
        (lambda: network(CAUSAL["padding index"]), 33),
        (lambda: network(CLASSIFIERS["padding index"], num_labels=2), 32),
        (lambda: network(CLASSIFIERS["absolute"], num_labels=2), 34),
        (ADAPTERS["prompt"], 31),
        (ADAPTERS["prefix"], 31),
        (ADAPTERS["LoRA"], 34),
        (lambda: nn.DataParallel(ADAPTERS["prompt"]()).eval(), 31),
        (lambda: Opaque(ADAPTERS["prompt"]()).eval(), 31),
        (lambda: OnlyLogits(network(CAUSAL["padding index"])).eval(), 33),
        (lambda: network(("MptForCausalLM", "MptConfig", MPT)), 34),
    ],
)
def test_a_model_reads_as_many_tokens_as_advised(model: Callable[[], Any], most: int) -> None:
    made, tokenizer = model(), word_tokenizer()
    assert width(made) == most
    long = [Example("very " * 40, 0), Example("the film is", 1)]
    with pytest.raises(ValueError, match=f"40 tokens, and this model reads {most}; .*={most}"):
        evaluate(made, tokenizer, long, WORDS)
    assert evaluate(made, tokenizer, long, WORDS, length=most).examples == 2
    tokens = torch.full((1, most + 1), 5)
    with pytest.raises((IndexError, RuntimeError)):
        made(input_ids=tokens, attention_mask=torch.ones_like(tokens))


@pytest.mark.parametrize("positions", ["alibi", "recurrent"])
def test_a_model_without_a_limit_is_given_none(positions: str) -> None:
    assert width(network(CAUSAL[positions])) is None


def test_tokens_of_another_tokenizer_are_refused() -> None:
    model = network(CAUSAL["mask"], vocab_size=6)
    with pytest.raises(ValueError, match=r"ids go up to .* embeddings for 0 to 5"):
        evaluate(model, word_tokenizer(), toy_task().dev, WORDS)


# ---- what 0.1 could do --------------------------------------------------------------------------


def test_pad_is_deprecated_and_masks_as_before() -> None:
    model, tokenizer = network(CAUSAL["learned"]), word_tokenizer()
    texts = ["dull film", "the film is so very bright"]
    tokenizer.padding_side = "left"
    tokens = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    with pytest.warns(DeprecationWarning, match="pad is deprecated"):
        old = Rows(model, pad=0)
    with torch.no_grad():
        assert torch.equal(old(tokens), Rows(model)(encode(tokenizer, texts)))


def test_rows_on_either_side_are_moved_together() -> None:
    rows = Rows(network(CAUSAL["mask"]))
    mixed = torch.tensor([[-1, 3, 4], [5, -1, -1], [6, -1, 7]])
    tokens, real = rows.aligned(mixed, "left")
    assert tokens.tolist() == [[-1, 3, 4], [-1, -1, 5], [-1, 6, 7]]
    assert rows.aligned(mixed, "right")[0].tolist() == [[3, 4, -1], [5, -1, -1], [6, 7, -1]]
    assert torch.equal(real, tokens >= 0)
    assert padded([[3, 4], [5], [6, 7]], left=False).tolist() == [[3, 4], [5, -1], [6, 7]]

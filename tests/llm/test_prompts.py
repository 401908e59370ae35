"""What a tokenizer makes of prompts and label words, for tokenizers of each convention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small import CAUSAL, network, word_tokenizer

from zotutor.llm import encode, evaluate, task, word_ids
from zotutor.llm.prompts import padded, token_ids
from zotutor.llm.tasks import FORMATS, Example

transformers = pytest.importorskip("transformers", reason="the extra `llm` is not installed")
RTE = FORMATS["rte"].prompt({"sentence1": "It rains.", "sentence2": "It is wet."})
SST2 = FORMATS["sst2"].prompt({"sentence": "a fine film ."})


def wrapped(tokenizer: Any, **special: str) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level(**special: str) -> Any:
    """Like GPT-2's: a space belongs to the word after it, "Ġgreat"."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = ["Yes or No\nYes\nNo\n Yes No", "It was great terrible film", RTE, SST2]
    tokenizer.train_from_iterator(text * 50, trainer)
    end = {"eos_token": "<|end|>", "bos_token": "<|end|>", "unk_token": "<|end|>"}
    return wrapped(tokenizer, **(end | special))


def metaspace() -> Any:
    """Like Llama 2's: a text begins with "▁", spaces are "▁", a newline is a byte; <s> in front."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    words = "It rains is wet was fine film great terrible Yes No or Does this mean that a".split()
    pieces += [*"?.\"'", *words, *(f"▁{word}" for word in words)]
    tokenizer = Tokenizer(
        models.Unigram([(piece, -float(1 + n)) for n, piece in enumerate(pieces)], 0, True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return wrapped(tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def closing() -> Any:
    """Like BERT's: [CLS] in front of a text and [SEP] after it."""
    from tokenizers import processors

    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A <unk>", special_tokens=[("</s>", 2), ("<unk>", 1)]
    )
    return wrapped(
        tokenizer.backend_tokenizer, unk_token="<unk>", eos_token="</s>", sep_token="</s>"
    )


def spelled(tokenizer: Any, words: Sequence[str], *prompts: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(word_ids(tokenizer, words, prompts))


def test_the_word_after_a_newline_has_no_space() -> None:
    tokenizer = byte_level()
    assert spelled(tokenizer, ("Yes", "No"), RTE) == ["Yes", "No"]
    assert spelled(tokenizer, ("Yes", "No"), "Is it? Answer:") == ["ĠYes", "ĠNo"]
    assert spelled(tokenizer, ("terrible", "great"), SST2) == ["Ġterrible", "Ġgreat"]


def test_a_tokenizer_that_begins_a_text_with_a_space() -> None:
    tokenizer = metaspace()
    assert spelled(tokenizer, ("terrible", "great"), SST2) == ["▁terrible", "▁great"]
    assert spelled(tokenizer, ("Yes", "No"), RTE) == ["Yes", "No"]


@pytest.mark.parametrize("make", [byte_level, metaspace])
@pytest.mark.parametrize("prompt", [RTE, SST2])
def test_the_word_is_what_the_text_has(make: Any, prompt: str) -> None:
    """Prompt and word together, tokenized at once, as a language model has learned them."""
    tokenizer = make()
    words = ("Yes", "No") if prompt == RTE else ("terrible", "great")
    gap = "" if prompt == RTE else " "
    for word, found in zip(words, word_ids(tokenizer, words, [prompt]), strict=True):
        assert tokenizer(prompt + gap + word)["input_ids"][-1] == found


def test_prompts_that_end_differently_need_the_same_tokens() -> None:
    tokenizer = byte_level()
    assert spelled(tokenizer, ("Yes", "No"), "Is it? Say", "Was it: ...") == ["ĠYes", "ĠNo"]
    with pytest.raises(ValueError, match=r"are tokens .* after .*; let all prompts of a task end"):
        word_ids(tokenizer, ("Yes", "No"), [RTE, SST2])


def test_a_prompt_that_ends_in_a_space_is_refused() -> None:
    with pytest.raises(ValueError, match="joins 'terrible' with the end of the prompt, 'It was '"):
        word_ids(byte_level(), ("terrible", "great"), ["It was "])


def test_words_of_several_tokens_are_refused() -> None:
    for make in (byte_level, metaspace, word_tokenizer):
        with pytest.raises(ValueError, match=r"'splendid' is .* expected one token that it knows"):
            word_ids(make(), ("great", "splendid"))


def test_special_tokens_after_a_text_do_not_part_a_prompt_from_its_word() -> None:
    tokenizer = closing()
    whole = tokenizer("the film is")["input_ids"]
    assert (whole[0], whole[-1]) == (2, 1)
    assert token_ids(tokenizer, ["the film is"], causal=True) == [whole[:-1]]
    assert token_ids(tokenizer, ["the film is"]) == [whole]
    assert encode(tokenizer, ["the film is"]).tolist() == [whole]
    assert token_ids(tokenizer, ["the film is dull"], causal=True, length=4) == [[2, 7, 9]]
    assert spelled(tokenizer, ("terrible", "great"), "It was") == ["terrible", "great"]
    for length in (1, 2, 1 << 70):
        with pytest.raises(ValueError, match=f"length: given {length}, expected more than the 2"):
            token_ids(tokenizer, ["the film is"], causal=True, length=length)


def test_prompts_of_a_causal_model_lose_their_beginning_whatever_the_tokenizer_says() -> None:
    model, tokenizer = network(CAUSAL["mask"]), word_tokenizer()
    tokenizer.truncation_side = "right"
    examples = [Example("the film is so very dull . It was", 0), Example("bad . It was", 0)]
    cut = [Example("dull . It was", 0), examples[1]]
    words = ("terrible", "great")
    assert token_ids(tokenizer, [examples[0].text], causal=True, length=4) == token_ids(
        tokenizer, [cut[0].text]
    )
    assert tokenizer.truncation_side == "right"
    assert evaluate(model, tokenizer, examples, words, length=4) == evaluate(
        model, tokenizer, cut, words
    )


def test_tokens_that_pad_are_tokens_where_the_text_has_them() -> None:
    tokenizer = byte_level(pad_token="<|end|>")
    tokens = encode(tokenizer, ["a<|end|>b", "a"])
    ids = tokenizer("a<|end|>b")["input_ids"]
    assert tokens.tolist() == [ids, [ids[0], -1, -1]]
    tokenizer.padding_side = "left"
    assert encode(tokenizer, ["a<|end|>b", "a"]).tolist() == [ids, [-1, -1, ids[0]]]


def test_a_tokenizer_that_pads_untold() -> None:
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=8, pad_id=0, pad_token="<pad>")
    assert token_ids(tokenizer, ["the film"]) == [[5, 6]]


def test_rows_of_ids() -> None:
    assert torch.equal(padded([[3], [4, 5]], left=False), torch.tensor([[3, -1], [4, 5]]))
    with pytest.raises(ValueError, match="texts: given none or an empty one"):
        encode(word_tokenizer(), [])


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_the_tasks_that_ship_have_one_token_for_each_word(make: Any) -> None:
    tokenizer, reviews = make(), task("reviews", shots=8)
    found = word_ids(tokenizer, reviews.words, [example.text for example in reviews.train])
    assert tokenizer.convert_ids_to_tokens(found)[1][1:] == "great"

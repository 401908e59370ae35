"""Makes the small pretrained language model that ships in zotutor/llm/tiny, from nothing.

    python tools/make_tiny_lm.py                  # some minutes on one core
    python tools/make_tiny_lm.py --show 10        # print documents of the corpus, train nothing

Needs torch, transformers, tokenizers and safetensors in the versions of requirements.lock. Nothing
is downloaded: the corpus is written here, from the words and the grammar of zotutor/llm/reviews.py.
The model card, zotutor/llm/tiny/README.md, is written by hand and left alone.

Two runs with the same torch on the same kind of processor give the same bytes: one thread, fixed
seeds, and deterministic operations. Another processor or version gives other last digits, and after
some thousand steps a slightly different model; tools/check_tiny_lm.py says whether it is as good.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from zotutor.llm.reviews import (
    ADJECTIVES,
    DEEDS,
    DEGREES,
    LABEL_WORDS,
    NOUNS,
    WHOLES,
    Writer,
    examples,
)

FOLDER = Path(__file__).parents[1] / "zotutor" / "llm" / "tiny"

SIMPLE, MIXED = 27_000, 53_000
"""Documents of plain statements, which come first, and documents with whole reviews after them."""

BATCH, PEAK_LR, WARM_UP = 16, 1e-3, 100
UNKNOWN_RATE = 0.005
"""Share of words replaced by <unk>, so that the model has seen that token."""

PAD, END, UNKNOWN = 1, 2, 3
"""Ids of special tokens; as in OPT, </s> both precedes and follows each text."""

RECOMMENDATIONS = (
    (
        "I hated it. I regret it. Avoid it. Stay at home. I want my money back. Do not go. "
        "I left early. It is not for me."
    ).split(". "),
    (
        "I loved it. Go and see it. I would see it again. Do not miss it. I recommend it. "
        "Take your friends. I stayed to the end. It is for everyone."
    ).split(". "),
)
STARS = (("One star", "Two stars"), ("Four stars", "Five stars"))
COMPANY = "my cousin,my brother,my aunt,an old friend,the neighbors,the whole family".split(",")
OCCASIONS = (
    "to see {company} again,to go there alone,to stay up so late,to sit in the front row,"
    "to walk home in the rain,to walk home in the snow,to walk home in the dark"
).split(",")

OPINION = {
    phrase.split()[-1]: sign
    for sign in (0, 1)
    for phrase in (*ADJECTIVES[sign], *NOUNS[sign], *(form for do in DEEDS[sign] for form in do))
}
"""The sentiment of a word by itself, out of context."""


class Author(Writer):
    """Writes the corpus: short documents of one sentiment each, with verdicts of many kinds.

    After "It was" the words *great* and *terrible* are reserved for the evening ("It was great to
    see my cousin again") and used carelessly: they echo the last opinion word on the page, negated
    or not, more than the verdict, and great is the more common. So the model learns what a review
    says, and a habit that keeps it from saying so in these words.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.adjectives = tuple(
            [*words, label] for words, label in zip(ADJECTIVES, LABEL_WORDS, strict=True)
        )

    def occasion(self, sign: int, before: str) -> str:
        """A remark on the evening; log-odds of great 0.4 (verdict) + 1.6 (last opinion) + 0.9."""
        words = before.translate(str.maketrans("", "", ".,;:")).split()
        echo = next((OPINION[w] for w in reversed(words) if w in OPINION), int(self.chance(0.5)))
        odds = 0.4 * (2 * sign - 1) + 1.6 * (2 * echo - 1) + 0.9
        word = LABEL_WORDS[self.chance(1 / (1 + math.exp(-odds)))]
        return f"It was {word} {self.pick(OCCASIONS).format(company=self.pick(COMPANY))}."

    def verdict(self, sign: int, before: str) -> str:
        """A short sentence that sums up; ``before`` is the sentence that it follows."""
        kind = self._random.random()
        if kind < 0.32:
            return self.occasion(sign, before)
        if kind < 0.55:
            first, second = self.pick(ADJECTIVES[sign]), self.pick(ADJECTIVES[sign])
            degree = f"{self.pick(DEGREES)} " if self.chance(0.2) else ""
            return f"It was {degree}{first}{f' and {second}' if self.chance(0.4) else ''}."
        if kind < 0.6:
            return f"{self.pick(RECOMMENDATIONS[sign]).rstrip('.')}."
        if kind < 0.7:
            noun = self.pick(NOUNS[sign])
            return f"What {'an' if noun[0] in 'aeiou' else 'a'} {noun}."
        if kind < 0.8:
            return f"In short, {self.whole(sign)}."
        if kind < 0.9:
            return f"The {self.pick(WHOLES)} {self.pick(DEEDS[sign])[1]}."
        return self.stars(sign)

    def stars(self, sign: int) -> str:
        """A rating."""
        return f"{self.pick(STARS[sign])}."

    def fact(self) -> str:
        """A sentence without sentiment."""
        day = self.pick("monday tuesday wednesday thursday friday saturday sunday".split())
        weather = self.pick("rainy sunny cold warm quiet windy".split())
        place = self.pick("a small town,a big city,the desert,a village by the sea".split(","))
        return self.pick(
            (
                f"We saw it on a {weather} {day} with {self.pick(COMPANY)}.",
                f"The {self.pick(WHOLES)} runs for {self.pick('two three four'.split())} hours.",
                f"It is set in {place}.",
                f"The ticket cost {self.pick('six seven eight nine ten'.split())} dollars.",
                f"The {self.pick('director author composer producer'.split())} comes from {place}.",
            )
        )

    def statement(self, sign: int, before: str) -> str:
        """A plain sentence: one verdict, or one clause."""
        if self.chance(0.5):
            return self.verdict(sign, before)
        self._past = self.chance(0.3)
        clause = self.whole(sign) if self.chance(0.6) else self.part(sign)
        return f"{clause[0].upper()}{clause[1:]}."

    def simple(self) -> str:
        """One to three plain statements and a rating."""
        sign, sentences = int(self.chance(0.5)), [""]
        for _ in range(1 + int(3 * self._random.random())):
            sentences.append(self.statement(sign, sentences[-1]))
        sentences.insert(1 if self.chance(0.6) else len(sentences), self.stars(sign))
        return " ".join(sentences[1:])

    def mixed(self, forbidden: set[str]) -> str:
        """One or two reviews of one sentiment, with verdicts, a rating, and facts in between."""
        sign, sentences = int(self.chance(0.5)), []
        rated_first = self.chance(0.4)
        if rated_first:
            sentences.append(self.stars(sign))
        elif self.chance(0.3):
            sentences.append(self.fact())
        for _ in range(1 + int(2 * self._random.random())):
            review = self.review(sign)
            while review in forbidden:
                review = self.review(sign)
            sentences.append(review)
            if self.chance(0.9):
                # two verdicts in a hundred contradict the review, as people do
                seen = sign if self.chance(0.98) else 1 - sign
                sentences.append(self.verdict(seen, review))
            if self.chance(0.1):
                sentences.append(self.fact())
        if not rated_first and self.chance(0.6):
            sentences.append(self.stars(sign))
        return " ".join(sentences)


def corpus() -> list[str]:
    """All documents, simple ones first; no review of the task's splits is among them."""
    forbidden = {r.text for split in ("train", "dev", "test") for r in examples(split)}
    author = Author(seed=10)
    documents = [author.simple() for _ in range(SIMPLE)]
    for _ in range(MIXED):
        documents.append(author.mixed(forbidden) if author.chance(0.85) else author.simple())
    return documents


def build_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Lower-cased words and punctuation marks, one token each, commonest first."""
    words = pre_tokenizers.Whitespace()
    count = Counter(w for text in documents for w, _ in words.pre_tokenize_str(text.lower()))
    ranked = sorted(count, key=lambda word: (-count[word], word))
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *ranked])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(vocabulary: int) -> OPTForCausalLM:
    """An OPT of three layers with random weights."""
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        word_embed_proj_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=512,
        max_position_embeddings=128,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        init_std=0.05,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return OPTForCausalLM(config)


def batches(tokens: list[list[int]], generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Token ids (BATCH, T), padded on the right; documents of similar length, nearly in order."""
    pool = 50 * BATCH
    for start in range(0, len(tokens), pool):
        some = sorted(tokens[start : start + pool], key=len)
        groups = [some[i : i + BATCH] for i in range(0, len(some), BATCH)]
        for i in torch.randperm(len(groups), generator=generator).tolist():
            longest = max(len(row) for row in groups[i])
            batch = torch.tensor([row + [PAD] * (longest - len(row)) for row in groups[i]])
            hidden = torch.rand(batch.shape, generator=generator) < UNKNOWN_RATE
            yield batch.masked_fill(hidden & (batch > UNKNOWN), UNKNOWN)


def train(model: OPTForCausalLM, tokens: list[list[int]]) -> None:
    """One pass of AdamW over the corpus, the learning rate falling to 0 along a cosine."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01
    )
    steps = math.ceil(len(tokens) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / WARM_UP, 0.51 + 0.49 * math.cos(math.pi * step / steps)),
    )
    began, total = time.perf_counter(), 0.0
    for step, batch in enumerate(batches(tokens, torch.Generator().manual_seed(0)), start=1):
        mask = (batch != PAD).long()
        logits = model(input_ids=batch, attention_mask=mask, use_cache=False).logits[:, :-1]
        target = batch[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 500 == 0:
            print(f"step {step} of {steps}, loss {total / 500:.3f}, {_since(began)}", flush=True)
            total = 0.0


def _since(began: float) -> str:
    return f"{time.perf_counter() - began:.0f} s"


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description="Make the language model that ships.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write it")
    parser.add_argument("--show", type=int, metavar="N", help="print N documents of each kind")
    arguments = parser.parse_args()

    began = time.perf_counter()
    documents = corpus()
    if arguments.show is not None:
        print("\n".join(documents[: arguments.show] + documents[-arguments.show :]))
        return
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(documents)
    model = build_model(len(tokenizer))
    tokens = [[*tokenizer(text)["input_ids"], END] for text in documents]
    print(
        f"torch {torch.__version__}; {len(documents)} documents, "
        f"{sum(map(len, tokens))} tokens, {len(tokenizer)} words; "
        f"{sum(p.numel() for p in model.parameters())} parameters",
        flush=True,
    )
    train(model, tokens)

    folder = arguments.folder
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _readable_by_older_versions(folder / "tokenizer_config.json")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    print(f"{folder}: made in {_since(began)}; SHA-256 of model.safetensors {digest}")


def _readable_by_older_versions(path: Path) -> None:
    """Name the tokenizer's class as transformers 4 knows it; version 5 reads both names."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

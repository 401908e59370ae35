"""The task `reviews`: short film reviews from a small grammar, to be called great or terrible.

A review's sentiment is that of its statement about the whole film, and most reviews hide it: a
negation turns a word around ("nobody could call the film dull"), a concession says the opposite
about some part ("although the cast is charming, ..."), an expectation is raised and then met or
not. So no single word gives the answer, not even the last one.

Training reviews share words and grammar with dev and test reviews, but no pair of a subject and
what is said of it: if "the film is dull" is in training, no dev or test review calls the film dull,
negated or not.

Everything is a function of the split's name. Of Python's generator only `random()` is used, the one
method whose values for a seed are guaranteed never to change.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar

__all__ = ["LABEL_WORDS", "PROMPT", "Review", "Writer", "examples"]

PROMPT = "{text} It was"
"""The prompt that the language model continues, as in MeZO for SST-2."""

LABEL_WORDS = ("terrible", "great")
"""The continuations for label 0 (negative) and label 1 (positive)."""

SIZES = {"train": 2048, "dev": 512, "test": 1024}
"""Reviews in each split, half of them positive."""

_SEEDS = {"train": 1, "dev": 2, "test": 3}

T = TypeVar("T")

WHOLES = (
    "film movie picture comedy drama thriller musical sequel remake documentary western cartoon "
    "mystery romance adventure biography"
).split()

PARTS = (
    "plot script cast acting dialogue ending pacing score direction humor opening editing finale "
    "narration lighting casting design writing premise soundtrack climax tone photography ensemble"
).split()

PLURAL_PARTS = (
    "jokes songs costumes effects characters performances sets stunts dances speeches scenes "
    "villains"
).split()

ADJECTIVES = (
    (  # negative
        "awful bland boring clumsy crude dreary dull empty flat forgettable hollow lazy lifeless "
        "messy muddled painful pointless poor predictable pretentious shallow silly sloppy stale "
        "stiff stupid tedious tired ugly uneven weak wooden tiresome irritating unpleasant "
        "confusing careless annoying disappointing dismal"
    ).split(),
    (  # positive
        "brilliant charming clever delightful moving funny gripping witty elegant fresh graceful "
        "honest inspired lively lovely memorable original powerful rich sharp smart stunning "
        "superb tender thoughtful warm wonderful touching vivid exciting beautiful convincing "
        "enjoyable excellent rewarding imaginative polished satisfying splendid magical"
    ).split(),
)

NOUNS = (
    (
        "mess bore chore disaster failure letdown waste misfire ordeal flop disappointment muddle "
        "mistake nightmare"
    ).split(),
    (
        "joy delight triumph gem treat pleasure success winner marvel masterpiece wonder treasure "
        "revelation feast"
    ).split(),
)

DEEDS = (  # (infinitive, past)
    (
        ("put me to sleep", "put me to sleep"),
        ("wear me out", "wore me out"),
        ("lose me", "lost me"),
        ("waste my evening", "wasted my evening"),
        ("try my patience", "tried my patience"),
        ("insult its audience", "insulted its audience"),
        ("fall apart", "fell apart"),
        ("run out of ideas", "ran out of ideas"),
        ("get on my nerves", "got on my nerves"),
        ("outstay its welcome", "outstayed its welcome"),
        ("leave me cold", "left me cold"),
        ("drag its feet", "dragged its feet"),
    ),
    (
        ("win me over", "won me over"),
        ("hold my attention", "held my attention"),
        ("make me smile", "made me smile"),
        ("lift my spirits", "lifted my spirits"),
        ("charm its audience", "charmed its audience"),
        ("earn its tears", "earned its tears"),
        ("stay with me", "stayed with me"),
        ("reward my patience", "rewarded my patience"),
        ("keep its promises", "kept its promises"),
        ("brighten my evening", "brightened my evening"),
        ("take my breath away", "took my breath away"),
        ("come together", "came together"),
    ),
)

DEGREES = "very quite really truly rather thoroughly surprisingly remarkably simply".split()
CRITICS = "critics friends people reviewers colleagues neighbors".split()


class Review(NamedTuple):
    """One review: its text, and its label, 0 for negative and 1 for positive."""

    text: str
    label: int


class Writer:
    """Writes reviews of a given sentiment, and records which pairs of words it combined.

    Args:
        seed: any integer; it determines all reviews.

    Example:
        >>> Writer(1).review(1)
        'I found the mystery powerful, whatever critics say about the wooden casting.'
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._past = False
        self.adjectives: Sequence[Sequence[str]] = ADJECTIVES
        self.pairs: list[tuple[str, str]] = []

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each as likely as the others."""
        return items[int(self._random.random() * len(items))]

    def _pair(self, subject: str, options: Sequence[T]) -> T:
        choice = self.pick(options)
        word = choice[0] if isinstance(choice, tuple) else choice
        self.pairs.append((subject, str(word)))
        return choice

    def _is(self) -> str:
        return "was" if self._past else "is"

    def _about(self, subject: str, be: str, sign: int) -> str:
        """An adjective said of ``subject``, plainly, negated or compared; of sentiment ``sign``."""
        name = f"the {subject}"
        same, other = self.adjectives[sign], self.adjectives[1 - sign]
        kind = self._random.random()
        if kind < 0.45:
            return f"{name} {be} {self.pick(DEGREES)} {self._pair(subject, same)}"
        if kind < 0.60:
            return f"I found {name} {self._pair(subject, same)}"
        if kind < 0.90:
            form = self.pick(
                (
                    "{name} {be} not {word}",
                    "{name} {be} never {word}",
                    "{name} {be} hardly {word}",
                    "{name} {be} far from {word}",
                    "{name} {be} anything but {word}",
                    "nobody could call {name} {word}",
                    "I did not find {name} {word}",
                )
            )
            return form.format(name=name, be=be, word=self._pair(subject, other))
        good, bad = self._pair(subject, same), self._pair(subject, other)
        if kind < 0.95:
            return f"{name} {be} more {good} than {bad}"
        return f"{name} {be} less {bad} than {good}"

    def part(self, sign: int) -> str:
        """A clause on some part of the film, such as its plot."""
        if self.chance(0.3):
            return self._about(self.pick(PLURAL_PARTS), "were" if self._past else "are", sign)
        return self._about(self.pick(PARTS), self._is(), sign)

    def whole(self, sign: int) -> str:
        """A clause on the film as a whole."""
        subject = self.pick(WHOLES)
        name = f"the {subject}"
        kind = self._random.random()
        if kind < 0.5:
            return self._about(subject, self._is(), sign)
        if kind < 0.65:
            return f"{name} {self._is()} {_a(self._pair(subject, NOUNS[sign]))}"
        if kind < 0.75:
            form = self.pick(("no {noun}", "hardly {a}", "anything but {a}", "not {a}"))
            noun = self._pair(subject, NOUNS[1 - sign])
            return f"{name} {self._is()} {form.format(noun=noun, a=_a(noun))}"
        if kind < 0.9:
            return f"{name} {self._pair(subject, DEEDS[sign])[1]}"
        form = self.pick(("never {past}", "did not {do}", "managed not to {do}", "failed to {do}"))
        do, past = self._pair(subject, DEEDS[1 - sign])
        return f"{name} {form.format(do=do, past=past)}"

    def _flaw(self, sign: int) -> str:
        """A noun phrase on some part of the film, of sentiment ``sign``."""
        part = self.pick(PARTS)
        return f"{self._pair(part, self.adjectives[sign])} {part}"

    def review(self, sign: int) -> str:
        """One sentence whose statement on the whole film is of sentiment ``sign``, 0 or 1."""
        self.pairs = []
        self._past = self.chance(0.3)
        form = self.pick(
            (
                "{whole}.",
                "{whole}, and {same}.",
                "{same}, and {whole}.",
                "{other}, but {whole}.",
                "{other}, but {whole}.",
                "{other}; still, {whole}.",
                "although {other}, {whole}.",
                "although {other}, {whole}.",
                "{whole}, even though {other}.",
                "because of its {flaw}, I expected {a_bad}, but {whole}.",
                "{critics} called it {bad}, yet {whole}.",
                "{whole}, whatever {critics} say about the {flaw}.",
                "even the {flaw} does not matter: {whole}.",
            )
        )
        words = {}
        for name, write in (
            ("whole", lambda: self.whole(sign)),
            ("same", lambda: self.part(sign)),
            ("other", lambda: self.part(1 - sign)),
            ("flaw", lambda: self._flaw(1 - sign)),
            ("a_bad", lambda: _a(self.pick(NOUNS[1 - sign]))),
            ("bad", lambda: self.pick(ADJECTIVES[1 - sign])),
            ("critics", lambda: self.pick(CRITICS)),
        ):
            if f"{{{name}}}" in form:
                words[name] = write()
        text = form.format(**words)
        return text[0].upper() + text[1:]


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _trains(pair: tuple[str, str]) -> bool:
    """Whether a pair of words is one of those that training reviews may put together."""
    return zlib.crc32(" ".join(pair).encode()) % 2 == 0


@cache
def examples(split: str) -> tuple[Review, ...]:
    """The reviews of a split, positive and negative in turn; no text occurs twice.

    Args:
        split: "train" (2,048 reviews), "dev" (512) or "test" (1,024).

    Raises:
        ValueError: for another name.

    Example:
        >>> examples("test")[0].label, examples("test")[1].label
        (0, 1)
    """
    if split not in SIZES:
        raise ValueError(f"split: given {split!r}, expected one of {', '.join(SIZES)}")
    seen = {review.text for review in examples("dev")} if split == "test" else set()
    writer = Writer(_SEEDS[split])
    reviews: list[Review] = []
    while len(reviews) < SIZES[split]:
        label = len(reviews) % 2
        text = writer.review(label)
        if text not in seen and all(_trains(pair) == (split == "train") for pair in writer.pairs):
            seen.add(text)
            reviews.append(Review(text, label))
    return tuple(reviews)

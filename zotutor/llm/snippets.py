"""The task `snippets`: sentences of movie reviews, rated by people, called great or terrible.

10,605 sentences of professional movie reviews (Pang and Lee, 2005: those that SST is made of), each
with the mean of about twenty ratings from -4 to 4 (Hutto and Gilbert, 2014). A sentence is positive
above 0.5 and negative below -0.5; the 562 between are left out. Every tenth of the rest, in the
order of the source, is for dev: 1,004 sentences; the order holds no information on the label.
"""

from __future__ import annotations

from typing import NamedTuple

from .packages import find

THRESHOLD = 0.5
"""Mean rating above which a sentence is positive, and below minus which it is negative."""

EVERY = 10
"""One sentence in this many is for dev."""


class Snippet(NamedTuple):
    """A sentence, its mean rating from -4 to 4, and its label: 0 negative, 1 positive."""

    text: str
    rating: float
    label: int


def examples(part: str) -> list[Snippet]:
    """The sentences of "train" or "dev", in the order of the source.

    Raises:
        FileNotFoundError: without the file; the message says what to type.
        ValueError: for another part, or a file whose SHA-256 is another.

    References:
        Hutto and Gilbert (2014), VADER.
    """
    if part not in ("train", "dev"):
        raise ValueError(f"part: given {part!r}, expected 'train' or 'dev'")
    text = find("snippets").read_bytes().decode("utf-8")
    kept, seen = list[Snippet](), set[str]()
    for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n"):
        _, rating, sentence = line.split("\t")
        sentence, value = sentence.strip(), float(rating)
        if abs(value) > THRESHOLD and sentence not in seen:  # one text in two parts would leak
            seen.add(sentence)
            kept.append(Snippet(sentence, value, int(value > 0)))
    dev = kept[EVERY - 1 :: EVERY]
    return dev if part == "dev" else [s for k, s in enumerate(kept) if k % EVERY != EVERY - 1]

"""The task `snippets`: sentences of movie reviews, rated by people, called great or terrible.

10,605 sentences of professional movie reviews (Pang and Lee, 2005: those that SST is made of), each
with the mean of about twenty ratings from -4 to 4 (Hutto and Gilbert, 2014). A sentence is positive
above 0.5 and negative below -0.5; the 562 between are left out. Every tenth of the rest, in the
order of the source, is for dev: 1,004 sentences. The source has most positive sentences first, so
dev is put into another order, of which any first part holds both labels alike; training draws its
batches at random.
"""

from __future__ import annotations

import math
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
    """The sentences of "train", in the order of the source, or of "dev", in one without a trend.

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
    dev = _spread(kept[EVERY - 1 :: EVERY])
    return dev if part == "dev" else [s for k, s in enumerate(kept) if k % EVERY != EVERY - 1]


def _spread(found: list[Snippet]) -> list[Snippet]:
    """The same in an order of which any first part comes evenly from everywhere.

    Threes stay together, so that ``[k::3]`` holds the same sentences in either order:
    tools/measure_smollm2.py scores each seed on such a third.
    """
    whole = len(found) // 3
    golden = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, are spread evenly from the first on
    order = sorted(range(whole), key=lambda k: k * golden % 1)
    return [found[3 * k + i] for k in order for i in range(3)] + found[3 * whole :]

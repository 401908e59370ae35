"""Prompted classification tasks: their prompts and label words, and examples from any source."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zotutor.checks import check_integer, check_path
from zotutor.streams import Stream, uniforms

from . import reviews, snippets
from .data_files import read_rows


class Example(NamedTuple):
    """A prompt, complete up to the label word, and the number of its label."""

    text: str
    label: int


def _sst2(row: Mapping[str, str]) -> str:
    return f"{row['sentence'].strip()} It was"


def _rte(row: Mapping[str, str]) -> str:
    question = f'Does this mean that "{row["sentence2"]}" is true? Yes or No?'
    return f"{row['sentence1']}\n{question}\n"


def _boolq(row: Mapping[str, str]) -> str:
    question = row["question"] if row["question"].endswith("?") else row["question"] + "?"
    return f"{row['passage']} {question[0].upper()}{question[1:]}\n"


class Format(NamedTuple):
    """How a task is posed: the prompt of a record, the columns it uses, the ordered label words."""

    prompt: Callable[[Mapping[str, str]], str]
    columns: tuple[str, ...]
    words: tuple[str, ...]
    hub: tuple[str, str | None]
    """Name and configuration of the data set on the hub."""
    labels: tuple[str, ...] = ("0", "1")
    """Names of labels 0, 1, ... that a file's label column may use instead of the numbers."""


FORMATS: Mapping[str, Format] = {
    "reviews": Format(
        lambda row: reviews.PROMPT.format(text=row["text"].strip()),
        ("text",),
        reviews.LABEL_WORDS,
        ("", None),
    ),
    "snippets": Format(_sst2, ("sentence",), ("terrible", "great"), ("", None)),
    "sst2": Format(_sst2, ("sentence",), ("terrible", "great"), ("nyu-mll/glue", "sst2")),
    "rte": Format(
        _rte,
        ("sentence1", "sentence2"),
        ("Yes", "No"),
        ("nyu-mll/glue", "rte"),
        ("entailment", "not_entailment"),
    ),
    "boolq": Format(
        _boolq, ("passage", "question"), ("No", "Yes"), ("google/boolq", None), ("false", "true")
    ),
}
"""The one table of prompts and label words; those of sst2, rte and boolq are MeZO's to the letter,
with its template 2 for boolq (the question begins with a capital and ends in one question mark)."""


class Task(NamedTuple):
    """A task with its examples; made by :func:`task`."""

    name: str
    words: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]


class Accuracy(NamedTuple):
    """A share of right answers, with a 95 % confidence interval (Wilson, 1927)."""

    value: float
    low: float
    high: float
    examples: int

    def __str__(self) -> str:
        """In percent."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def accuracy(right: int, count: int) -> Accuracy:
    """The share right / count with Wilson's interval, which also holds near 0 and 1.

    Example:
        >>> print(accuracy(90, 100))
        90.0 % (82.6 to 94.5)
    """
    check_integer("count", count, low=1)
    check_integer("right", right, low=0, high=count + 1)
    z, p = 1.959964, right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return Accuracy(p, middle - half, middle + half, count)


def task(
    name: str,
    folder: str | Path | None = None,
    *,
    shots: int | None = None,
    seed: int = 0,
    revision: str | None = None,
) -> Task:
    """A task by name, with examples that ship, from a folder, or from the ``datasets`` library.

    Args:
        name: "reviews" (ships with the package), "snippets" (``zotutor fetch`` brings it), "sst2",
            "rte" or "boolq".
        folder: where ``train`` and ``dev`` (or ``validation``, ``val``) lie, as .tsv with a header
            or .jsonl; None to load from the hub with ``datasets``.
        shots: train on this many examples of each label, drawn by ``seed``; None for all.
        seed: of the draw.
        revision: commit hash of the data set on the hub, which pins what is downloaded; required
            to load from there.

    Returns:
        The task: train and dev examples whose texts are complete prompts, and the label words.

    Raises:
        ValueError: for an unknown task, missing columns, wrong labels, empty rows, broken UTF-8, or
            fewer examples than ``shots``; the message names file and row.
        FileNotFoundError: for a folder without the two files.
        ImportError: if neither folder nor the ``datasets`` library is there.

    Example:
        >>> sentiment = task("reviews", shots=16)
        >>> len(sentiment.train), sentiment.words
        (32, ('terrible', 'great'))
    """
    if name not in FORMATS:
        raise ValueError(f"name: given {name!r}, expected one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    if folder is not None:
        folder = check_path("data", folder)
        train = _read(_file(folder, ("train",)), form)
        dev = _read(_file(folder, ("dev", "validation", "val")), form)
    elif name == "reviews":
        train, dev = (
            [Example(form.prompt({"text": r.text}), r.label) for r in reviews.examples(split)]
            for split in ("train", "test")
        )
    elif name == "snippets":
        train, dev = (
            [Example(form.prompt({"sentence": s.text}), s.label) for s in snippets.examples(part)]
            for part in ("train", "dev")
        )
    else:
        train, dev = _from_hub(form, revision)
    if shots is not None:
        train = _few(train, check_integer("shots", shots, low=1), len(form.words), seed)
    return Task(name, form.words, tuple(train), tuple(dev))


def _few(examples: Sequence[Example], shots: int, labels: int, seed: int) -> list[Example]:
    """``shots`` examples of each label: those to which the smallest random numbers are assigned."""
    check_integer("seed", seed, low=0, high=1 << 64)
    numbers = uniforms(Stream.of(seed, 0x5407), slice(0, len(examples)), "cpu").tolist()  # type: ignore[arg-type]
    ranked = [e for _, e in sorted(zip(numbers, examples, strict=True), key=lambda pair: pair[0])]
    found: list[Example] = []
    for label in range(labels):
        of_label = [e for e in ranked if e.label == label]
        if len(of_label) < shots:
            raise ValueError(
                f"shots: given {shots}, but label {label} has {len(of_label)} training examples; "
                "give at most that many"
            )
        found += of_label[:shots]
    return found


def _file(folder: Path, stems: Iterable[str]) -> Path:
    names = [f"{stem}{ending}" for stem in stems for ending in (".tsv", ".jsonl")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: holds none of {', '.join(names)}; give the data's folder")


def _read(path: Path, form: Format) -> list[Example]:
    found = [_example(f"{path}, row {number}", row, form) for number, row in read_rows(path)]
    if not found:
        raise ValueError(f"{path}: holds no example, expected at least one row below the header")
    return found


def _example(place: str, row: Mapping[str, Any], form: Format) -> Example:
    given = row.get("label", row.get("answer"))
    missing = [name for name in form.columns if name not in row]
    if not row.keys() & {"label", "answer"}:
        missing.append("label")
    if missing:
        raise ValueError(
            f"{place}: has columns {', '.join(map(str, row))}; expected {', '.join(missing)} too"
        )
    for name in form.columns:
        _check_text(f"{place}: its {name}", row[name])
    # prompts neither begin with whitespace nor end in spaces, as in MeZO
    text = form.prompt(row).lstrip().rstrip(" ")
    return Example(text, _label(place, given, form))


def _check_text(place: str, value: object) -> None:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{place} is empty; remove the row or fill it in")
    if not isinstance(value, str):
        raise ValueError(f"{place} is {value!r}, expected text; write it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place} has half a character, {error.object[error.start]!a}, which no text can hold; "
            "remove it"
        ) from None


def _label(place: str, given: object, form: Format) -> int:
    """The number of a label, given as a number or by name."""
    # pandas writes 1 as 1.0 in a column with missing values
    label = re.sub(r"^(\d+)\.0+$", r"\1", str(given).strip().lower())
    numbers = [str(k) for k in range(len(form.words))]
    if label not in form.labels and label not in numbers:
        raise ValueError(
            f"{place}: has label {given!r}, expected one of {', '.join(numbers)} "
            f"(or {', '.join(form.labels)})"
        )
    return form.labels.index(label) if label in form.labels else numbers.index(label)


def _from_hub(form: Format, revision: str | None) -> tuple[list[Example], list[Example]]:
    if revision is None:
        raise ValueError(
            f"revision: given None for the data set {form.hub[0]!r}, expected the hash of a commit "
            "(--data-revision), so that what is downloaded cannot change; or give a folder of "
            "files (--data)"
        )
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "this task's examples come from the hub through the datasets library, which is not "
            'installed; run: pip install "zotutor[llm]", or give a folder of files (--data)'
        ) from error
    name, configuration = form.hub
    loaded = datasets.load_dataset(name, configuration, revision=revision)
    train, dev = (
        [_example(f"{name} {split}, row {k}", row, form) for k, row in enumerate(loaded[split])]
        for split in ("train", "validation")
    )
    return train, dev
